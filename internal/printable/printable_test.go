package printable_test

import (
	"strings"
	"testing"

	"tlspolicyd/internal/printable"
)

func TestLine(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		limit      int
		want       string
	}{
		{"plain", "550 5.7.1 no \"relay\"", 60, "550 5.7.1 no \"relay\""},
		{"a terminal's colours", "\x1b[31mred\x1b[0m", 60, `\x1b[31mred\x1b[0m`},
		{"lines", "one\r\ntwo\ttabs\x00", 60, `one\x0d\x0atwo\x09tabs\x00`},
		{"UTF-8, and bytes that are none", "\u00fc\u202e\xff", 60, `\xc3\xbc\xe2\x80\xae\xff`},
		{"as long as it may be", "12345678", 8, "12345678"},
		{"too long", "123456789", 8, "12345..."},
		{"an escape that does not fit", "123456\n", 8, "12345..."},
		{"only escapes", "\n\n\n", 8, `\x0a...`},
		{"empty", "", 8, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := printable.Line(tc.text, tc.limit); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
			if got := printable.Line([]byte(tc.text), tc.limit); got != tc.want {
				t.Errorf("of bytes: got %s, want %s", got, tc.want)
			}
		})
	}
}

func TestQuote(t *testing.T) {
	for value, want := range map[string]string{
		"enfroce":           `"enfroce"`,
		"say \"no\"\n":      `"say \"no\"\n"`,
		"\u00fc\u202e\xff":  `"\u00fc\u202e\xff"`,
		"0123456789abcdef":  `"0123456789abcdef"`,
		"0123456789abcdefg": `"0123456789abcdef"...`,
	} {
		if got := printable.Quote(value, 16); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// Whatever comes, it is one line that a terminal does nothing with but show it.
func FuzzForeign(f *testing.F) {
	f.Add("v=STSv1; id=\x1b]0;gotcha\a\u2028", 20)
	f.Fuzz(func(t *testing.T, text string, limit int) {
		limit = min(max(limit, 0), 1000)
		line, quoted := printable.Line(text, limit), printable.Quote(text, limit)
		for _, got := range []string{line, quoted} {
			if strings.ContainsFunc(got, func(r rune) bool { return r < ' ' || r > '~' }) {
				t.Errorf("not printable: %q", got)
			}
		}
		if len(line) > limit+3 {
			t.Errorf("%d bytes, want %d and an ellipsis at most", len(line), limit)
		}
	})
}
