package doctor

import (
	"fmt"
	"slices"
	"strings"

	"tlspolicyd/cmd/tlspolicyd/internal/audit"
)

// The maps of tlspolicyd (behaviour.md §1), and their names in postfix-tlspol.
const (
	plainMap  = "postfix"
	tlsrptMap = "postfix-tlsrpt"
)

func isPlain(name string) bool  { return name == plainMap || name == "QUERY" }
func isTLSRPT(name string) bool { return name == tlsrptMap || name == "QUERYwithTLSRPT" }

// rightMap is the name of the map for a version.
func (v Version) rightMap() string {
	if v.atLeast(3, 10, 0) {
		return tlsrptMap
	}
	return plainMap
}

// probed returns what became of asking a table's socketmap as a service does.
func (f Facts) probed(s Service, t Table) (Probe, bool) {
	target := f.Postfix.target(s, t)
	i := slices.IndexFunc(f.Sockets, func(p Probe) bool { return p.Target == target })
	if i < 0 {
		return Probe{}, false
	}
	return f.Sockets[i], true
}

// isOurs reports whether a table is this daemon: by its answer, by its own
// settings, or by its name where nothing answers.
func (f Facts) isOurs(s Service, t Table) bool {
	switch {
	case t.Type != "socketmap":
		return false
	case t.malformed():
		return strings.Contains(t.Name, "tlspolicyd")
	}
	if p, found := f.probed(s, t); found && (p.Ours || p.Own || p.Reply != "") {
		return p.Ours || p.Own
	}
	// One that a chrooted service does not see is the daemon's all the same.
	own := slices.ContainsFunc(f.Sockets, func(p Probe) bool {
		return p.Own && p.Network == t.Network && p.Address == t.Address
	})
	return own || strings.Contains(t.Address, "tlspolicyd")
}

// dead reports a socketmap of which Postfix gets no answer, so that it defers
// mail, and of which the daemon would not make an answering one by running.
func (f Facts) dead(s Service, t Table) bool {
	p, found := f.probed(s, t)
	return t.malformed() || t.Type == "socketmap" && found && p.dead()
}

// judgeMaps checks smtp_tls_policy_maps of each client of master.cf. Services
// with the same value and the same chroot are one.
func judgeMaps(f Facts) []audit.Finding {
	p := f.Postfix
	clients := p.clients()
	if len(clients) == 0 {
		return []audit.Finding{audit.Failed("map-missing", "", "No service of master.cf delivers by SMTP, so tlspolicyd is not asked.", "no line with the command smtp",
			"Check master.cf.", "")}
	}
	var all []audit.Finding
	add := func(list ...audit.Finding) {
		for _, one := range list {
			if !slices.Contains(all, one) {
				all = append(all, one)
			}
		}
	}
	for _, s := range clients {
		tables := parseTables(p.param(s, policyMaps))
		dead := f.judgeDead(s, tables)
		add(dead...)
		at := slices.IndexFunc(tables, func(t Table) bool { return f.isOurs(s, t) && !t.malformed() })
		_, override := s.Overrides[policyMaps]
		switch {
		case at >= 0:
			add(f.judgeOrder(s, tables, at)...)
			add(f.judgeEntry(s, tables[at])...)
		case len(dead) > 0: // its fix puts ours in its place
		case override:
			add(audit.Warned("map-missing-in-service", "master.cf, "+s.Name, "This service does not ask tlspolicyd.",
				"-o "+policyMaps+"="+shown(s.Overrides[policyMaps]), "Right if it only delivers to a host of yours; otherwise remove the override, so that it asks as the others do.",
				p.postconf("-X -P "+shellQuote(s.Name+"/"+s.Type+"/"+policyMaps))))
		default:
			add(audit.Failed("map-missing", "", policyMaps+" has no entry for tlspolicyd.", policyMaps+" = "+shown(p.param(s, policyMaps)), "Add it.", f.repair(s)))
		}
	}
	return all
}

