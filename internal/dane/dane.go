// Package dane is the client side of RFC 7672, SMTP security via opportunistic
// DANE TLS: it finds the mail hosts of a domain, their addresses and their TLSA
// records, and reports what DNSSEC proves about them. It caches nothing and
// knows nothing of Postfix's syntax.
//
// # The threat
//
// SMTP between mail servers starts in the clear. A server offers STARTTLS in its
// greeting, so an attacker on the path can delete the offer and read on. He can
// also take the connection over and present a certificate of his own: a sender
// that has no name to hold it against accepts any. And he can forge the MX
// answer, so that mail goes to a host of his with a perfectly valid certificate.
//
// # What DANE does about it
//
// The receiving domain publishes in DNS which certificate or key its mail hosts
// present, and signs its zone with DNSSEC:
//
//	example.com.                IN MX   10 mx.example.com.
//	mx.example.com.             IN A    192.0.2.25
//	_25._tcp.mx.example.com.    IN TLSA 3 1 1 (
//	    8bd1da95272f7fa4ffb24137fc0ed03aae67e5c4d8b3c50734e1050a7920b922 )
//
// The existence of a secure TLSA record is a promise that the host speaks TLS,
// and its content says how to recognise the host. A sender therefore never falls
// back to the clear, and needs no certificate authority. The owner name has the
// port and the "TLSA base domain", which is the MX host, or the end of its alias
// chain (7672 §2.2.3).
//
// The three numbers of a TLSA record (6698 §2.1):
//
//	usage          0 PKIX-TA   1 PKIX-EE   not for SMTP (7672 §3.1.3): they also need
//	                                       a public authority, which senders do not share
//	               2 DANE-TA   the data is about an issuer in the chain; the name in
//	                           the certificate and its dates are checked
//	               3 DANE-EE   the data is about the server's own certificate; neither
//	                           name nor dates matter
//	selector       0 the whole certificate    1 its public key (SubjectPublicKeyInfo)
//	matching type  0 the object itself        1 its SHA2-256    2 its SHA2-512
//
// "3 1 1" is the usual choice: it survives renewal as long as the key stays.
//
// # DNSSEC and the AD bit
//
// All of this rests on signatures that an attacker cannot make. This package
// does not validate them itself: it relies on a validating resolver, which sets
// the AD bit in an answer it has verified ("secure"), omits it for an unsigned
// zone ("insecure"), and answers SERVFAIL for signatures that are wrong
// ("bogus"). An AD bit can be forged between the resolver and here, so it counts
// only where that path is safe, which is loopback by default (7672 §2.1.3; see
// package dnsclient).
//
// A failed lookup is not an absence (7672 §2.1.2). If it were, an attacker who
// blocks the TLSA answer would switch DANE off. So a host whose TLSA lookup
// fails is one to which mail waits.
//
// # dane and dane-only
//
// Postfix asks for TLSA records itself, address by address, when it delivers.
// What it is given for a domain is a level. At "dane" it uses TLSA where a host
// has secure ones and any TLS where a host has none; a host whose records are
// all unusable gets encryption without authentication. At "dane-only" it
// delivers to authenticated hosts only. "dane-only" is right when every host of
// the domain has proved TLSA records and the MX answer that names these hosts is
// secure too ([Full]); it closes the gap through which a record that vanished, or
// an unprotected host, would lower the protection. In every other mixture
// "dane-only" would hold back mail that the domain is able to receive.
package dane

// State is what DNSSEC proves about a destination (behaviour.md §4).
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
	Literal bool   // "[host]" in Postfix: no MX lookup, Domain is the host (7672 §2.2.4)
	Port    uint16 // for "_PORT._tcp."
}

// Result is the outcome of one evaluation: the evidence, and what it amounts to.
type Result struct {
	MX    MX
	Hosts []Host // in order of preference, by name among equals; at most 32
	Outcome
}

// Host is one MX host: the evidence about it, and what the operator may want to
// see of the answers.
type Host struct {
	Evidence
	Implicit  bool     // no MX record: the domain itself (5321 §5.1)
	Addresses []string // at most 32
	Secure    bool     // address answers (and aliases) are all authentic
	Base      string   // TLSA base domain that decided (7672 §2.2.3), empty when none was asked
	TLSA      []TLSA   // the first 100
}

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
