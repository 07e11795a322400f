package check

import (
	"errors"
	"fmt"

	"tlspolicyd/cmd/tlspolicyd/internal/audit"
	"tlspolicyd/cmd/tlspolicyd/internal/audit/smtpprobe"
)

// judgeThisHost says what keeps this host from seeing the domain as others do.
// None of it is the domain's fault.
func judgeThisHost(f *Facts) (found []audit.Finding) {
	unknown := func(code, subject, text, evidence, advice, fix string) {
		found = append(found, audit.Finding{
			Code: code, Grade: audit.Unknown, Subject: subject, Text: text, Evidence: evidence, Advice: advice, Fix: fix,
		})
	}
	if errors.Is(f.OurDNS, errIsolated) {
		unknown("dns-isolated", "", "The resolver of this host says that not even the root of DNS exists: it is cut off from the internet, and nothing is known of the domain.",
			f.servers()+": "+errIsolated.Error(), "Check from a host with a network, or name another resolver in dns.servers.", "")
		return found
	}
	if f.OurDNS != nil && !f.dark() {
		unknown("dns-down", "", "This host could not look up all of it, nor a name that has nothing to do with the domain: its resolver or its network fails.",
			oneLine(f.OurDNS.Error()), "Look at the resolver of this host ("+f.servers()+"), then check again.", "")
	} else if f.OurDNS != nil {
		unknown("dns-down", "", "This host gets no answer from DNS, whatever it asks: it is the network or the resolver here, and nothing is known of the domain.",
			oneLine(f.OurDNS.Error()), fmt.Sprintf("Look at the network of this host and at its resolver (%s); this must answer:", f.servers()),
			"dig "+f.digServer()+" com. SOA")
		return found
	}
	switch {
	case f.networkDark():
		unknown("outbound-blocked", "", "DNS answers, but neither the policy host nor any mail host could be connected to: it looks like the network of this host.",
			f.FetchErr.Error()+"; port 25: "+f.darkReason(), "Look at the network and the firewall of this host, then check again.", "")
	case f.port25Dark():
		unknown("port25-blocked", "", "No mail host takes a connection to port 25, at any address: it looks as though port 25 is blocked on the way out of this host.",
			f.darkReason(), "Check it together with a domain that is known to take mail. If that one's hosts are dark as well, check from a host that may send mail; if not, the domain's own are down:",
			"tlspolicyd check "+f.Domain+" "+f.anotherDomain())
	default:
		for _, v6 := range []bool{false, true} {
			if f.familyDark(v6) {
				name, other := "IPv4", "--ipv6"
				if v6 {
					name, other = "IPv6", "--ipv4"
				}
				unknown("ip-family-unreachable", name, "No mail host answers over "+name+", while the other family works: this host may have no "+name+", or they have none.",
					f.darkReason(), "Check from a host with "+name+", or leave it out with "+other+".", "")
			}
		}
	}
	if f.policyDark() && f.Exchange != nil && f.Exchange.Proxy != "" {
		unknown("proxy-failed", "", "The proxy of fetch.proxy did not connect to the policy host.", oneLine(f.Exchange.Proxy+": "+f.FetchErr.Reason),
			"Look at the proxy, or whether it lets this host through to port 443.", "")
	}
	if f.NoRoots {
		unknown("trust-store-empty", "", "This host has no certificate authorities, so no certificate can be judged.", "",
			"Install them, or name a file in fetch.ca_file:", "apt install ca-certificates")
	}
	return found
}

// anotherDomain is one that is known to take mail.
func (f *Facts) anotherDomain() string {
	if f.Domain == "gmail.com" {
		return "outlook.com"
	}
	return "gmail.com"
}

// digServer names the first resolver to dig(1).
func (f *Facts) digServer() string {
	if len(f.Servers) == 0 {
		return "@127.0.0.1"
	}
	s := f.Servers[0]
	if s.Port() == 53 {
		return "@" + s.Addr().String()
	}
	return fmt.Sprintf("-p %d @%s", s.Port(), s.Addr())
}

// servers names all of them.
func (f *Facts) servers() string {
	var names []string
	for _, s := range f.Servers {
		names = append(names, s.String())
	}
	return list(names)
}

// darkReason names the addresses that could not be connected to.
func (f *Facts) darkReason() string {
	var silent []string
	reason := ""
	for _, h := range f.Hosts {
		for _, a := range h.Addresses {
			if a.Probe != nil && a.Probe.Stage == smtpprobe.Connect && a.Probe.Cause != smtpprobe.Unfinished && (f.port25Dark() || f.familyDark(a.Addr.Is6())) {
				silent = append(silent, a.Addr.String())
				reason = a.Probe.Reason
			}
		}
	}
	return list(silent) + ": " + reason
}
