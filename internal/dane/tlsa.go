package dane

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"fmt"

	"github.com/miekg/dns"
)

// read reads a TLSA record and decides whether an SMTP client can use it.
func read(rr *dns.TLSA) TLSA {
	t := TLSA{Usage: rr.Usage, Selector: rr.Selector, MatchingType: rr.MatchingType}
	data, err := hex.DecodeString(rr.Certificate)
	if err != nil {
		t.Unusable = "data is not hexadecimal"
		return t
	}
	t.Data = data
	t.Unusable = t.reason()
	return t
}

// reason returns why the record cannot be used, or "" when it can.
func (t TLSA) reason() string {
	switch t.Usage {
	case 2, 3: // DANE-TA, DANE-EE
	case 0, 1:
		return fmt.Sprintf("usage %d is not for SMTP (RFC 7672 §3.1.3)", t.Usage)
	default:
		return fmt.Sprintf("usage %d is unknown", t.Usage)
	}
	if t.Selector > 1 { // 6698 §2.1.2: Cert, SPKI
		return fmt.Sprintf("selector %d is unknown", t.Selector)
	}
	switch t.MatchingType { // 6698 §2.1.3
	case 0:
		return t.fullReason()
	case 1:
		return digestReason("SHA2-256", sha256.Size, len(t.Data))
	case 2:
		return digestReason("SHA2-512", sha512.Size, len(t.Data))
	}
	return fmt.Sprintf("matching type %d is unknown", t.MatchingType)
}

// DigestOfNothing reports whether the data is the digest of no bytes at all, which
// is what sha256sum prints when the command before it in a pipe fails; public
// how-tos have it. Such a record is usable by 7672 §3.1, but no certificate
// matches it.
func (t TLSA) DigestOfNothing() bool {
	switch t.MatchingType {
	case 1:
		nothing := sha256.Sum256(nil)
		return bytes.Equal(t.Data, nothing[:])
	case 2:
		nothing := sha512.Sum512(nil)
		return bytes.Equal(t.Data, nothing[:])
	}
	return false
}

func digestReason(name string, want, got int) string {
	if got == want {
		return ""
	}
	return fmt.Sprintf("%s digest of %d bytes, want %d", name, got, want)
}

// fullReason is for matching type 0, where the data is the object itself.
func (t TLSA) fullReason() string {
	if t.Selector == 0 {
		if _, err := x509.ParseCertificate(t.Data); err != nil {
			return "data is not a certificate"
		}
		return ""
	}
	if _, err := x509.ParsePKIXPublicKey(t.Data); err != nil {
		return "data is not a public key"
	}
	return ""
}
