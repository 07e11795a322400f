package check

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"tlspolicyd/cmd/tlspolicyd/internal/audit"
)

// certificateFaults holds a chain against time, name and trust store, each by
// itself: who renews a certificate should hear at once that it also has the
// wrong name. Grades are the caller's.
func (f *Facts) certificateFaults(host string, chain []*x509.Certificate) (faults []audit.Finding) {
	leaf := chain[0]
	at := f.At
	switch {
	case at.After(leaf.NotAfter):
		faults = append(faults, audit.Finding{
			Code: "certificate-expired", Text: "The certificate has ended.", Evidence: certificateText(leaf, f.At),
			Advice: "Renew it and reload the mail server.",
		})
		at = leaf.NotAfter
	case at.Before(leaf.NotBefore):
		faults = append(faults, audit.Finding{
			Code: "certificate-not-yet-valid", Text: "The certificate is not valid yet.", Evidence: "begins " + leaf.NotBefore.UTC().Format(time.RFC3339),
			Advice: "Put the one before it back until then, or look at the clock of whoever issued it.",
		})
		at = leaf.NotBefore
	}
	if leaf.VerifyHostname(host) != nil {
		fault := audit.Finding{
			Code: "certificate-name-mismatch", Text: "The certificate is not for this host.", Evidence: certificateText(leaf, f.At),
			Advice: "Get a certificate for " + host + ".",
		}
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
	out := audit.Finding{
		Code: "certificate-untrusted", Text: "The certificate leads to no trusted authority.",
		Evidence: "issued by " + issuerText(leaf.Issuer.String()) + "; " + oneLine(err.Error()), Advice: "Get one from a public authority.",
	}
	selfSigned := leaf.CheckSignature(leaf.SignatureAlgorithm, leaf.RawTBSCertificate, leaf.Signature) == nil
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	switch {
	case selfSigned:
		out.Text = "The certificate is self-signed."
		out.Evidence = "issued by " + issuerText(leaf.Issuer.String())
	case unknown && len(chain) == 1:
		out.Text = "The certificate leads to no trusted authority; the host sends it alone, so intermediate certificates may be missing."
		out.Advice = "Serve the whole chain (fullchain.pem), not the certificate alone."
	}
	return out
}

// certificateText tells what a certificate is.
func certificateText(c *x509.Certificate, now time.Time) string {
	names := c.DNSNames
	if len(names) == 0 {
		names = []string{"no name"}
	}
	return fmt.Sprintf("certificate for %s by %s, %s", list(names), issuerText(c.Issuer.String()), leftText(c.NotAfter, now))
}
