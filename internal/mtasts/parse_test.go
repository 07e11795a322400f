package mtasts

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// BEHAVIOUR §3, first paragraph; 8461 §3.1.
func TestParseRecord(t *testing.T) {
	const valid = "v=STSv1; id=20160831085700Z;"
	for _, tc := range []struct {
		name string
		txts []string
		id   string
		err  string // prefix of the error; empty: valid
	}{
		{"example of 8461 §3.1", []string{valid}, "20160831085700Z", ""},
		{"no delimiter at the end", []string{"v=STSv1; id=a1"}, "a1", ""},
		{"no blanks", []string{"v=STSv1;id=a1;"}, "a1", ""},
		{"blanks and tabs around delimiters", []string{"v=STSv1 \t;\t id=a1 \t; \t"}, "a1", ""},
		{"blank at the end without delimiter", []string{"v=STSv1; id=a1 "}, "a1", ""},
		{"id of one character", []string{"v=STSv1; id=Z"}, "Z", ""},
		{"id of 32 characters", []string{"v=STSv1; id=" + strings.Repeat("a", 32)}, strings.Repeat("a", 32), ""},
		{"unknown fields before and after", []string{"v=STSv1; a.b_c-d=!:<>~; id=a1; x=y"}, "a1", ""},
		{"extension name of 32 characters", []string{"v=STSv1; id=a1; " + strings.Repeat("n", 32) + "=v"}, "a1", ""},
		{"repeated id: the first counts", []string{"v=STSv1; id=a1; id=b2"}, "a1", ""},
		{"repeated id that is no id: ignored as well", []string{"v=STSv1; id=a1; id=not_an_id"}, "a1", ""},
		{"version again as an unknown field", []string{"v=STSv1; id=a1; v=STSv2"}, "a1", ""},
		{"other TXT records beside it", []string{"v=spf1 -all", valid, "", "v=TLSRPTv1; rua=mailto:a@b.test"}, "20160831085700Z", ""},
		{"records that only look similar are dropped", []string{"v=STSv1", "v=STSv11; id=b", "V=STSv1; id=b", "v=stsv1; id=b", " v=STSv1; id=b", "v= STSv1; id=b", "v=STSv2; id=b", valid}, "20160831085700Z", ""},

		{"no TXT record", nil, "", "no MTA-STS record"},
		{"other TXT records only", []string{"v=spf1 -all", "v=STSv1"}, "", "no MTA-STS record: no TXT record (of 2) begins with v=STSv1;"},
		{"two valid records", []string{valid, valid}, "", "more than one MTA-STS record: 2 TXT records"},
		{"a valid one beside a damaged one", []string{valid, "v=STSv1; nonsense"}, "", "more than one MTA-STS record: 2 TXT records"},
		{"version alone", []string{"v=STSv1;"}, "", "MTA-STS record: no id"},
		{"no id", []string{"v=STSv1; x=y"}, "", "MTA-STS record: no id"},
		{"id in capitals is another field", []string{"v=STSv1; ID=a1"}, "", "MTA-STS record: no id"},
		{"empty id", []string{"v=STSv1; id=;"}, "", "MTA-STS record: id is empty: want 1 to 32 letters or digits"},
		{"id of 33 characters", []string{"v=STSv1; id=" + strings.Repeat("a", 33)}, "", "MTA-STS record: id has 33 characters: want 1 to 32 letters or digits"},
		{"id that is a date with hyphens", []string{"v=STSv1; id=2025-11-09"}, "", `MTA-STS record: id "2025-11-09": want 1 to 32 letters or digits`},
		{"id with a blank", []string{"v=STSv1; id=a b"}, "", `MTA-STS record: id "a b": want`},
		{"id in quotation marks", []string{`v=STSv1; id="a1"`}, "", `MTA-STS record: id "\"a1\"": want`},
		{"first id invalid, second valid", []string{"v=STSv1; id=a_b; id=a1"}, "", `MTA-STS record: id "a_b": want`},
		{"two delimiters in a row", []string{"v=STSv1;; id=a1"}, "", "MTA-STS record: empty field"},
		{"two delimiters at the end", []string{"v=STSv1; id=a1;;"}, "", "MTA-STS record: empty field"},
		{"field without =", []string{"v=STSv1; id=a1; x"}, "", `MTA-STS record: field "x": want name=value`},
		{"blank before =", []string{"v=STSv1; id =a1"}, "", `MTA-STS record: field name "id "`},
		{"no field name", []string{"v=STSv1; id=a1; =v"}, "", `MTA-STS record: field name ""`},
		{"field name begins with a hyphen", []string{"v=STSv1; id=a1; -x=v"}, "", `MTA-STS record: field name "-x"`},
		{"field name of 33 characters", []string{"v=STSv1; id=a1; " + strings.Repeat("n", 33) + "=v"}, "", `MTA-STS record: field name "nnn`},
		{"extension without value", []string{"v=STSv1; id=a1; x="}, "", `MTA-STS record: field "x" has no value`},
		{"= inside an extension value", []string{"v=STSv1; id=a1; x=a=b"}, "", `MTA-STS record: field "x": value "a=b" has`},
		{"blank inside an extension value", []string{"v=STSv1; id=a1; x=a b"}, "", `MTA-STS record: field "x": value "a b" has`},
		{"non-ASCII", []string{"v=STSv1; id=a1; x=\u00fc"}, "", `MTA-STS record: field "x": value "\u00fc" has`},
		{"control bytes stay out of the error", []string{"v=STSv1; id=\x1b[2J\n"}, "", `MTA-STS record: id "\x1b[2J\n": want`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var txts [][]byte
			for _, s := range tc.txts {
				txts = append(txts, []byte(s))
			}
			rec, err := ParseRecord(txts)
			if tc.err == "" {
				if err != nil || rec.ID != tc.id {
					t.Fatalf("id %q, error %v; want id %q", rec.ID, err, tc.id)
				}
				return
			}
			if err == nil || !strings.HasPrefix(err.Error(), tc.err) {
				t.Fatalf("id %q, error %v; want error %q", rec.ID, err, tc.err)
			}
			if rec != (Record{}) {
				t.Errorf("record %+v beside an error", rec)
			}
			checkLine(t, err.Error())
		})
	}
}

