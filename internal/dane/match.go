package dane

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"fmt"
	"strings"
	"time"
)

// Match is how the certificates that a server presents compare with its TLSA
// records.
type Match struct {
	OK     bool
	Record TLSA   // that matched, when OK
	Depth  int    // of the certificate that it matched: 0 is the server's own; -1: an anchor that was not sent
	Reason string // why there is no match, one line of printable text
}

// MatchChain compares a chain, the server's own certificate first, with TLSA
// records (7671 §5, 7672 §3). names are the reference identifiers: the host,
// its TLSA base domain, the mail domain (7672 §3.2.2). Records that cannot be
// used for SMTP match nothing.
//
// With usage 3 neither names nor validity matter (7672 §3.1.1). With usage 2
// the chain has to lead to the anchor, be valid now and carry one of the names
// (7672 §3.1.2). Of digests of one kind of object only the strongest that is
// published counts (7671 §9). The first 16 records and 10 certificates are compared:
// with more, a hostile domain could keep this busy for long.
func MatchChain(records []TLSA, chain []*x509.Certificate, names []string, now time.Time) Match {
	if len(chain) == 0 {
		return Match{Reason: "no certificate was presented"}
	}
	records = records[:min(len(records), 16)]
	chain = chain[:min(len(chain), 10)]
	usable := 0
	reason, weaker := "", false
	for _, r := range records {
		if r.Unusable != "" {
			continue
		}
		usable++
		if r.outdone(records) {
			weaker = true
			continue
		}
		if r.Usage == 3 {
			if r.covers(chain[0]) {
				return Match{OK: true, Record: r}
			}
			continue
		}
		depth, why := r.anchors(chain, names, now)
		if why == "" {
			return Match{OK: true, Record: r, Depth: depth}
		}
		if why != noAnchor {
			reason = why
		}
	}
	switch {
	case usable == 0:
		reason = "no TLSA record is usable"
	case reason == "" && weaker:
		reason = "no certificate of the chain matches the TLSA records that count: where there is a SHA2-512 digest, SHA2-256 beside it does not (RFC 7671 section 9)"
	case reason == "":
		reason = fmt.Sprintf("no certificate of the chain matches any of %d TLSA records", usable)
		if usable == 1 {
			reason = "no certificate of the chain matches the TLSA record"
		}
	}
	return Match{Reason: reason}
}

// outdone reports whether a stronger digest of the same kind of object is
// published, so that clients ignore this one (7671 §9), as Postfix does by way of
// OpenSSL. Full data is never outdone.
func (t TLSA) outdone(records []TLSA) bool {
	for _, other := range records {
		if other.Unusable == "" && other.Usage == t.Usage && other.Selector == t.Selector &&
			t.MatchingType == 1 && other.MatchingType == 2 {
			return true
		}
	}
	return false
}

// covers reports whether the record is about this certificate (6698 §2.1).
func (t TLSA) covers(cert *x509.Certificate) bool {
	object := cert.Raw
	if t.Selector == 1 {
		object = cert.RawSubjectPublicKeyInfo
	}
	switch t.MatchingType {
	case 0:
		return bytes.Equal(object, t.Data)
	case 1:
		sum := sha256.Sum256(object)
		return bytes.Equal(sum[:], t.Data)
	case 2:
		sum := sha512.Sum512(object)
		return bytes.Equal(sum[:], t.Data)
	}
	return false
}

const noAnchor = "no trust anchor"

// anchors looks for the record's trust anchor above the server's own
// certificate. It returns why the chain is not good under it, noAnchor when the
// record is about no certificate of the chain.
func (t TLSA) anchors(chain []*x509.Certificate, names []string, now time.Time) (depth int, why string) {
	why = noAnchor
	for i, cert := range chain[1:] {
		if t.covers(cert) {
			if why = leads(chain, cert, names, now); why == "" {
				return i + 1, ""
			}
		}
	}
	if why != noAnchor || t.MatchingType != 0 {
		return 0, why
	}
	// A full certificate or key in the record is an anchor by itself; the server
	// need not send it (7671 §5.2).
	if t.Selector == 0 {
		if anchor, err := x509.ParseCertificate(t.Data); err == nil && issued(anchor, chain) {
			return -1, leads(chain, anchor, names, now)
		}
		return 0, noAnchor
	}
	key, err := x509.ParsePKIXPublicKey(t.Data)
	if err != nil {
		return 0, noAnchor
	}
	anchor := &x509.Certificate{PublicKey: key}
	for _, cert := range chain {
		if anchor.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature) == nil {
			return -1, leads(chain, cert, names, now)
		}
	}
	return 0, noAnchor
}

// issued reports whether an anchor has signed one of the certificates.
func issued(anchor *x509.Certificate, chain []*x509.Certificate) bool {
	for _, cert := range chain {
		if cert.CheckSignatureFrom(anchor) == nil {
			return true
		}
	}
	return false
}

// leads says why the server's certificate does not lead to an anchor.
func leads(chain []*x509.Certificate, anchor *x509.Certificate, names []string, now time.Time) string {
	opts := x509.VerifyOptions{
		Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}
	opts.Roots.AddCert(anchor)
	for _, cert := range chain[1:] {
		opts.Intermediates.AddCert(cert)
	}
	leaf := chain[0]
	if _, err := leaf.Verify(opts); err != nil {
		if invalid, ok := err.(x509.CertificateInvalidError); ok && invalid.Reason == x509.Expired {
			return "a TLSA record names the issuer, but the certificate is not valid at this time"
		}
		return "a TLSA record names a certificate of the chain, but the server's own does not lead to it"
	}
	for _, name := range names {
		if name != "" && leaf.VerifyHostname(strings.TrimSuffix(name, ".")) == nil {
			return ""
		}
	}
	return "a TLSA record names the issuer, but the certificate is for other names (RFC 7672 section 3.1.2)"
}
