package mtasts

import "tlspolicyd/internal/foreign"

// Errors end up in logs, in Postfix replies and on terminals, and much of what
// they tell about was written by a stranger. Everything foreign passes through
// quote or foreign.Line.

const (
	maxQuoted = 64  // bytes of a foreign value in an error: it can still be recognised
	maxReason = 300 // bytes of a foreign error text
)

func quote[T ~string | ~[]byte](v T) string { return foreign.Quote(v, maxQuoted) }
