//go:build e2e

package e2e

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

// audit is what `tlspolicyd check --json` says of a domain.
type audit struct {
	Grade  string
	Topics []struct {
		Name     string
		Findings []struct{ Code, Grade, Subject, Text, Evidence string }
	}
}

// audit runs the command as its own user would.
func (d *daemon) audit(t *testing.T, domain string) audit {
	t.Helper()
	stdout, stderr, err := command("", d.binary, "check", "--json", "--config", daemonDir+"/tlspolicyd.toml", domain)
	var a audit
	if jsonErr := json.Unmarshal([]byte(stdout), &a); jsonErr != nil {
		t.Fatalf("check %s: %v, %v, %s", domain, jsonErr, err, stderr)
	}
	return a
}

// wrong are the findings that are not ok.
func (a audit) wrong() (list []string) {
	for _, topic := range a.Topics {
		for _, f := range topic.Findings {
			if f.Grade != "ok" && !slices.Contains(list, f.Grade+" "+f.Code) {
				list = append(list, f.Grade+" "+f.Code)
			}
		}
	}
	slices.Sort(list)
	return list
}

// delivers reports whether the audit says that a message arrives.
func (a audit) delivers() bool {
	for _, topic := range a.Topics {
		for _, f := range topic.Findings {
			if f.Code == "delivery-ok" {
				return true
			}
		}
	}
	return false
}

// testCheck audits domains from outside, and holds what the audit says of a
// delivery against what a real Postfix does.
func testCheck(t *testing.T, w *world) {
	const nothing = "" // no message is sent: there is nobody to send it to
	for _, test := range []struct {
		situation, domain string
		want              []string
		status            string // of a real delivery
	}{
		{"all there is", "healthy.signed.test", nil, "sent"},
		{"a policy and reports, without DNSSEC", "sts.open.test", nil, "sent"},
		{"certificate with another name", "mismatch.open.test", []string{"fail certificate-name", "fail delivery-fails"}, "deferred"},
		{"no STARTTLS", "plaintext.open.test", []string{"fail delivery-fails", "fail starttls-absent", "warn tlsrpt-absent"}, "deferred"},
		{
			"MX host that the policy does not name", "unlisted.open.test",
			[]string{"fail delivery-fails", "fail mx-uncovered", "warn pattern-unused", "warn tlsrpt-absent"},
			"deferred",
		},
		{
			"two labels below a wildcard", "deep.open.test",
			[]string{"fail delivery-fails", "fail mx-uncovered", "warn pattern-unused", "warn tlsrpt-absent"},
			"deferred",
		},
		{"mode testing", "testing.open.test", []string{"warn certificate-name", "warn mode-testing", "warn tlsrpt-absent"}, "sent"},
		{"nothing at all", "absent.open.test", []string{
			"fail senders-unprotected", "fail starttls-absent", "warn record-absent", "warn tlsrpt-absent",
		}, "sent"},
		{"DANE alone", "dane.signed.test", []string{"warn record-absent"}, "sent"},
		{"DANE on one of two hosts", "partial.signed.test", []string{"warn dane-partial", "warn record-absent", "warn tlsrpt-absent"}, "sent"},
		{"MX host that is an alias", "alias.signed.test", []string{"warn mx-alias", "warn record-absent", "warn tlsrpt-absent"}, "sent"},
		{"policy host with another name in its certificate", "wrongcert.open.test", []string{
			"fail policy-certificate", "fail senders-unprotected", "warn tlsrpt-absent",
		}, "sent"},
		{"policy host that redirects", "redirect.open.test", []string{
			"fail policy-redirect", "fail record-without-policy", "fail senders-unprotected", "warn tlsrpt-absent",
		}, "sent"},
		{"bogus TLSA record", "tampered.signed.test", []string{
			"fail dane-lookup-failed", "fail senders-defer", "warn certificate-name", "warn certificate-untrusted",
			"warn record-absent", "warn tlsrpt-absent",
		}, "deferred"},
		// Unbound gives no reason for its SERVFAIL unless it is told to (ede: yes).
		{"expired signatures", "expired.test", []string{"fail dns-failed"}, "deferred"},
		{"null MX", "null.open.test", nil, nothing},
		{"no such domain", "nowhere.open.test", []string{"fail domain-missing"}, nothing},
	} {
		t.Run(test.situation, func(t *testing.T) {
			got := w.daemon.audit(t, test.domain)
			wantEqual(t, "findings of "+test.domain, got.wrong(), test.want)
			if test.status == nothing {
				return
			}
			o := w.postfix310.send(t, "a@"+test.domain)
			if o.status != test.status || got.delivers() != (o.status == "sent") {
				t.Errorf("status=%s (%s), want %s; the audit says delivered: %t", o.status, o.text, test.status, got.delivers())
			}
		})
	}
	t.Run("text of a healthy domain", func(t *testing.T) {
		stdout, stderr, err := command("", w.daemon.binary, "check", "--config", daemonDir+"/tlspolicyd.toml", "healthy.signed.test")
		if err != nil || stderr != "" || !strings.HasPrefix(stdout, "== healthy.signed.test: all well\n") {
			t.Errorf("%v, %s\n%s", err, stderr, stdout)
		}
		t.Log("\n" + stdout)
	})
}
