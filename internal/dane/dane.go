// Package dane is the client side of RFC 7672 (SMTP security via opportunistic
// DANE TLS): it finds the mail hosts of a domain, their addresses and their
// TLSA records, and says what DNSSEC proves about them. It keeps nothing and
// knows nothing of Postfix.
package dane

import (
	"context"
	"time"

	"tlspolicyd/internal/dnsclient"
)

// State is what DNSSEC proves about a destination (BEHAVIOUR §4).
type State uint8

const (
	Unknown    State = iota // a lookup that matters failed (7672 §2.1.2)
	None                    // proved: no host has a secure TLSA record
	Full                    // MX answer secure, every host with an address is secure and has a usable TLSA record
	Partial                 // MX answer secure, at least one host with a secure TLSA record, but not Full
	InsecureMX              // MX answer insecure, at least one host with a secure TLSA record
)

// Target is what is to be evaluated.
type Target struct {
	Domain  string // A-labels, lower case, no final dot; the mail domain, or the host itself when Literal
	Literal bool   // "[host]" in Postfix: no MX lookup, Domain is the host
	Port    uint16 // for "_PORT._tcp."
}

// Result is the outcome of one evaluation.
type Result struct {
	State State
	TTL   time.Duration // smallest TTL involved, as DNS gave it: the caller clamps it; 0 when nothing said
	Hosts []Host        // in order of preference

	NullMX   bool // RFC 7505: the domain takes no mail
	NoDomain bool // NXDOMAIN for the MX question

	MXSecure  bool  // the MX answer was authentic (true for Literal: there is none to forge)
	MXUnknown bool  // the MX lookup itself failed
	SomeTLSA  bool  // at least one host has a secure TLSA record; tells what to do when State is Unknown
	SomeNone  bool  // at least one host with an address is proved to have no secure TLSA record
	Err       error // first failure that made State Unknown, or that was set aside
}

// Host is one MX host and the verdict on it.
type Host struct {
	Name       string // A-label, lower case, no final dot
	Preference uint16
	Implicit   bool // no MX record: the domain itself (5321 §5.1)
	Addresses  []string
	Secure     bool   // address answers (and aliases) are all authentic
	Base       string // TLSA base domain that decided (7672 §2.2.3), empty when none was asked
	Verdict    Verdict
	TLSA       []TLSA
	Err        error // for Failed
}

// Verdict is what is known about one MX host.
type Verdict uint8

const (
	Failed    Verdict = iota // address or TLSA lookup failed
	NoAddress                // has no address, takes no part
	Insecure                 // addresses are not secure: no TLSA lookup (7672 §2.2.2)
	NoTLSA                   // secure denial, or TLSA answer not secure
	Unusable                 // secure TLSA records, none usable
	Usable                   // at least one secure, usable TLSA record
)

// TLSA is one record and whether it can be used for SMTP (7672 §3.1).
type TLSA struct {
	Usage, Selector, MatchingType uint8
	Data                          []byte
	Unusable                      string // why it cannot be used; empty when it can
}

// Lookup evaluates the target. Hosts are looked up side by side. It never
// fails: failures are part of the Result.
func Lookup(ctx context.Context, r dnsclient.Resolver, t Target) Result {
	panic("to be written")
}
