package mtasts_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tlspolicyd/internal/mtasts"
)

func TestPolicyLines(t *testing.T) {
	for _, test := range []struct {
		name, file string
		want       []string // number, fault or note
		missing    string
	}{
		{"valid, CRLF and LF", "version: STSv1\r\nmode: enforce\nmx: a.test\r\nmax_age: 86400\n\n", []string{"1", "2", "3", "4", "5"}, ""},
		{
			"each fault, not only the first", "version: STSv2\nmode: enfroce\nmx: *.*.test\nmax_age: soon\nrubbish\n",
			[]string{
				`1 fault: version "STSv2": want STSv1`, `2 fault: mode "enfroce": want enforce, testing or none`,
				`3 fault: mx "*.*.test": '*' is not allowed in a host name`, `4 fault: max_age "soon": want 1 to 10 digits`,
				`5 fault: "rubbish": want key: value`,
			},
			"",
		},
		{
			"a blank line before the end", "version: STSv1\n\nmode: none\nmax_age: 1\n",
			[]string{"1", "2 fault: blank line before the end", "3", "4"},
			"",
		},
		{
			"byte order mark", "\xef\xbb\xbfversion: STSv1\nmode: none\nmax_age: 1\n",
			[]string{"1 fault: begins with a byte order mark", "2", "3"},
			"",
		},
		{
			"byte order mark alone in its line", "\xef\xbb\xbf\nversion: STSv1\nmode: none\nmax_age: 1\n",
			[]string{"1 fault: begins with a byte order mark", "2", "3", "4"},
			"",
		},
		{
			"what is ignored", "version: STSv1\nmode: enforce\nmode: none\nmx: a.test\nmx: A.test\nmax-age: 5\nmax_age: 99999999\nx-own: 1\n",
			[]string{
				"1", "2", "3 note: mode again: the first one counts, this one is ignored", "4", "5 note: the same pattern again",
				`6 note: key "max-age" is unknown and ignored: is max_age meant?`, "7 note: max_age is more than a year: it counts as 31557600",
				`8 note: key "x-own" is unknown and ignored`,
			},
			"",
		},
		{
			"an address, and a final dot", "version: STSv1\nmode: enforce\nmx: 192.0.2.56\nmx: a.test.\nmx: a.test\nmax_age: 5\n",
			[]string{
				"1", "2", "3 note: the line has an address, which is not the name of any host: it is ignored",
				"4 note: the final dot is not allowed by RFC 8461: it is ignored here, but other senders refuse the policy",
				"5 note: the same pattern again", "6",
			},
			"",
		},
		{
			"an address alone", "version: STSv1\nmode: enforce\nmx: 192.0.2.56\nmax_age: 5\n",
			[]string{"1", "2", `3 fault: mx "192.0.2.56": want a host name, not an address`, "4"},
			"",
		},
		{"something is missing", "version: STSv1\nmode: enforce\nmax_age: 1\n", []string{"1", "2", "3"}, "no mx line: mode enforce needs one"},
		{"empty", "", nil, "no version line"},
	} {
		t.Run(test.name, func(t *testing.T) {
			lines, missing := mtasts.PolicyLines([]byte(test.file))
			var got []string
			for _, l := range lines {
				text := fmt.Sprint(l.Number)
				if l.Fault != "" {
					text += " fault: " + l.Fault
				}
				if l.Note != "" {
					text += " note: " + l.Note
				}
				got = append(got, text)
			}
			if d := cmp.Diff(test.want, got); d != "" {
				t.Errorf("lines (-want +got):\n%s", d)
			}
			if missing != test.missing {
				t.Errorf("missing %q, want %q", missing, test.missing)
			}
		})
	}
}

// PolicyLines and ParsePolicy agree on what is valid, and on the fault at which
// ParsePolicy ends.
func FuzzPolicyLines(f *testing.F) {
	f.Add([]byte("version: STSv1\nmode: enforce\nmx: a.test\nmax_age: 86400\n"))
	f.Add([]byte("version: STSv1\n\n\nmode: none\nmax_age: x\n\x00"))
	f.Add([]byte("\xef\xbb\xbfmode: none\n\n"))
	f.Fuzz(func(t *testing.T, file []byte) {
		lines, missing := mtasts.PolicyLines(file)
		first := 0
		var all []byte
		for i, l := range lines {
			if l.Number != i+1 {
				t.Fatalf("line %d has number %d", i+1, l.Number)
			}
			if l.Fault != "" && first == 0 {
				first = l.Number
			}
			all = append(all, l.Text...)
		}
		if len(all) > len(file) || bytes.Count(file, []byte("\n")) > len(lines) {
			t.Errorf("lines are not those of the file")
		}
		_, err := mtasts.ParsePolicy(file)
		fault, bad := errors.AsType[*mtasts.PolicyError](err)
		switch {
		case !bad && (first != 0 || missing != ""):
			t.Errorf("valid, but line %d at fault, missing %q", first, missing)
		case bad && fault.Line > 0 && lines[fault.Line-1].Fault != fault.Reason:
			t.Errorf("%v, but that line is told to be %q", err, lines[fault.Line-1].Fault)
		case bad && fault.Line == 0 && missing == "":
			t.Errorf("%v, but nothing is missing", err)
		}
	})
}
