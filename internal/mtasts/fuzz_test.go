package mtasts

import (
	"bytes"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// grammar is sts-text-record of 8461 §3.1 as a regular expression, with blanks
// tolerated at the end. The first group is the list of fields.
func grammar() *regexp.Regexp {
	const field = `[A-Za-z0-9][A-Za-z0-9_.-]{0,31}=[\x21-\x3a\x3c\x3e-\x7e]+`
	return regexp.MustCompile(`\Av=STSv1((?:[ \t]*;[ \t]*` + field + `)+)[ \t]*;?[ \t]*\z`)
}

// byGrammar is the id of the one record among txts, or "" where there is none:
// 8461 §3.1 read once more, without the parser.
func byGrammar(txts ...[]byte) string {
	begins := regexp.MustCompile(`\Av=STSv1[ \t]*;`)
	var record []byte
	for _, txt := range txts {
		if begins.Match(txt) {
			if record != nil {
				return ""
			}
			record = txt
		}
	}
	m := grammar().FindSubmatch(record)
	if m == nil {
		return ""
	}
	for field := range strings.SplitSeq(string(m[1]), ";") {
		if id, ok := strings.CutPrefix(strings.Trim(field, " \t"), "id="); ok {
			if regexp.MustCompile(`\A[A-Za-z0-9]{1,32}\z`).MatchString(id) {
				return id
			}
			return "" // of a repeated field the first one counts
		}
	}
	return ""
}

func FuzzParseRecord(f *testing.F) {
	f.Add([]byte("v=STSv1; id=20160831085700Z;"), []byte("v=spf1 -all"))
	f.Add([]byte("v=STSv1 ;id=a; x=y"), []byte("v=STSv1; id=b"))
	f.Add([]byte("v=STSv1;;\t=\x00"), []byte(""))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		rec, err := ParseRecord([][]byte{a, b})
		if want := byGrammar(a, b); rec.ID != want || (err == nil) != (want != "") {
			t.Errorf("id %q, %v; by the grammar %q", rec.ID, err, want)
		}
		if err != nil {
			checkLine(t, err.Error())
			return
		}
		// The order in which a resolver hands records out does not matter.
		if again, err := ParseRecord([][]byte{b, a}); err != nil || again != rec {
			t.Errorf("the other way round: %+v, %v", again, err)
		}
		if twice, err := ParseRecord([][]byte{a, b, a, b}); err == nil {
			t.Errorf("two records make one: %+v", twice)
		}
	})
}

// policyByGrammar is 8461 §3.2 read once more, with the tolerances of
// docs/behaviour.md §3: what the file says, or false where it is invalid.
func policyByGrammar(file []byte) (mode string, age uint64, mx []string, ok bool) {
	text := string(file)
	if !utf8.ValidString(text) || strings.HasPrefix(text, "\ufeff") {
		return "", 0, nil, false
	}
	text = strings.TrimRight(strings.ReplaceAll(text, "\r\n", "\n"), " \t\n") // blank lines at the end
	line := regexp.MustCompile(`\A([A-Za-z0-9][A-Za-z0-9_.-]{0,31}):[ \t]*([^\x00-\x20\x7f](?:[^\x00-\x1f\x7f]*[^\x00-\x20\x7f])?)[ \t]*\z`)
	host := regexp.MustCompile(`\A(?:\*\.)?(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\z`)
	number := regexp.MustCompile(`\A(?:[0-9]+|0[xX][0-9A-Fa-f]*)\z`)
	first := map[string]string{}
	for l := range strings.SplitSeq(text, "\n") {
		m := line.FindStringSubmatch(l)
		if m == nil {
			return "", 0, nil, false
		}
		if _, seen := first[m[1]]; !seen {
			first[m[1]] = m[2]
		}
		if m[1] != "mx" {
			continue
		}
		pattern := strings.TrimSuffix(m[2], ".")
		name := strings.TrimPrefix(pattern, "*.")
		if !host.MatchString(pattern) || len(name) > 253 {
			return "", 0, nil, false
		}
		if number.MatchString(name[strings.LastIndexByte(name, '.')+1:]) {
			continue // an address
		}
		mx = append(mx, strings.ToLower(pattern))
	}
	mode = first["mode"]
	digits := regexp.MustCompile(`\A[0-9]{1,10}\z`).MatchString(first["max_age"])
	age, _ = strconv.ParseUint(first["max_age"], 10, 64)
	ok = first["version"] == "STSv1" && digits && (mode == "none" || (mode == "enforce" || mode == "testing") && len(mx) > 0)
	return mode, min(age, 31557600), mx, ok
}

func FuzzParsePolicy(f *testing.F) {
	f.Add([]byte("version: STSv1\nmode: enforce\nmx: mail.example.test\nmx: *.Example.test\nmax_age: 604800\n"))
	f.Add([]byte("max_age:1\r\nmode:\tnone \r\nversion: STSv1\r\nx: {y} z\r\n\r\n"))
	f.Add([]byte("version: STSv1\nmode: testing\nmx: a\x00\nmax_age: 99999999999"))
	f.Add([]byte("\xef\xbb\xbfversion: STSv1\n\nmx: b\u00fccher.test"))
	pattern := regexp.MustCompile(`^(\*\.)?[a-z0-9-]+(\.[a-z0-9-]+)*$`)
	f.Fuzz(func(t *testing.T, file []byte) {
		p, err := ParsePolicy(file)
		mode, age, mx, ok := policyByGrammar(file)
		if ok != (err == nil) {
			t.Fatalf("%v, but by the grammar valid: %v", err, ok)
		}
		if ok && (string(p.Mode) != mode || p.MaxAge != time.Duration(age)*time.Second || !slices.Equal(p.MX, mx)) {
			t.Errorf("%+v; by the grammar mode %s, max_age %d, mx %q", p, mode, age, mx)
		}
		if err != nil {
			checkLine(t, err.Error())
			return
		}
		switch {
		case p.Mode != Enforce && p.Mode != Testing && p.Mode != None:
			t.Errorf("mode %q", p.Mode)
		case p.Mode != None && len(p.MX) == 0:
			t.Errorf("mode %s without mx", p.Mode)
		case p.MaxAge < 0 || p.MaxAge > MaxMaxAge:
			t.Errorf("max_age %v", p.MaxAge)
		case len(p.Lines) != 3+len(p.MX):
			t.Errorf("%d lines beside %d mx", len(p.Lines), len(p.MX))
		}
		for _, mx := range p.MX {
			if !pattern.MatchString(mx) {
				t.Errorf("mx %q", mx)
			}
			if !MatchMX(mx, strings.Replace(mx, "*", "host", 1)) {
				t.Errorf("mx %q does not match its own kind", mx)
			}
		}
		for _, line := range p.Lines {
			for i := range len(line) {
				if line[i] < ' ' || line[i] > '~' {
					t.Errorf("byte 0x%02x in line %q", line[i], line)
				}
			}
		}
		again, err := ParsePolicy([]byte(strings.Join(p.Lines, "\r\n")))
		if err != nil {
			t.Fatalf("lines do not parse: %v", err)
		}
		if diff := cmp.Diff(p, again); diff != "" {
			t.Errorf("lines parse to another policy:\n%s", diff)
		}
		// The line end says nothing.
		unix := bytes.ReplaceAll(file, []byte("\r\n"), []byte("\n"))
		if again, err := ParsePolicy(unix); err != nil || !cmp.Equal(p, again) {
			t.Errorf("with LF alone: %+v, %v", again, err)
		}
	})
}
