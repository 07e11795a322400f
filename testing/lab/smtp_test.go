package lab_test

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"io"
	"net"
	"net/netip"
	"net/smtp"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"tlspolicyd/testing/lab"
)

// deliver sends a message, over TLS where the host offers it.
func deliver(t *testing.T, w *lab.World, nc net.Conn, name string) error {
	t.Helper()
	c, err := smtp.NewClient(nc, name)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if ok, _ := c.Extension("STARTTLS"); ok {
		if err := c.StartTLS(&tls.Config{RootCAs: w.Roots(), ServerName: name}); err != nil {
			return err
		}
		if state, _ := c.TLSConnectionState(); !published(t, w, name, state.PeerCertificates[0].RawSubjectPublicKeyInfo) {
			t.Errorf("%s: TLSA does not match the key", name)
		}
	}
	if err := c.Mail("a@example.test"); err != nil {
		return err
	}
	if err := c.Rcpt("b@example.test"); err != nil {
		return err
	}
	body, err := c.Data()
	if err != nil {
		return err
	}
	io.WriteString(body, "Subject: x\r\n\r\n.dot\r\n")
	if err := body.Close(); err != nil {
		return err
	}
	return c.Quit()
}

// published reports whether a public key is the one in the TLSA record.
func published(t *testing.T, w *lab.World, name string, spki []byte) bool {
	t.Helper()
	sum := sha256.Sum256(spki)
	for _, rr := range ask(t, w, "_25._tcp."+name, dns.TypeTLSA).Answer {
		if r, ok := rr.(*dns.TLSA); ok && r.Usage == 3 && r.Selector == 1 && r.MatchingType == 1 {
			return r.Certificate == hex.EncodeToString(sum[:])
		}
	}
	return false
}

func dialMX(t *testing.T, w *lab.World, h *lab.SMTPHost) net.Conn {
	t.Helper()
	nc, err := w.Dial(t.Context(), "tcp", netip.AddrPortFrom(h.Addr(), 25).String())
	if err != nil {
		t.Fatal(err)
	}
	return nc
}

func TestMailOverSTARTTLS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := lab.New()
		defer w.Close()
		h := w.SMTPHost("mx.example.test", lab.SMTP{})
		w.TLSA("mx.example.test", 25)
		if err := deliver(t, w, dialMX(t, w, h), "mx.example.test"); err != nil {
			t.Fatal(err)
		}
		want := []lab.Mail{{
			From: "<a@example.test>", To: []string{"<b@example.test>"}, Size: len("Subject: x\n\n.dot\n"),
			TLS: tls.VersionTLS13, SNI: "mx.example.test",
		}}
		if d := cmp.Diff(want, h.Mail()); d != "" {
			t.Error(d)
		}
	})
}

func TestMailWithoutSTARTTLS(t *testing.T) {
	w := newWorld(t)
	h := w.SMTPHost("mx.example.test", lab.SMTP{NoSTARTTLS: true})
	if err := deliver(t, w, dialMX(t, w, h), "mx.example.test"); err != nil {
		t.Fatal(err)
	}
	if m := h.Mail(); len(m) != 1 || m[0].TLS != 0 {
		t.Errorf("%+v", m)
	}
}

func TestMailHostWithAnotherCertificate(t *testing.T) {
	w := newWorld(t)
	h := w.SMTPHost("mx.example.test", lab.SMTP{Cert: lab.WrongName})
	if err := deliver(t, w, dialMX(t, w, h), "mx.example.test"); err == nil {
		t.Error("taken")
	}
}

func TestNewKeyNoLongerMatchesTLSA(t *testing.T) {
	w := newWorld(t)
	h := w.SMTPHost("mx.example.test", lab.SMTP{})
	old := w.TLSA("mx.example.test", 25)
	w.NewKey("mx.example.test")
	c, err := smtp.NewClient(dialMX(t, w, h), "mx.example.test")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.StartTLS(&tls.Config{RootCAs: w.Roots(), ServerName: "mx.example.test"}); err != nil {
		t.Fatal(err)
	}
	state, _ := c.TLSConnectionState()
	if published(t, w, "mx.example.test", state.PeerCertificates[0].RawSubjectPublicKeyInfo) {
		t.Error("the old record matches the new key")
	}
	if w.TLSA("mx.example.test", 25) == old {
		t.Error("the record did not change")
	}
}

func TestMailHostOnARealSocket(t *testing.T) {
	w := newWorld(t)
	h := w.SMTPHost("mx.example.test", lab.SMTP{})
	w.TLSA("mx.example.test", 25)
	addr, err := h.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nc, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	if err := deliver(t, w, nc, "mx.example.test"); err != nil {
		t.Fatal(err)
	}
	if len(h.Mail()) != 1 {
		t.Errorf("%+v", h.Mail())
	}
}

func TestMailHostThatRefuses(t *testing.T) {
	w := newWorld(t)
	h := w.SMTPHost("mx.example.test", lab.SMTP{Refuse: true})
	if _, err := w.Dial(t.Context(), "tcp", netip.AddrPortFrom(h.Addr(), 25).String()); err == nil {
		t.Error("connected")
	}
}
