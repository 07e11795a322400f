package check

import (
	"crypto/tls"
	"strings"

	"tlspolicyd/cmd/tlspolicyd/internal/audit"
	"tlspolicyd/cmd/tlspolicyd/internal/audit/smtpprobe"
	"tlspolicyd/internal/dane"
	"tlspolicyd/internal/mtasts"
	"tlspolicyd/policymap/policy"
)

// judgeSenders says what all of this leads to: the reply that a Postfix with
// tlspolicyd gets, and whether delivery under it succeeds.
func judgeSenders(f *Facts) (found []audit.Finding) {
	e := f.Explanation
	if f.noMail() {
		return nil
	}
	found = append(found, f.judgeReply())
	if e.Decision.Level == policy.Temporary {
		return found
	}
	if f.port25Blocked() {
		return append(found, audit.Inconclusive("delivery-inconclusive", "", "Whether delivery succeeds is unknown, because no mail host could be reached from here.", "", "See the findings about this host."))
	}
	delivered := false
	var outcomes []outcome
	for _, h := range f.Hosts {
		if h.Verdict == dane.NoAddress || len(h.Addresses) == 0 {
			continue // the findings about the domain say so
		}
		o := f.deliver(h)
		delivered = delivered || o.verdict == "delivery-ok"
		outcomes = append(outcomes, o)
	}
	for _, o := range outcomes {
		switch {
		case o.verdict == "delivery-ok":
			found = append(found, audit.Passed(o.verdict, o.host, o.text, o.why))
		case o.verdict == "delivery-inconclusive":
			found = append(found, audit.Inconclusive(o.verdict, o.host, o.text, o.why, ""))
		case delivered:
			found = append(found, audit.Warned(o.verdict, o.host, "Senders do not deliver to it, and go on to the other hosts.", o.why, wrongAbove, ""))
		default:
			found = append(found, audit.Failed(o.verdict, o.host, o.text, o.why, wrongAbove, ""))
		}
	}
	return found
}

const wrongAbove = "See the findings about this host above."

func (f *Facts) judgeReply() audit.Finding {
	e := f.Explanation
	seen := "reply: " + oneLine(strings.TrimSpace(e.Postfix))
	passed := func(text string) audit.Finding { return audit.Passed("senders-reply", "", text, seen) }
	switch e.Decision.Level {
	case policy.DANEOnly:
		return passed("Postfix with tlspolicyd requires DANE.")
	case policy.DANE:
		return passed("Postfix with tlspolicyd uses DANE with the hosts that have it.")
	case policy.Secure:
		return passed("Postfix with tlspolicyd enforces the MTA-STS policy.")
	case policy.Temporary:
		out := audit.Failed("senders-deferred", "", "Postfix defers mail to the domain, because a required lookup fails.", seen, "See above which lookup fails.", "")
		if onlyTimeouts(f) {
			out.Grade = audit.Unknown
		}
		return out
	}
	switch {
	case f.mode() == mtasts.Testing:
		return passed("In mode testing senders deliver as if there were no policy.")
	case f.mode() == mtasts.None:
		return passed("In mode none senders deliver as if there were no policy.")
	case f.policyInconclusive() || f.Explanation.Record.Failed:
		return audit.Inconclusive("delivery-inconclusive", "", "What senders do depends on a policy that could not be fetched.", seen, "See the findings about it.")
	}
	return audit.Failed("senders-unprotected", "", "Senders have no reason to require TLS: an attacker on the way can read the mail, or divert it.", seen,
		"Publish an MTA-STS policy (RFC 8461), or sign the zones and publish TLSA records (RFC 7672).", "")
}

// onlyTimeouts reports whether a deferral has no other cause than silence.
func onlyTimeouts(f *Facts) bool {
	err := f.Explanation.DANE.Err
	return err != nil && f.dnsFailure("", "", err).Grade == audit.Unknown
}

// outcome is what becomes of a delivery to one host.
type outcome struct{ host, verdict, text, why string }

