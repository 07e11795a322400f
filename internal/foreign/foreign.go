// Package foreign makes what strangers wrote fit to be shown. Records, policy
// files, certificates and the replies of servers end up on terminals, in logs
// and in replies to Postfix: there they are one line, in printable ASCII and of
// bounded length, so that none of them can pass for something else.
package foreign

import (
	"fmt"
	"strconv"
	"strings"
)

const more = "..." // stands for what was cut

// Line returns a text in printable ASCII with \xNN for every other byte: at most
// limit bytes, and an ellipsis where that is not all.
func Line[T ~string | ~[]byte](text T, limit int) string {
	var b strings.Builder
	for _, c := range []byte(text[:min(len(text), limit+1)]) {
		shown := string(rune(c))
		if c < ' ' || c > '~' {
			shown = fmt.Sprintf(`\x%02x`, c)
		}
		if b.Len()+len(shown) > limit {
			return b.String() + more
		}
		b.WriteString(shown)
	}
	return b.String()
}

// Quote returns a value between quotation marks, as a Go string in printable
// ASCII, and cut after limit bytes of it.
func Quote[T ~string | ~[]byte](value T, limit int) string {
	if len(value) > limit {
		return strconv.QuoteToASCII(string(value[:limit])) + more
	}
	return strconv.QuoteToASCII(string(value))
}
