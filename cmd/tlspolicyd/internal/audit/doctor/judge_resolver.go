package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"tlspolicyd/cmd/tlspolicyd/internal/audit"
	"tlspolicyd/internal/dnsclient"
)

const ownResolver = "Run a validating resolver on this host, such as Unbound on 127.0.0.1, for tlspolicyd and for Postfix."

func judgeResolvers(f Facts) []audit.Finding {
	r := f.Resolver
	var all []audit.Finding
	if dark := r.dark(); dark != "" {
		all = append(all, unknown(NetworkDown, "", dark+", so the resolvers cannot be judged.",
			r.servers(), "Mend the network first, then run doctor again."))
	} else {
		for _, t := range r.Tests {
			all = append(all, r.judgeServer(f, t))
		}
	}
	all = append(all, r.judgeTrust()...)
	if f.Postfix.known() {
		all = append(all, judgeFiles(f)...)
	}
	return all
}

// dark says how the network of this host keeps all resolvers from answering, or
// "". Where all of them are on other hosts, that none answers is more likely the
// network than each of them; a cable that is out leaves the route in place.
func (r Resolvers) dark() string {
	var right, speaks, here, root bool
	for _, t := range r.Tests {
		right = right || t.Signed.Kind == 0
		speaks = speaks || t.Signed.Kind != dnsclient.Timeout && t.Signed.Kind != dnsclient.Network
		here = here || t.Server.Addr().IsLoopback()
		root = root || t.Signed.Kind != 0 || t.Signed.Rcode != dns.RcodeNameError || t.Signed.AD
	}
	switch {
	case len(r.Tests) == 0:
		return ""
	case !right && r.NoRoute:
		return "This host has no network: no route leads to the Internet"
	case here:
		return ""
	case !speaks:
		return "No resolver answers, and none is on this host: it looks like the network"
	case !root && r.Signed == ".":
		return "The resolvers say that not even the root of DNS exists: they are cut off from the Internet"
	}
	return ""
}

func (r Resolvers) servers() string {
	var seen []string
	for _, t := range r.Tests {
		seen = append(seen, addressText(t.Server)+": "+named(r.Signed, t.Signed))
	}
	return strings.Join(seen, "; ")
}

// named is an outcome with the name that was asked for, which an error has.
func named(name string, o Outcome) string {
	if name == "." {
		name = "the root"
	}
	if o.Kind != 0 {
		return o.text()
	}
	return oneLine(name) + ": " + o.text()
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
	signed, broken := named(r.Signed, t.Signed), named(r.Broken, t.Broken)
	switch {
	case t.Signed.Kind == dnsclient.Timeout || t.Signed.Kind == dnsclient.Network:
		text, advice := "The resolver does not answer.", "Start it, or name another. Where nothing else reaches its address either, it is the network."
		if r.anotherAnswers(f, t.Server) {
			return warn(ResolverSilent, name, text, signed, advice, "")
		}
		return fail(ResolverSilent, name, "The resolver does not answer, and who asks it has no other that does: mail to new domains is deferred.", signed, advice, "")
	case t.Signed.Kind != 0:
		return fail(ResolverFails, name, "The resolver answers, but not with a name that is signed and right.", signed,
			"See its log: often it cannot reach other name servers (the network, a firewall), its clock is wrong, or its trust anchor is old.", "")
	case t.Signed.Rcode == dns.RcodeNameError && !t.Signed.AD:
		return fail(ResolverFails, name, "The resolver says that a name which is signed does not exist.", signed,
			"On a network without the Internet name one that does with --signed-name, and a broken one with --broken-name. Otherwise: "+ownResolver, "")
	case !t.Signed.AD:
		return fail(ResolverNotValidating, name, "The resolver does not validate: DANE is never the answer, and Postfix defers what is to go by dane-only.",
			signed+"; "+broken, ownResolver, "")
	case t.Broken.Kind == dnsclient.ServFail:
		return ok(ResolverValidates, name, "The resolver answers and validates.", signed+"; "+broken)
	case t.Broken.Kind == 0 && t.Broken.Rcode == dns.RcodeSuccess:
		return fail(ResolverBelieves, name, "The resolver passes on a name whose signature is broken: its AD bit is worth nothing.", signed+"; "+broken, ownResolver, "")
	}
	return unknown(ResolverUntold, name, "The resolver answers with the AD bit, but whether it refuses what is forged could not be tested.", broken,
		"Where names of the Internet cannot be looked up, name one whose signature is broken with --broken-name.")
}

