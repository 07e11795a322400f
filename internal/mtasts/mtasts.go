// Package mtasts is RFC 8461 (SMTP MTA Strict Transport Security): the TXT
// record that announces a policy, the policy file, and the HTTPS fetch of it.
// Parsing is pure (parse.go, mx.go); record.go asks DNS, and fetch.go with
// dial.go and proxy.go uses the network.
// Nothing is cached here and nothing is known of Postfix.
package mtasts

import "time"

// Mode is the policy's mode (8461 §5).
type Mode string

const (
	Enforce Mode = "enforce"
	Testing Mode = "testing"
	None    Mode = "none"
)

// MaxMaxAge is the upper bound of max_age (8461 §3.2: about one year).
const MaxMaxAge = 31557600 * time.Second

// Record is a valid "_mta-sts" TXT record (8461 §3.1).
type Record struct {
	ID string // 1 to 32 letters or digits
}

// Policy is a parsed policy file (8461 §3.2).
type Policy struct {
	Mode   Mode
	MaxAge time.Duration // 0 to MaxMaxAge, whole seconds
	MX     []string      // patterns in file order, lower case: "mx.example.net" or "*.example.net"

	// Lines are the version, mode, mx and max_age lines that count, in file
	// order, normalised to "key: value" in printable ASCII: what TLSRPT calls
	// the policy string (8460 §4.4). Nothing else of the file is in them.
	Lines []string
}
