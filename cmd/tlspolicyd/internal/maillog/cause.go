package maillog

import (
	"slices"
	"strings"
)

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

// verifyCode is the cause for what Postfix or OpenSSL says of a certificate.
func verifyCode(why string) string {
	for _, v := range [][2]string{
		{"hostname mismatch", "mx-certificate-name-mismatch"},
		{"certificate has expired", "mx-certificate-expired"},
		{"certificate not yet valid", "mx-certificate-not-yet-valid"},
		{"no matching DANE TLSA records", "dane-mismatch"},
		{"self-signed certificate", "mx-certificate-untrusted"},
		{"untrusted issuer", "mx-certificate-untrusted"},
		{"not trusted by local or TLSA policy", "mx-certificate-untrusted"},
	} {
		if strings.Contains(why, v[0]) {
			return v[1]
		}
	}
	return "mx-certificate-not-verified"
}

const (
	notAccepted = "certificate verification failed for " // HOST[ADDRESS]:PORT: why
	policyFor   = "TLS policy lookup for "               // NEXTHOP/HOST: reason
	earlierHost = "earlier host: "                       // ours, before what Postfix logs about a host that was not the last
	mxPattern   = " does not match STS MX pattern for "
)

// rule finds the cause of a reason by how it begins, and by a warning where it
// names one: that is the evidence, from behind cut on.
type rule struct{ reason, warning, cut, code string }

// rules are tried in order.
func rules() []rule {
	const settings = "client TLS configuration problem" // whatever keeps Postfix from having a policy
	return []rule{
		{"TLS is required, but was not offered", "", "", "starttls-missing"},
		{"TLS is required, but our TLS engine is unavailable", "", "", "postfix-tls-configuration"},
		{"Cannot start TLS: handshake failure", "TLS library problem: ", "", "smtp-tls-failed"},
		{"Cannot start TLS: handshake failure", "tlsproxy", "", "smtp-tls-failed"},
		{"Cannot start TLS: handshake failure", "", "", "smtp-tls-failed"},
		{"non DNSSEC destination", "", "", "dane-destination-unsigned"},
		{"no TLSA records found", "", "", "dane-records-missing"},
		{"TLSA records unusable", " unsupported TLSA ", "", "dane-unusable"},
		{"TLSA records unusable", "", "", "dane-unusable"},
		{"TLSA lookup error for ", "DANE TLSA lookup problem: ", "", "dane-lookup-failed"},
		{"TLSA lookup error for ", "", "", "dane-lookup-failed"},
		{settings, "socketmap server ", "socketmap server ", "policy-lookup-failed"},
		{settings, "table socketmap:", "", "socket-unreachable"},
		{settings, ": policy table lookup error", "", "policy-lookup-failed"},
		{settings, " next-hop destination ", "", "postfix-tls-configuration"},
		{settings, " configured ", "", "postfix-tls-configuration"},
		{settings, "", "", "postfix-tls-configuration"},
		{"", mxPattern, "", "mx-not-in-policy"}, // the last host failed for another reason, or none was left
	}
}

// classify finds the cause of a reason for which a message was held back. The
// warnings are those of the same process since the delivery before; verify is
// why the certificate of the mail host was refused. An empty code is a reason
// that is not about TLS policy.
func classify(reason string, warnings []string, verify string) (code, evidence string) {
	last := func(part string) (string, bool) {
		for _, w := range slices.Backward(warnings) {
			if part != "" && strings.Contains(w, part) {
				return w, true
			}
		}
		return "", part == ""
	}
	_, answer, refused := strings.Cut(reason, " refused to start TLS: ")
	switch {
	case strings.HasPrefix(reason, "Server certificate not verified"):
		return verifyCode(verify), verify
	case refused && strings.HasPrefix(reason, "TLS is required, but host "):
		return "starttls-refused", answer
	case strings.HasPrefix(reason, "Host or domain name not found. ") && strings.HasSuffix(reason, "try again"):
		return "dns-lookup-failed", ""
	}
	for _, r := range rules() {
		if w, ok := last(r.warning); ok && strings.HasPrefix(reason, r.reason) {
			return r.code, w[strings.Index(w, r.cut)+len(r.cut):]
		}
	}
	// What Postfix logged about the hosts before the last counts.
	for _, w := range warnings {
		if tried, ok := strings.CutPrefix(w, earlierHost); ok {
			refusal, _ := last(notAccepted)
			_, why, _ := cutHost(strings.TrimPrefix(refusal, notAccepted))
			if code, evidence = classify(tried, nil, why); code != "" {
				return code, evidence
			}
		}
	}
	return "", ""
}