// deliver tries the addresses of a host as Postfix does: one that works is
// enough.
func (f *Facts) deliver(h Host) outcome {
	out := outcome{host: h.Name, verdict: "delivery-failed", text: "Senders do not deliver to it."}
	if f.Explanation.Decision.Level == policy.Secure && f.covering(h.Name) == "" {
		out.why = "MX host is in no mx line of the policy"
		return out
	}
	for _, a := range h.Addresses {
		why, known := f.refusal(h, a)
		switch {
		case known && why == "":
			return outcome{h.Name, "delivery-ok", "Delivery to this host succeeds.", f.howText(h, a.Probe)}
		case !known && out.verdict == "delivery-failed":
			out.verdict, out.text, out.why = "delivery-inconclusive", "Whether delivery to this host succeeds is unknown.", why
		case known && out.why == "":
			out.why = why
		}
	}
	return out
}

func (f *Facts) howText(h Host, p *smtpprobe.Result) string {
	if p.Stage != smtpprobe.Done {
		return "in the clear, because it offers no TLS"
	}
	switch f.Explanation.Decision.Level {
	case policy.DANEOnly, policy.DANE:
		if h.Verdict.HasUsable() {
			return "over TLS, checked by DANE"
		}
		return "over TLS, without authentication"
	case policy.Secure:
		return "over TLS, checked by MTA-STS"
	}
	return "over TLS, without authentication"
}

// refusal says why a sender would not deliver to an address, or "" when it
// would. known is false where that cannot be seen from this host.
func (f *Facts) refusal(h Host, a Address) (why string, known bool) {
	if f.Explanation.DANE.MX.NullToo {
		return "there is a null MX beside it", true
	}
	p := a.Probe
	level := f.Explanation.Decision.Level
	switch {
	case a.NotPublic != "":
		return "its address is not public", true
	case p == nil:
		return "it was not tried", false
	case p.Cause == smtpprobe.Unfinished:
		return p.Reason, false
	case p.Stage == smtpprobe.Connect:
		return p.Reason, !f.port25Blocked() && !f.familyUnreachable(a.Addr.Is6())
	case p.Cause == smtpprobe.Slow || p.Cause == smtpprobe.Rejected && p.Stage != smtpprobe.STARTTLS:
		return p.Reason, false
	case p.Stage == smtpprobe.Greeting, p.Stage == smtpprobe.EHLO:
		return p.Reason, true
	case h.Verdict.Failed() && (level == policy.DANE || level == policy.DANEOnly):
		return "its TLSA lookup fails", f.dnsFailure("", "", h.Err).Grade == audit.Fail // 7672 §2.1.2
	case level == policy.Secure:
		return f.refusalSecure(h, p)
	case level == policy.DANEOnly, level == policy.DANE && h.Verdict.HasTLSA():
		return f.refusalDANE(h, a)
	}
	return "", true // opportunistic: in the clear if need be
}

// refusalSecure is Postfix's level secure with the names of the policy: TLS, a
// trusted chain, a name that the policy allows. It requires the host's own name as
// RFC 8461 §4.2 does; "match=" alone would accept that of another allowed host.
func (f *Facts) refusalSecure(h Host, p *smtpprobe.Result) (why string, known bool) {
	switch {
	case p.Stage != smtpprobe.Done:
		return p.Reason, true
	case p.TLSVersion < tls.VersionTLS12:
		return tooOld(p), true
	}
	faults := f.certificateFaults(h.Name, p.Chain)
	switch {
	case len(faults) == 0:
		return "", true
	case faults[0].Code == "mx-certificate-untrusted" && f.NoRoots:
		return "this host has no certificate authorities", false
	}
	return strings.TrimSuffix(faults[0].Text, "."), true
}

func (f *Facts) refusalDANE(h Host, a Address) (why string, known bool) {
	if a.Probe.Stage != smtpprobe.Done {
		return a.Probe.Reason, true
	}
	if !h.Verdict.HasUsable() {
		if f.Explanation.Decision.Level == policy.DANEOnly {
			return "none of its TLSA records is usable", true
		}
		return "", true // encrypted, without authentication (7672 §2.2)
	}
	switch {
	case a.Probe.TLSVersion < tls.VersionTLS12:
		return tooOld(a.Probe), true
	case !a.Match.OK:
		return a.Match.Reason, true
	}
	return "", true
}

// tooOld is why a host that has to be authenticated is refused (see oldTLS).
func tooOld(p *smtpprobe.Result) string {
	return "it speaks no TLS newer than " + tls.VersionName(p.TLSVersion)
}
