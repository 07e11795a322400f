package dane_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"strings"
	"testing"
	"time"

	"tlspolicyd/internal/dane"
)

// signer is a certificate and its key.
type signer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// issue signs a certificate; without a parent it is self-signed.
func issue(t *testing.T, parent *signer, ca bool, end time.Time, names ...string) *signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: serial.String()}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: end,
		IsCA: ca, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	if ca {
		template.KeyUsage = x509.KeyUsageCertSign
	}
	above, by := template, key
	if parent != nil {
		above, by = parent.cert, parent.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, above, key.Public(), by)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &signer{cert, key}
}

// record makes TLSA data of a certificate (6698 §2.1).
func record(usage, selector, matching uint8, cert *x509.Certificate) dane.TLSA {
	data := cert.Raw
	if selector == 1 {
		data = cert.RawSubjectPublicKeyInfo
	}
	switch matching {
	case 1:
		sum := sha256.Sum256(data)
		data = sum[:]
	case 2:
		sum := sha512.Sum512(data)
		data = sum[:]
	}
	return dane.TLSA{Usage: usage, Selector: selector, MatchingType: matching, Data: data}
}

func TestMatchChain(t *testing.T) {
	later := time.Now().Add(time.Hour)
	root := issue(t, nil, true, later)
	middle := issue(t, root, true, later)
	leaf := issue(t, middle, false, later, "mx.a.test")
	ended := issue(t, middle, false, time.Now().Add(-time.Minute), "mx.a.test")
	other := issue(t, middle, false, later, "other.test")
	stranger := issue(t, nil, true, later, "mx.a.test")

	chain := func(all ...*signer) (out []*x509.Certificate) {
		for _, s := range all {
			out = append(out, s.cert)
		}
		return out
	}
	unusable := record(3, 1, 1, leaf.cert)
	unusable.Unusable = "whatever"
	broken512 := record(3, 1, 2, stranger.cert)
	broken512.Unusable = "whatever"
	one := func(r dane.TLSA) []dane.TLSA { return []dane.TLSA{r} }
	whole := chain(leaf, middle, root)
	for _, test := range []struct {
		situation string
		records   []dane.TLSA
		chain     []*x509.Certificate
		want      string // part of the reason; "" for a match
		depth     int
	}{
		{"3 0 0", one(record(3, 0, 0, leaf.cert)), whole, "", 0},
		{"3 0 1", one(record(3, 0, 1, leaf.cert)), whole, "", 0},
		{"3 0 2", one(record(3, 0, 2, leaf.cert)), whole, "", 0},
		{"3 1 0", one(record(3, 1, 0, leaf.cert)), whole, "", 0},
		{"3 1 1", one(record(3, 1, 1, leaf.cert)), whole, "", 0},
		{"3 1 2", one(record(3, 1, 2, leaf.cert)), whole, "", 0},
		{"usage 3: no name and no date count (§3.1.1)", one(record(3, 1, 1, ended.cert)), chain(ended), "", 0},
		{"usage 3 is about the server's own certificate", one(record(3, 1, 1, middle.cert)), whole, "matches the TLSA record", 0},
		{"one of two records, as in a key change (7671 §8.1)", []dane.TLSA{record(3, 1, 1, stranger.cert), record(3, 1, 1, leaf.cert)}, whole, "", 0},
		{"a SHA2-256 digest beside a SHA2-512 digest that is wrong (7671 §9)", []dane.TLSA{record(3, 1, 1, leaf.cert), record(3, 1, 2, stranger.cert)}, whole, "SHA2-256 beside it does not", 0},
		{"the SHA2-512 digest decides", []dane.TLSA{record(3, 1, 1, stranger.cert), record(3, 1, 2, leaf.cert)}, whole, "", 0},
		{"another selector is another kind of object", []dane.TLSA{record(3, 1, 1, leaf.cert), record(3, 0, 2, stranger.cert)}, whole, "", 0},
		{"another usage as well", []dane.TLSA{record(3, 1, 1, leaf.cert), record(2, 1, 2, stranger.cert)}, whole, "", 0},
		{"full data stands beside a digest", []dane.TLSA{record(3, 1, 0, leaf.cert), record(3, 1, 2, stranger.cert)}, whole, "", 0},
		{"a SHA2-512 digest that is not usable outdoes none", []dane.TLSA{record(3, 1, 1, leaf.cert), broken512}, whole, "", 0},
		{"another key", []dane.TLSA{record(3, 1, 1, stranger.cert), record(3, 1, 1, root.cert)}, whole, "any of 2 TLSA records", 0},
		{"not usable", one(unusable), whole, "no TLSA record is usable", 0},
		{"nothing presented", one(record(3, 1, 1, leaf.cert)), nil, "no certificate was presented", 0},

		{"2 0 1, root", one(record(2, 0, 1, root.cert)), whole, "", 2},
		{"2 1 1, intermediate", one(record(2, 1, 1, middle.cert)), whole, "", 1},
		{"2 1 2, an intermediate is enough", one(record(2, 1, 2, middle.cert)), chain(leaf, middle), "", 1},
		{"usage 2 by digest: the anchor must be sent (7672 §3.1.2)", one(record(2, 1, 1, root.cert)), chain(leaf, middle), "matches the TLSA record", 0},
		{"2 0 0: the record itself is the anchor", one(record(2, 0, 0, root.cert)), chain(leaf, middle), "", -1},
		{"2 1 0: so is a key", one(record(2, 1, 0, root.cert)), chain(leaf, middle), "", -1},
		{"2 1 0, of the direct issuer", one(record(2, 1, 0, middle.cert)), chain(leaf), "", -1},
		{"2 0 0, another anchor", one(record(2, 0, 0, stranger.cert)), chain(leaf, middle), "matches the TLSA record", 0},
		{"2 1 0, another key", one(record(2, 1, 0, stranger.cert)), chain(leaf, middle), "matches the TLSA record", 0},
		{"usage 2: the date counts", one(record(2, 0, 1, root.cert)), chain(ended, middle, root), "not valid at this time", 0},
		{"usage 2: the name counts", one(record(2, 0, 1, root.cert)), chain(other, middle, root), "other names", 0},
		{"usage 2: an anchor that did not sign", one(record(2, 0, 1, stranger.cert)), chain(leaf, middle, stranger), "does not lead to it", 0},
		{"usage 2 is not about the server's own certificate", one(record(2, 0, 1, stranger.cert)), chain(stranger), "matches the TLSA record", 0},
	} {
		t.Run(test.situation, func(t *testing.T) {
			got := dane.MatchChain(test.records, test.chain, []string{"", "mx.a.test."}, time.Now())
			if got.OK != (test.want == "") || !strings.Contains(got.Reason, test.want) || got.OK && got.Depth != test.depth {
				t.Errorf("got %+v, want reason %q, depth %d", got, test.want, test.depth)
			}
		})
	}
}
