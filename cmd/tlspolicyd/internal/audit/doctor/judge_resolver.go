package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"tlspolicyd/cmd/tlspolicyd/internal/audit"
	"tlspolicyd/cmd/tlspolicyd/internal/resolverprobe"
	"tlspolicyd/internal/dnsclient"
)

const ownResolver = "Run a validating resolver on this host, such as Unbound on 127.0.0.1, for tlspolicyd and for Postfix."

func judgeResolvers(f Facts) []audit.Finding {
	r := f.Resolver
	var all []audit.Finding
	if code, why := r.networkFault(); code != "" {
		all = append(all, audit.Inconclusive(code, "", why+", so the resolvers cannot be judged.", r.seen(), "Fix the network first, then run doctor again."))
	} else {
		for _, t := range r.Tests {
			if !r.onlyInStaleCopy(f, t.Server) {
				all = append(all, r.judgeServer(f, t))
			}
		}
	}
	all = append(all, r.judgeTrust()...)
	if f.Postfix.known() {
		all = append(all, judgeFiles(f)...)
	}
	return all
}

// networkFault says how the network of this host keeps all resolvers from answering, or
// "". One on this host that does not answer needs no network for that. Where all
// are on other hosts, that none answers is more likely the network than each of
// them; a cable that is out leaves the route in place.
func (r Resolvers) networkFault() (code, why string) {
	var answers, speaks, here, stopped, root bool
	for _, t := range r.Tests {
		local := t.Server.Addr().IsLoopback()
		answers = answers || t.Signed.Err == nil
		speaks = speaks || !t.Signed.Silent()
		here = here || local
		stopped = stopped || local && t.Signed.Silent()
		root = root || t.Signed.Name != resolverprobe.Root || !t.Signed.Denied()
	}
	switch {
	case len(r.Tests) == 0 || stopped:
		return "", ""
	case !answers && r.NoRoute:
		return "network-down", "This host has no network: no route leads to the Internet"
	case here:
		return "", ""
	case !speaks:
		return "network-down", "No resolver answers, and none is on this host: the network may be down"
	case !root:
		return "dns-isolated", "The resolvers deny even the root of DNS: they do not see the Internet"
	}
	return "", ""
}

// seen is what became of the signed name.
func (r Resolvers) seen() string {
	var seen []string
	for _, t := range r.Tests {
		seen = append(seen, addressText(t.Server)+": "+oneLine(t.Signed.String()))
	}
	return strings.Join(seen, "; ")
}

func addressText(a netip.AddrPort) string {
	if a.Port() == 53 {
		return a.Addr().String()
	}
	return a.String()
}

// judgeServer is about one server: does it answer, and does it validate?
func (r Resolvers) judgeServer(f Facts, t ServerTest) audit.Finding {
	name := addressText(t.Server) + r.users(f, t.Server)
	signed, bogus, missing := oneLine(t.Signed.String()), oneLine(t.Bogus.String()), oneLine(t.Missing.String())
	both := signed + "; " + bogus
	switch {
	case t.Signed.Silent():
		advice := "Check the network and the firewall between here and it, or use another resolver."
		if t.Server.Addr().IsLoopback() {
			advice = "Start the resolver that should listen at " + addressText(t.Server) + " on this host."
		}
		if r.anotherAnswers(f, t.Server) {
			return audit.Warned("resolver-no-answer", name, "The resolver does not answer.", signed, advice, "")
		}
		return audit.Failed("resolver-no-answer", name, "The resolver does not answer, and there is no other: mail to new domains is deferred.", signed, advice, "")
	case t.Signed.Err != nil:
		return audit.Failed("resolver-failed", name, "The resolver answers, but fails for a name that is signed and exists.", signed,
			"Read its log: often it cannot reach other name servers (the network, a firewall), its clock is wrong, or its trust anchor is old.", "")
	case t.Signed.Denied():
		return audit.Failed("resolver-failed", name, "The resolver says that a name which exists and is signed does not exist.", signed,
			"On a network without the Internet use --signed-name, and --broken-name. Otherwise: "+ownResolver, "")
	case !t.Signed.AD:
		return audit.Failed("resolver-not-validating", name, "The resolver does not validate: DANE is off, and Postfix defers mail under dane-only.", both, ownResolver, "")
	case t.Bogus.Err == nil && t.Bogus.Rcode == dns.RcodeSuccess:
		return audit.Failed("resolver-accepts-bogus", name, "The resolver returns a name whose signature is wrong: its AD bit is worth nothing.", both, ownResolver, "")
	case t.Missing.Err != nil && !t.Missing.Silent(), t.Missing.Err == nil && t.Missing.Records > 0:
		return audit.Failed("resolver-nxdomain-wrong", name, "The resolver does not answer NXDOMAIN for a name that does not exist. Where it fails instead, mail to every domain without a policy is deferred.",
			signed+"; "+missing, "Read its log: it may not reach other name servers, or a filter or load balancer rewrites NXDOMAIN. Otherwise: "+ownResolver, "")
	case t.Bogus.Kind() != dnsclient.ServFail:
		return audit.Inconclusive("resolver-inconclusive", name, "The resolver answers with the AD bit, but whether it rejects wrong signatures is unknown.", bogus,
			"Where names of the Internet cannot be looked up, use --broken-name with one whose signature is wrong.")
	}
	if what := r.forwarder(t.Server.Addr()); what != "" {
		return audit.Warned("resolver-forwarder", name, what+": its AD bit is that of a resolver elsewhere, and can be forged on the way from there.", both,
			ownResolver+" If the resolver behind it is on this host, all is well.", "")
	}
	return audit.Passed("resolver-ok", name, "The resolver answers and validates.", both)
}

