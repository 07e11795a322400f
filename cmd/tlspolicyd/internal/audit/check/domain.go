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
	case f.nothingKnown() && f.OurDNS != nil:
		return nil
	case f.MXErr != nil:
		return []audit.Finding{f.dnsFailure("the mail hosts of "+f.Domain, "senders defer their mail", f.MXErr)}
	case d.MX.NoDomain:
		return []audit.Finding{audit.Failed("domain-missing", "", "The domain does not exist.", "MX "+f.Domain+": NXDOMAIN",
			"Check the spelling; if it is right, register or delegate the domain.", "")}
	case d.MX.Null:
		return []audit.Finding{audit.Passed("mx-null", "", "The domain accepts no mail (null MX, RFC 7505): there is nothing to protect.", "")}
	case d.MX.Answer == dane.MXFailed:
		return []audit.Finding{f.dnsFailure("the mail hosts of "+f.Domain, "senders defer their mail", d.Err)}
	}
	var found []audit.Finding
	switch {
	case len(d.Hosts) == 0 || !d.Hosts[0].Implicit:
		found = append(found, audit.Passed("mx-found", "", number(len(d.Hosts), "mail host")+", the MX answer is "+secureText(d.MX.Answer.Secure(), f.Trusted)+".", list(hostNames(d.Hosts))))
	case d.Hosts[0].Verdict == dane.NoAddress:
		return []audit.Finding{audit.Failed("mail-host-missing", "", "The domain has no mail host: neither an MX record nor an address.", "",
			"Publish an MX record; or, if the domain accepts no mail, a null MX:", f.Domain+". MX 0 .")}
	default:
		found = append(found, audit.Warned("mx-implicit", "", "There is no MX record, so the domain itself is the mail host (RFC 5321 section 5.1).", "",
			"Publish an MX record that names the host:", f.Domain+". MX 10 "+f.Domain+"."))
	}
	if d.MX.NullToo {
		found = append(found, audit.Failed("mx-null-mixed", "", "There is a null MX beside other MX records, which RFC 7505 section 3 forbids: some senders, Postfix among them, bounce all mail to the domain.", "",
			"Remove the null MX, the record that names the root (MX 0 .).", ""))
	}
	for _, h := range d.Hosts {
		found = append(found, f.judgeHostName(h)...)
	}
	if more := d.MX.Omitted + f.Omitted; more > 0 {
		found = append(found, audit.Warned("mx-too-many", "", "There are more mail hosts or addresses than senders try.",
			fmt.Sprintf("%d hosts and %d addresses were left out", d.MX.Omitted, f.Omitted), "Publish fewer MX records: senders stop after the first few.", ""))
	}
	return found
}

func (f *Facts) judgeHostName(h dane.Host) (found []audit.Finding) {
	if to := f.alias(h.Name); to != "" && !h.Implicit {
		found = append(found, audit.Warned("mx-alias", h.Name, "The MX record names an alias, which RFC 5321 section 5.1 does not allow.",
			"CNAME "+oneLine(to), "Name the host itself in the MX record: some senders refuse aliases, and it becomes unclear which name certificates and TLSA records need.", ""))
	}
	address := audit.Warned("mx-address-missing", h.Name, "The mail host has no address.", "", "Publish its A and AAAA records, or remove it from the MX records.", "")
	if !f.anyAddress() {
		address.Grade = audit.Fail // and there is no other host
	}
	switch {
	case isAddress(h.Name):
		address.Text, address.Advice = "The MX record names an address, but it must name a host (RFC 5321 section 5.1).", "Name the host that has this address."
		found = append(found, address)
	case h.Verdict == dane.NoAddress:
		found = append(found, address)
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

// dnsFailure is about a failed lookup, and what it leads to, on a host whose DNS
// works for other names. A server that reports a failure failed for the domain;
// silence may be the fault of either side, and so is everything where DNS does not
// work for other names.
func (f *Facts) dnsFailure(what, so string, err error) audit.Finding {
	out := audit.Inconclusive("dns-timeout", "", "No answer in time about "+what+", while the resolver answers about other names.",
		errorText(err), "Try again; if it stays so, check the name servers of the domain.")
	e, ok := errors.AsType[*dnsclient.Error](err)
	switch {
	case f.OurDNS != nil:
		out.Text, out.Advice = "No answer about "+what+", nor about other names: which side fails is unknown.", "See the findings about this host."
	case f.NoTimeForDNS:
		out.Text = "No answer about " + what + ", and no time was left to ask about other names: which side fails is unknown."
		out.Advice = "Check again with a longer --timeout, e.g. 60s."
	case !ok || e.Kind != dnsclient.ServFail && e.Kind != dnsclient.Refused && e.Kind != dnsclient.Malformed:
	case strings.Contains(e.Extended, "Bogus") || strings.Contains(e.Extended, "Signature") || strings.Contains(e.Extended, "DNSKEY"):
		return audit.Failed("dnssec-bogus", "", "The DNSSEC signatures about "+what+" are wrong, so validating resolvers give no answer: "+so+".",
			out.Evidence, "Sign the zone again, or correct the DS record at the parent.", "delv -q "+oneLine(e.Name))
	default:
		return audit.Failed("dns-failed", "", "DNS fails for "+what+", while the resolver answers about other names: "+so+".",
			out.Evidence, "Check the name servers of the domain, and its DNSSEC signatures.", "dig +trace -q "+oneLine(e.Name))
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