func TestParseRecordErrorsCanBeToldApart(t *testing.T) {
	parse := func(txts ...string) error {
		var bs [][]byte
		for _, s := range txts {
			bs = append(bs, []byte(s))
		}
		_, err := ParseRecord(bs)
		return err
	}
	if err := parse("x"); !errors.Is(err, ErrNoRecord) {
		t.Errorf("%v is not ErrNoRecord", err)
	}
	if err := parse("v=STSv1; id=a", "v=STSv1; id=b"); !errors.Is(err, ErrManyRecords) {
		t.Errorf("%v is not ErrManyRecords", err)
	}
	if _, ok := errors.AsType[*RecordError](parse("v=STSv1; id=")); !ok {
		t.Error("a syntax error is not a *RecordError")
	}
}

// BEHAVIOUR §3, "Policy file"; 8461 §3.2.
func TestParsePolicyValid(t *testing.T) {
	week := 604800 * time.Second
	enforce := func(age time.Duration, mx ...string) Policy {
		p := Policy{Mode: Enforce, MaxAge: age, MX: mx, Lines: []string{"version: STSv1", "mode: enforce"}}
		for _, m := range mx {
			p.Lines = append(p.Lines, "mx: "+m)
		}
		p.Lines = append(p.Lines, "max_age: 604800")
		return p
	}
	with := func(p Policy, lines ...string) Policy {
		p.Lines = lines
		return p
	}
	for _, tc := range []struct {
		name, file string
		want       Policy
	}{
		{"LF", "version: STSv1\nmode: enforce\nmx: mx.example.test\nmax_age: 604800\n", enforce(week, "mx.example.test")},
		{"CRLF", "version: STSv1\r\nmode: enforce\r\nmx: mx.example.test\r\nmax_age: 604800\r\n", enforce(week, "mx.example.test")},
		{"LF and CRLF mixed", "version: STSv1\nmode: enforce\r\nmx: mx.example.test\nmax_age: 604800\r\n", enforce(week, "mx.example.test")},
		{"last line end missing", "version: STSv1\nmode: enforce\nmx: mx.example.test\nmax_age: 604800", enforce(week, "mx.example.test")},
		{"blank lines at the end", "version: STSv1\nmode: enforce\nmx: mx.example.test\nmax_age: 604800\n\r\n \t\n\n", enforce(week, "mx.example.test")},
		{"no blank after the colon", "version:STSv1\nmode:enforce\nmx:mx.example.test\nmax_age:604800\n", enforce(week, "mx.example.test")},
		{"blanks and tabs around values", "version:\t STSv1 \nmode:  enforce\t\nmx: \tmx.example.test \t\r\nmax_age:   604800 ", enforce(week, "mx.example.test")},
		{
			"several mx, in file order, repeated ones kept", "version: STSv1\nmode: enforce\nmx: b.example.test\nmx: *.example.test\nmx: a.example.test\nmx: b.example.test\nmax_age: 604800\n",
			enforce(week, "b.example.test", "*.example.test", "a.example.test", "b.example.test"),
		},
		{
			"fields in another order", "max_age: 604800\nmx: mx.example.test\nmode: enforce\nversion: STSv1\n",
			with(enforce(week, "mx.example.test"), "max_age: 604800", "mx: mx.example.test", "mode: enforce", "version: STSv1"),
		},
		{
			"mx in capitals", "version: STSv1\nmode: enforce\nmx: *.MX.Example.TEST\nmax_age: 604800\n",
			with(enforce(week, "*.mx.example.test"), "version: STSv1", "mode: enforce", "mx: *.MX.Example.TEST", "max_age: 604800"),
		},
		{"A-label", "version: STSv1\nmode: enforce\nmx: xn--bcher-kva.test\nmax_age: 604800\n", enforce(week, "xn--bcher-kva.test")},
		{"wildcard over a top-level domain", "version: STSv1\nmode: enforce\nmx: *.test\nmax_age: 604800\n", enforce(week, "*.test")},
		{"digits in labels", "version: STSv1\nmode: enforce\nmx: 1.2.3.4.in-addr.test\nmax_age: 604800\n", enforce(week, "1.2.3.4.in-addr.test")},
		{
			"unknown keys are ignored", "version: STSv1\nx-Note_1.0: f\u00fcr alle: {a} = b\nmode: enforce\nMode: none\nmx: mx.example.test\nmax_age: 604800\n",
			enforce(week, "mx.example.test"),
		},
		{
			"first value of repeated keys wins, whatever the others say", "version: STSv1\nversion: STSv2\nmode: enforce\nmode: none\nmode: enfroce\nmx: mx.example.test\nmax_age: 604800\nmax_age: 1\nmax_age: never\n",
			enforce(week, "mx.example.test"),
		},
		{
			"an address beside good patterns is ignored", "version: STSv1\nmode: enforce\nmx: 192.0.2.56\nmx: mx.example.test\nmx: *.2.0.192\nmax_age: 604800\n",
			enforce(week, "mx.example.test"),
		},
		{
			"an address with mode none", "version: STSv1\nmode: none\nmx: 192.0.2.56\nmax_age: 604800\n",
			Policy{Mode: None, MaxAge: week, Lines: []string{"version: STSv1", "mode: none", "max_age: 604800"}},
		},
		{"final dot", "version: STSv1\nmode: enforce\nmx: mx.example.test.\nmx: *.example.test.\nmax_age: 604800\n", enforce(week, "mx.example.test", "*.example.test")},
		{
			"mode testing", "version: STSv1\nmode: testing\nmx: mx.example.test\nmax_age: 604800\n",
			Policy{Mode: Testing, MaxAge: week, MX: []string{"mx.example.test"}, Lines: []string{"version: STSv1", "mode: testing", "mx: mx.example.test", "max_age: 604800"}},
		},
		{
			"mode none needs no mx", "version: STSv1\nmode: none\nmax_age: 604800\n",
			Policy{Mode: None, MaxAge: week, Lines: []string{"version: STSv1", "mode: none", "max_age: 604800"}},
		},
		{
			"max_age 0", "version: STSv1\nmode: none\nmax_age: 0\n",
			Policy{Mode: None, Lines: []string{"version: STSv1", "mode: none", "max_age: 0"}},
		},
		{
			"max_age at the upper bound", "version: STSv1\nmode: none\nmax_age: 31557600\n",
			Policy{Mode: None, MaxAge: MaxMaxAge, Lines: []string{"version: STSv1", "mode: none", "max_age: 31557600"}},
		},
		{
			"max_age of ten digits counts as the upper bound", "version: STSv1\nmode: none\nmax_age: 9999999999\n",
			Policy{Mode: None, MaxAge: MaxMaxAge, Lines: []string{"version: STSv1", "mode: none", "max_age: 9999999999"}},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := ParsePolicy([]byte(tc.file))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("policy (-want +got):\n%s", diff)
			}
		})
	}
}

