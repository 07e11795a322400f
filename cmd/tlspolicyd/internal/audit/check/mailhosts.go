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

// judgeHost puts addresses with the same findings together: a host with four of
// them is not four times as bad.
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
		return []audit.Finding{{
			Code: "mx-not-public", Grade: audit.Fail, Text: "The address is not public, so senders cannot reach it.", Evidence: a.NotPublic,
			Advice: "Publish a public address; or, if this host's resolver gives other answers than the world's, check with another (fetch.allow_networks lets the audit connect).",
		}}
	}
	p := a.Probe
	switch {
	case p == nil:
		return nil
	case p.Stage == smtpprobe.Connect && f.port25Dark(), f.familyDark(a.Addr.Is6()):
		return nil // said of this host
	case p.Cause == smtpprobe.Unfinished:
		return []audit.Finding{{
			Code: "smtp-inconclusive", Grade: audit.Unknown, Text: "This audit had not the time to connect to it.", Evidence: p.Reason,
			Advice: "Check again with a longer --timeout, e.g. 60s.",
		}}
	case !p.Reached():
		return []audit.Finding{f.unreachable(h, "It does not answer at port 25, while others do.", p.Reason)}
	case p.Stage == smtpprobe.Done:
		return f.judgeSession(h, a)
	}
	return []audit.Finding{f.judgeDialogue(h, p)}
}

func (f *Facts) unreachable(h Host, text, reason string) audit.Finding {
	out := audit.Finding{
		Code: "smtp-unreachable", Grade: audit.Fail, Text: text, Evidence: reason,
		Advice: "Start the mail server there, open its firewall, or remove the address from DNS.",
	}
	if f.anyDone() { // senders go on to another address or host
		out.Grade = audit.Warn
	}
	return out
}

// judgeDialogue is for a probe that ended before TLS.
func (f *Facts) judgeDialogue(h Host, p *smtpprobe.Result) audit.Finding {
	out := audit.Finding{Grade: audit.Fail, Evidence: p.Reason}
	switch {
	case p.Cause == smtpprobe.Refused:
		return f.unreachable(h, "It refuses the connection to port 25.", p.Reason)
	case p.Cause == smtpprobe.Slow:
		out.Code, out.Grade = "smtp-inconclusive", audit.Unknown
		out.Text = "It is too slow for this audit; sending servers wait for minutes."
		out.Advice = "Check again with a longer --timeout, e.g. 60s."
	case p.Stage == smtpprobe.Offer:
		out.Code, out.Text, out.Evidence = "starttls-missing", "It does not offer STARTTLS, so all mail to it is in the clear, or is held back by senders that insist.", ""
		out.Advice = "Configure a certificate on the mail server; in Postfix smtpd_tls_chain_files and smtpd_tls_security_level=may."
	case p.Stage == smtpprobe.STARTTLS && p.Cause == smtpprobe.SentAway:
		out.Code, out.Text = "starttls-refused", "It offers STARTTLS and then refuses it."
		out.Advice = "Look at its log: usually it cannot read its certificate or its key."
	case p.Cause == smtpprobe.SentAway:
		out.Code, out.Grade = "smtp-rejected", audit.Unknown
		out.Text = "It does not speak with this host, so nothing can be told of its TLS."
		out.Advice = "If the reply is about this host's address or name, check from a host that sends mail, or set --ehlo to this host's public name."
	case p.Stage == smtpprobe.TLS:
		out.Code, out.Text = "tls-failed", "It takes STARTTLS, but opens no TLS session."
		out.Advice = "Look at its log and its TLS settings; this must work:"
		out.Fix = fmt.Sprintf("openssl s_client -starttls smtp -connect %s -servername %s", p.Addr, h.Name)
		if strings.Contains(p.Reason, "failed to parse certificate") {
			// OpenSSL takes some certificates that crypto/x509 does not.
			out.Grade = audit.Unknown
			out.Text = "Its certificate is malformed in a way that this program does not read; others may."
		}
	default:
		out.Code, out.Text = "smtp-protocol-error", "What answers at port 25 does not speak SMTP as it should."
		out.Advice = "Look at what listens there."
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
			if f.NoRoots && faults[i].Code == "certificate-untrusted" {
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
		found = append(found, audit.Finding{Code: "smtp-ok", Grade: audit.OK, Text: text, Evidence: certificateText(leaf, f.At)})
		soon := endsSoon(leaf.NotBefore, leaf.NotAfter, f.At)
		if soon && (use != notNeeded || a.Match.Record.Usage == 2) {
			found = append(found, audit.Finding{
				Code: "certificate-expiring", Grade: audit.Warn, Text: "The certificate ends soon.", Evidence: leftText(leaf.NotAfter, f.At),
				Advice: "Renew it, reload the mail server, and look why nothing has renewed it yet.",
			})
		}
	}
	if p.TLSVersion < tls.VersionTLS12 {
		found = append(found, f.oldTLS(h, p))
	}
	return found
}

// oldTLS is for a host that speaks TLS 1.0 or 1.1 alone. Who has to know whom he
// speaks with refuses that: Postfix raises OpenSSL's security level to 1 then,
// which OpenSSL 3 grants to TLS 1.2 and later only.
func (f *Facts) oldTLS(h Host, p *smtpprobe.Result) audit.Finding {
	out := audit.Finding{
		Code: "tls-version-old", Grade: audit.Warn, Text: "It speaks no TLS newer than " + tls.VersionName(p.TLSVersion) + ", which RFC 8996 forbids; more and more senders refuse it.",
		Evidence: p.CipherSuite, Advice: "Update the mail server, or switch on TLS 1.2 and 1.3.",
	}
	if f.mode() == mtasts.Enforce || h.Verdict.HasUsable() {
		out.Grade = audit.Fail
		out.Text = "It speaks no TLS newer than " + tls.VersionName(p.TLSVersion) + ", which RFC 8996 forbids; where MTA-STS or DANE is to be kept, senders of today, Postfix with OpenSSL 3 among them, refuse it."
	}
	return out
}

// need is what the certificate of a mail host is for.
type need uint8

const (
	notNeeded  need = iota // nobody looks at more than its TLSA records
	goodToHave             // nobody looks at it, but MTA-STS would
	needed                 // senders refuse a bad one
)

func (n need) grade() audit.Grade {
	if n == needed {
		return audit.Fail
	}
	return audit.Warn
}

// certificateNeeded says whether somebody holds the certificate of a host
// against names and authorities (8461 §4.2), as nobody does under DANE with
// usage 3.
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
