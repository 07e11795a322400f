package lab

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"strings"
	"sync"
	"time"
)

// Cert is what is wrong, or special, with a host's certificate.
type Cert uint8

const (
	GoodCert    Cert = iota // the CA's, for the host's names
	WrongName               // the CA's, for another name
	Expired                 // the CA's, ended an hour before the world began
	NotYetValid             // the CA's, begins 20 years after the world
	SelfSigned              // for the host's names, by its own key
	Wildcard                // the CA's, for "*." and the parent of the host's name: good (8461 §3.3)
	Bulky                   // the CA's, for another 4,000 names, which take up 200 KiB
	NoSAN                   // the CA's, with the name in the subject alone: not good (6125 §6.4.4)
	Expiring                // the CA's, ends three days after the world began: good until then
)

// lifetime is how long certificates are valid after the world began: longer
// than any test's clock goes.
const lifetime = 10 * 365 * 24 * time.Hour

// authority is the world's certification authority.
type authority struct {
	born time.Time
	key  *ecdsa.PrivateKey
	cert *x509.Certificate

	mu     sync.Mutex
	serial int64
}

func newAuthority(now time.Time) *authority {
	a := &authority{born: now, key: newKey(), serial: 1}
	tmpl := a.template("lab root")
	tmpl.IsCA, tmpl.BasicConstraintsValid, tmpl.KeyUsage = true, true, x509.KeyUsageCertSign
	tmpl.ExtKeyUsage = nil
	der := mustSign(tmpl, tmpl, &a.key.PublicKey, a.key)
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		panic("lab: root certificate: " + err.Error())
	}
	a.cert = cert
	return a
}

// Roots returns a pool with the world's CA.
func (w *World) Roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(w.ca.cert)
	return pool
}

// WriteCA writes the CA's certificate to a file in PEM form.
func (w *World) WriteCA(path string) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.ca.cert.Raw}), 0o644)
}

// issue makes a certificate for names, the first of which is the subject.
func (a *authority) issue(key *ecdsa.PrivateKey, kind Cert, names ...string) *tls.Certificate {
	tmpl := a.template(names[0])
	tmpl.DNSNames = names
	parent, signer := a.cert, a.key
	switch kind {
	case WrongName:
		tmpl.Subject.CommonName = "wrong-name.invalid"
		tmpl.DNSNames = []string{"wrong-name.invalid"}
	case Expired:
		tmpl.NotAfter = a.born.Add(-time.Hour)
	case Expiring:
		tmpl.NotBefore = a.born.Add(-87 * 24 * time.Hour)
		tmpl.NotAfter = a.born.Add(3 * 24 * time.Hour)
	case NotYetValid:
		tmpl.NotBefore = a.born.Add(2 * lifetime)
		tmpl.NotAfter = a.born.Add(3 * lifetime)
	case SelfSigned:
		parent, signer = tmpl, key
	case Wildcard:
		tmpl.DNSNames = []string{"*." + parentName(names[0])}
	case Bulky:
		tmpl.DNSNames = nil
		for i := range 4000 {
			tmpl.DNSNames = append(tmpl.DNSNames, fmt.Sprintf("%s%d.invalid", strings.Repeat("bulky.", 6), i))
		}
	case NoSAN:
		tmpl.DNSNames = nil
	}
	chain := [][]byte{mustSign(tmpl, parent, &key.PublicKey, signer)}
	return &tls.Certificate{Certificate: chain, PrivateKey: key}
}

// issueBelow makes a certificate for names that an intermediate of the CA's has
// signed, with the intermediate beside it or without.
func (a *authority) issueBelow(key *ecdsa.PrivateKey, whole bool, names ...string) *tls.Certificate {
	middle := a.template("lab intermediate")
	middle.IsCA, middle.BasicConstraintsValid, middle.KeyUsage = true, true, x509.KeyUsageCertSign
	middleKey := newKey()
	der := mustSign(middle, a.cert, &middleKey.PublicKey, a.key)
	above, err := x509.ParseCertificate(der)
	if err != nil {
		panic("lab: intermediate certificate: " + err.Error())
	}
	tmpl := a.template(names[0])
	tmpl.DNSNames = names
	chain := [][]byte{mustSign(tmpl, above, &key.PublicKey, middleKey)}
	if whole {
		chain = append(chain, der)
	}
	return &tls.Certificate{Certificate: chain, PrivateKey: key}
}

// serverConfig returns what a host of the world needs for TLS; cert is called
// in each handshake. highest is the highest version, 0 for the best there is.
func serverConfig(highest uint16, cert func() *tls.Certificate) *tls.Config {
	cfg := &tls.Config{
		MinVersion: tls.VersionTLS10, // to show that a client refuses it
		MaxVersion: highest,
		// Tickets would be written after the handshake, to a client that
		// may never read.
		SessionTicketsDisabled: true,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return cert(), nil
		},
	}
	if highest != 0 && highest < tls.VersionTLS12 {
		cfg.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}
	}
	return cfg
}

func (a *authority) template(name string) *x509.Certificate {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.serial++
	return &x509.Certificate{
		SerialNumber: big.NewInt(a.serial),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    a.born.Add(-lifetime),
		NotAfter:     a.born.Add(lifetime),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
}

func mustSign(tmpl, parent *x509.Certificate, pub *ecdsa.PublicKey, key *ecdsa.PrivateKey) []byte {
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, pub, key)
	if err != nil {
		panic("lab: certificate: " + err.Error())
	}
	return der
}

func newKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic("lab: key: " + err.Error())
	}
	return key
}