// BEHAVIOUR §3, "anything else makes the policy invalid"; 8461 §3.2.
func TestParsePolicyInvalid(t *testing.T) {
	// with returns a valid file with one more line, which is its third.
	with := func(line string) string {
		return "version: STSv1\nmode: enforce\n" + line + "\nmx: mx.example.test\nmax_age: 604800\n"
	}
	// only returns a file with one pattern, in its third line.
	only := func(mx string) string {
		return "version: STSv1\nmode: enforce\nmx: " + mx + "\nmax_age: 604800\n"
	}
	for _, tc := range []struct{ name, file, err string }{
		{"empty file", "", "policy file: no version line"},
		{"blank lines only", "\n\n", "policy file: no version line"},
		{"no version", "mode: none\nmax_age: 1\n", "policy file: no version line"},
		{"no mode", "version: STSv1\nmax_age: 1\n", "policy file: no mode line"},
		{"no max_age", "version: STSv1\nmode: none\n", "policy file: no max_age line"},
		{"no mx with enforce", "version: STSv1\nmode: enforce\nmax_age: 1\n", "policy file: no mx line: mode enforce needs one"},
		{"no mx with testing", "version: STSv1\nmode: testing\nmax_age: 1\n", "policy file: no mx line: mode testing needs one"},
		{"another version", "version: STSv2\nmode: none\nmax_age: 1\n", `policy file line 1: version "STSv2": want STSv1`},
		{"version in small letters", "version: stsv1\nmode: none\nmax_age: 1\n", `policy file line 1: version "stsv1": want STSv1`},
		{"key in capitals is another key", "Version: STSv1\nmode: none\nmax_age: 1\n", "policy file: no version line"},
		{"mode misspelt", "version: STSv1\nmax_age: 1\nmode: enfroce\n", `policy file line 3: mode "enfroce": want enforce, testing or none`},
		{"mode in capitals", "version: STSv1\nmode: Enforce\n", `policy file line 2: mode "Enforce": want`},
		{"empty mode", "version: STSv1\nmode:\n", `policy file line 2: mode "": want`},
		{"comment behind a value", "version: STSv1\nmode: none # for now\n", `policy file line 2: mode "none # for now": want`},
		{"empty max_age", "max_age: \n", `policy file line 1: max_age "": want 1 to 10 digits`},
		{"max_age of 11 digits", "max_age: 00000000001\n", `policy file line 1: max_age "00000000001": want 1 to 10 digits`},
		{"negative max_age", "max_age: -1\n", `policy file line 1: max_age "-1": want`},
		{"max_age with a sign", "max_age: +1\n", `policy file line 1: max_age "+1": want`},
		{"max_age with a unit", "max_age: 7d\n", `policy file line 1: max_age "7d": want`},
		{"max_age with an underscore", "max_age: 1_0\n", `policy file line 1: max_age "1_0": want`},

		{"blank line at the beginning", "\nversion: STSv1\nmode: none\nmax_age: 1\n", "policy file line 1: blank line before the end"},
		{"blank line inside", with(""), "policy file line 3: blank line before the end"},
		{"line of blanks inside", with(" \t"), "policy file line 3: blank line before the end"},
		{"no colon", with("mx mx.example.test"), `policy file line 3: "mx mx.example.test": want key: value`},
		{"HTML", "<!DOCTYPE html>\n<title>Not found</title>\n", `policy file line 1: "<!DOCTYPE html>": want key: value`},
		{"blank before the key", with(" mx: a.test"), `policy file line 3: key " mx": want`},
		{"blank before the colon", with("mx : a.test"), `policy file line 3: key "mx ": want`},
		{"empty key", with(": a.test"), `policy file line 3: key "": want`},
		{"key begins with an underscore", with("_x: a"), `policy file line 3: key "_x": want`},
		{"key of 33 characters", with(strings.Repeat("k", 33) + ": a"), `policy file line 3: key "kkk`},
		{"comment line", with("# mx: a.test"), `policy file line 3: key "# mx": want`},
		{"unknown key without value", with("x:"), `policy file line 3: x has no value`},
		{"repeated key without value", with("mode: "), `policy file line 3: mode has no value`},
		{"tab inside a value", with("x: a\tb"), "policy file line 3: value of x has a tab in it"},

		{"NUL", with("x: a\x00b"), "policy file line 3: control byte 0x00"},
		{"NUL in the blank end", "version: STSv1\nmode: none\nmax_age: 1\n\n\x00", "policy file line 5: control byte 0x00"},
		{"escape", with("x: \x1b[31m"), "policy file line 3: control byte 0x1b"},
		{"delete", with("x: a\x7f"), "policy file line 3: control byte 0x7f"},
		{"CR inside a line", with("x: a\rb"), "policy file line 3: control byte 0x0d"},
		{"CR CR LF", with("x: a\r\r"), "policy file line 3: control byte 0x0d"},
		{"CR as line end", "version: STSv1\rmode: none\rmax_age: 1\r", "policy file line 1: control byte 0x0d"},
		{"CR without LF at the end", "version: STSv1\nmode: none\nmax_age: 1\r", "policy file line 3: control byte 0x0d"},
		{"form feed", with("\f"), "policy file line 3: control byte 0x0c"},
		{"byte order mark", "\xef\xbb\xbfversion: STSv1\nmode: none\nmax_age: 1\n", "policy file line 1: begins with a byte order mark"},
		{"UTF-16", "\xff\xfev\x00e\x00", "policy file line 1: UTF-16: want UTF-8"},
		{"Latin-1", with("x: f\xfcr"), "policy file line 3: not UTF-8"},
		{"overlong UTF-8", with("x: \xc0\xaf"), "policy file line 3: not UTF-8"},
		{"surrogate in UTF-8", with("x: \xed\xa0\x80"), "policy file line 3: not UTF-8"},
		{"character cut by the line end", with("x: \xc3"), "policy file line 3: not UTF-8"},

		{"empty mx", with("mx:"), "policy file line 3: mx has no value"},
		{"mx with mode none must be valid as well", "version: STSv1\nmode: none\nmx: a b\nmax_age: 1\n", `policy file line 3: mx "a b": ' ' is not allowed`},
		{"IPv4 address", only("192.0.2.1"), `policy file line 3: mx "192.0.2.1": want a host name, not an address`},
		{"IPv6 address", with("mx: 2001:db8::1"), `policy file line 3: mx "2001:db8::1": want a host name, not an address`},
		{"address literal", with("mx: [192.0.2.1]"), `policy file line 3: mx "[192.0.2.1]": want a host name, not an address`},
		{"wildcard over an address", only("*.2.0.192"), `policy file line 3: mx "*.2.0.192": want a host name, not an address`},
		{"short form of an address", only("127.1"), `policy file line 3: mx "127.1": want a host name, not an address`},
		{"U-label", with("mx: b\u00fccher.test"), `policy file line 3: mx "b\u00fccher.test": want A-labels`},
		{"hexadecimal address", only("0x7f000001"), `policy file line 3: mx "0x7f000001": want a host name, not an address: the last label is a number`},
		{"addresses alone: the first is to blame", "version: STSv1\nmode: testing\nmx: 192.0.2.1\nmx: 192.0.2.2\nmax_age: 1\n", `policy file line 3: mx "192.0.2.1"`},
		{"dot alone", with("mx: ."), `policy file line 3: mx ".": want a host name`},
		{"two final dots", with("mx: mx.example.test.."), `policy file line 3: mx "mx.example.test..": want a host name without final dot`},
		{"leading dot", with("mx: .example.test"), `policy file line 3: mx ".example.test": empty label`},
		{"empty label", with("mx: mx..test"), `policy file line 3: mx "mx..test": empty label`},
		{"wildcard alone", with("mx: *"), `policy file line 3: mx "*": '*' is not allowed in a host name`},
		{"wildcard over nothing", with("mx: *."), `policy file line 3: mx "*.": want a host name`},
		{"partial wildcard", with("mx: mx*.example.test"), `policy file line 3: mx "mx*.example.test": '*' is not allowed`},
		{"wildcard further right", with("mx: mx.*.test"), `policy file line 3: mx "mx.*.test": '*' is not allowed`},
		{"two wildcards", with("mx: *.*.test"), `policy file line 3: mx "*.*.test": '*' is not allowed`},
		{"underscore", with("mx: mx_1.example.test"), `policy file line 3: mx "mx_1.example.test": '_' is not allowed`},
		{"two names in a line", with("mx: a.test, b.test"), `policy file line 3: mx "a.test, b.test": ',' is not allowed`},
		{"port", with("mx: a.test:25"), `policy file line 3: mx "a.test:25": ':' is not allowed`},
		{"braces", with("mx: {a.test}"), `policy file line 3: mx "{a.test}": '{' is not allowed`},
		{"label begins with a hyphen", with("mx: -a.test"), `policy file line 3: mx "-a.test": label begins or ends with a hyphen`},
		{"label ends with a hyphen", with("mx: a-.test"), `policy file line 3: mx "a-.test": label begins or ends with a hyphen`},
		{"label of 64 characters", with("mx: " + strings.Repeat("a", 64) + ".test"), `policy file line 3: mx "` + strings.Repeat("a", 64) + `"...: label has 64 characters`},
		{"name of 254 characters", with("mx: " + strings.Repeat("a.", 125) + "test"), `policy file line 3: mx "` + strings.Repeat("a.", 32) + `"...: host name has 254 characters`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			policy, err := ParsePolicy([]byte(tc.file))
			if err == nil || !strings.HasPrefix(err.Error(), tc.err) {
				t.Fatalf("policy %+v, error %v; want error %q", policy, err, tc.err)
			}
			if _, ok := errors.AsType[*PolicyError](err); !ok {
				t.Errorf("error is a %T", err)
			}
			checkLine(t, err.Error())
		})
	}
}

