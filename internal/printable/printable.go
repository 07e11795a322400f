// Package printable makes untrusted text safe to show. Records, policy files,
// certificates and the replies of servers end up on terminals, in logs and in
// replies to Postfix: there they are one line, in printable ASCII and of
// bounded length, so that none of them can pass for something else.
package printable

import (
	"fmt"
	"strconv"
	"strings"
)

const more = "..." // marks what was cut

// Line returns text as one line of printable ASCII of at most limit bytes, with
// \xNN for every other byte, and with "..." as its end where it was cut.
func Line[T ~string | ~[]byte](text T, limit int) string {
	var b strings.Builder
	cut := 0 // the last length at which more still fits
	for _, c := range []byte(text[:min(len(text), limit+1)]) {
		if c < ' ' || c > '~' {
			fmt.Fprintf(&b, `\x%02x`, c)
		} else {
			b.WriteByte(c)
		}
		if b.Len() > limit {
			return b.String()[:cut] + more
		}
		if b.Len()+len(more) <= limit {
			cut = b.Len()
		}
	}
	return b.String()
}

// Is reports whether text is one line of printable ASCII.
func Is(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' })
}

// Quote returns a value between quotation marks, as a Go string in printable
// ASCII, and cut after limit bytes of it.
func Quote[T ~string | ~[]byte](value T, limit int) string {
	if len(value) > limit {
		return strconv.QuoteToASCII(string(value[:limit])) + more
	}
	return strconv.QuoteToASCII(string(value))
}