// anotherAnswers reports whether whoever asks a silent server has another one.
func (r Resolvers) anotherAnswers(f Facts, silent netip.AddrPort) bool {
	lists := [][]netip.AddrPort{r.Ours}
	if f.Postfix.known() {
		lists = append(lists, r.postfix().Servers)
	}
	for _, list := range lists {
		if slices.Contains(list, silent) && !slices.ContainsFunc(r.Tests, func(t ServerTest) bool {
			return t.Signed.Kind == 0 && slices.Contains(list, t.Server)
		}) {
			return false
		}
	}
	return true
}

// users says who asks a server, where that is not everybody.
func (r Resolvers) users(f Facts, s netip.AddrPort) string {
	if !f.Postfix.known() {
		return ""
	}
	ours, postfix := slices.Contains(r.Ours, s), slices.Contains(r.postfix().Servers, s)
	switch {
	case ours && !postfix:
		return " (asked by tlspolicyd)"
	case postfix && !ours:
		return " (asked by Postfix)"
	}
	return ""
}

// judgeTrust is about RFC 7672 §2.1.3: the AD bit counts where nobody can
// change it on the way.
func (r Resolvers) judgeTrust() []audit.Finding {
	var remote []string
	for _, s := range r.Ours {
		if !s.Addr().IsLoopback() {
			remote = append(remote, addressText(s))
		}
	}
	if len(remote) == 0 || r.TrustAD {
		return nil
	}
	return []audit.Finding{warn(ResolverUntrusted, "", "The AD bits of a resolver that is not on this host could be forged on the way, so DANE is never the answer.",
		strings.Join(remote, ", "), ownResolver+" Where the path to it is safe, set trust_ad = true in the section [dns] of the configuration.", "")}
}

// judgeFiles is about the resolv.conf that Postfix's C library reads.
func judgeFiles(f Facts) []audit.Finding {
	r, p := f.Resolver, f.Postfix
	used := r.postfix()
	var all []audit.Finding
	copyFix := "cp /etc/resolv.conf " + shellQuote(p.queue()+"/etc/resolv.conf") + " && " + p.reload()
	switch {
	case used.Err != "":
		return append(all, unknown(ResolvConfUnread, used.Path, "The file could not be read.", used.Err, "Run doctor as root."))
	case r.Chroot != nil && r.Host.Err == "" && !sameServers(r.Chroot.Servers, r.Host.Servers):
		state := "names other resolvers than /etc/resolv.conf"
		if r.Chroot.Absent {
			state = "is missing, which stands for 127.0.0.1"
		}
		all = append(all, warn(ChrootResolvConf, used.Path, "Postfix runs chrooted and reads this copy, which "+state+".",
			fmt.Sprintf("%s here, %s there", addresses(r.Chroot.Servers), addresses(r.Host.Servers)), "Copy the file whenever it changes; Debian has postfix-resolvconf.path for that.", copyFix))
	}
	if !sameServers(used.Servers, r.Ours) && (r.Listed || r.Chroot == nil) {
		all = append(all, warn(ResolverDiffers, "", "Postfix and tlspolicyd ask different resolvers, which may not agree about DANE.",
			fmt.Sprintf("%s in %s, %s for tlspolicyd", addresses(used.Servers), used.Path, addresses(r.Ours)), "Name the same ones in both places: dns.servers may be left empty.", ""))
	}
	// glibc takes the AD bit away since 2.31; Postfix asks it not to since then.
	if asks := p.Version.atLeast(3, 5, 1) || p.Version.Minor == 4 && p.Version.atLeast(3, 4, 11); r.Glibc && !asks && !used.TrustAD {
		fix := "echo 'options trust-ad' >> /etc/resolv.conf"
		if r.Chroot != nil {
			fix += " && " + copyFix
		}
		all = append(all, warn(TrustADMissing, used.Path, "With glibc 2.31 or later this version of Postfix does not see the AD bit, and DANE never works.",
			"no options trust-ad, Postfix "+p.Params["mail_version"], "Add the line to /etc/resolv.conf, and to its copy in the queue directory.", fix))
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
