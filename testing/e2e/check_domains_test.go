//go:build e2e

package e2e

import (
	"fmt"
	"strings"
)

// mailServers are the listeners of the Postfix that the domains have.
func mailServers() []mailServer {
	return []mailServer{
		{name: "good"},
		{name: "plain", cert: certNone, options: []string{"smtpd_tls_security_level = none"}},
		// Its key cannot be read. Postfix offers STARTTLS all the same.
		{name: "keyless", cert: certNone, options: []string{"smtpd_tls_cert_file = " + checkDir + "/nowhere.pem"}},
		// Anonymous Diffie-Hellman, which few clients do.
		{name: "anonymous", cert: certNone, options: []string{"smtpd_tls_cert_file = none"}},
		{name: "old", options: []string{
			"smtpd_tls_protocols = >=TLSv1, <=TLSv1.1", "tls_medium_cipherlist = ALL:@SECLEVEL=0",
		}},
		{name: "ended", cert: certExpired},
		{name: "early", cert: certEarly},
		{name: "ending", cert: certEnding},
		{name: "misnamed", cert: certMisnamed},
		{name: "chain", chain: true},
		{name: "misnamed-chain", cert: certMisnamed, chain: true},
		{name: "ended-chain", cert: certExpired, chain: true},
		{name: "self", cert: certSelf},
		{name: "blocking", options: []string{"smtpd_client_restrictions = reject"}},
		{name: "tarpit", options: []string{"smtpd_client_restrictions = sleep 60, permit"}},
		{name: "imap", cert: certNone, service: "n n n - - spawn user=nobody argv=/bin/echo * OK IMAP4rev1 ready"},
	}
}

// file is a policy file for the hosts of a domain.
func file(mode, maxAge string, more ...string) string {
	return "version: STSv1\nmode: " + mode + "\nmx: *.DOMAIN\nmax_age: " + maxAge + "\n" + strings.Join(more, "")
}

// manyHosts are forty MX records.
func manyHosts() string {
	var b strings.Builder
	for i := range 40 {
		fmt.Fprintf(&b, "@ MX %d h%d.many\nh%[2]d A GOOD\n", i, i)
	}
	return b.String()
}

const (
	sent     = "sent"
	deferred = "deferred"
	bounced  = "bounced"
	nothing  = "" // no message is sent: there is no mail host, or it would take too long
)

