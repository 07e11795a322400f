//go:build e2e

package e2e

import (
	"encoding/json"
	"net"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const (
	noResolver    = "127.0.0.97" // nothing listens there
	silentAddr    = "127.0.0.98" // a DNS server that never answers
	edeResolver   = "127.0.0.54" // Unbound that says why it has no answer (RFC 8914)
	farResolver   = "10.99.0.53" // Unbound that is not on loopback
	isolated      = "127.0.0.55" // Unbound that is cut off from the internet
	healthyDomain = "healthy." + checkSigned
)

// audit is what `tlspolicyd check --json` says of a domain.
type audit struct {
	Domain string
	Grade  string
	Topics []struct {
		Name     string
		Findings []struct{ Code, Grade, Subject, Text, Evidence string }
	}
}

// audits looks at domains as any user would, with a configuration and some
// variables of the environment.
func (d *daemon) audits(t *testing.T, config string, domains []string, env ...string) map[string]audit {
	t.Helper()
	argv := append([]string{"/usr/bin/env"}, env...)
	argv = append(argv, d.binary, "check", "--json", "--config", config)
	stdout, stderr, err := command("", append(argv, domains...)...)
	all := map[string]audit{}
	for line := range strings.Lines(stdout) {
		var a audit
		if jsonErr := json.Unmarshal([]byte(line), &a); jsonErr != nil {
			t.Fatalf("check: %v, %v, %s: %s", jsonErr, err, stderr, line)
		}
		all[a.Domain] = a
	}
	if len(all) != len(domains) {
		t.Fatalf("check: %d of %d domains, %v, %s", len(all), len(domains), err, stderr)
	}
	return all
}

// codes are those of all findings, each with its grade in front.
func (a audit) codes() (list []string) {
	for _, topic := range a.Topics {
		for _, f := range topic.Findings {
			if !slices.Contains(list, f.Grade+" "+f.Code) {
				list = append(list, f.Grade+" "+f.Code)
			}
		}
	}
	slices.Sort(list)
	return list
}

// wrong are the findings that are not ok.
func (a audit) wrong() []string {
	return slices.DeleteFunc(a.codes(), func(code string) bool { return strings.HasPrefix(code, "ok ") })
}

// delivers reports whether the audit says that a message arrives.
func (a audit) delivers() bool { return slices.Contains(a.codes(), "ok delivery-ok") }

// audited is a domain with what an audit should say of it.
type audited struct {
	situation, domain string
	want, ok          []string
	status            string // of a real delivery
}

// auditedDomains are those made for check, and domains of the other tests.
func auditedDomains() (list []audited) {
	for _, p := range checkDomains() {
		list = append(list, audited{p.domain(), p.domain(), p.want, p.ok, p.status})
	}
	return append(list, []audited{
		{"all there is", "healthy.signed.test", nil, nil, sent},
		{"a policy and reports, without DNSSEC", "sts.open.test", nil, nil, sent},
		{"certificate with another name", "mismatch.open.test", []string{"fail mx-certificate-name-mismatch", "fail delivery-failed"}, nil, deferred},
		{"no STARTTLS", "plaintext.open.test", []string{"fail delivery-failed", "fail starttls-missing", "warn tlsrpt-missing"}, nil, deferred},
		{
			"MX host that the policy does not name", "unlisted.open.test",
			[]string{"fail delivery-failed", "fail mx-not-in-policy", "warn policy-mx-unused", "warn tlsrpt-missing"},
			nil, deferred,
		},
		{
			"two labels below a wildcard", "deep.open.test",
			[]string{"fail delivery-failed", "fail mx-not-in-policy", "warn policy-mx-unused", "warn tlsrpt-missing"},
			nil, deferred,
		},
		{"mode testing", "testing.open.test", []string{"warn mx-certificate-name-mismatch", "warn policy-mode-testing", "warn tlsrpt-missing"}, nil, sent},
		{"nothing at all", "absent.open.test", []string{
			"fail senders-unprotected", "fail starttls-missing", "warn sts-record-missing", "warn tlsrpt-missing",
		}, nil, sent},
		{"DANE alone", "dane.signed.test", []string{"warn sts-record-missing"}, nil, sent},
		{"DANE on one of two hosts", "partial.signed.test", []string{"warn dane-partial", "warn sts-record-missing", "warn tlsrpt-missing"}, nil, sent},
		{"MX host that is an alias", "alias.signed.test", []string{"warn mx-alias", "warn sts-record-missing", "warn tlsrpt-missing"}, nil, sent},
		{"policy host with another name in its certificate", "wrongcert.open.test", []string{
			"fail policy-certificate-invalid", "fail senders-unprotected", "warn tlsrpt-missing",
		}, nil, sent},
		{"policy host that redirects", "redirect.open.test", []string{
			"fail policy-redirect", "fail senders-unprotected", "fail sts-record-without-policy", "warn tlsrpt-missing",
		}, nil, sent},
		{"bogus TLSA record", "tampered.signed.test", []string{
			"fail dane-lookup-failed", "fail senders-deferred", "warn mx-certificate-name-mismatch", "warn mx-certificate-untrusted",
			"warn sts-record-missing", "warn tlsrpt-missing",
		}, nil, deferred},
		// Unbound gives no reason for its SERVFAIL unless it is told to (ede: yes).
		{"expired signatures", "expired.test", []string{"fail dns-failed"}, nil, deferred},
		{"null MX", "null.open.test", nil, []string{"mx-null"}, nothing},
		{"no such domain", "nowhere.open.test", []string{"fail domain-missing"}, nil, nothing},
	}...)
}

// testCheck audits domains from outside, and holds what the audit says of a
// delivery against what a real Postfix does.
func testCheck(t *testing.T, w *world) {
	w.checked.start(t, w.bookworm)
	silent, err := net.ListenPacket("udp", silentAddr+":53")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	tests := auditedDomains()
	var domains, recipients []string
	for _, test := range tests {
		domains = append(domains, test.domain)
		if test.status != nothing {
			recipients = append(recipients, "a@"+test.domain)
		}
	}
	audits := w.daemon.audits(t, daemonDir+"/tlspolicyd.toml", domains)
	outcomes, older := w.postfix310.sendAll(t, recipients), w.postfix37.sendAll(t, recipients)

	seen := newCodesSeen(t)
	for _, test := range tests {
		got := audits[test.domain]
		seen.add(t, got)
		t.Run(test.situation, func(t *testing.T) {
			wantEqual(t, "findings of "+test.domain, got.wrong(), slices.Sorted(slices.Values(test.want)))
			for _, code := range test.ok {
				if !slices.Contains(got.codes(), "ok "+code) {
					t.Errorf("no %s in %q", code, got.codes())
				}
			}
			o, ok := outcomes["a@"+test.domain]
			if ok && (o.status != test.status || got.delivers() != (o.status == sent)) {
				t.Errorf("status=%s (%s), want %s; the audit says delivered: %t", o.status, o.text, test.status, got.delivers())
			}
			if o := older["a@"+test.domain]; ok && o.status != test.status && !byNameOfHost(test.domain) {
				t.Errorf("Postfix of Debian 12: status=%s (%s), want %s", o.status, o.text, test.status)
			}
		})
	}
	testCheckHost(t, w, seen)
	t.Run("text of a healthy domain", func(t *testing.T) {
		stdout, stderr, err := command("", w.daemon.binary, "check", "--config", daemonDir+"/tlspolicyd.toml", healthyDomain)
		if err != nil || stderr != "" || !strings.HasPrefix(stdout, "== "+healthyDomain+": all well\n") {
			t.Errorf("%v, %s\n%s", err, stderr, stdout)
		}
		t.Log("\n" + stdout)
	})
	t.Run("each code", seen.complete)
}

// byNameOfHost reports whether mail to a domain is held back by the name of its
// MX host alone, which Postfix looks at since 3.10 (smtp_tls_enforce_sts_mx_patterns).
func byNameOfHost(domain string) bool {
	return domain == "deep.open.test" || domain == "numeric."+checkSigned
}

// testCheckHost has one look at a domain on hosts that lack something.
func testCheckHost(t *testing.T, w *world, seen *codesSeen) {
	if err := addAddress("lo:far", farResolver); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		situation, domain, config string
		env                       []string
		want                      []string
	}{
		{
			"no resolver", healthyDomain, w.configured(t, "no-resolver", resolverAddr, noResolver), nil,
			[]string{"unknown dns-down"},
		},
		{
			"a resolver that is cut off", healthyDomain, w.resolver(t, isolated, "  local-zone: \".\" always_nxdomain\n"), nil,
			[]string{"unknown dns-isolated"},
		},
		{
			"a resolver that gives its reasons", "expired.test", w.resolver(t, edeResolver, "  ede: yes\n"), nil,
			[]string{"fail dnssec-bogus"},
		},
		{
			"a resolver on another host", healthyDomain, w.resolver(t, farResolver, "  access-control: 10.0.0.0/8 allow\n"), nil,
			[]string{"unknown resolver-untrusted"},
		},
		{
			"a proxy that is not there", healthyDomain, w.configured(t, "proxy", "[fetch]\n", "[fetch]\nproxy = \"http://127.0.0.97:3128\"\n"), nil,
			[]string{"unknown proxy-failed"},
		},
		{
			"no certificate authorities", healthyDomain, w.configured(t, "no-ca", "ca_file = ", "# "),
			[]string{"SSL_CERT_FILE=/nowhere", "SSL_CERT_DIR=/nowhere"},
			[]string{"unknown trust-store-empty"},
		},
		{"nothing amiss", healthyDomain, daemonDir + "/tlspolicyd.toml", nil, nil},
	} {
		got := w.daemon.audits(t, test.config, []string{test.domain}, test.env...)[test.domain]
		seen.add(t, got)
		t.Run(test.situation, func(t *testing.T) {
			wantEqual(t, "findings", got.wrong(), slices.Sorted(slices.Values(test.want)))
		})
	}
	// Two domains that refuse, at two addresses, and nobody who takes a
	// connection: it may be a firewall on the way out.
	refusing := []string{"closed." + checkSigned, "shut." + checkSigned}
	for domain, got := range w.daemon.audits(t, daemonDir+"/tlspolicyd.toml", refusing) {
		seen.add(t, got)
		wantEqual(t, "findings of "+domain, got.wrong(), []string{"unknown delivery-inconclusive", "unknown port25-blocked"})
	}
}

// sendAll hands a message over for each recipient, and waits for the first try
// of every one of them.
func (s *sender) sendAll(t *testing.T, recipients []string) map[string]outcome {
	t.Helper()
	offset := s.logSize()
	queueIDs := map[string]string{}
	for _, to := range recipients {
		id, err := submit(s.address, to, to)
		if err != nil {
			t.Fatalf("hand over a message to %s: %v", to, err)
		}
		queueIDs[to] = id
	}
	all := map[string]outcome{}
	for _, to := range recipients {
		match, err := s.waitForLog(offset, regexp.QuoteMeta(queueIDs[to])+`: to=<[^>]*>, .*status=(\w+) \((.*)\)`)
		if err != nil {
			t.Fatalf("a message to %s: %v", to, err)
		}
		all[to] = outcome{status: match[1], text: match[2]}
	}
	return all
}
