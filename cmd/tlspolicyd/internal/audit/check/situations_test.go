package check_test

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"strings"
	"time"

	"tlspolicyd/testing/lab"
)

// situation is one way in which a domain, or this host, can be. want is every
// finding that is not ok, as "grade code"; ok are some that must be there beside.
type situation struct {
	name    string
	arrange func(*scene)
	want    []string
	ok      []string
	domain  string // instead of good.test
}

// dnsDown makes every resolver silent.
func dnsDown(s *scene) { s.Down(true) }

// situations provoke each code of the package.
func situations() []situation {
	policy := func(text string) func(*scene) { return func(s *scene) { s.web.SetPolicy(text) } }
	web := func(f lab.HostFault) func(*scene) { return func(s *scene) { s.web.Fault(f) } }
	// A fault of mx1 alone, so that mail still goes to mx2.
	first := func(how lab.SMTP) func(*scene) { return func(s *scene) { s.mx1.Set(how) } }
	noDANE := func(s *scene) {
		s.Replace("_25._tcp.mx1.good.test", "TLSA")
		s.Replace("_25._tcp.mx2.good.test", "TLSA")
	}
	tlsrpt := func(text ...string) func(*scene) {
		return func(s *scene) { s.Replace("_smtp._tls.good.test", "TXT", text...) }
	}
	tlsaFails := func(fault lab.Fault) func(*scene) {
		return func(s *scene) {
			s.Fault("_25._tcp.mx1.good.test", "TLSA", fault)
			s.Fault("_25._tcp.mx2.good.test", "TLSA", fault)
		}
	}
	// What follows from a policy that senders cannot have while DANE is there.
	noPolicy := func(code string) []string { return []string{"fail " + code, "fail sts-record-without-policy"} }
	badPolicy := func(code string) []string { return []string{"fail " + code} }
	both := func(all ...func(*scene)) func(*scene) {
		return func(s *scene) {
			for _, f := range all {
				f(s)
			}
		}
	}

	return []situation{
		{name: "healthy", arrange: func(*scene) {}, ok: []string{
			"mx-found", "sts-record-ok", "policy-fetched", "policy-line-ok", "mx-in-policy", "smtp-ok", "dane-ok", "policy-mode-enforce",
			"tlsrpt-ok", "senders-reply", "delivery-ok",
		}},
		{name: "no DANE, but all else", arrange: noDANE, ok: []string{"dane-absent", "smtp-ok"}},

		// This host.
		{name: "no DNS at all", arrange: dnsDown, want: []string{"unknown dns-down"}},
		{name: "DNS that fails for everybody", arrange: func(s *scene) { s.Fault("*", "", lab.ServFail) }, want: []string{"unknown dns-down"}},
		{name: "DNS that fails in the middle", arrange: func(s *scene) {
			for _, t := range []string{"TXT", "TLSA", "A"} {
				s.Fault("*", t, lab.ServFail)
			}
		}, want: []string{"unknown dane-lookup-failed", "unknown dns-down", "unknown sts-record-lookup-failed", "unknown senders-deferred", "unknown tlsrpt-lookup-failed"}},
		{name: "a resolver that is cut off", arrange: func(s *scene) { s.Fault("*", "", lab.NXDomain) }, want: []string{"unknown dns-isolated"}},
		{name: "no network but DNS", arrange: func(s *scene) { s.Silent(append(s.mailAddresses(), s.web.Addr())...) }, want: []string{
			"unknown delivery-inconclusive", "unknown dane-inconclusive", "unknown outbound-blocked",
		}},
		{name: "no route", arrange: func(s *scene) { s.NoRoute(append(s.mailAddresses(), s.web.Addr())...) }, want: []string{
			"unknown delivery-inconclusive", "unknown dane-inconclusive", "unknown outbound-blocked",
		}},
		{name: "port 25 is blocked", arrange: func(s *scene) { s.Silent(s.mailAddresses()...) }, want: []string{
			"unknown dane-inconclusive", "unknown delivery-inconclusive", "unknown port25-blocked",
		}},
		{name: "no IPv6", arrange: func(s *scene) { s.NoRoute(v6(1), v6(2)) }, want: []string{"unknown ip-family-unreachable"}},
		{name: "no IPv6, and none asked for", arrange: func(s *scene) { s.NoRoute(v6(1), v6(2)); s.Family = 4 }},
		{name: "no IPv4, and none asked for", arrange: func(s *scene) { s.NoRoute(s.mx1.Addr(), s.mx2.Addr()); s.Family = 6 }},
		{name: "no certificate authorities", arrange: func(s *scene) { s.Fetcher.RootCAs = x509.NewCertPool() }, want: []string{"unknown trust-store-empty"}},
		{name: "no certificate authorities and no DANE", arrange: both(noDANE, func(s *scene) { s.Fetcher.RootCAs = x509.NewCertPool() }), want: []string{
			"unknown mx-certificate-untrusted", "unknown delivery-inconclusive", "unknown trust-store-empty",
		}},
		{name: "a proxy that fails", arrange: func(s *scene) { s.Fetcher.Proxy = mustURL("http://10.99.0.1:3128") }, want: []string{"unknown proxy-failed"}},

		// The domain.
		{name: "a domain that does not exist", domain: "goood.test", arrange: func(*scene) {}, want: []string{"fail domain-missing"}},
		{name: "null MX", arrange: func(s *scene) { s.Replace(domain, "MX", "0 .") }, ok: []string{"mx-null"}},
		{name: "a null MX beside others", arrange: func(s *scene) { s.Zone("good.test. MX 0 .") }, want: []string{"fail delivery-failed", "fail mx-null-mixed"}},
		{name: "no MX host has an address", arrange: func(s *scene) {
			s.Replace(domain, "MX", "10 gone.good.test.")
			s.web.SetPolicy(policyDoc + "mx: gone.good.test\n")
		}, want: []string{
			"fail mx-address-missing", "warn policy-mx-unused",
		}},
		{name: "an address in an MX record", arrange: func(s *scene) { s.Zone("good.test. MX 30 192.0.2.1.") }, want: []string{"warn mx-address-missing"}},
		{name: "the domain itself is the host", arrange: func(s *scene) {
			s.Replace(domain, "MX")
			s.SMTPHost(domain, lab.SMTP{})
			s.TLSA(domain, 25)
			s.web.SetPolicy("version: STSv1\nmode: enforce\nmx: good.test\nmax_age: 2592000\n")
		}, want: []string{"warn mx-implicit"}},
		{name: "no mail host", arrange: func(s *scene) { s.Replace(domain, "MX") }, want: []string{"fail mail-host-missing"}},
		{name: "SERVFAIL for the domain alone", arrange: func(s *scene) { s.Fault(domain, "MX", lab.ServFail) }, want: []string{"fail dns-failed"}},
		{name: "bogus", arrange: func(s *scene) { s.Fault(domain, "MX", lab.Bogus) }, want: []string{"fail dnssec-bogus"}},
		{name: "silence for the domain alone", arrange: func(s *scene) { s.Fault(domain, "MX", lab.Drop) }, want: []string{"unknown dns-timeout"}},
		{name: "an MX record names an alias", arrange: func(s *scene) {
			s.Replace(domain, "MX", "10 mx1.good.test.", "20 alias.good.test.")
			s.Zone("alias.good.test. CNAME mx2.good.test.")
			s.web.SetPolicy("version: STSv1\nmode: enforce\nmx: mx1.good.test\nmx: alias.good.test\nmax_age: 2592000\n")
		}, want: []string{"fail mx-certificate-name-mismatch", "warn mx-alias"}},
		{name: "an MX host without address", arrange: func(s *scene) {
			s.Replace(domain, "MX", "10 mx1.good.test.", "20 mx2.good.test.", "30 gone.good.test.")
			s.web.SetPolicy(policyDoc + "mx: gone.good.test\n")
		}, want: []string{"warn mx-address-missing"}},
		{name: "an MX host whose addresses cannot be looked up", arrange: func(s *scene) {
			s.Fault("mx1.good.test", "", lab.ServFail)
		}, want: []string{"fail mx-lookup-failed"}},
		{name: "forty mail hosts", arrange: func(s *scene) {
			for i := range 40 {
				s.Zone(fmt.Sprintf("good.test. MX 30 mx1.good.test.\nmany.test. MX %d mx%d.many.test.\nmx%[2]d.many.test. A 10.20.99.%[2]d", i, i))
			}
			noDANE(s)
			s.SMTPHost("mx0.many.test", lab.SMTP{})
		}, domain: "many.test", want: []string{
			"fail senders-unprotected", "warn mx-too-many", "warn sts-record-missing", "warn smtp-unreachable", "warn delivery-failed", "warn tlsrpt-missing",
		}},

		// The record.
		{name: "no record, no policy, no DANE", arrange: both(noDANE, func(s *scene) {
			s.web.RemoveTXT()
			s.Replace("mta-sts.good.test", "A")
		}), want: []string{"fail senders-unprotected", "warn sts-record-missing"}},
		{name: "a record without a semicolon", arrange: func(s *scene) { s.Replace("_mta-sts.good.test", "TXT", `"v=STSv1 id=1"`) }, want: []string{"fail sts-record-unrecognized"}},
		{name: "two records", arrange: func(s *scene) { s.Zone(`_mta-sts.good.test. TXT "v=STSv1; id=2;"`) }, want: []string{"fail sts-record-multiple"}},
		{name: "an id that is none", arrange: func(s *scene) { s.web.SetID("2026-01-01") }, want: []string{"fail sts-record-invalid"}},
		{name: "another TXT record beside it", arrange: func(s *scene) { s.Zone(`_mta-sts.good.test. TXT "hello"`) }, want: []string{"warn sts-record-extra-txt"}},
		{name: "a hosted policy", arrange: func(s *scene) {
			s.Replace("_mta-sts.good.test", "TXT")
			s.Replace("mta-sts.good.test", "A")
			s.Zone("_mta-sts.good.test. CNAME _mta-sts.host.test.\n_mta-sts.host.test. TXT \"v=STSv1; id=1;\"\n" +
				"mta-sts.good.test. CNAME mta-sts.host.test.\nmta-sts.host.test. A " + s.web.Addr().String())
		}},
		{name: "the record cannot be looked up", arrange: func(s *scene) { s.Fault("_mta-sts.good.test", "TXT", lab.ServFail) }, want: []string{"fail sts-record-lookup-failed"}},

		// The policy file.
		{name: "the policy host is slow", arrange: web(lab.HostFault{Delay: 7 * time.Second}), want: []string{"warn policy-slow"}},
		{name: "its certificate ends soon", arrange: web(lab.HostFault{Cert: lab.Expiring}), want: []string{"warn policy-certificate-expiring"}},
		{name: "the policy host does not exist", arrange: func(s *scene) { s.Replace("mta-sts.good.test", "A") }, want: noPolicy("policy-host-missing")},
		{name: "it cannot be looked up", arrange: func(s *scene) { s.Fault("mta-sts.good.test", "", lab.ServFail) }, want: badPolicy("policy-host-lookup-failed")},
		{name: "it is private", arrange: func(s *scene) { s.Replace("mta-sts.good.test", "A", "192.168.1.1") }, want: badPolicy("policy-host-not-public")},
		{name: "it refuses the connection", arrange: web(lab.HostFault{Refuse: true}), want: noPolicy("policy-unreachable")},
		{name: "it does not answer, while mail hosts do", arrange: web(lab.HostFault{Stall: lab.AtConnect}), want: noPolicy("policy-timeout")},
		{name: "it never answers the request", arrange: web(lab.HostFault{Stall: lab.AtHeaders}), want: noPolicy("policy-timeout")},
		{name: "it speaks old TLS only", arrange: web(lab.HostFault{TLSMax: tls.VersionTLS11}), want: badPolicy("policy-tls-failed")},
		{name: "its certificate is for another name", arrange: web(lab.HostFault{Cert: lab.WrongName}), want: badPolicy("policy-certificate-invalid")},
		{name: "its certificate has ended", arrange: web(lab.HostFault{Cert: lab.Expired}), want: badPolicy("policy-certificate-invalid")},
		{name: "half a response", arrange: web(lab.HostFault{CloseEarly: true}), want: badPolicy("policy-http-failed")},
		{name: "a redirect", arrange: web(lab.HostFault{Redirect: "https://good.test/x"}), want: noPolicy("policy-redirect")},
		{name: "404", arrange: web(lab.HostFault{Status: 404}), want: noPolicy("policy-http-status")},
		{name: "another media type", arrange: web(lab.HostFault{MediaType: "text/html"}), want: badPolicy("policy-media-type")},
		{name: "compressed", arrange: web(lab.HostFault{Gzip: true}), want: badPolicy("policy-encoding")},
		{name: "too large", arrange: web(lab.HostFault{Size: 1 << 20}), want: badPolicy("policy-too-large")},
		{
			name: "a line that is wrong", arrange: policy("version: STSv1\nmode: enfroce\nmx: mx1.good.test\nmx: mx2.good.test\nmax_age: 2592000\n"),
			want: badPolicy("policy-line-invalid"), ok: []string{"policy-line-ok"},
		},
		{
			name: "a line that is missing", arrange: policy("version: STSv1\nmode: enforce\nmx: mx1.good.test\nmx: mx2.good.test\n"),
			want: badPolicy("policy-line-missing"),
		},
		{name: "a line that does nothing", arrange: policy(policyDoc + "max-age: 1\n"), want: []string{"warn policy-line-suspicious"}},

		// MX alignment.
		{
			name: "a host that no pattern covers", arrange: policy("version: STSv1\nmode: enforce\nmx: mx1.good.test\nmx: *.mx2.good.test\nmax_age: 2592000\n"),
			want: []string{"fail mx-not-in-policy", "warn policy-mx-unused"},
		},
		{
			name: "the same in mode testing", arrange: policy("version: STSv1\nmode: testing\nmx: mx1.good.test\nmax_age: 2592000\n"),
			want: []string{"warn policy-mode-testing", "warn mx-not-in-policy"},
		},
		{name: "the same without DANE", arrange: both(noDANE, policy("version: STSv1\nmode: enforce\nmx: mx1.good.test\nmax_age: 2592000\n")), want: []string{
			"fail mx-not-in-policy", "warn delivery-failed",
		}},

		// Mail hosts.
		{name: "one host refuses the connection", arrange: func(s *scene) {
			s.Replace("mx1.good.test", "A", "10.20.99.1")
			s.Replace("mx1.good.test", "AAAA")
		}, want: []string{"unknown dane-inconclusive", "warn delivery-failed", "warn smtp-unreachable"}},
		{name: "one host is silent", arrange: func(s *scene) { s.Silent(s.mx1.Addr(), v6(1)) }, want: []string{
			"unknown dane-inconclusive", "warn delivery-failed", "warn smtp-unreachable",
		}},
		{name: "all refuse the connection", arrange: func(s *scene) {
			for _, name := range []string{"mx1.good.test", "mx2.good.test"} {
				s.Replace(name, "A", "10.20.99.1")
				s.Replace(name, "AAAA")
			}
		}, want: []string{"fail delivery-failed", "fail smtp-unreachable", "unknown dane-inconclusive"}},
		{name: "one refuses, the other has no STARTTLS", arrange: func(s *scene) {
			s.Replace("mx1.good.test", "A", "10.20.99.1")
			s.Replace("mx1.good.test", "AAAA")
			s.mx2.Set(lab.SMTP{NoSTARTTLS: true})
		}, want: []string{"fail delivery-failed", "fail smtp-unreachable", "fail starttls-missing", "unknown dane-inconclusive"}},
		{name: "one host takes connections over IPv4 only", arrange: func(s *scene) {
			s.Replace("mx1.good.test", "AAAA", "fd00:20::99")
		}, want: []string{"warn smtp-unreachable"}},
		{name: "one host is slow", arrange: first(lab.SMTP{Stall: lab.BeforeGreeting}), want: []string{
			"unknown dane-inconclusive", "unknown delivery-inconclusive", "unknown smtp-inconclusive",
		}},
		{name: "a greeting that drips", arrange: first(lab.SMTP{Drip: time.Second}), want: []string{
			"unknown dane-inconclusive", "unknown delivery-inconclusive", "unknown smtp-inconclusive",
		}},
		{name: "one host sends us away", arrange: first(lab.SMTP{Greeting: "554 5.7.1 blocked"}), want: []string{
			"unknown dane-inconclusive", "unknown delivery-inconclusive", "unknown smtp-rejected",
		}},
		{name: "one host speaks no SMTP", arrange: first(lab.SMTP{LongLine: true}), want: []string{
			"fail smtp-protocol-error", "unknown dane-inconclusive", "warn delivery-failed",
		}},
		{name: "a greeting without end", arrange: first(lab.SMTP{Endless: true}), want: []string{
			"fail smtp-protocol-error", "unknown dane-inconclusive", "warn delivery-failed",
		}},
		{name: "no STARTTLS", arrange: first(lab.SMTP{NoSTARTTLS: true}), want: []string{
			"fail starttls-missing", "unknown dane-inconclusive", "warn delivery-failed",
		}},
		{name: "STARTTLS is refused", arrange: first(lab.SMTP{STARTTLS: "454 4.7.0 TLS not available"}), want: []string{
			"fail starttls-refused", "unknown dane-inconclusive", "warn delivery-failed",
		}},
		{name: "no TLS after STARTTLS", arrange: first(lab.SMTP{Garbage: true}), want: []string{
			"fail smtp-tls-failed", "unknown dane-inconclusive", "warn delivery-failed",
		}},
		{name: "TLS 1.1", arrange: first(lab.SMTP{TLSMax: tls.VersionTLS11}), want: []string{"fail smtp-tls-version-old", "warn delivery-failed"}},
		{name: "TLS 1.1 without DANE", arrange: both(noDANE, first(lab.SMTP{TLSMax: tls.VersionTLS11})), want: []string{"fail smtp-tls-version-old", "warn delivery-failed"}},
		{name: "TLS 1.1 without DANE, in mode testing", arrange: both(noDANE, policy(strings.Replace(policyDoc, "enforce", "testing", 1)), first(lab.SMTP{TLSMax: tls.VersionTLS11})), want: []string{
			"warn policy-mode-testing", "warn smtp-tls-version-old",
		}},
		{name: "a mail host at a private address", arrange: func(s *scene) {
			s.Replace("mx1.good.test", "A", "192.168.1.1")
			s.Replace("mx1.good.test", "AAAA")
		}, want: []string{"fail mx-not-public", "unknown dane-inconclusive", "warn delivery-failed"}},

		// Certificates of mail hosts. DANE checks the key alone, so that mail
		// goes on under it.
		{name: "certificate has ended", arrange: first(lab.SMTP{Cert: lab.Expired}), want: []string{"fail mx-certificate-expired"}},
		{name: "certificate has ended, in mode testing", arrange: both(noDANE, policy(strings.Replace(policyDoc, "enforce", "testing", 1)), first(lab.SMTP{Cert: lab.Expired})), want: []string{
			"warn mx-certificate-expired", "warn policy-mode-testing",
		}},
		{name: "not valid yet, in mode testing", arrange: both(noDANE, policy(strings.Replace(policyDoc, "enforce", "testing", 1)), first(lab.SMTP{Cert: lab.NotYetValid})), want: []string{
			"warn mx-certificate-not-yet-valid", "warn policy-mode-testing",
		}},
		{name: "for another name, in mode testing", arrange: both(noDANE, policy(strings.Replace(policyDoc, "enforce", "testing", 1)), first(lab.SMTP{Cert: lab.WrongName})), want: []string{
			"warn mx-certificate-name-mismatch", "warn policy-mode-testing",
		}},
		{name: "self-signed, in mode testing", arrange: both(noDANE, policy(strings.Replace(policyDoc, "enforce", "testing", 1)), first(lab.SMTP{Cert: lab.SelfSigned})), want: []string{
			"warn mx-certificate-untrusted", "warn policy-mode-testing",
		}},
		{name: "has ended, without DANE", arrange: both(noDANE, first(lab.SMTP{Cert: lab.Expired})), want: []string{
			"fail mx-certificate-expired", "warn delivery-failed",
		}},
		{name: "not valid yet", arrange: first(lab.SMTP{Cert: lab.NotYetValid}), want: []string{"fail mx-certificate-not-yet-valid"}},
		{name: "for another name", arrange: first(lab.SMTP{Cert: lab.WrongName}), want: []string{"fail mx-certificate-name-mismatch"}},
		{name: "without subjectAltName", arrange: first(lab.SMTP{Cert: lab.NoSAN}), want: []string{"fail mx-certificate-name-mismatch"}},
		{name: "self-signed", arrange: first(lab.SMTP{Cert: lab.SelfSigned}), want: []string{"fail mx-certificate-untrusted"}},
		{name: "the intermediate is not sent", arrange: first(lab.SMTP{HalfChain: true}), want: []string{"fail mx-certificate-untrusted"}},
		{name: "the intermediate is sent", arrange: first(lab.SMTP{FullChain: true}), ok: []string{"smtp-ok"}},
		{name: "ends soon", arrange: first(lab.SMTP{Cert: lab.Expiring}), want: []string{"warn mx-certificate-expiring"}},
		{name: "self-signed, with DANE and without a policy", arrange: both(first(lab.SMTP{Cert: lab.SelfSigned}), func(s *scene) {
			s.web.RemoveTXT()
			s.Replace("mta-sts.good.test", "A")
		}), want: []string{"warn sts-record-missing"}, ok: []string{"smtp-ok"}},

		// DANE.
		{name: "a new key that was not published", arrange: func(s *scene) { s.NewKey("mx1.good.test") }, want: []string{
			"fail dane-mismatch", "warn delivery-failed",
		}},
		{name: "no usable record", arrange: func(s *scene) {
			s.Replace("_25._tcp.mx1.good.test", "TLSA", "1 1 1 00")
		}, want: []string{"fail dane-unusable"}},
		{name: "one record of two is not usable", arrange: func(s *scene) { s.Zone("_25._tcp.mx1.good.test. TLSA 1 1 1 00") }, want: []string{"warn dane-partly-unusable"}},
		{name: "the digest of no data", arrange: func(s *scene) {
			s.Replace("_25._tcp.mx1.good.test", "TLSA", fmt.Sprintf("3 1 1 %x", sha256.Sum256(nil)))
		}, want: []string{"fail dane-empty-digest", "fail dane-mismatch", "warn delivery-failed"}},
		{name: "the digest of no data beside the right one", arrange: func(s *scene) {
			s.Zone(fmt.Sprintf("_25._tcp.mx1.good.test. TLSA 3 1 1 %x", sha256.Sum256(nil)))
		}, want: []string{"warn dane-empty-digest"}},
		{name: "a stronger digest that is wrong", arrange: func(s *scene) {
			s.Zone("_25._tcp.mx1.good.test. TLSA 3 1 2 " + strings.Repeat("ab", 64))
		}, want: []string{"fail dane-mismatch", "warn delivery-failed"}},
		{name: "one host of two has records", arrange: func(s *scene) { s.Replace("_25._tcp.mx2.good.test", "TLSA") }, want: []string{"warn dane-partial"}},
		{name: "the MX answer is not signed", arrange: func(s *scene) { s.Insecure(domain); s.Secure("mx1.good.test", "mx2.good.test") }, want: []string{"warn dane-insecure-mx"}},
		{name: "the zone is not signed", arrange: func(s *scene) { s.Insecure(domain) }, want: []string{"warn dane-unsigned"}},
		{name: "the TLSA lookup of one host fails", arrange: func(s *scene) { s.Fault("_25._tcp.mx1.good.test", "TLSA", lab.ServFail) }, want: []string{
			"fail dane-lookup-failed", "warn delivery-failed",
		}},
		{name: "the TLSA lookup of one host is not answered", arrange: func(s *scene) { s.Fault("_25._tcp.mx1.good.test", "TLSA", lab.Drop) }, want: []string{
			"unknown dane-lookup-failed", "unknown delivery-inconclusive",
		}},
		{name: "all TLSA lookups fail", arrange: tlsaFails(lab.Bogus), want: []string{"fail dane-lookup-failed", "fail senders-deferred"}},
		{name: "no TLSA lookup is answered", arrange: tlsaFails(lab.Drop), want: []string{"unknown dane-lookup-failed", "unknown senders-deferred"}},
		{name: "a resolver that is not trusted", arrange: func(s *scene) {
			s.Insecure(".") // what such a resolver's client sees
			s.Trusted = false
		}, want: []string{"unknown resolver-untrusted"}},

		// Untrusted text is escaped, which wellFormed checks.
		{name: "control bytes everywhere", arrange: func(s *scene) {
			s.Replace("_mta-sts.good.test", "TXT", `"v=STSv1; id=1\027[2J\155\007;"`)
			s.Replace("_smtp._tls.good.test", "TXT", `"v=TLSRPTv1; rua=mailto:\027]0\;x\007"`)
			s.web.SetPolicyKeepID("version: STSv1\nmode: \x1b[2J\xff\n\xe2\x80\xae: x\nx: \u202e\n")
			s.web.Fault(lab.HostFault{MediaType: "text/plain; x=\x80\u202e"})
			s.mx1.Set(lab.SMTP{Greeting: "554 \x1b]0;x\x07\x9b2J"})
			s.Zone("good.test. MX 30 ev\\027]0\\;il.good.test.")
		}, want: []string{
			"fail policy-line-invalid", "fail policy-line-missing", "fail sts-record-invalid", "unknown dane-inconclusive",
			"unknown delivery-inconclusive", "unknown smtp-rejected", "warn mx-address-missing", "warn policy-line-suspicious", "warn tlsrpt-invalid",
		}},

		// Mode and max_age.
		{name: "mode testing", arrange: policy(strings.Replace(policyDoc, "enforce", "testing", 1)), want: []string{"warn policy-mode-testing"}},
		{name: "mode none", arrange: policy("version: STSv1\nmode: none\nmax_age: 86400\n"), want: []string{"warn policy-mode-none"}},
		{name: "mode none without DANE", arrange: both(noDANE, policy("version: STSv1\nmode: none\nmax_age: 86400\n")), want: []string{"warn policy-mode-none"}},
		{name: "a short max_age", arrange: policy(strings.Replace(policyDoc, "2592000", "86400", 1)), want: []string{"warn policy-max-age-short"}},
		{name: "a max_age of a week", arrange: policy(strings.Replace(policyDoc, "2592000", "604800", 1))},
		{name: "a short max_age in mode testing", arrange: policy("version: STSv1\nmode: testing\nmx: *.good.test\nmax_age: 60\n"), want: []string{"warn policy-mode-testing"}},
		{name: "the record was removed, the policy not", arrange: func(s *scene) { s.web.RemoveTXT() }, want: []string{
			"fail policy-unannounced", "warn sts-record-missing",
		}},
		{name: "the policy was removed, the record not, and there is no DANE", arrange: both(noDANE, web(lab.HostFault{Status: 404})), want: []string{
			"fail policy-http-status", "fail sts-record-without-policy", "fail senders-unprotected",
		}},

		// TLSRPT.
		{name: "no TLSRPT record", arrange: tlsrpt(), want: []string{"warn tlsrpt-missing"}},
		{name: "two TLSRPT records", arrange: tlsrpt(`"v=TLSRPTv1; rua=mailto:a@good.test"`, `"v=TLSRPTv1; rua=mailto:b@good.test"`), want: []string{"warn tlsrpt-multiple"}},
		{name: "a TLSRPT record without mailto:", arrange: tlsrpt(`"v=TLSRPTv1; rua=reports@good.test"`), want: []string{"warn tlsrpt-invalid"}},
		{name: "another record at the TLSRPT name", arrange: tlsrpt(`"v=TLSRPT1; rua=mailto:a@good.test"`), want: []string{"warn tlsrpt-invalid"}},
		{name: "the TLSRPT record cannot be looked up", arrange: func(s *scene) { s.Fault("_smtp._tls.good.test", "TXT", lab.ServFail) }, want: []string{"warn tlsrpt-lookup-failed"}},
		{name: "the TLSRPT lookup is not answered", arrange: func(s *scene) { s.Fault("_smtp._tls.good.test", "TXT", lab.Drop) }, want: []string{"unknown tlsrpt-lookup-failed"}},
	}
}
