package doctor

import (
	"path/filepath"
	"slices"
	"strings"
)

const defaultPath = "run/tlspolicyd/socketmap.sock" // in the queue directory, by tlspolicyd.socket

// repair is the command that makes smtp_tls_policy_maps of a service right.
func (f Facts) repair(s Service) string {
	p := f.Postfix
	if value, override := s.Overrides[policyMaps]; override {
		value = strings.ReplaceAll(f.repaired(s, value, value), ", ", ",")
		return p.postconf("-P " + shellQuote(s.Name+"/"+s.Type+"/"+policyMaps+"="+value))
	}
	return p.set(policyMaps, f.repaired(s, p.RawMaps, p.Params[policyMaps]))
}

// repaired is a list with our table, by the right name and path, before other
// programs, and without socketmaps that are dead or malformed; everything else
// stays, in its order. raw is as written, with $names; expanded is what Postfix
// makes of it. Where they differ in number, a $name stands for several tables,
// and the list is written out.
func (f Facts) repaired(s Service, raw, expanded string) string {
	written, tables := parseTables(raw), parseTables(expanded)
	if len(written) != len(tables) {
		written = tables
	}
	ours := slices.IndexFunc(tables, func(t Table) bool { return f.isOurs(s, t) && !t.malformed() })
	if ours < 0 {
		ours = slices.IndexFunc(tables, func(t Table) bool { return f.dead(s, t) })
	}
	text, at := f.rightTable(s, Table{}).Text, -1
	var others []string
	for i, t := range tables {
		switch {
		case i == ours:
			if right := f.rightTable(s, t); right.Text == t.Text {
				text = written[i].Text
			} else if f.isOurs(s, t) {
				text = right.Text
			}
			if at < 0 {
				at = len(others)
			}
		case f.isOurs(s, t) || f.dead(s, t):
		default:
			if at < 0 && (t.program() || t.answersAll()) {
				at = len(others) // ours goes before it
			}
			others = append(others, written[i].Text)
		}
	}
	if at < 0 {
		at = len(others)
	}
	return strings.Join(slices.Insert(others, at, text), ", ")
}

// rightTable is our table as it should be: what is right stays.
func (f Facts) rightTable(s Service, t Table) Table {
	p := f.Postfix
	if right := p.Version.rightMap(); t.Map == "" || isTLSRPT(t.Map) != isTLSRPT(right) || !isPlain(t.Map) && !isTLSRPT(t.Map) {
		t.Map = right
	}
	t.Type = "socketmap"
	if t.Address == "" || f.dead(s, t) {
		t.Network, t.Address, _ = f.bestAddress(s)
	}
	if t.Text = socketmapText(t); t.Proxy && !p.proxyAllows(t.Text) {
		t.Proxy = false
		t.Network, t.Address, _ = f.bestAddress(s)
		t.Text = socketmapText(t)
	}
	return t
}

// bestAddress is where a service reaches the daemon: a socket in the queue
// directory, else any other that the service can see. exists is false where
// there is none; then it is the one that there should be.
func (f Facts) bestAddress(s Service) (network, address string, exists bool) {
	var absolute, tcp string
	for _, p := range f.Sockets {
		switch {
		case !p.Own && !p.Ours:
		case p.Network == "tcp":
			tcp = p.Address
		case f.Postfix.inQueue(p.Target):
			rel, _ := filepath.Rel(f.Postfix.queue(), p.Address)
			return "unix", rel, true
		case absolute == "":
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
