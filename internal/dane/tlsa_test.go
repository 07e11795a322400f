package dane

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/hex"
	"math/big"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// certificate returns a certificate and its public key, both in DER.
func certificate(t testing.TB) (cert, spki []byte) {
	t.Helper()
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"mx.test"}}
	cert, err := x509.CreateCertificate(nil, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	spki, err = x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return cert, spki
}

// BEHAVIOUR §4: which TLSA records are usable.
func TestUsability(t *testing.T) {
	cert, spki := certificate(t)
	b32, b64 := make([]byte, 32), make([]byte, 64)
	for _, test := range []struct {
		name                      string
		usage, selector, matching uint8
		data                      []byte
		want                      string
	}{
		{"DANE-EE SPKI SHA2-256", 3, 1, 1, b32, ""},
		{"DANE-EE Cert SHA2-256", 3, 0, 1, b32, ""},
		{"DANE-TA SPKI SHA2-512", 2, 1, 2, b64, ""},
		{"DANE-TA Cert SHA2-256", 2, 0, 1, b32, ""},
		{"DANE-TA Cert in full", 2, 0, 0, cert, ""},
		{"DANE-EE SPKI in full", 3, 1, 0, spki, ""},
		{"PKIX-TA (7672 §3.1.3)", 0, 1, 1, b32, "usage 0 is not for SMTP (RFC 7672 §3.1.3)"},
		{"PKIX-EE (7672 §3.1.3)", 1, 1, 1, b32, "usage 1 is not for SMTP (RFC 7672 §3.1.3)"},
		{"usage 4", 4, 1, 1, b32, "usage 4 is unknown"},
		{"private usage", 255, 1, 1, b32, "usage 255 is unknown"},
		{"selector 2", 3, 2, 1, b32, "selector 2 is unknown"},
		{"matching type 3", 3, 1, 3, b32, "matching type 3 is unknown"},
		{"SHA2-256 too short", 3, 1, 1, b32[1:], "SHA2-256 digest of 31 bytes, want 32"},
		{"SHA2-256 of the length of SHA2-512", 3, 1, 1, b64, "SHA2-256 digest of 64 bytes, want 32"},
		{"SHA2-512 of the length of SHA2-256", 3, 1, 2, b32, "SHA2-512 digest of 32 bytes, want 64"},
		{"no data", 3, 1, 1, nil, "SHA2-256 digest of 0 bytes, want 32"},
		{"a digest in place of the certificate", 3, 0, 0, b32, "data is not a certificate"},
		{"a public key in place of the certificate", 3, 0, 0, spki, "data is not a certificate"},
		{"a certificate in place of the public key", 3, 1, 0, cert, "data is not a public key"},
		{"a public key and more", 3, 1, 0, append(spki[:len(spki):len(spki)], 0), "data is not a public key"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := read(&dns.TLSA{
				Usage: test.usage, Selector: test.selector, MatchingType: test.matching,
				Certificate: strings.ToUpper(hex.EncodeToString(test.data)),
			})
			if got.Unusable != test.want {
				t.Errorf("got %q want %q", got.Unusable, test.want)
			}
			if got.Usage != test.usage || got.Selector != test.selector || got.MatchingType != test.matching || string(got.Data) != string(test.data) {
				t.Errorf("%+v", got)
			}
		})
	}
	if got := read(&dns.TLSA{Usage: 3, Selector: 1, MatchingType: 1, Certificate: "zz"}); got.Unusable == "" {
		t.Error("data that is not hexadecimal passes")
	}
}

// The digests of no data count as before, and are known for what they are.
func TestDigestOfNothing(t *testing.T) {
	const sha256, sha512 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
		"cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e"
	for _, usage := range []uint8{2, 3} {
		for _, selector := range []uint8{0, 1} {
			for matching, digest := range map[uint8]string{1: sha256, 2: sha512} {
				got := read(&dns.TLSA{Usage: usage, Selector: selector, MatchingType: matching, Certificate: digest})
				if got.Unusable != "" || !got.DigestOfNothing() {
					t.Errorf("%+v", got)
				}
				got.Data[0]++
				if got.DigestOfNothing() {
					t.Errorf("another digest passes for that of nothing: %+v", got)
				}
			}
		}
	}
	if got := read(&dns.TLSA{Usage: 3, Selector: 1, MatchingType: 1, Certificate: sha512}); got.DigestOfNothing() {
		t.Errorf("%+v", got)
	}
}

func FuzzTLSA(f *testing.F) {
	cert, spki := certificate(f)
	for _, data := range [][]byte{nil, make([]byte, 32), cert, spki} {
		f.Add(uint8(3), uint8(1), uint8(0), data)
	}
	f.Fuzz(func(t *testing.T, usage, selector, matching uint8, data []byte) {
		got := read(&dns.TLSA{Usage: usage, Selector: selector, MatchingType: matching, Certificate: hex.EncodeToString(data)})
		if got.Unusable != "" {
			return
		}
		if usage < 2 || usage > 3 || selector > 1 || matching > 2 || matching > 0 && len(data) != 32*int(matching) {
			t.Errorf("usable: %+v", got)
		}
	})
}
