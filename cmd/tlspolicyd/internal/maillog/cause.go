package maillog

import "strings"

// Cause is a reason for which TLS policy, or what it rests on, holds mail back.
// Codes are stable: scripts rely on them. One that 'tlspolicyd check' has too
// means the same there.
type Cause struct {
	Code    string
	Side    string // which side it is to be fixed on: remote, local, either
	Meaning string
	Advice  string // what to do next; DOMAIN stands for the next hop
}

const (
	remote = "remote"
	local  = "local"
	either = "either"

	// allow is how mail is sent in spite of a remote fault.
	allow = ` Until then, an entry under [override] of the configuration sets the policy aside for this domain.`
)

// Causes are all causes, in the order of docs/why.md, which lists them.
func Causes() []Cause {
	return []Cause{
		{"mx-certificate-name-mismatch", remote, "the certificate of the mail host is for other names than the policy requires", "'tlspolicyd check DOMAIN' prints the names in the certificate and the policy. The operator of the mail host must install a certificate that names it, or correct the MTA-STS policy." + allow},
		{"mx-certificate-expired", remote, "the certificate of the mail host has expired", "The operator of the mail host must renew it. If it is so for many domains, check the clock of this host." + allow},
		{"mx-certificate-not-yet-valid", remote, "the certificate of the mail host is not valid yet", "Check the clock of this host with 'tlspolicyd doctor'; else the operator of the mail host must install another certificate." + allow},
		{"mx-certificate-untrusted", either, "the certificate of the mail host is self-signed, or from an authority that Postfix does not trust", "For many domains: Postfix lacks certificate authorities (smtp_tls_CAfile), see 'tlspolicyd doctor'. For one: 'tlspolicyd check DOMAIN'; the operator of the mail host must install a certificate of a public authority, with its intermediates." + allow},
		{"mx-certificate-not-verified", either, "the certificate of the mail host was not accepted, and the log does not say why", "Run 'tlspolicyd check DOMAIN', or look further back in the log: Postfix logs the reason once for each TLS session."},
		{"mx-not-in-policy", remote, "no mx line of the MTA-STS policy matches the mail host", "Run 'tlspolicyd check DOMAIN'. The operator of the domain must add the host to the policy file and change the id of the TXT record; the daemon follows within minutes." + allow},
		{"starttls-missing", remote, "the mail host does not offer STARTTLS, or something on the way removes it", "Run 'tlspolicyd check DOMAIN', also from another network: a firewall near this host that removes STARTTLS affects all domains." + allow},
		{"starttls-refused", remote, "the mail host offers STARTTLS and then refuses it", "It is mostly a certificate or key that the mail host cannot read. Its operator must fix it." + allow},
		{"smtp-tls-failed", either, "no TLS session after STARTTLS", "The evidence is what the TLS library reports: often a host that has only TLS 1.0 or 1.1, or no common cipher. Run 'tlspolicyd check DOMAIN'." + allow},
		{"dane-mismatch", remote, "the certificate of the mail host does not match its TLSA records, mostly because the key was changed without them", "Run 'tlspolicyd check DOMAIN'. With an override of level fingerprint, it is that override. Otherwise the operator of the mail host must publish TLSA records for the key in use. It may also be an attack, so do not set the policy aside without asking the operator."},
		{"dane-destination-unsigned", local, "the level dane-only applies to a domain whose MX records are not signed with DNSSEC", "tlspolicyd gives dane-only only while MX and addresses are signed: look for dane-only in smtp_tls_policy_maps, smtp_tls_security_level and [override]. If the domain was signed until now, 'tlspolicyd explain DOMAIN' shows what the resolver returns."},
		{"dane-records-missing", either, "the level dane-only applies to a mail host that has no TLSA records", "Look for dane-only in smtp_tls_policy_maps and [override]. If the records were removed, 'tlspolicyd cache refresh DOMAIN' looks again."},
		{"dane-unusable", either, "the level dane-only applies to a mail host whose TLSA records are all unusable", "Look for dane-only in smtp_tls_policy_maps and [override]. The operator of the mail host must publish records with usage 3 or 2."},
		{"dane-lookup-failed", either, "Postfix cannot look up the TLSA records of the mail host", "Run 'tlspolicyd check DOMAIN'. For many domains, see 'tlspolicyd doctor': the resolver; for one, its name servers or signatures are broken."},
		{"policy-lookup-failed", either, "tlspolicyd has no answer yet (TEMP), because a lookup fails; the evidence is its reason", "Run 'tlspolicyd explain DOMAIN'. For many domains, see 'tlspolicyd doctor'."},
		{"socket-unreachable", local, "Postfix cannot connect to the socket of tlspolicyd, or gets no reply there", "Run 'tlspolicyd doctor': the daemon is down, or the path in smtp_tls_policy_maps is not the one inside the chroot of smtp(8). Then 'postqueue -f'."},
		{"postfix-tls-configuration", local, "Postfix rejects a policy or its own TLS settings", "The evidence is the warning of Postfix. Fix main.cf or the table that it names; 'tlspolicyd doctor' checks both."},
		{"dns-lookup-failed", either, "Postfix cannot look up the MX records or the addresses, before any policy", "Run 'tlspolicyd check DOMAIN'. For many domains, see 'tlspolicyd doctor': the resolver; for one, its name servers or signatures are broken."},
	}
}