// checkDomains provoke each code. Those that are slow come first, so that the
// others are audited meanwhile.
func checkDomains() []checkDomain {
	// What follows from a policy that does not exist, for a domain with DANE.
	noPolicy := func(code string) []string { return []string{"fail " + code, "fail sts-record-without-policy"} }
	badPolicy := func(code string) []string { return []string{"fail " + code} }
	return []checkDomain{
		{name: "silent", dns: "@ NS ns.silent\nns A " + silentAddr + "\n_mta-sts\nmta-sts\n_smtp._tls\ngood\n_25._tcp.good", want: []string{"unknown dns-timeout"}},
		{name: "tarpit", hosts: "tarpit good", want: []string{"unknown dane-inconclusive", "unknown delivery-inconclusive", "unknown smtp-inconclusive"}},
		{name: "policy-silent", site: "limit_rate 1;", want: noPolicy("policy-timeout"), status: sent},
		{name: "policy-slow", site: "limit_rate 40;", want: []string{"warn policy-slow"}, status: sent},

		{name: "healthy", status: sent, ok: []string{
			"mx-found", "sts-record-ok", "policy-fetched", "policy-line-ok", "mx-in-policy", "smtp-ok", "dane-ok", "policy-mode-enforce",
			"tlsrpt-ok", "senders-reply", "delivery-ok",
		}},
		{name: "healthy", open: true, status: sent, ok: []string{"dane-absent", "mx-in-policy", "smtp-ok", "delivery-ok"}},

		// This host.
		{name: "unroutable", dns: "good A 1.2.3.4\nmta-sts A 1.2.3.5", want: []string{
			"unknown dane-inconclusive", "unknown delivery-inconclusive", "unknown outbound-blocked",
		}},
		{name: "ipv6", dns: "good A GOOD\ngood AAAA 2a00:1::1", want: []string{"unknown ip-family-unreachable"}, status: sent},

		// The domain.
		{name: "implicit", dns: "@ A GOOD\n_25._tcp TLSA-OF good 3 1 1\ngood\n_25._tcp.good", policy: strings.ReplaceAll(file("enforce", "2592000"), "*.", ""), want: []string{"warn mx-implicit"}, status: sent},
		{name: "hostless", dns: "@ TXT \"no mail\"", want: []string{"fail mail-host-missing"}},
		{name: "gone", dns: "@ MX 10 good.gone\n@ MX 20 absent.gone", want: []string{"warn mx-address-missing"}, status: sent},
		{name: "unknowable", dns: "@ MX 10 good.unknowable\n@ MX 20 bad.unknowable\nbad CNAME mx.expired.test.", want: []string{"fail mx-lookup-failed"}, status: sent},
		{name: "many", open: true, dns: manyHosts(), want: []string{"warn mx-too-many"}, status: sent},

		// The record.
		{name: "unrecognised", dns: `_mta-sts TXT "v=STSv1 id=1"`, want: []string{"fail sts-record-unrecognized"}, status: sent},
		{name: "several", dns: "_mta-sts TXT \"v=STSv1; id=1\"\n_mta-sts TXT \"v=STSv1; id=2\"", want: []string{"fail sts-record-multiple"}, status: sent},
		{name: "badid", dns: `_mta-sts TXT "v=STSv1; id=2026-01-01;"`, want: []string{"fail sts-record-invalid"}, status: sent},
		{name: "stray", dns: "_mta-sts TXT \"v=STSv1; id=1\"\n_mta-sts TXT \"hello\"", want: []string{"warn sts-record-extra-txt"}, status: sent},
		{
			name: "hosted", dns: "_mta-sts CNAME _mta-sts.provider.hosted\n_mta-sts.provider TXT \"v=STSv1; id=1\"\n" +
				"mta-sts CNAME web.hosted\nweb A WEB",
			status: sent,
		},
		{name: "norecord", dns: "_mta-sts CNAME x.expired.test.", want: []string{"fail sts-record-lookup-failed"}, status: sent},

		// The policy file.
		{name: "policy-ending", ending: true, want: []string{"warn policy-certificate-expiring"}, status: sent},
		{name: "policy-hostless", dns: "mta-sts", want: noPolicy("policy-host-missing"), status: sent},
		{name: "policy-bogus", dns: "mta-sts CNAME x.expired.test.", want: badPolicy("policy-host-lookup-failed"), status: sent},
		{name: "policy-private", dns: "mta-sts A 192.168.1.1", want: badPolicy("policy-host-not-public"), status: sent},
		{name: "policy-closed", dns: "mta-sts A 127.0.3.254", want: noPolicy("policy-unreachable"), status: sent},
		{name: "policy-oldtls", site: "ssl_protocols TLSv1.1;", want: badPolicy("policy-tls-failed"), status: sent},
		{name: "policy-empty", site: "return 444;", want: badPolicy("policy-http-failed"), status: sent},
		{name: "policy-html", site: "types {} default_type text/html;", want: badPolicy("policy-media-type"), status: sent},
		{name: "policy-gzip", site: "add_header Content-Encoding gzip;", want: badPolicy("policy-encoding"), status: sent},
		{name: "policy-large", policy: file("enforce", "2592000", strings.Repeat("x: y\n", 1<<14)), want: badPolicy("policy-too-large"), status: sent},
		{
			name: "policy-astray", path: "/.well-known/mta-sts/mta-sts.txt",
			want: noPolicy("policy-http-status"), status: sent,
		},
		{name: "policy-typo", policy: file("enfroce", "2592000"), want: badPolicy("policy-line-invalid"), status: sent},
		{name: "policy-short", policy: "version: STSv1\nmode: enforce\nmx: *.DOMAIN\n", want: badPolicy("policy-line-missing"), status: sent},
		{name: "policy-noted", policy: file("enforce", "2592000", "max-age: 1\n"), want: []string{"warn policy-line-suspicious"}, status: sent},

		// Mail hosts.
		{name: "closed", hosts: "closed", want: []string{"fail delivery-failed", "fail smtp-unreachable"}, status: deferred},
		{name: "shut", hosts: "shut", want: []string{"fail delivery-failed", "fail smtp-unreachable"}, status: deferred},
		{name: "unreachable", hosts: "closed good", open: true, want: []string{"warn delivery-failed", "warn smtp-unreachable"}, status: sent},
		{name: "blocking", hosts: "blocking", want: []string{"unknown dane-inconclusive", "unknown delivery-inconclusive", "unknown smtp-rejected"}, status: deferred},
		{name: "imap", hosts: "imap", open: true, want: []string{"fail delivery-failed", "fail smtp-protocol-error"}, status: deferred},
		{name: "plain", hosts: "plain", dns: "_25._tcp.plain TLSA-OF good 3 1 1", want: []string{"fail delivery-failed", "fail starttls-missing", "unknown dane-inconclusive"}, status: deferred},
		{name: "keyless", hosts: "keyless", open: true, want: []string{"fail delivery-failed", "fail starttls-refused"}, status: deferred},
		{name: "anonymous", hosts: "anonymous", open: true, want: []string{"fail delivery-failed", "fail smtp-tls-failed"}, status: deferred},
		// Postfix takes old TLS where it need not know whom it speaks with.
		{name: "old", hosts: "old", want: []string{"fail delivery-failed", "fail smtp-tls-version-old"}, status: deferred},
		{name: "old", hosts: "old", open: true, want: []string{"fail delivery-failed", "fail smtp-tls-version-old"}, status: deferred},
		{name: "oldtesting", hosts: "old", open: true, policy: file("testing", "2592000"), want: []string{"warn policy-mode-testing", "warn smtp-tls-version-old"}, status: sent},
		{name: "private", dns: "good A 192.168.1.1", want: []string{"fail delivery-failed", "fail mx-not-public", "unknown dane-inconclusive"}},

		// Their certificates.
		{name: "ended", hosts: "ended", open: true, want: []string{"fail mx-certificate-expired", "fail delivery-failed"}, status: deferred},
		{name: "ended", hosts: "ended", want: []string{"fail mx-certificate-expired"}, status: sent}, // DANE minds only the key
		{name: "early", hosts: "early", open: true, want: []string{"fail mx-certificate-not-yet-valid", "fail delivery-failed"}, status: deferred},
		{name: "ending", hosts: "ending", open: true, want: []string{"warn mx-certificate-expiring"}, status: sent},
		{name: "misnamed", hosts: "misnamed", open: true, want: []string{"fail mx-certificate-name-mismatch", "fail delivery-failed"}, status: deferred},
		{name: "self", hosts: "self", open: true, want: []string{"fail mx-certificate-untrusted", "fail delivery-failed"}, status: deferred},

		// DANE.
		{name: "newkey", dns: "_25._tcp.good TLSA " + tlsaSigned, want: []string{"fail dane-mismatch", "fail delivery-failed"}, status: deferred},
		{name: "emptydigest", dns: "_25._tcp.good TLSA 3 1 1 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", want: []string{"fail dane-empty-digest", "fail dane-mismatch", "fail delivery-failed"}, status: deferred},
		{name: "pkix", dns: "_25._tcp.good TLSA " + tlsaPKIX, want: []string{"fail dane-unusable"}, status: sent},
		{name: "pkixtoo", dns: "_25._tcp.good TLSA " + tlsaPKIX + "\n_25._tcp.good TLSA-OF good 3 1 1", want: []string{"warn dane-partly-unusable"}, status: sent},
		// TLSA records of every kind; usage 2 minds name and dates (RFC 7672 §3.1.2).
		{name: "tlsa300", dns: "_25._tcp.good TLSA-OF good 3 0 0", status: sent},
		{name: "tlsa301", dns: "_25._tcp.good TLSA-OF good 3 0 1", status: sent},
		{name: "tlsa302", dns: "_25._tcp.good TLSA-OF good 3 0 2", status: sent},
		{name: "tlsa310", dns: "_25._tcp.good TLSA-OF good 3 1 0", status: sent},
		{name: "tlsa312", dns: "_25._tcp.good TLSA-OF good 3 1 2", status: sent},
		{name: "tlsa200", hosts: "chain", dns: "_25._tcp.chain TLSA-OF ca 2 0 0", status: sent},
		{name: "tlsa201", hosts: "chain", dns: "_25._tcp.chain TLSA-OF ca 2 0 1", status: sent},
		{name: "tlsa210", hosts: "chain", dns: "_25._tcp.chain TLSA-OF ca 2 1 0", status: sent},
		{name: "tlsa211", hosts: "chain", dns: "_25._tcp.chain TLSA-OF ca 2 1 1", status: sent},
		{name: "tlsa212", hosts: "chain", dns: "_25._tcp.chain TLSA-OF ca 2 1 2", status: sent},
		{name: "tlsa200-alone", dns: "_25._tcp.good TLSA-OF ca 2 0 0", status: sent},
		{name: "tlsa210-alone", dns: "_25._tcp.good TLSA-OF ca 2 1 0", status: sent},
		{name: "tlsa211-alone", dns: "_25._tcp.good TLSA-OF ca 2 1 1", want: []string{"fail dane-mismatch", "fail delivery-failed"}, status: deferred},
		{name: "tlsa211-name", hosts: "misnamed-chain", dns: "_25._tcp.misnamed-chain TLSA-OF ca 2 1 1", want: []string{"fail mx-certificate-name-mismatch", "fail dane-mismatch", "fail delivery-failed"}, status: deferred},
		{name: "tlsa211-ended", hosts: "ended-chain", dns: "_25._tcp.ended-chain TLSA-OF ca 2 1 1", want: []string{"fail mx-certificate-expired", "fail dane-mismatch", "fail delivery-failed"}, status: deferred},
		{name: "tlsa211-leaf", dns: "_25._tcp.good TLSA-OF good 2 1 1", want: []string{"fail dane-mismatch", "fail delivery-failed"}, status: deferred},
		{name: "tlsa311-ca", hosts: "chain", dns: "_25._tcp.chain TLSA-OF ca 3 1 1", want: []string{"fail dane-mismatch", "fail delivery-failed"}, status: deferred},
		{name: "tlsa311-also", dns: "_25._tcp.good TLSA " + tlsaSigned + "\n_25._tcp.good TLSA-OF good 3 1 1", status: sent},
		{name: "tlsa512-wrong", dns: "_25._tcp.good TLSA 3 1 2 " + strings.Repeat("ab", 64) + "\n_25._tcp.good TLSA-OF good 3 1 1", want: []string{"fail dane-mismatch", "fail delivery-failed"}, status: deferred},
		{name: "numeric", dns: "@ MX 10 127.0.4.1.", want: []string{"fail mx-address-missing", "warn policy-mx-unused"}, status: deferred},
		{name: "nulltoo", dns: "@ MX 0 .\n@ MX 10 good.nulltoo", want: []string{"fail delivery-failed", "fail mx-null-mixed"}, status: bounced},
		{name: "halfdown", dns: "good A CLOSED\ngood A GOOD\nmta-sts A 127.0.3.254\nmta-sts A WEB", want: []string{"warn smtp-unreachable"}, status: sent},
		{name: "loop", dns: "@ MX 10 a.loop\na CNAME b.loop\nb CNAME a.loop", want: []string{"fail mx-lookup-failed", "fail senders-deferred"}, status: deferred},
		{name: "unsigned", open: true, dns: "_25._tcp.good TLSA-OF good 3 1 1", want: []string{"warn dane-unsigned"}, status: sent},
		{name: "insecuremx", open: true, dns: "@ MX 10 good.healthy.audit.test.", policy: "version: STSv1\nmode: enforce\nmx: good.healthy.audit.test\nmax_age: 2592000\n", want: []string{"warn dane-insecure-mx"}, status: sent},

		// Mode and max_age.
		{name: "none", policy: "version: STSv1\nmode: none\nmax_age: 86400\n", want: []string{"warn policy-mode-none"}, status: sent},
		{name: "forgetful", policy: file("enforce", "86400"), want: []string{"warn policy-max-age-short"}, status: sent},
		{name: "unannounced", dns: "_mta-sts", want: []string{"fail policy-unannounced", "warn sts-record-missing"}, status: sent},

		// TLSRPT.
		{name: "reports-several", dns: "_smtp._tls TXT \"v=TLSRPTv1; rua=mailto:a@x.test\"\n_smtp._tls TXT \"v=TLSRPTv1; rua=mailto:b@x.test\"", want: []string{"warn tlsrpt-multiple"}, status: sent},
		{name: "reports-invalid", dns: "_smtp._tls TXT \"v=TLSRPTv1; rua=a@x.test\"", want: []string{"warn tlsrpt-invalid"}, status: sent},
		{name: "reports-bogus", dns: "_smtp._tls CNAME x.expired.test.", want: []string{"warn tlsrpt-lookup-failed"}, status: sent},
	}
}

// tlsaPKIX is a record with usage 1, which SMTP does not use (RFC 7672 §3.1.3).
const tlsaPKIX = "1 1 1 00000000000000000000000000000000000000000000000000000000000000cc"
