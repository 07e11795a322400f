package check

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"tlspolicyd/cmd/tlspolicyd/internal/audit"
)

// certificateFaults checks time, name and authority of a chain as WebPKI does
// (RFC 8461 §4.2), each by itself: the operator who renews a certificate should
// learn at once that it also has the wrong name. Grades are the caller's.
func (f *Facts) certificateFaults(host string, chain []*x509.Certificate) (faults []audit.Finding) {
	leaf := chain[0]
	at := f.At
	switch {
	case at.After(leaf.NotAfter):
		faults = append(faults, audit.Failed("mx-certificate-expired", "", "The certificate has expired.", certificateText(leaf, f.At), "Renew it and reload the mail server.", ""))
		at = leaf.NotAfter
	case at.Before(leaf.NotBefore):
		faults = append(faults, audit.Failed("mx-certificate-not-yet-valid", "", "The certificate is not valid yet.", "begins "+leaf.NotBefore.UTC().Format(time.RFC3339),
			"Use the previous one until then, or check the clock of the host that issued it.", ""))
		at = leaf.NotBefore
	}
	if leaf.VerifyHostname(host) != nil {
		fault := audit.Failed("mx-certificate-name-mismatch", "", "The certificate is not for this host.", certificateText(leaf, f.At), "Get a certificate for "+host+".", "")
		if len(leaf.DNSNames) == 0 {
			fault.Text = "The certificate has no subjectAltName; the name in its subject does not count (RFC 6125 section 6.4.4)."
		}
		faults = append(faults, fault)
	}
	opts := x509.VerifyOptions{Roots: f.Roots, Intermediates: x509.NewCertPool(), CurrentTime: at}
	for _, c := range chain[1:] {
		opts.Intermediates.AddCert(c)
	}
	_, err := leaf.Verify(opts)
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired && len(faults) > 0 && !at.Equal(f.At) {
		return faults // of another certificate of the chain, at a time that is not now
	}
	if err != nil {
		faults = append(faults, untrusted(chain, err))
	}
	return faults
}

func untrusted(chain []*x509.Certificate, err error) audit.Finding {
	leaf := chain[0]
	issuer := "issued by " + issuerText(leaf.Issuer.String())
	out := audit.Failed("mx-certificate-untrusted", "", "The certificate is not signed by a trusted authority.", issuer+"; "+oneLine(err.Error()), "Get one from a public authority.", "")
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	switch {
	case leaf.CheckSignature(leaf.SignatureAlgorithm, leaf.RawTBSCertificate, leaf.Signature) == nil:
		out.Text, out.Evidence = "The certificate is self-signed.", issuer
	case unknown && len(chain) == 1:
		out.Text = "The certificate is not signed by a trusted authority; the host sends it alone, so intermediate certificates may be missing."
		out.Advice = "Serve the whole chain (fullchain.pem), not the certificate alone."
	}
	return out
}

// certificateText describes a certificate.
func certificateText(c *x509.Certificate, now time.Time) string {
	names := c.DNSNames
	if len(names) == 0 {
		names = []string{"no name"}
	}
	return fmt.Sprintf("certificate for %s by %s, %s", list(names), issuerText(c.Issuer.String()), leftText(c.NotAfter, now))
}
