//go:build e2e

package e2e

import (
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// testResolver checks the stage itself: that Unbound says secure, insecure and
// bogus where the tests below rely on it.
func testResolver(t *testing.T, w *world) {
	tests := []struct {
		name  string
		qtype uint16
		rcode int
		ad    bool
	}{
		{"sts.open.test", dns.TypeMX, dns.RcodeSuccess, false},
		{"mx.sts.open.test", dns.TypeAAAA, dns.RcodeSuccess, false},
		{"dane.signed.test", dns.TypeMX, dns.RcodeSuccess, true},
		{"_25._tcp.mx.dane.signed.test", dns.TypeTLSA, dns.RcodeSuccess, true},
		{"_25._tcp.plain.signed.test", dns.TypeTLSA, dns.RcodeNameError, true},
		{"mx.tampered.signed.test", dns.TypeA, dns.RcodeSuccess, true},
		{"_25._tcp.mx.tampered.signed.test", dns.TypeTLSA, dns.RcodeServerFailure, false},
		{"expired.test", dns.TypeMX, dns.RcodeServerFailure, false},
	}
	for _, test := range tests {
		reply, err := ask(resolverAddr, test.name, test.qtype)
		if err != nil {
			t.Fatal(err)
		}
		if reply.Rcode != test.rcode || reply.AuthenticatedData != test.ad {
			t.Errorf("%s %s: %s, AD %t, want %s, AD %t", test.name, dns.TypeToString[test.qtype],
				dns.RcodeToString[reply.Rcode], reply.AuthenticatedData, dns.RcodeToString[test.rcode], test.ad)
		}
	}
}

// testReplies asks with postmap -q for every kind of domain (BEHAVIOUR §2, §5).
func testReplies(t *testing.T, w *world) {
	ok := func(value string) reply { return reply{value: value, found: true} }
	notFound := reply{}
	tests := []struct {
		situation, key string
		want           reply
	}{
		{"policy in enforce mode", "sts.open.test", ok("secure match=mx.sts.open.test servername=hostname")},
		{"upper case", "STS.Open.Test", ok("secure match=mx.sts.open.test servername=hostname")},
		{"wildcard pattern", "wildcard.open.test", ok(
			"secure match=.wildcard.open.test:mx2.wildcard.open.test servername=hostname")},
		{"policy in testing mode", "testing.open.test", notFound},
		{"no policy", "absent.open.test", notFound},
		{"no MX record", "nomx.open.test", notFound},
		{"null MX", "null.open.test", notFound},
		{"no such domain", "nowhere.open.test", notFound},
		{"policy host with another name in its certificate", "wrongcert.open.test", notFound},
		{"policy host that redirects", "redirect.open.test", notFound},
		{"policy with fields that look like attributes", "hostile.open.test", ok(
			"secure match=mx.hostile.open.test servername=hostname")},
		{"parent domain", ".sts.open.test", notFound},
		{"address literal", "[" + goodHost + "]", notFound},

		{"DANE on every host", "dane.signed.test", ok("dane-only")},
		{"DANE on another port", "dane.signed.test:587", notFound},
		{"DANE for a smart host", "[mx.dane.signed.test]", ok("dane-only")},
		{"DANE for a smart host on another port", "[mx.dane.signed.test]:587", notFound},
		{"DANE with U-label", "bücher.signed.test", ok("dane-only")},
		{"DANE at the target of an alias", "alias.signed.test", ok("dane-only")},
		{"DANE and policy", "both.signed.test", ok("dane-only")},
		{"DANE on one of two hosts", "partial.signed.test", ok("dane")},
		{"DANE with insecure MX answer", "half.open.test", ok("dane")},
		{"DANE with insecure MX answer and policy", "halfsts.open.test", ok(
			"secure match=mx.dane.signed.test servername=hostname")},
		{"secure without TLSA, policy", "stsonly.signed.test", ok(
			"secure match=plain.signed.test servername=hostname")},
	}
	for _, test := range tests {
		t.Run(test.situation, func(t *testing.T) {
			got := w.postfix37.query(t, w.daemon.table("postfix"), test.key)
			if got != test.want {
				t.Errorf("%s: got %+v, want %+v", test.key, got, test.want)
			}
		})
	}
}

// testTemporaryReplies: a lookup that fails is not an absence (RFC 7672
// §2.1.2), and the reason reaches the administrator (BEHAVIOUR §1).
func testTemporaryReplies(t *testing.T, w *world) {
	tests := []struct{ situation, key, named string }{
		{"expired signatures", "expired.test", "expired.test"},
		{"bogus TLSA record", "tampered.signed.test", "mx.tampered.signed.test"},
	}
	for _, test := range tests {
		t.Run(test.situation, func(t *testing.T) {
			got := w.postfix37.query(t, w.daemon.table("postfix"), test.key)
			reason, ok := strings.CutPrefix(got.reason, "temporary error: ")
			if !ok || !strings.Contains(reason, test.named) || !strings.Contains(reason, "SERVFAIL") {
				t.Errorf("%s: got %+v, want a temporary error that names %s and SERVFAIL", test.key, got, test.named)
			}
		})
	}
	t.Run("unknown map", func(t *testing.T) {
		got := w.postfix37.query(t, w.daemon.table("other"), "sts.open.test")
		want := `permanent error: unknown map "other": use postfix or postfix-tlsrpt`
		if got.reason != want {
			t.Errorf("got %+v, want %s", got, want)
		}
	})
}

// testReplyWithTLSRPT: the attributes for Postfix 3.10 and later (BEHAVIOUR §5).
func testReplyWithTLSRPT(t *testing.T, w *world) {
	tests := []struct{ situation, key, want string }{
		{
			"policy", "wildcard.open.test", "secure match=.wildcard.open.test:mx2.wildcard.open.test servername=hostname" +
				" policy_type=sts policy_domain=wildcard.open.test" +
				" mx_host_pattern=*.wildcard.open.test mx_host_pattern=mx2.wildcard.open.test" +
				" { policy_string = version: STSv1 } { policy_string = mode: enforce }" +
				" { policy_string = mx: *.wildcard.open.test } { policy_string = mx: MX2.wildcard.open.test }" +
				" { policy_string = max_age: 604800 }",
		},
		{
			"policy with fields that look like attributes", "hostile.open.test",
			"secure match=mx.hostile.open.test servername=hostname" +
				" policy_type=sts policy_domain=hostile.open.test mx_host_pattern=mx.hostile.open.test" +
				" { policy_string = version: STSv1 } { policy_string = mode: enforce }" +
				" { policy_string = mx: mx.hostile.open.test } { policy_string = max_age: 604800 }",
		},
		{"DANE", "dane.signed.test", "dane-only"},
	}
	for _, test := range tests {
		t.Run(test.situation, func(t *testing.T) {
			got := w.postfix310.query(t, w.daemon.table("postfix-tlsrpt"), test.key)
			if got.value != test.want {
				t.Errorf("%s: got  %+v\nwant %s", test.key, got, test.want)
			}
		})
	}
}
