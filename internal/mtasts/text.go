package mtasts

import "tlspolicyd/internal/printable"

// Errors end up in logs, in Postfix replies and on terminals, and much of what
// they tell about was written by a stranger. Everything foreign passes through
// quote or printable.Line.

const (
	maxQuoted = 64  // bytes of a foreign value in an error: it can still be recognised
	maxReason = 300 // bytes of a foreign error text
)

func quote[T ~string | ~[]byte](v T) string { return printable.Quote(v, maxQuoted) }
