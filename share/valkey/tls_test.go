package valkey

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tlspolicyd/share"
)

// certificate makes a key and a certificate for localhost, of ca or of itself.
func certificate(t *testing.T, name string, ca *tls.Certificate) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: ca == nil, BasicConstraintsValid: true,
	}
	parent, signer := template, any(key)
	if ca != nil {
		parent, signer = ca.Leaf, ca.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func writePEM(t *testing.T, dir, name, kind string, der []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTLS(t *testing.T) {
	ca, stranger, dir, port := certificate(t, "CA", nil), certificate(t, "another CA", nil), t.TempDir(), freePort(t)
	own, client := certificate(t, "server", &ca), certificate(t, "client", &ca)
	keyDER, err := x509.MarshalPKCS8PrivateKey(own.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	s := startServer(t, "--tls-port", port, "--bind", "127.0.0.1", "--tls-auth-clients", "yes",
		"--tls-cert-file", writePEM(t, dir, "cert", "CERTIFICATE", own.Certificate[0]), "--tls-key-file", writePEM(t, dir, "key", "PRIVATE KEY", keyDER),
		"--tls-ca-cert-file", writePEM(t, dir, "ca", "CERTIFICATE", ca.Certificate[0]))
	pool := func(c tls.Certificate) *x509.CertPool {
		p := x509.NewCertPool()
		p.AddCert(c.Leaf)
		return p
	}
	for name, tt := range map[string]struct {
		host  string
		tls   *tls.Config
		works bool
		want  string // of the error
	}{
		"right":                 {"localhost", &tls.Config{RootCAs: pool(ca), Certificates: []tls.Certificate{client}}, true, ""},
		"another authority":     {"localhost", &tls.Config{RootCAs: pool(stranger), Certificates: []tls.Certificate{client}}, false, "unknown authority"},
		"another name":          {"127.0.0.1", &tls.Config{RootCAs: pool(ca), Certificates: []tls.Certificate{client}}, false, "cannot validate certificate for 127.0.0.1"},
		"no client certificate": {"localhost", &tls.Config{RootCAs: pool(ca)}, false, ""}, // a reset, or the alert,
		"without TLS":           {"localhost", nil, false, ""},
	} {
		c := join(t, Engine{Network: "tcp", Hosts: []string{tt.host + ":" + port}}, "a.test", Settings{Keys: key, Login: Login{TLS: tt.tls}}, discards)
		_, err := c.Ask(t.Context(), "example.test")
		if err == nil || tt.works != errors.Is(err, share.ErrNone) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
		if tt.works {
			offer(t, s, c, "example.test")
		}
	}
}
