package check

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"tlspolicyd/cmd/tlspolicyd/internal/audit"
	"tlspolicyd/internal/dane"
	"tlspolicyd/internal/dnsclient"
)

// judgeDomain judges what comes before any policy: the domain and its mail hosts.
func judgeDomain(f *Facts) []audit.Finding {
	d := f.Explanation.DANE
	switch {
	case f.dark() && f.OurDNS != nil:
		return nil
	case f.MXErr != nil:
		return []audit.Finding{f.dnsFailure("the mail hosts of "+f.Domain, "senders defer their mail", f.MXErr)}
	case d.MX.NoDomain:
		return []audit.Finding{{
			Code: "domain-missing", Grade: audit.Fail, Text: "The domain does not exist.", Evidence: "MX " + f.Domain + ": NXDOMAIN",
			Advice: "Check the spelling; if it is right, register or delegate the domain.",
		}}
	case d.MX.Null:
		return []audit.Finding{{
			Code: "mx-null", Grade: audit.OK, Text: "The domain says that it takes no mail (null MX, RFC 7505): there is nothing to protect.",
		}}
	case d.MX.Answer == dane.MXFailed:
		return []audit.Finding{f.dnsFailure("the mail hosts of "+f.Domain, "senders defer their mail", d.Err)}
	}
	var found []audit.Finding
	if len(d.Hosts) > 0 && d.Hosts[0].Implicit {
		if d.Hosts[0].Verdict == dane.NoAddress {
			return []audit.Finding{{
				Code: "mail-host-missing", Grade: audit.Fail, Text: "The domain has no mail host: neither an MX record nor an address.",
				Advice: "Publish an MX record; or, if the domain takes no mail, a null MX:", Fix: f.Domain + ". MX 0 .",
			}}
		}
		found = append(found, audit.Finding{
			Code: "mx-implicit", Grade: audit.Warn, Text: "There is no MX record, so the domain itself is the mail host (RFC 5321 section 5.1).",
			Advice: "Publish an MX record that names the host:", Fix: f.Domain + ". MX 10 " + f.Domain + ".",
		})
	} else {
		found = append(found, audit.Finding{
			Code: "mx-found", Grade: audit.OK, Text: number(len(d.Hosts), "mail host") + ", the MX answer is " + secureText(d.MX.Answer.Secure(), f.Trusted) + ".",
			Evidence: list(hostNames(d.Hosts)),
		})
	}
	if d.MX.NullToo {
		found = append(found, audit.Finding{
			Code: "mx-null-mixed", Grade: audit.Fail, Text: "A null MX stands beside other MX records, which must not be (RFC 7505 section 3): some senders, Postfix among them, bounce all mail to the domain.",
			Advice: "Remove the null MX, the record that names the root (MX 0 .).",
		})
	}
	for _, h := range d.Hosts {
		found = append(found, f.judgeHostName(h)...)
	}
	if more := d.MX.Omitted + f.Omitted; more > 0 {
		found = append(found, audit.Finding{
			Code: "mx-too-many", Grade: audit.Warn, Text: "There are more mail hosts or addresses than anybody tries.",
			Evidence: fmt.Sprintf("%d hosts and %d addresses were left out", d.MX.Omitted, f.Omitted),
			Advice:   "Publish fewer MX records: sending servers give up after the first few.",
		})
	}
	return found
}

func (f *Facts) judgeHostName(h dane.Host) (found []audit.Finding) {
	if to := f.alias(h.Name); to != "" && !h.Implicit {
		found = append(found, audit.Finding{
			Code: "mx-alias", Grade: audit.Warn, Subject: h.Name, Text: "The MX record names an alias, which RFC 5321 section 5.1 does not allow.",
			Evidence: "CNAME " + oneLine(to), Advice: "Name the host itself in the MX record; some senders refuse aliases, and certificates and TLSA records get harder to place.",
		})
	}
	grade := audit.Warn
	if !f.anyAddress() {
		grade = audit.Fail // and there is no other host
	}
	switch {
	case isAddress(h.Name):
		found = append(found, audit.Finding{
			Code: "mx-address-missing", Grade: grade, Subject: h.Name, Text: "The MX record names an address, but it must name a host (RFC 5321 section 5.1).",
			Advice: "Name the host that has this address.",
		})
	case h.Verdict == dane.NoAddress:
		found = append(found, audit.Finding{
			Code: "mx-address-missing", Grade: grade, Subject: h.Name, Text: "The mail host has no address.",
			Advice: "Publish its A and AAAA records, or remove it from the MX records.",
		})
	case h.Verdict == dane.AddressFailed:
		failed := f.dnsFailure("its addresses", "senders cannot deliver to it", h.Err)
		failed.Code, failed.Subject = "mx-lookup-failed", h.Name
		found = append(found, failed)
	}
	return found
}

// anyAddress reports whether a mail host has an address, as far as is known.
func (f *Facts) anyAddress() bool {
	for _, h := range f.Explanation.DANE.Hosts {
		if len(h.Addresses) > 0 || h.Verdict.Failed() {
			return true
		}
	}
	return false
}

// isAddress reports whether what an MX record names is an address, as some write
// it by mistake.
func isAddress(name string) bool {
	_, err := netip.ParseAddr(name)
	return err == nil
}

// dnsFailure tells of a failed lookup, and what it leads to, on a host whose DNS
// works for others. A server that says so failed for the domain; silence may be
// anybody's, and so is everything where it does not work for others.
func (f *Facts) dnsFailure(what, so string, err error) audit.Finding {
	out := audit.Finding{
		Code: "dns-timeout", Grade: audit.Unknown, Text: "No answer in time about " + what + ", while the resolver answers about others.",
		Evidence: errorText(err), Advice: "Try again; if it stays so, look at the name servers of the domain.",
	}
	if f.OurDNS != nil {
		out.Text = "No answer about " + what + ", nor about others: it is not known whose fault that is."
		out.Advice = "See what is said of this host."
		return out
	}
	if f.OurDNSUntold {
		out.Text = "No answer about " + what + ", and no time was left to ask about others: it is not known whose fault that is."
		out.Advice = "Check again with a longer --timeout, e.g. 60s."
		return out
	}
	e, ok := errors.AsType[*dnsclient.Error](err)
	if !ok || e.Kind != dnsclient.ServFail && e.Kind != dnsclient.Refused && e.Kind != dnsclient.Malformed {
		return out
	}
	out.Code, out.Grade = "dns-failed", audit.Fail
	out.Text = "DNS fails for " + what + ", while the resolver answers about others: " + so + "."
	out.Advice = "Look at the name servers of the domain, and at its DNSSEC signatures."
	out.Fix = "dig +trace -q " + oneLine(e.Name)
	if strings.Contains(e.Extended, "Bogus") || strings.Contains(e.Extended, "Signature") || strings.Contains(e.Extended, "DNSKEY") {
		out.Code = "dnssec-bogus"
		out.Text = "The DNSSEC signatures about " + what + " are wrong, so validating resolvers give no answer: " + so + "."
		out.Advice = "Sign the zone again, or put the DS record at the parent right."
		out.Fix = "delv -q " + oneLine(e.Name)
	}
	return out
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return oneLine(err.Error())
}

func secureText(secure, trusted bool) string {
	switch {
	case secure:
		return "signed (DNSSEC)"
	case !trusted:
		return "not known to be signed, because this host's resolver is not trusted"
	}
	return "not signed (no DNSSEC)"
}

func hostNames(hosts []dane.Host) (names []string) {
	for _, h := range hosts {
		names = append(names, fmt.Sprintf("%d %s", h.Preference, h.Name))
	}
	return names
}
