package doctor

import (
	"path/filepath"
	"slices"
	"strings"
)

const defaultPath = "run/tlspolicyd/socketmap.sock" // in the queue directory, by tlspolicyd.socket

// repair is the command that makes smtp_tls_policy_maps of a service right: our
// table by the right name and path, before other programs; whatever else is
// there stays, in its order. proxy: stays too, which may be the way out of a
// chroot; what proxymap(8) would refuse then is allowed by the same command.
func (f Facts) repair(s Service) string {
	p := f.Postfix
	refused := len(f.refusedMended(s)) > 0
	if value, override := s.Overrides[policyMaps]; override {
		value = strings.ReplaceAll(f.repaired(s, value, value), ", ", ",")
		fix := p.postconf("-P " + shellQuote(s.Name+"/"+s.Type+"/"+policyMaps+"="+value))
		if refused {
			fix += " && " + p.set(readMaps, f.allowing())
		}
		return fix
	}
	fix := p.set(policyMaps, f.repaired(s, p.RawMaps, p.Params[policyMaps]))
	if refused {
		fix += " " + shellQuote(readMaps+"="+f.allowing())
	}
	return fix
}

// repaired mends a list. raw is as written, with $names; expanded is what
// Postfix makes of it. Where they differ in number, a $name stands for several
// tables, and the list is written out.
func (f Facts) repaired(s Service, raw, expanded string) string {
	written := f.unfolded(s, parseTables(raw))
	tables := f.unfolded(s, parseTables(expanded))
	if len(written) != len(tables) {
		written = tables
	}
	ours := f.at(s, tables)
	var others []string
	first := -1 // of others, the first that is a program or answers all
	for i, t := range tables {
		if i == ours || f.isOurs(s, t) {
			continue
		}
		if first < 0 && (!t.local() || t.answersAll()) {
			first = len(others)
		}
		others = append(others, written[i].Text)
	}
	text, at := f.rightTable(s, Table{}).Text, len(others)
	if ours >= 0 {
		text, at = f.mended(s, written[ours].Text, tables[ours]), ours
	}
	if first >= 0 {
		at = min(at, first)
	}
	return strings.Join(slices.Insert(others, at, text), ", ")
}

// mended is a table that is ours or holds ours, as it should be.
func (f Facts) mended(s Service, written string, t Table) string {
	current, _ := f.oursIn(s, t)
	right := f.rightTable(s, current)
	switch {
	case right.Text == current.Text:
		return written
	case len(t.Members) > 0:
		return strings.Replace(t.Text, current.Text, right.Text, 1)
	}
	return right.Text
}

// rightTable is our table as it should be: what is right stays.
func (f Facts) rightTable(s Service, t Table) Table {
	p := f.Postfix
	if right := p.Version.rightMap(); t.Map == "" || isTLSRPT(t.Map) != isTLSRPT(right) || !isPlain(t.Map) && !isTLSRPT(t.Map) {
		t.Map = right
	}
	t.Type = "socketmap"
	probe, found := f.probed(s, t)
	if t.Address == "" || found && probe.leadsNowhere() {
		t.Network, t.Address, _ = f.bestAddress(s)
	}
	t.Text, t.Name = "", ""
	t.Text = socketmapText(t)
	t.Name = strings.TrimPrefix(strings.TrimPrefix(t.Text, "proxy:"), "socketmap:")
	return t
}

// elsewhere says what else is to be done where the daemon listens at no address
// that a service could reach: then the map alone mends nothing.
func (f Facts) elsewhere(s Service) string {
	network, address, there := f.bestAddress(s)
	if there || network != "unix" {
		return ""
	}
	path := filepath.Join(f.Postfix.queue(), address)
	if f.Units.Systemd {
		return "Have the daemon listen there too: ListenStream=" + path + " by systemctl edit tlspolicyd.socket."
	}
	return "Have the daemon listen there too: add \"unix:" + path + "\" to listen.socketmap, and restart it."
}

// bestAddress is where a service reaches the daemon: a socket in the queue
// directory, else any other that the service can see. Where there is none it is
// the one that there should be.
func (f Facts) bestAddress(s Service) (network, address string, there bool) {
	queue := f.Postfix.queue()
	var absolute, tcp string
	for _, p := range f.Sockets {
		if !p.Own {
			continue
		}
		if p.Network == "tcp" {
			tcp = p.Address
			continue
		}
		if rel, err := filepath.Rel(queue, p.Address); err == nil && filepath.IsLocal(rel) {
			return "unix", rel, true
		}
		if absolute == "" {
			absolute = p.Address
		}
	}
	switch {
	case absolute != "" && !s.Chrooted:
		return "unix", absolute, true
	case tcp != "":
		return "tcp", tcp, true
	}
	return "unix", defaultPath, false
}
