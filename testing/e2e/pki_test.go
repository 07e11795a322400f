//go:build e2e

package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"net"
	"time"
)

// authority is a private certificate authority, trusted by the daemon and by
// the sending Postfix.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  string
}

// keyPair is a certificate with its key as servers read it.
type keyPair struct {
	pem  string // key, then certificate
	spki []byte // for TLSA selector 1
}

func newAuthority() (*authority, error) {
	template := &x509.Certificate{
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		Subject:               pkix.Name{CommonName: "e2e authority"},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	key, cert, err := issue(template, nil)
	if err != nil {
		return nil, err
	}
	return &authority{cert: cert, key: key, pem: encode("CERTIFICATE", cert.Raw)}, nil
}

// certificate issues a certificate for host names; a nil authority signs with
// the certificate's own key, which is enough for DANE-EE (RFC 7672 §3.1.1).
func (a *authority) certificate(names ...string) (keyPair, error) {
	now := time.Now()
	return a.certificateFor(now.Add(-time.Hour), now.Add(24*time.Hour), names...)
}

// certificateFor is the same with a life of its own. A name may be an address.
func (a *authority) certificateFor(begin, end time.Time, names ...string) (keyPair, error) {
	template := &x509.Certificate{
		NotBefore:   begin,
		NotAfter:    end,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	key, cert, err := issue(template, a)
	if err != nil {
		return keyPair{}, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return keyPair{}, err
	}
	return keyPair{
		pem:  encode("PRIVATE KEY", der) + encode("CERTIFICATE", cert.Raw),
		spki: cert.RawSubjectPublicKeyInfo,
	}, nil
}

func issue(template *x509.Certificate, signer *authority) (*ecdsa.PrivateKey, *x509.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return nil, nil, err
	}
	template.SerialNumber = serial
	parent, signingKey := template, key
	if signer != nil {
		parent, signingKey = signer.cert, signer.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signingKey)
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return key, cert, err
}

func encode(block string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: block, Bytes: der}))
}

// certificate reads it back.
func (k keyPair) certificate() (*x509.Certificate, error) {
	_, rest := pem.Decode([]byte(k.pem)) // the key
	block, _ := pem.Decode(rest)
	return x509.ParseCertificate(block.Bytes)
}

// tlsa is the record data "3 1 1 …" of a key (RFC 7672 §3.1).
func (k keyPair) tlsa() string {
	sum := sha256.Sum256(k.spki)
	return "3 1 1 " + hex.EncodeToString(sum[:])
}
