package doctor

import (
	"fmt"
	"slices"
	"strings"

	"tlspolicyd/cmd/tlspolicyd/internal/audit"
)

// The maps of tlspolicyd (behaviour.md §1), and their names for those who come
// from postfix-tlspol.
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
// settings, or by its name where nobody answers.
func (f Facts) isOurs(s Service, t Table) bool {
	if t.Type != "socketmap" || t.Network == "" {
		return false
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

// judgeMaps looks at smtp_tls_policy_maps of each client of master.cf. Services
// with the same value and the same chroot are one.
func judgeMaps(f Facts) []audit.Finding {
	p := f.Postfix
	clients := p.clients()
	if len(clients) == 0 {
		return []audit.Finding{fail(MapAbsent, "", "No service of master.cf delivers by SMTP, so nobody asks.", "no line with the command smtp",
			"Look at master.cf.", "")}
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
		at := f.at(s, tables)
		_, override := s.Overrides[policyMaps]
		switch {
		case at < 0 && override:
			add(warn(ServiceWithoutMap, "master.cf, "+s.Name, "This service does not ask tlspolicyd.",
				"-o "+policyMaps+"="+shown(s.Overrides[policyMaps]), "Right if it only delivers to a host of yours; otherwise take the override out, so that it asks as the others do.",
				p.postconf("-X -P "+shellQuote(s.Name+"/"+s.Type+"/"+policyMaps))))
		case at < 0:
			add(fail(MapAbsent, "", "Postfix does not ask tlspolicyd about any destination.",
				policyMaps+" = "+shown(p.param(s, policyMaps)), strings.TrimSpace("Add the map. "+f.elsewhere(s)), f.repair(s)))
		default:
			add(f.judgeOrder(s, tables, at)...)
			add(f.judgeNested(s, tables[at])...)
			add(f.judgeEntry(s, tables[at])...)
		}
		add(p.judgeTableFiles(tables)...)
	}
	return all
}

// judgeOrder looks at what stands before and behind our table.
func (f Facts) judgeOrder(s Service, tables []Table, at int) []audit.Finding {
	var all []audit.Finding
	evidence := func(t Table) string { return oneLine(t.Text) + " and " + oneLine(tables[at].Text) }
	for _, t := range tables[:at] {
		switch _, holds := f.oursIn(s, t); {
		case holds: // judgeNested speaks of one
		case t.answersAll():
			all = append(all, fail(MapShadowed, "", "A table before ours has an answer for every destination, so that tlspolicyd is never asked.",
				evidence(t), "Remove it, or put it behind.", f.repair(s)))
		case !t.local():
			all = append(all, warn(MapBehindOther, "", "Another program is asked first, and tlspolicyd only where that has no policy.",
				evidence(t), "Put ours before it, or leave one of them out.", f.repair(s)))
		}
	}
	for _, t := range tables[at+1:] {
		if _, holds := f.oursIn(s, t); !holds && !t.local() {
			all = append(all, warn(MapBeforeOther, "", "Where tlspolicyd has no policy another program is asked, which knows no better and can hold mail up when it is down.",
				oneLine(tables[at].Text)+" and "+oneLine(t.Text), "Leave the other one out, unless it holds exceptions of yours.", ""))
		}
	}
	return all
}

// judgeNested looks at what our table is inside of.
func (f Facts) judgeNested(s Service, whole Table) []audit.Finding {
	text := oneLine(whole.Text)
	switch {
	case len(leaves([]Table{whole})) == 1:
		return nil
	case whole.Type == unionType:
		return []audit.Finding{warn(MapNested, "", "tlspolicyd is one of a unionmap: where another of its tables has an answer too, Postfix gets both in one, which is no policy, and defers that mail.",
			text, "Give each an entry of its own: the first one that has an answer decides.", f.repair(s))}
	}
	return []audit.Finding{warn(MapNested, "", "tlspolicyd is one of a pipemap: it is asked for what the table before it makes of a destination, and what the table behind it makes of the answer is what Postfix gets.",
		text, "Give it an entry of its own, unless you mean just that.", "")}
}

// judgeEntry looks at our own table, or at one that holds it: its name, its path,
// its way.
func (f Facts) judgeEntry(s Service, whole Table) []audit.Finding {
	p := f.Postfix
	t, _ := f.oursIn(s, whole)
	good := true
	var all []audit.Finding
	add := func(one audit.Finding) { all, good = append(all, one), false }
	text := oneLine(t.Text)
	switch {
	case !isPlain(t.Map) && !isTLSRPT(t.Map):
		add(fail(MapNameUnknown, "", fmt.Sprintf("tlspolicyd has no map %q: every lookup fails, and all mail is deferred.", oneLine(t.Map)),
			text, "The map for this version is "+p.Version.rightMap()+".", f.repair(s)))
	case isTLSRPT(t.Map) && !p.Version.atLeast(3, 10, 0):
		add(fail(MapTLSRPTTooNew, "", "Postfix "+p.Params["mail_version"]+" does not know the attributes of this map, and defers all mail to domains with MTA-STS.",
			text, "Before Postfix 3.10 the map is postfix.", f.repair(s)))
	case isPlain(t.Map) && p.Version.atLeast(3, 10, 0):
		add(warn(MapTLSRPTMissing, "", "By this map Postfix does not learn the patterns of a policy, so that *.example.net passes for hosts of any depth, and reports lack the policy.",
			text, "From Postfix 3.10 on the map is postfix-tlsrpt, with or without TLSRPT.", f.repair(s)))
	}
	// Where the daemon only is not running, judgeSockets says so.
	if probe, found := f.probed(s, t); found && probe.leadsNowhere() {
		add(f.unreachable(s, t, probe))
	}
	for _, t := range proxied([]Table{whole}) {
		if !p.proxyAllows(t) {
			add(fail(MapProxyRefused, "", "proxymap(8) refuses to open the map, and all mail is deferred.",
				oneLine(t.Text)+" is not in proxy_read_maps", "Add it, or leave proxy: out.",
				p.set(readMaps, f.allowing())))
		}
	}
	if good {
		all = append(all, ok(MapPresent, "", "Postfix asks tlspolicyd, by the right map for this version.", text))
	}
	return all
}

// unreachable says why a path leads nowhere, which is nearly always the chroot.
func (f Facts) unreachable(s Service, t Table, probe Probe) audit.Finding {
	text, advice := "Postfix looks for the socket where there is none: mail is deferred.",
		"Name a socket that the daemon has."
	if probe.Root != "" && strings.HasPrefix(t.Address, "/") {
		text = fmt.Sprintf("Postfix (%s) runs chrooted in %s and does not find the socket there: mail is deferred, even where postmap -q is content.",
			oneLine(strings.Join(probe.Services, ", ")), probe.Root)
		advice = "Use a path relative to the queue directory: it is right with and without chroot."
	}
	fix := f.repair(s)
	if more := f.elsewhere(s); more != "" {
		advice = more
		if t.Address == defaultPath {
			fix = "" // the map is right
		}
	}
	return fail(MapUnreachable, "", text, oneLine(t.Text)+" leads to "+oneLine(probe.Address), advice, fix)
}
