package dane

import "time"

// MX is what the MX lookup of a target proved (7672 §2.2.1).
type MX struct {
	Answer   MXAnswer
	Null     bool // RFC 7505: the domain accepts no mail
	NullToo  bool // a null MX beside other MX records, which 7505 §3 forbids; Postfix bounces then
	NoDomain bool // NXDOMAIN

	// Omitted is how many MX hosts beyond the first 32 were not evaluated.
	Omitted int

	TTL time.Duration // of the answer, as DNS gave it; 0 for MXFailed and MXNotAsked
	Err error         // for MXFailed
}

// MXAnswer is what can be said of an MX answer. The values are fit to be stored.
type MXAnswer uint8

const (
	MXFailed   MXAnswer = 0 // the lookup failed, so nothing is known (7672 §2.1.2)
	MXSecure   MXAnswer = 1 // validated; an absence of MX records too
	MXInsecure MXAnswer = 2 // can be forged (7672 §2.2.1)
	MXNotAsked MXAnswer = 3 // Target.Literal: there is no MX answer to forge (7672 §2.2.4)
)

// Secure reports whether the list of hosts cannot have been forged.
func (a MXAnswer) Secure() bool { return a == MXSecure || a == MXNotAsked }

// Evidence is what the lookups of one MX host proved. It is complete in itself: a
// state can be derived from evidence of different age, host by host.
type Evidence struct {
	Name       string // A-labels, lower case, no final dot
	Preference uint16
	Verdict    Verdict

	// TTL is how long the evidence holds: the smallest TTL of the answers about
	// this host, as DNS gave it. After a failure it is 5 minutes at most. A name
	// that cannot be looked up has that of the MX answer.
	TTL time.Duration
	Err error // for AddressFailed and TLSAFailed
}

// Verdict is what is known about one MX host. The values are fit to be stored.
type Verdict uint8

const (
	TLSAFailed     Verdict = 0 // has addresses, but the TLSA or alias lookup failed: no absence (7672 §2.1.2)
	AddressFailed  Verdict = 1 // its addresses cannot be looked up
	NoAddress      Verdict = 2 // proved to have no address, takes no part
	Insecure       Verdict = 3 // none: addresses are insecure, so no TLSA lookup (7672 §2.2.2)
	NoTLSA         Verdict = 4 // none: secure denial of TLSA records, or an insecure TLSA answer (7672 §2.1.1)
	Unusable       Verdict = 5 // secure TLSA records, none of them usable (7672 §2.2)
	PartlyInsecure Verdict = 6 // a usable TLSA record as for Usable, but one family's addresses are insecure (7672 §2.2.2)
	Usable         Verdict = 7 // at least one secure, usable TLSA record (7672 §3.1)
)

// Failed reports whether a lookup failed, so that nothing is proved.
func (v Verdict) Failed() bool { return v == TLSAFailed || v == AddressFailed }

// None reports whether the host has addresses and is proved to have no secure
// TLSA record.
func (v Verdict) None() bool { return v == Insecure || v == NoTLSA }

// HasTLSA reports whether the host has a secure TLSA record, usable or not.
func (v Verdict) HasTLSA() bool { return v == Unusable || v.HasUsable() }

// HasUsable reports whether the host has a secure TLSA record that SMTP can use.
func (v Verdict) HasUsable() bool { return v == Usable || v == PartlyInsecure }

// String returns the verdict in a few words, for logs and explain.
func (v Verdict) String() string {
	switch v {
	case TLSAFailed, AddressFailed:
		return "lookup failed"
	case NoAddress:
		return "no address"
	case Insecure:
		return "insecure"
	case NoTLSA:
		return "no TLSA"
	case Unusable:
		return "unusable TLSA"
	case PartlyInsecure:
		return "usable TLSA, some addresses insecure"
	case Usable:
		return "usable TLSA"
	}
	return "invalid"
}

// Outcome is what evidence amounts to.
type Outcome struct {
	State    State
	SomeTLSA bool          // at least one host has a secure TLSA record; matters when State is Unknown
	SomeNone bool          // at least one host with an address is proved to have no secure TLSA record
	TTL      time.Duration // smallest of all evidence, as DNS gave it: the caller clamps it; 0 when the MX lookup failed
	Err      error         // first failure that made State Unknown, or that was set aside
}

// Derive turns evidence into a state (behaviour.md §4). It is a pure function.
// Definite states come first: they stand whatever the failing hosts would have
// proved.
func Derive(mx MX, hosts []Evidence) Outcome {
	if mx.Answer == MXFailed {
		return Outcome{State: Unknown, Err: mx.Err} // 7672 §2.1.2
	}
	if mx.Null || mx.NoDomain {
		return Outcome{State: None, TTL: mx.TTL}
	}
	n := count(hosts)
	o := Outcome{
		SomeTLSA: n.hasTLSA > 0,
		SomeNone: n.none > 0,
		TTL:      shortest(mx, hosts),
		Err:      n.firstErr,
	}
	switch {
	case o.SomeTLSA && !mx.Answer.Secure():
		o.State = InsecureMX // 7672 §2.2.1: one such host is enough
	case o.SomeTLSA && (n.usable < n.hasTLSA || n.none > 0 || mx.Omitted > 0):
		o.State = Partial // Full is out of reach
	case o.SomeTLSA && n.addressFailed+n.tlsaFailed > 0:
		o.State = Unknown // Full or Partial
	case o.SomeTLSA:
		o.State = Full
	case n.tlsaFailed > 0:
		o.State, o.Err = Unknown, n.tlsaErr // 7672 §2.1.2
	case n.addressFailed > 0 && n.none == 0:
		o.State = Unknown // no host is left to deliver to
	default:
		// A host whose addresses cannot be looked up is set aside: no client can
		// deliver to it, and an attacker who can block its addresses can divert
		// mail to the other hosts anyway.
		o.State = None
	}
	return o
}

type counts struct {
	hasTLSA, usable, none     int // usable: Full speaks for the host
	addressFailed, tlsaFailed int
	firstErr, tlsaErr         error
}

func count(hosts []Evidence) counts {
	var n counts
	for _, h := range hosts {
		switch {
		case h.Verdict == NoAddress: // takes no part
			continue
		case h.Verdict.None():
			n.none++
			continue
		case h.Verdict.HasTLSA():
			n.hasTLSA++
			if h.Verdict == Usable {
				n.usable++
			}
			continue
		case h.Verdict == AddressFailed:
			n.addressFailed++
		default:
			n.tlsaFailed++
			if n.tlsaErr == nil {
				n.tlsaErr = h.Err
			}
		}
		if n.firstErr == nil {
			n.firstErr = h.Err
		}
	}
	return n
}

// shortest is the smallest TTL of the MX answer and of the hosts.
func shortest(mx MX, hosts []Evidence) time.Duration {
	ttl, known := mx.TTL, mx.Answer != MXNotAsked
	for _, h := range hosts {
		if !known || h.TTL < ttl {
			ttl, known = h.TTL, true
		}
	}
	return ttl
}
