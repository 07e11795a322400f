package admin

import (
	"fmt"
	"io"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// EscapeJSON returns a writer of JSON that no terminal can take for a command:
// what is not printable (DEL, C1, bidirectional controls and the like, which
// encoding/json leaves as they are) is written as \u escapes. Outside of strings
// JSON has nothing of the kind, so that the values stay the same. Each Write
// must hold whole characters, as those of a json.Encoder do.
func EscapeJSON(w io.Writer) io.Writer { return jsonEscaper{w} }

type jsonEscaper struct{ w io.Writer }

// Write returns the length of p, which is not what was written, or an error.
func (e jsonEscaper) Write(p []byte) (int, error) {
	if _, err := e.w.Write(escapeJSON(p)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// escapeJSON returns p itself where there is nothing to escape.
func escapeJSON(p []byte) []byte {
	var out []byte
	done := 0
	for i := 0; i < len(p); {
		r, size := utf8.DecodeRune(p[i:])
		// White space between values is the only control character in JSON text.
		if !unicode.IsPrint(r) && r != '\n' && r != '\t' && r != '\r' {
			out = append(out, p[done:i]...)
			out = appendEscape(out, r)
			done = i + size
		}
		i += size
	}
	if done == 0 {
		return p
	}
	return append(out, p[done:]...)
}

func appendEscape(b []byte, r rune) []byte {
	if high, low := utf16.EncodeRune(r); high != unicode.ReplacementChar {
		return fmt.Appendf(b, `\u%04x\u%04x`, high, low)
	}
	return fmt.Appendf(b, `\u%04x`, r)
}
