//go:build e2e

package e2e

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/smtp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// testKeyChange: an MX host that shows another key than its TLSA record says is
// not sent to (RFC 7672 §2.2).
func testKeyChange(t *testing.T, w *world) {
	wantDelivered(t, w.postfix37.send(t, "a@rolled.signed.test"), "mx.rolled.signed.test", "rolled", "Verified")

	changed, err := selfSigned()
	if err != nil {
		t.Fatal(err)
	}
	if err := write(receiverDir+"/rolled.pem", changed.pem); err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.receiver.run("postfix", "reload"); err != nil {
		t.Fatal(err)
	}
	mustWait(t, func() error { return shows(rolledHost, changed) })

	for _, s := range []*sender{w.postfix37, w.postfix310} {
		o := s.send(t, "b@rolled.signed.test")
		wantDeferred(t, o, "4.7.5", "Server certificate not verified")
		if reason := "no matching DANE TLSA records"; !strings.Contains(o.log, reason) {
			t.Errorf("log has no %q:\n%s", reason, o.log)
		}
	}
}

// shows makes sure that an MX host presents a key after STARTTLS.
func shows(address string, want keyPair) error {
	client, err := smtp.Dial(net.JoinHostPort(address, "25"))
	if err != nil {
		return err
	}
	defer client.Close()
	return client.StartTLS(&tls.Config{
		InsecureSkipVerify: true,
		VerifyPeerCertificate: func(chain [][]byte, _ [][]*x509.Certificate) error {
			cert, err := x509.ParseCertificate(chain[0])
			if err == nil && !bytes.Equal(cert.RawSubjectPublicKeyInfo, want.spki) {
				err = errors.New("the receiving Postfix still shows its old key")
			}
			return err
		},
	})
}

// testOutage: with no DNS at all, and after a crash of the daemon, every policy
// that Postfix has been told about is still there (BEHAVIOUR §6).
func testOutage(t *testing.T, w *world) {
	known := map[string]string{
		"sts.open.test":         "secure match=mx.sts.open.test servername=hostname",
		"dane.signed.test":      "dane-only",
		"both.signed.test":      "dane-only",
		"partial.signed.test":   "dane",
		"halfsts.open.test":     "secure match=mx.dane.signed.test servername=hostname",
		"mismatch.open.test":    "secure match=mx.mismatch.open.test servername=hostname",
		"[mx.dane.signed.test]": "dane-only",
	}
	check := func(t *testing.T) {
		t.Helper()
		for key, want := range known {
			if got := w.postfix37.query(t, w.daemon.table("postfix"), key); got.value != want {
				t.Errorf("%s: got %+v, want %s", key, got, want)
			}
		}
	}
	check(t)
	if err := errors.Join(w.names.unbound.stop(syscall.SIGTERM), w.names.nsd.stop(syscall.SIGTERM)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(w.names.startNSD(), w.names.startUnbound()); err != nil {
			t.Error(err)
		}
	})
	t.Run("without DNS", check)
	t.Run("without DNS, a domain not asked for before", func(t *testing.T) {
		got := w.postfix37.query(t, w.daemon.table("postfix"), "unheard.signed.test")
		if !strings.HasPrefix(got.reason, "temporary error: ") {
			t.Errorf("got %+v, want a temporary error", got)
		}
	})
	t.Run("after SIGKILL, without DNS", func(t *testing.T) {
		if err := errors.Join(w.daemon.crash(), w.daemon.start()); err != nil {
			t.Fatal(err)
		}
		check(t)
	})
}

// testForgery: who controls the DNS of an insecure domain can take the
// announcement of a policy away and send mail elsewhere, and the policy from
// before protects it (RFC 8461 §10), also after a crash of the daemon.
func testForgery(t *testing.T, w *world) {
	const domain = "forged.open.test"
	wantDelivered(t, w.postfix37.send(t, "a@"+domain), "mx."+domain, "good", "Verified")

	if err := w.daemon.crash(); err != nil {
		t.Fatal(err)
	}
	if err := w.web.proc.stop(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		zone := testZone{origin: "open.test", records: openRecords}
		if err := errors.Join(w.names.republish(zone), w.web.start()); err != nil {
			t.Error(err)
		}
	})
	genuine, forged := forgery()
	records := strings.Replace(openRecords, strings.TrimSpace(genuine), forged, 1)
	if records == openRecords {
		t.Fatal("nothing was forged")
	}
	if err := w.names.republish(testZone{origin: "open.test", records: records}); err != nil {
		t.Fatal(err)
	}
	if err := w.daemon.start(); err != nil {
		t.Fatal(err)
	}
	wantDeferred(t, w.postfix37.send(t, "b@"+domain), "4.7.5", "Server certificate not verified")
	wantDeferred(t, w.postfix310.send(t, "c@"+domain), "4.7.5", "Server certificate not verified")
}

// testPolicyChange: an administrator who moves the mail and changes policy and
// id is followed when the TXT record's TTL, of at least 60 s, is over, not when
// max_age is (RFC 8461 §5.1; BEHAVIOUR §6).
func testPolicyChange(t *testing.T, w *world) {
	const domain = "changing.open.test"
	wantDeferred(t, w.postfix37.send(t, "a@"+domain), "4.7.5", "Server certificate not verified")

	if err := enforced(domain, "mx."+domain).publish(); err != nil {
		t.Fatal(err)
	}
	old, changed := `_mta-sts.changing     1   TXT  "v=STSv1; id=1;"`, `_mta-sts.changing 1 TXT "v=STSv1; id=2;"`
	records := strings.Replace(openRecords, old, changed, 1)
	if records == openRecords {
		t.Fatal("nothing was changed")
	}
	if err := w.names.republish(testZone{origin: "open.test", records: records}); err != nil {
		t.Fatal(err)
	}
	want := reply{value: "secure match=mx." + domain + " servername=hostname", found: true}
	err := waitUpTo(3*time.Minute, func() error {
		if got := w.postfix37.query(t, w.daemon.table("postfix"), domain); got != want {
			return fmt.Errorf("got %+v, want %+v", got, want)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	wantDelivered(t, w.postfix37.send(t, "b@"+domain), "mx."+domain, "good", "Verified")
}
