package check

import (
	"crypto/tls"
	"fmt"
	"strings"

	"tlspolicyd/cmd/tlspolicyd/internal/audit"
	"tlspolicyd/cmd/tlspolicyd/internal/audit/smtpprobe"
	"tlspolicyd/internal/mtasts"
)

// judgeMailHosts judges what the mail hosts do at port 25 (RFC 3207), all
// addresses side by side.
func judgeMailHosts(f *Facts) (found []audit.Finding) {
	if f.noMail() {
		return nil
	}
	for _, h := range f.Hosts {
		found = append(found, f.judgeHost(h)...)
	}
	return found
}

// judgeHost joins the findings that addresses of a host have in common: a host
// with four of them is not four times as bad.
func (f *Facts) judgeHost(h Host) (found []audit.Finding) {
	type key struct{ code, text, evidence string }
	places := map[key]int{}
	var addresses [][]string
	for _, a := range h.Addresses {
		for _, one := range f.judgeAddress(h, a) {
			one.Subject = h.Name
			k := key{one.Code, one.Text, one.Evidence}
			at, known := places[k]
			if !known {
				at = len(found)
				places[k] = at
				found = append(found, one)
				addresses = append(addresses, nil)
			}
			addresses[at] = append(addresses[at], a.Addr.String())
		}
	}
	for i := range found {
		at := list(addresses[i])
		if found[i].Evidence != "" {
			at += ": " + found[i].Evidence
		}
		found[i].Evidence = at
	}
	return found
}

func (f *Facts) judgeAddress(h Host, a Address) []audit.Finding {
	if a.NotPublic != "" {
		return []audit.Finding{audit.Failed("mx-not-public", "", "The address is not public, so senders cannot reach it.", a.NotPublic,
			"Publish a public address. If only the resolver of this host gives this answer, check with another one (fetch.allow_networks allows the connection).", "")}
	}
	p := a.Probe
	switch {
	case p == nil:
		return nil
	case p.Stage == smtpprobe.Connect && f.port25Blocked(), f.familyUnreachable(a.Addr.Is6()):
		return nil // judgeThisHost reports it
	case p.Cause == smtpprobe.Unfinished:
		return []audit.Finding{audit.Inconclusive("smtp-inconclusive", "", "There was no time to connect to it.", p.Reason, longer)}
	case !p.Reached():
		return []audit.Finding{f.unreachable("It does not answer at port 25, while other mail hosts do.", p.Reason)}
	case p.Stage == smtpprobe.Done:
		return f.judgeSession(h, a)
	}
	return []audit.Finding{f.judgeDialogue(h, p)}
}

const longer = "Check again with a longer --timeout, e.g. 60s."

func (f *Facts) unreachable(text, reason string) audit.Finding {
	out := audit.Failed("smtp-unreachable", "", text, reason, "Start the mail server there, open its firewall, or remove the address from DNS.", "")
	if f.anyDone() { // senders go on to another address or host
		out.Grade = audit.Warn
	}
	return out
}

// judgeDialogue is for a probe that ended before TLS.
func (f *Facts) judgeDialogue(h Host, p *smtpprobe.Result) audit.Finding {
	switch {
	case p.Cause == smtpprobe.Refused:
		return f.unreachable("It refuses the connection to port 25.", p.Reason)
	case p.Cause == smtpprobe.Slow:
		return audit.Inconclusive("smtp-inconclusive", "", "It is too slow for this audit; sending servers wait for minutes.", p.Reason, longer)
	case p.Stage == smtpprobe.Offer:
		return audit.Failed("starttls-missing", "", "It does not offer STARTTLS, so all mail to it is sent in the clear, or is deferred by senders that require TLS.", "",
			"Configure a certificate on the mail server; in Postfix smtpd_tls_chain_files and smtpd_tls_security_level=may.", "")
	case p.Stage == smtpprobe.STARTTLS && p.Cause == smtpprobe.Rejected:
		return audit.Failed("starttls-refused", "", "It offers STARTTLS and then refuses it.", p.Reason, "Read its log: usually it cannot read its certificate or its key.", "")
	case p.Cause == smtpprobe.Rejected:
		return audit.Inconclusive("smtp-rejected", "", "It rejects the session with this host, so its TLS is unknown.", p.Reason,
			"If the reply is about this host's address or name, check from a host that sends mail, or set --ehlo to the public name of this host.")
	case p.Stage != smtpprobe.TLS:
		return audit.Failed("smtp-protocol-error", "", "What answers at port 25 does not speak SMTP.", p.Reason, "Check which program listens there.", "")
	}
	out := audit.Failed("smtp-tls-failed", "", "It accepts STARTTLS, but opens no TLS session.", p.Reason, "Read its log and check its TLS settings; this must work:",
		fmt.Sprintf("openssl s_client -starttls smtp -connect %s -servername %s", p.Addr, h.Name))
	if strings.Contains(p.Reason, "failed to parse certificate") {
		// OpenSSL accepts some certificates that crypto/x509 does not.
		out.Grade = audit.Unknown
		out.Text = "Its certificate is malformed in a way that this program does not read; others may."
	}
	return out
}