// judgeDead is about socketmaps that make Postfix defer mail, ours or not.
func (f Facts) judgeDead(s Service, tables []Table) []audit.Finding {
	var all []audit.Finding
	for _, t := range tables {
		probe, _ := f.probed(s, t)
		text := oneLine(t.Text)
		switch {
		case t.malformed():
			all = append(all, audit.Failed("map-malformed", "", "An entry of "+policyMaps+" is malformed: smtp(8) stops at it, and all mail is deferred.",
				text, "A socketmap is socketmap:unix:PATH:MAP or socketmap:inet:HOST:PORT:MAP.", f.repair(s)))
		case !f.dead(s, t) || f.isOurs(s, t) && f.rightTable(s, t).Text == t.Text: // judgeSockets reports it
		case probe.Root != "" && strings.HasPrefix(t.Address, "/"):
			all = append(all, audit.Failed("map-unreachable", "", fmt.Sprintf("Postfix (%s) runs chrooted in %s and does not find the socket there: mail is deferred, even though postmap -q works.",
				oneLine(strings.Join(probe.Services, ", ")), probe.Root), text+" leads to "+oneLine(probe.Address),
				"Use a path relative to the queue directory: it is right with and without chroot.", f.repair(s)))
		default:
			all = append(all, audit.Failed("map-unreachable", "", "An entry of "+policyMaps+" leads to nothing that answers: mail is deferred.",
				text+" leads to "+oneLine(probe.Address)+": "+probe.why(), "Use a socket of the daemon.", f.repair(s)))
		}
	}
	return all
}

// judgeOrder checks what is before and after our table.
func (f Facts) judgeOrder(s Service, tables []Table, at int) []audit.Finding {
	var all []audit.Finding
	ours := oneLine(tables[at].Text)
	for i, t := range tables {
		switch evidence := oneLine(t.Text) + " and " + ours; {
		case f.isOurs(s, t) || f.dead(s, t):
		case i < at && t.answersAll():
			all = append(all, audit.Failed("map-shadowed", "", "A table before the entry for tlspolicyd answers every lookup, so that tlspolicyd is never asked.",
				evidence, "Remove it, or put it after.", f.repair(s)))
		case i < at && t.program():
			all = append(all, audit.Warned("map-after-other", "", "Another program is asked first, and tlspolicyd only where that has no policy.",
				evidence, "Put tlspolicyd before it, or remove one of them.", f.repair(s)))
		case i > at && t.program():
			all = append(all, audit.Warned("map-before-other", "", "Where tlspolicyd has no policy another program is asked, which can delay mail when it is down.",
				ours+" and "+oneLine(t.Text), "Remove the other one, unless it has exceptions of yours.", ""))
		}
	}
	return all
}

// judgeEntry checks our own table: the map for this version, and whether
// proxymap(8) may open it.
func (f Facts) judgeEntry(s Service, t Table) []audit.Finding {
	p := f.Postfix
	var all []audit.Finding
	text := oneLine(t.Text)
	switch {
	case !isPlain(t.Map) && !isTLSRPT(t.Map):
		all = append(all, audit.Failed("map-name-unknown", "", fmt.Sprintf("tlspolicyd has no map %q: every lookup fails, and all mail is deferred.", oneLine(t.Map)),
			text, "The map for this version is "+p.Version.rightMap()+".", f.repair(s)))
	case isTLSRPT(t.Map) && !p.Version.atLeast(3, 10, 0):
		all = append(all, audit.Failed("map-tlsrpt-unsupported", "", "Postfix "+p.Params["mail_version"]+" does not know the attributes of this map, and defers all mail to domains with MTA-STS.",
			text, "Before Postfix 3.10 the map is postfix.", f.repair(s)))
	case isPlain(t.Map) && p.Version.atLeast(3, 10, 0):
		all = append(all, audit.Warned("map-tlsrpt-unused", "", "With this map Postfix does not get the patterns of a policy: *.example.net matches hosts of any depth, and TLSRPT reports lack the policy.",
			text, "From Postfix 3.10 on the map is postfix-tlsrpt, with or without TLSRPT.", f.repair(s)))
	}
	if t.Proxy && !p.proxyAllows(t.Text) {
		all = append(all, audit.Failed("map-proxy-refused", "", "proxymap(8) refuses to open the entry, and all mail is deferred.",
			text+" is not in proxy_read_maps", "Leave proxy: out.", f.repair(s)))
	}
	if len(all) == 0 && (!f.dead(s, t) || f.rightTable(s, t).Text == t.Text) {
		all = append(all, audit.Passed("map-ok", "", "Postfix asks tlspolicyd, with the right map for this version.", text))
	}
	return all
}
