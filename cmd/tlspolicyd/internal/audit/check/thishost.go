package check

import (
	"errors"
	"fmt"

	"tlspolicyd/cmd/tlspolicyd/internal/audit"
	"tlspolicyd/cmd/tlspolicyd/internal/audit/smtpprobe"
)

// judgeThisHost is about what keeps this host from seeing the domain as others
// do. None of it is the fault of the domain.
func judgeThisHost(f *Facts) (found []audit.Finding) {
	add := func(code, subject, text, evidence, advice, fix string) {
		found = append(found, audit.Finding{
			Code: code, Grade: audit.Unknown, Subject: subject, Text: text, Evidence: evidence, Advice: advice, Fix: fix,
		})
	}
	switch {
	case errors.Is(f.OurDNS, errIsolated):
		add("dns-isolated", "", "The resolver of this host denies even the root of DNS: it does not see the Internet, and nothing is known of the domain.",
			f.servers()+": "+errIsolated.Error(), "Check from a host with a network, or set another resolver in dns.servers.", "")
		return found
	case f.OurDNS != nil && f.nothingKnown():
		add("dns-down", "", "This host gets no answer from DNS, whatever it asks: its network or its resolver fails, and nothing is known of the domain.",
			oneLine(f.OurDNS.Error()), fmt.Sprintf("Check the network of this host and its resolver (%s); this must answer:", f.servers()),
			"dig "+f.digServer()+" com. SOA")
		return found
	case f.OurDNS != nil:
		add("dns-down", "", "This host could not look up all of it, nor a name that has nothing to do with the domain: its network or its resolver fails.",
			oneLine(f.OurDNS.Error()), "Check the resolver of this host ("+f.servers()+"), then check the domain again.", "")
	}
	switch {
	case f.outboundBlocked():
		add("outbound-blocked", "", "DNS answers, but no connection to the policy host or to a mail host is possible: the network of this host may block them.",
			f.FetchErr.Error()+"; port 25: "+f.unreachableReason(), "Check the network and the firewall of this host, then check the domain again.", "")
	case f.port25Blocked():
		add("port25-blocked", "", "No mail host accepts a connection to port 25, at any address: port 25 may be blocked on the way out of this host.",
			f.unreachableReason(), "Check the domain together with one that is known to accept mail. If the hosts of that one are silent as well, check from a host that may send mail; otherwise the hosts of the domain are down:",
			"tlspolicyd check "+f.Domain+" "+f.anotherDomain())
	default:
		for _, v6 := range []bool{false, true} {
			if f.familyUnreachable(v6) {
				name, other := "IPv4", "--ipv6"
				if v6 {
					name, other = "IPv6", "--ipv4"
				}
				add("ip-family-unreachable", name, "No mail host answers over "+name+", while the other family works: this host may have no "+name+", or the mail hosts have none.",
					f.unreachableReason(), "Check from a host with "+name+", or leave it out with "+other+".", "")
			}
		}
	}
	if f.policyInconclusive() && f.Exchange != nil && f.Exchange.Proxy != "" {
		add("proxy-failed", "", "The proxy of fetch.proxy did not connect to the policy host.", oneLine(f.Exchange.Proxy+": "+f.FetchErr.Reason),
			"Check the proxy, and whether it allows this host to connect to port 443.", "")
	}
	if f.NoRoots {
		add("trust-store-empty", "", "This host has no certificate authorities, so no certificate can be verified.", "",
			"Install them, or set a file in fetch.ca_file:", "apt install ca-certificates")
	}
	return found
}

// anotherDomain is one that is known to accept mail.
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

// unreachableReason names the addresses that could not be connected to.
func (f *Facts) unreachableReason() string {
	var silent []string
	reason := ""
	for _, h := range f.Hosts {
		for _, a := range h.Addresses {
			if a.Probe != nil && a.Probe.Stage == smtpprobe.Connect && a.Probe.Cause != smtpprobe.Unfinished && (f.port25Blocked() || f.familyUnreachable(a.Addr.Is6())) {
				silent = append(silent, a.Addr.String())
				reason = a.Probe.Reason
			}
		}
	}
	return list(silent) + ": " + reason
}