// judgeSession is for an address that presented a certificate.
func (f *Facts) judgeSession(h Host, a Address) (found []audit.Finding) {
	p := a.Probe
	use := f.certificateNeeded(h, a)
	faults := f.certificateFaults(h.Name, p.Chain)
	if use != notNeeded {
		for i := range faults {
			faults[i].Grade = use.grade()
			if f.NoRoots && faults[i].Code == "mx-certificate-untrusted" {
				faults[i].Grade = audit.Unknown
			}
		}
		found = append(found, faults...)
	}
	leaf := p.Chain[0]
	if len(found) == 0 {
		text := tls.VersionName(p.TLSVersion) + ", and a valid certificate for this host."
		if len(faults) > 0 {
			text = tls.VersionName(p.TLSVersion) + ", and the certificate that its TLSA record names."
		}
		found = append(found, audit.Passed("smtp-ok", "", text, certificateText(leaf, f.At)))
		if expiresSoon(leaf.NotBefore, leaf.NotAfter, f.At) && (use != notNeeded || a.Match.Record.Usage == 2) {
			found = append(found, audit.Warned("mx-certificate-expiring", "", "The certificate expires soon.", leftText(leaf.NotAfter, f.At),
				"Renew it, reload the mail server, and find out why it was not renewed automatically.", ""))
		}
	}
	if p.TLSVersion < tls.VersionTLS12 {
		found = append(found, f.oldTLS(h, p))
	}
	return found
}

// oldTLS is for a host that speaks TLS 1.0 or 1.1 alone. A sender that has to
// authenticate it refuses that: Postfix raises OpenSSL's security level to 1 then,
// which OpenSSL 3 grants to TLS 1.2 and later only.
func (f *Facts) oldTLS(h Host, p *smtpprobe.Result) audit.Finding {
	text := "It speaks no TLS newer than " + tls.VersionName(p.TLSVersion) + ", which RFC 8996 forbids; "
	out := audit.Warned("smtp-tls-version-old", "", text+"more and more senders refuse it.", p.CipherSuite, "Update the mail server, or enable TLS 1.2 and 1.3.", "")
	if f.mode() == mtasts.Enforce || h.Verdict.HasUsable() {
		out.Grade = audit.Fail
		out.Text = text + "under MTA-STS or DANE senders, Postfix with OpenSSL 3 among them, refuse it."
	}
	return out
}

// need is what the certificate of a mail host is for.
type need uint8

const (
	notNeeded  need = iota // senders check it against TLSA records only
	goodToHave             // senders do not check it, but under MTA-STS they would
	needed                 // senders refuse a bad one
)

func (n need) grade() audit.Grade {
	if n == needed {
		return audit.Fail
	}
	return audit.Warn
}

// certificateNeeded says whether senders check the names and the authority of a
// host's certificate (8461 §4.2), which they do not under DANE with usage 3.
func (f *Facts) certificateNeeded(h Host, a Address) need {
	switch f.mode() {
	case mtasts.Enforce:
		return needed
	case mtasts.Testing:
		return goodToHave
	}
	if h.Verdict.HasUsable() && a.Match.OK {
		return notNeeded
	}
	return goodToHave
}
