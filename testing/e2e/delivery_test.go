//go:build e2e

package e2e

import (
	"slices"
	"strings"
	"testing"
)

// testMail sends real messages through Postfix of Debian 12.
func testMail(t *testing.T, w *world) {
	s := w.postfix37
	t.Run("policy, right certificate", func(t *testing.T) {
		wantDelivered(t, s.send(t, "a@sts.open.test"), "mx.sts.open.test", "good", "Verified")
	})
	t.Run("policy, certificate with another name", func(t *testing.T) {
		wantDeferred(t, s.send(t, "a@mismatch.open.test"), "4.7.5", "Server certificate not verified")
	})
	t.Run("policy, no STARTTLS", func(t *testing.T) {
		wantDeferred(t, s.send(t, "a@plaintext.open.test"), "4.7.4", "TLS is required, but was not offered")
	})
	t.Run("policy, MX host that it does not name", func(t *testing.T) {
		wantDeferred(t, s.send(t, "a@unlisted.open.test"), "4.7.5", "Server certificate not verified")
	})
	t.Run("policy in testing mode, certificate with another name", func(t *testing.T) {
		wantDelivered(t, s.send(t, "a@testing.open.test"), "mx.testing.open.test", "mismatch", "Trusted")
	})
	t.Run("no policy, no STARTTLS", func(t *testing.T) {
		wantDelivered(t, s.send(t, "a@absent.open.test"), "mx.absent.open.test", "plain", "")
	})
	t.Run("policy that announces fields like attributes", func(t *testing.T) {
		wantDelivered(t, s.send(t, "a@hostile.open.test"), "mx.hostile.open.test", "good", "Verified")
	})
	t.Run("DANE, right key", func(t *testing.T) {
		wantDelivered(t, s.send(t, "a@dane.signed.test"), "mx.dane.signed.test", "dane", "Verified")
	})
	t.Run("DANE, smart host", func(t *testing.T) {
		wantDelivered(t, s.send(t, "a@smarthost.invalid"), "mx.dane.signed.test", "dane", "Verified")
	})
	t.Run("DANE, bogus TLSA record", func(t *testing.T) {
		wantDeferred(t, s.send(t, "a@tampered.signed.test"), "4.7.5", "client TLS configuration problem")
	})
	t.Run("expired signatures", func(t *testing.T) {
		// Postfix's own MX lookup fails before it could ask for a policy.
		wantDeferred(t, s.send(t, "a@expired.test"), "4.4.3", "name=expired.test type=MX")
	})
}

// testWildcardDepth: a pattern covers one label (RFC 8461 §4.1). In "match="
// Postfix lets it cover any number; "mx_host_pattern" is what holds it to one,
// and only Postfix 3.10 and later know that.
func testWildcardDepth(t *testing.T, w *world) {
	t.Run("map postfix", func(t *testing.T) {
		o := w.postfix37.send(t, "a@deep.open.test")
		wantDelivered(t, o, "a.b.deep.open.test", "good", "Verified")
	})
	t.Run("map postfix-tlsrpt", func(t *testing.T) {
		o := w.postfix310.send(t, "a@deep.open.test")
		if o.status != "deferred" {
			t.Fatalf("status=%s (%s), want deferred", o.status, o.text)
		}
		want := "MX name 'a.b.deep.open.test' does not match STS MX pattern for 'deep.open.test'"
		if !strings.Contains(o.log, want) {
			t.Errorf("log has no %q:\n%s", want, o.log)
		}
		if _, err := received(o.id); err == nil {
			t.Error("the message was received")
		}
	})
}

// testMailWithTLSRPT sends real messages through Postfix of Debian 13, which
// gets the TLSRPT attributes and reports the policy (RFC 8460 §4.4).
func testMailWithTLSRPT(t *testing.T, w *world) {
	s := w.postfix310
	t.Run("policy kept", func(t *testing.T) {
		w.reports.drain(t)
		o := s.send(t, "a@wildcard.open.test")
		wantDelivered(t, o, "mx.wildcard.open.test", "good", "Verified")
		wantNoWarning(t, o)
		want := "TLSRPT: status=success, domain=wildcard.open.test, receiving_mx=mx.wildcard.open.test"
		if !strings.Contains(o.log, want) {
			t.Errorf("log has no %q:\n%s", want, o.log)
		}
		p := w.reports.next(t, "wildcard.open.test").Policies[0]
		if p.Failed != 0 || p.Type != reportSTS || p.Domain != "wildcard.open.test" {
			t.Errorf("got %+v, want a success under the domain's MTA-STS policy", p)
		}
		wantEqual(t, "policy strings", p.Strings, []string{
			"version: STSv1", "mode: enforce", "mx: *.wildcard.open.test",
			"mx: MX2.wildcard.open.test", "max_age: 604800",
		})
		wantEqual(t, "MX host patterns", p.MXHosts, []string{"*.wildcard.open.test", "mx2.wildcard.open.test"})
	})
	t.Run("policy broken", func(t *testing.T) {
		w.reports.drain(t)
		o := s.send(t, "a@mismatch.open.test")
		wantDeferred(t, o, "4.7.5", "Server certificate not verified")
		p := w.reports.next(t, "mismatch.open.test").Policies[0]
		if p.Failed == 0 || p.Type != reportSTS || p.Details[0].Code != reportHostMismatch {
			t.Errorf("got %+v, want a host mismatch under the MTA-STS policy", p)
		}
	})
	t.Run("policy with fields that look like attributes", func(t *testing.T) {
		w.reports.drain(t)
		o := s.send(t, "a@hostile.open.test")
		wantDelivered(t, o, "mx.hostile.open.test", "good", "Verified")
		wantNoWarning(t, o)
		p := w.reports.next(t, "hostile.open.test").Policies[0]
		wantEqual(t, "policy strings", p.Strings, []string{
			"version: STSv1", "mode: enforce", "mx: mx.hostile.open.test", "max_age: 604800",
		})
	})
	t.Run("MX host that the policy does not name", func(t *testing.T) {
		o := s.send(t, "a@unlisted.open.test")
		if o.status != "deferred" || !strings.Contains(o.log, "does not match STS MX pattern") {
			t.Fatalf("status=%s (%s), want it deferred because of the MX pattern\n%s", o.status, o.text, o.log)
		}
	})
	t.Run("DANE", func(t *testing.T) {
		w.reports.drain(t)
		o := s.send(t, "a@dane.signed.test")
		wantDelivered(t, o, "mx.dane.signed.test", "dane", "Verified")
		wantNoWarning(t, o)
		if p := w.reports.next(t, "dane.signed.test").Policies[0]; p.Failed != 0 || p.Type != reportTLSA {
			t.Errorf("got %+v, want a success under the TLSA records", p)
		}
	})
	t.Run("no policy", func(t *testing.T) {
		o := s.send(t, "a@absent.open.test")
		wantDelivered(t, o, "mx.absent.open.test", "plain", "")
		wantNoWarning(t, o)
	})
}

func wantNoWarning(t *testing.T, o outcome) {
	t.Helper()
	for line := range strings.Lines(o.log) {
		if strings.Contains(line, "warning:") {
			t.Errorf("Postfix warns: %s", line)
		}
	}
}

func wantEqual(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}
