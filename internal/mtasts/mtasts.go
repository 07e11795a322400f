// Package mtasts is RFC 8461, SMTP MTA Strict Transport Security: the TXT record
// that announces a policy, the policy file, and the HTTPS fetch of it. It caches
// nothing and knows nothing of Postfix's syntax.
//
// # The threat
//
// Between mail servers TLS is opportunistic: a sender encrypts if the receiver
// offers STARTTLS, and accepts any certificate. An attacker on the path can
// delete the offer, present a certificate of his own, or forge the MX answer and
// so name a server of his. The sender notices none of this.
//
// # What MTA-STS does about it
//
// A domain publishes which hosts receive its mail, and that these speak TLS with
// a certificate of a public authority, where an attacker on the SMTP path cannot
// change it: on a web server of the domain, over HTTPS. Unlike DANE (package
// dane) it needs no DNSSEC. In exchange it only protects from the second message
// on: an attacker who is there when a sender asks for the first time can hide
// the policy. That is why senders cache a policy for a long time, and renew it
// while it is still valid.
//
// Two things are published. A TXT record says that there is a policy, and its id
// changes whenever the policy does, so that senders can find out cheaply
// (8461 §3.1):
//
//	_mta-sts.example.com.  IN TXT  "v=STSv1; id=20260101T000000;"
//
// The policy itself is at https://mta-sts.example.com/.well-known/mta-sts.txt
// (8461 §3.2):
//
//	version: STSv1
//	mode: enforce
//	mx: mx.example.com
//	mx: *.backup.example.com
//	max_age: 604800
//
// An mx line is a pattern for the names of MX hosts; "*." is exactly one label.
// max_age is how long the policy may be cached, in seconds. The mode says what a
// sender does with a host that matches no pattern, or whose certificate is not
// valid (8461 §5):
//
//	enforce  do not deliver to it
//	testing  deliver, and report the failure (8460)
//	none     there is no policy any more: the way to withdraw one before its
//	         max_age has passed at every sender
//
// The TXT record is plain DNS, and an attacker who forges or blocks it can delay a
// new policy, but not end the one that a sender has cached: only a newly fetched
// policy or its max_age does (8461 §5.1).
//
// # What Postfix does with it
//
// Postfix does not know MTA-STS. An enforced policy is handed to it as the level
// "secure" with the patterns as names to match:
//
//	secure match=mx.example.com:.backup.example.com servername=hostname
//
// Postfix then requires TLS, a chain to an authority that it trusts, and a name
// in the certificate that is in match=. Since 3.10 it also takes the patterns
// themselves and holds the name of the MX host against them, as 8461 §4.1 asks,
// and reports results by TLSRPT. Testing and none leave it at its default level.
//
// # This package
//
// Parsing is pure (parse.go, lines.go, mx.go); record.go asks DNS, and fetch.go
// with dial.go and proxy.go uses the network. Everything that it reads was
// written by someone else, possibly an attacker: it is bounded in size and time,
// and text from it is quoted before anyone sees it.
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
