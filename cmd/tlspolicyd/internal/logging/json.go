package logging

import (
	"fmt"
	"unicode"
	"unicode/utf16"
)

// jsonLine hands over each line of log/slog's JSON handler, which writes a record
// with one call of Write. What no terminal should be
// shown (DEL, C1, bidirectional controls: encoding/json leaves them as they are)
// is written as \u escapes, which mean the same to a program. Keys of lookups
// come from whoever may ask.
type jsonLine func(entry)

func (put jsonLine) Write(line []byte) (int, error) {
	out := make([]byte, 0, len(line))
	for _, r := range string(line) {
		switch high, low := utf16.EncodeRune(r); {
		case unicode.IsPrint(r), r == '\n':
			out = append(out, string(r)...)
		case high != unicode.ReplacementChar:
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
	}
	put(entry{line: out})
	return len(line), nil
}
