// Package dane is the client side of RFC 7672 (SMTP security via opportunistic
// DANE TLS): it finds the mail hosts of a domain, their addresses and their
// TLSA records, and says what DNSSEC proves about them. It keeps nothing and
// knows nothing of Postfix.
package dane

import "time"

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
	Hosts []Host        // in order of preference; at most 32

	// Omitted is how many MX hosts beyond those were not looked at. State is
	// never Full then. None still stands: a client gives up long before (Postfix
	// tries 5 addresses, smtp_mx_address_limit).
	Omitted int

	NullMX   bool // RFC 7505: the domain takes no mail
	NullToo  bool // a null MX beside other MX records, which must not be (7505 §3); Postfix bounces then
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
	Implicit   bool     // no MX record: the domain itself (5321 §5.1)
	Addresses  []string // at most 32, for display
	Secure     bool     // address answers (and aliases) are all authentic
	Base       string   // TLSA base domain that decided (7672 §2.2.3), empty when none was asked
	Verdict    Verdict
	TLSA       []TLSA        // the first 100
	TTL        time.Duration // smallest TTL of the answers about this host
	Err        error         // for Failed
}

// Verdict is what is known about one MX host.
type Verdict uint8

const (
	Failed    Verdict = iota // address lookup failed (Addresses is empty), or alias or TLSA lookup
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

// String returns the state's name in lower case, for logs and explain.
func (s State) String() string {
	switch s {
	case Unknown:
		return "unknown"
	case None:
		return "none"
	case Full:
		return "full"
	case Partial:
		return "partial"
	case InsecureMX:
		return "insecure-mx"
	}
	return "invalid"
}

// String returns the verdict in a few words, for logs and explain.
func (v Verdict) String() string {
	switch v {
	case Failed:
		return "lookup failed"
	case NoAddress:
		return "no address"
	case Insecure:
		return "insecure"
	case NoTLSA:
		return "no TLSA"
	case Unusable:
		return "unusable TLSA"
	case Usable:
		return "usable TLSA"
	}
	return "invalid"
}
