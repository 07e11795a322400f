package mtasts

import (
	"fmt"
	"strconv"
	"strings"
)

// Errors end up in logs, in Postfix replies and on terminals, and much of what
// they tell about was written by a stranger. Everything foreign passes through
// one of the functions below.

const (
	maxQuoted = 64  // bytes of a foreign value in an error
	maxReason = 300 // bytes of a foreign error text
)

// quote returns a foreign value between quotation marks, in printable ASCII
// and cut to a length at which it can still be recognised.
func quote[T ~string | ~[]byte](v T) string {
	s := string(v[:min(len(v), maxQuoted)])
	if len(v) > maxQuoted {
		return strconv.QuoteToASCII(s) + "..."
	}
	return strconv.QuoteToASCII(s)
}

// printable returns a text as one line of printable ASCII of at most limit
// bytes and an ellipsis.
func printable(s string, limit int) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if b.Len() >= limit {
			b.WriteString("...")
			break
		}
		if c < ' ' || c > '~' {
			fmt.Fprintf(&b, `\x%02x`, c)
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}
