package mtasts

import "tlspolicyd/internal/printable"

// Errors end up in logs, in replies to Postfix and on terminals, and much of their
// text is untrusted. All of that passes through quote or printable.Line.

const (
	maxQuoted = 64  // bytes of an untrusted value in an error: it can still be recognised
	maxReason = 300 // bytes of an untrusted error text
)

func quote[T ~string | ~[]byte](v T) string { return printable.Quote(v, maxQuoted) }