// forwarder names what answers at a loopback address by asking a resolver
// elsewhere.
func (r Resolvers) forwarder(a netip.Addr) string {
	switch {
	case a.String() == "127.0.0.11":
		return "This is Docker's forwarder"
	case a.String() == "127.0.0.53" && r.Resolved:
		return "This is systemd-resolved, which forwards, and validates only with DNSSEC=yes in resolved.conf"
	}
	return ""
}

// anotherAnswers reports whether everything that asks a silent server has
// another one.
func (r Resolvers) anotherAnswers(f Facts, silent netip.AddrPort) bool {
	lists := [][]netip.AddrPort{r.Ours}
	if f.Postfix.known() {
		lists = append(lists, r.postfix().Servers)
	}
	for _, list := range lists {
		if slices.Contains(list, silent) && !slices.ContainsFunc(r.Tests, func(t ServerTest) bool {
			return t.Signed.Err == nil && slices.Contains(list, t.Server)
		}) {
			return false
		}
	}
	return true
}

// users says what asks a server, where that is not both.
func (r Resolvers) users(f Facts, s netip.AddrPort) string {
	if !f.Postfix.known() {
		return ""
	}
	ours, postfix := slices.Contains(r.Ours, s), slices.Contains(r.postfix().Servers, s)
	switch {
	case ours && !postfix:
		return " (used by tlspolicyd)"
	case postfix && !ours:
		return " (used by Postfix)"
	}
	return ""
}

// judgeTrust is about RFC 7672 §2.1.3: the AD bit counts where nothing can
// change it on the way.
func (r Resolvers) judgeTrust() []audit.Finding {
	var remote []netip.AddrPort
	for _, s := range r.Ours {
		if !s.Addr().IsLoopback() {
			remote = append(remote, s)
		}
	}
	if len(remote) == 0 || r.TrustAD {
		return nil
	}
	return []audit.Finding{audit.Warned("resolver-untrusted", "", "The AD bits of a resolver that is not on this host could be forged on the way, so DANE is off.",
		addresses(remote), ownResolver+" Where the path to it is safe, set trust_ad = true in the section [dns] of the configuration.", "")}
}

// staleCopy reports whether the copy of resolv.conf in the chroot names other
// resolvers than the original.
func (r Resolvers) staleCopy() bool {
	return r.Chroot != nil && r.Chroot.Err == "" && r.Host.Err == "" && !sameServers(r.Chroot.Servers, r.Host.Servers)
}

// onlyInStaleCopy reports a server that is not used once the copy is right.
func (r Resolvers) onlyInStaleCopy(f Facts, s netip.AddrPort) bool {
	return r.staleCopy() && !slices.Contains(r.Ours, s) && !slices.Contains(r.Host.Servers, s)
}

// judgeFiles is about the resolv.conf that Postfix's C library reads.
func judgeFiles(f Facts) []audit.Finding {
	r, p := f.Resolver, f.Postfix
	used := r.postfix()
	if used.Err != "" {
		return []audit.Finding{audit.Inconclusive("resolv-conf-unreadable", used.Path, "The file could not be read.", used.Err, "Run doctor as root.")}
	}
	var all []audit.Finding
	if r.staleCopy() {
		state := "names other resolvers than /etc/resolv.conf"
		if r.Chroot.Absent {
			state = "is missing, which means 127.0.0.1"
		}
		one := audit.Warned("chroot-resolv-conf-stale", used.Path, "Postfix runs chrooted and reads this copy, which "+state+".",
			fmt.Sprintf("%s here, %s in the original", addresses(r.Chroot.Servers), addresses(r.Host.Servers)),
			"Copy the file whenever it changes. On Debian a restart of Postfix copies it, but a reload does not.", "cp /etc/resolv.conf "+shellQuote(used.Path)+" && "+p.reload())
		if f.Units.Systemd {
			one.Fix = "cp /etc/resolv.conf " + shellQuote(used.Path) + " && systemctl restart postfix"
		}
		for _, t := range r.Tests {
			if bad := r.judgeServer(f, t); slices.Contains(r.Chroot.Servers, t.Server) && bad.Grade == audit.Fail {
				one.Grade = audit.Fail
				one.Text += " A resolver there does not answer or does not validate, so mail is deferred."
				one.Evidence += "; " + bad.Evidence
				break
			}
		}
		all = append(all, one)
	}
	if !sameServers(used.Servers, r.Ours) && (r.Listed || r.Chroot == nil) {
		all = append(all, audit.Warned("resolver-differs", "", "Postfix and tlspolicyd use different resolvers, which may not agree about DANE.",
			fmt.Sprintf("%s in %s, %s for tlspolicyd", addresses(used.Servers), used.Path, addresses(r.Ours)), "Use the same ones in both places: dns.servers may be left empty.", ""))
	}
	return all
}

func addresses(list []netip.AddrPort) string {
	var texts []string
	for _, a := range list {
		texts = append(texts, addressText(a))
	}
	return strings.Join(texts, " ")
}