// What domains really serve, and the reason that the operator reads. An empty one
// is a valid policy.
func TestRealPolicyFiles(t *testing.T) {
	const good = "version: STSv1\nmode: enforce\nmx: mx.example.test\nmax_age: 604800\n"
	utf16 := []byte("\xff\xfe")
	for _, c := range []byte(good) {
		utf16 = append(utf16, c, 0)
	}
	for _, tc := range []struct{ name, file, reason string }{
		{"blank lines at the end", good + "\n\r\n  \n", ""},
		{"blank line between the fields", strings.Replace(good, "\n", "\n\n", 1), "policy file line 2: blank line before the end"},
		{"indented keys", strings.ReplaceAll(good, "\nm", "\n  m"), `policy file line 2: key "  mode": want a letter or digit, then up to 31 of letters, digits, _ - .`},
		{"preference as in DNS", strings.Replace(good, "mx: ", "mx: Priority 5: ", 1), `policy file line 3: mx "Priority 5: mx.example.test": ' ' is not allowed in a host name`},
		{"thousands separator", strings.Replace(good, "604800", "604,800", 1), `policy file line 4: max_age "604,800": want 1 to 10 digits`},
		{"two files glued together", good + strings.Replace(good, "enforce", "none", 1), ""},
		{"two files glued without a line end", strings.TrimSpace(good) + good, `policy file line 4: max_age "604800version: STSv1": want 1 to 10 digits`},
		{"UTF-16", string(utf16), "policy file line 1: UTF-16: want UTF-8"},
		{"UTF-16, big-endian", "\xfe\xff\x00v", "policy file line 1: UTF-16: want UTF-8"},
		{"byte order mark", "\xef\xbb\xbf" + good, "policy file line 1: begins with a byte order mark"},
		{"an address beside a good pattern", good + "mx: 192.0.2.56\n", ""},
		{"the address of the mail server", strings.Replace(good, "mx.example.test", "192.0.2.56", 1), `policy file line 3: mx "192.0.2.56": want a host name, not an address`},
		{"final dot", strings.Replace(good, "mx.example.test", "mx.example.test.", 1), ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p, err := ParsePolicy([]byte(tc.file))
			if tc.reason != "" {
				if err == nil || err.Error() != tc.reason {
					t.Errorf("%v, want %s", err, tc.reason)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if p.Mode != Enforce || p.MX[0] != "mx.example.test" || p.MaxAge != 604800*time.Second {
				t.Errorf("%+v", p)
			}
		})
	}
}

// The longest names that DNS allows are still accepted.
func TestParsePolicyLongestNames(t *testing.T) {
	label := strings.Repeat("a", 63)
	name := strings.Join([]string{label, label, label, strings.Repeat("b", 61)}, ".") // 253
	for _, mx := range []string{name, "*." + name} {
		p, err := ParsePolicy([]byte("version: STSv1\nmode: enforce\nmx: " + mx + "\nmax_age: 1\n"))
		if err != nil || len(p.MX) != 1 || p.MX[0] != mx {
			t.Errorf("%v, error %v", p.MX, err)
		}
	}
}

// 8461 §4.1: a wildcard stands for one left-most label.
func TestMatchMX(t *testing.T) {
	for _, tc := range []struct {
		pattern, host string
		want          bool
	}{
		{"mx.example.test", "mx.example.test", true},
		{"mx.example.test", "MX.Example.Test.", true},
		{"MX.example.test", "mx.example.test", true},
		{"mx.example.test", "mx2.example.test", false},
		{"mx.example.test", "a.mx.example.test", false},
		{"example.test", "mx.example.test", false},
		{"*.example.test", "mx.example.test", true},
		{"*.example.test", "MX.EXAMPLE.TEST.", true},
		{"*.example.test", "a.mx.example.test", false},
		{"*.example.test", "example.test", false},
		{"*.example.test", ".example.test", false},
		{"*.example.test", "mx.badexample.test", false},
		{"*.test", "example.test", true},
		{"", "", false},
		{"*.", "mx.", false},
	} {
		if got := MatchMX(tc.pattern, tc.host); got != tc.want {
			t.Errorf("MatchMX(%q, %q) = %v", tc.pattern, tc.host, got)
		}
	}
}

// checkLine holds what goes to logs and terminals against BEHAVIOUR §1: one
// printable line, of bounded length.
func checkLine(t *testing.T, s string) {
	t.Helper()
	if len(s) > 1024 {
		t.Errorf("%d bytes long: %.80s...", len(s), s)
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			t.Fatalf("byte 0x%02x in %q", s[i], s)
		}
	}
}