// verifyCodes say what is wrong with a certificate, by what Postfix or OpenSSL
// calls it.
func verifyCode(why string) string {
	for _, v := range []struct{ text, code string }{
		{"hostname mismatch", "mx-certificate-name-mismatch"},
		{"certificate has expired", "mx-certificate-expired"},
		{"certificate not yet valid", "mx-certificate-not-yet-valid"},
		{"no matching DANE TLSA records", "dane-mismatch"},
		{"self-signed certificate", "mx-certificate-untrusted"},
		{"untrusted issuer", "mx-certificate-untrusted"},
		{"not trusted by local or TLSA policy", "mx-certificate-untrusted"},
	} {
		if strings.Contains(why, v.text) {
			return v.code
		}
	}
	return "mx-certificate-not-verified"
}

const (
	notVerified   = "Server certificate not verified"
	wrongSettings = "client TLS configuration problem"
)

// classify finds the cause of a reason for which a message was held back. The
// warnings are those of the same process since the delivery before; verify is
// why the certificate of the mail host was refused. An empty code is a reason
// that is not about TLS policy.
func classify(reason string, warnings []string, verify string) (code, evidence string) {
	last := func(parts ...string) string {
		for i := len(warnings) - 1; i >= 0; i-- {
			for _, part := range parts {
				if strings.Contains(warnings[i], part) {
					return warnings[i]
				}
			}
		}
		return ""
	}
	begins := func(prefix string) bool { return strings.HasPrefix(reason, prefix) }
	switch {
	case begins(notVerified):
		return verifyCode(verify), verify
	case begins("TLS is required, but was not offered"):
		return "starttls-missing", ""
	case begins("TLS is required, but host") && strings.Contains(reason, " refused to start TLS"):
		_, answer, _ := strings.Cut(reason, " refused to start TLS: ")
		return "starttls-refused", answer
	case begins("TLS is required, but our TLS engine is unavailable"):
		return "postfix-tls-configuration", last("")
	case begins("Cannot start TLS: handshake failure"):
		return "smtp-tls-failed", last("TLS library problem: ", "tlsproxy")
	case begins("non DNSSEC destination"):
		return "dane-destination-unsigned", ""
	case begins("no TLSA records found"):
		return "dane-records-missing", ""
	case begins("TLSA records unusable"):
		return "dane-unusable", last(" unsupported TLSA ")
	case begins("TLSA lookup error for "):
		return "dane-lookup-failed", last("DANE TLSA lookup problem: ")
	case begins(wrongSettings):
		return settingsCause(last)
	case begins("Host or domain name not found. ") && strings.HasSuffix(reason, "try again"):
		return "dns-lookup-failed", ""
	}
	// The last mail host failed for another reason, or there was none left: what
	// Postfix logged about the hosts before counts.
	if w := last(mxPattern); w != "" {
		return "mx-not-in-policy", w
	}
	for _, w := range warnings {
		if tried, ok := strings.CutPrefix(w, earlierHost); ok {
			_, why, _ := cutHost(strings.TrimPrefix(last(notAccepted), notAccepted))
			if code, evidence = classify(tried, nil, why); code != "" {
				return code, evidence
			}
		}
	}
	return "", ""
}

const (
	mxPattern   = " does not match STS MX pattern for "
	notAccepted = "certificate verification failed for " // HOST[ADDRESS]:PORT: why
	policyFor   = "TLS policy lookup for "               // NEXTHOP/HOST: reason
	earlierHost = "earlier host: "                       // ours, before what Postfix logs about a host that was not the last
)

// settingsCause is the cause of "client TLS configuration problem", which is what
// Postfix says when it has no policy for whatever reason.
func settingsCause(last func(...string) string) (code, evidence string) {
	if w := last("socketmap server "); w != "" {
		_, answer, _ := strings.Cut(w, "socketmap server ")
		return "policy-lookup-failed", answer
	}
	if w := last("table socketmap:"); w != "" {
		return "socket-unreachable", w
	}
	if w := last(": policy table lookup error"); w != "" {
		return "policy-lookup-failed", w
	}
	if w := last(" next-hop destination ", " configured ", " TLS policy ", "nexthop domain ", "specifies an invalid hostname"); w != "" {
		return "postfix-tls-configuration", w
	}
	return "postfix-tls-configuration", last("")
}

// aboutTLS reports whether a reason that has no cause here mentions TLS.
func aboutTLS(reason string) bool {
	for _, word := range []string{"TLS", "certificate", "DANE", "DNSSEC"} {
		if strings.Contains(reason, word) {
			return true
		}
	}
	return false
}
