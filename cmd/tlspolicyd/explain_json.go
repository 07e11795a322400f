package main

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"
)

// writeExplanationJSON writes a report as one line of ASCII: encoding/json
// leaves DEL and the control characters above it (U+0080 to U+009F) as they
// are, and a terminal would act on them.
func writeExplanationJSON(out io.Writer, r explainReport) error {
	var line bytes.Buffer
	if err := writeJSONLine(&line, r); err != nil {
		return err
	}
	var ascii bytes.Buffer
	for _, c := range line.String() {
		switch {
		case c < 0x7f:
			ascii.WriteRune(c)
		case c > 0xffff:
			high, low := utf16.EncodeRune(c)
			fmt.Fprintf(&ascii, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&ascii, `\u%04x`, c)
		}
	}
	_, err := out.Write(ascii.Bytes())
	return err
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// escaped returns what a stranger wrote in printable ASCII, everything else
// escaped as in a Go string; a backslash is doubled.
func escaped[T ~string | ~[]byte](text T, limit int) string {
	more := ""
	if len(text) > limit {
		more = fmt.Sprintf("... (%d bytes)", len(text))
		text = text[:limit]
	}
	quoted := strconv.QuoteToASCII(string(text))
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`) + more
}

// cleaned is for texts of this program, in which the foreign parts are escaped
// already. Should one be not: no terminal shall act on it.
func cleaned(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) && r != unicode.ReplacementChar {
			return r
		}
		return '?'
	}, s)
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return cleaned(err.Error())
}

// trimmed returns a name as people write it, without the final dot.
func trimmed(name string) string {
	if name == "." {
		return name
	}
	return strings.TrimSuffix(name, ".")
}
