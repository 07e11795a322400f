package printable

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// JSON returns a writer for JSON text that passes it on in ASCII: all else is
// written as \u escapes, which mean the same to a program. encoding/json leaves
// DEL, C1 and bidirectional controls as they are, and a terminal obeys them.
// Each Write must hold whole characters, as those of a json.Encoder do.
func JSON(w io.Writer) io.Writer { return jsonWriter{w} }

type jsonWriter struct{ w io.Writer }

// Write returns the length of p, which is not what was written, or an error.
func (j jsonWriter) Write(p []byte) (int, error) {
	out := make([]byte, 0, len(p)+len(p)/8)
	for _, r := range string(p) {
		switch high, low := utf16.EncodeRune(r); {
		case r >= ' ' && r <= '~' || r == '\n' || r == '\t' || r == '\r': // the white space of JSON
			out = append(out, byte(r))
		case high != unicode.ReplacementChar:
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
	}
	if _, err := j.w.Write(out); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Text returns a text as it is where a terminal shows it as it is, in whatever
// script, and as a Go string in quotation marks elsewhere.
func Text(s string) string {
	if s == "" || !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(s)
	}
	return s
}

// Clean returns a text of this program in which untrusted parts are escaped
// already, with a question mark for anything that a terminal would still obey.
func Clean(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) && r != unicode.ReplacementChar {
			return r
		}
		return '?'
	}, s)
}
