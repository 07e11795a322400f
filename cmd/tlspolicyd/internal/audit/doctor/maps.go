package doctor

import (
	"net"
	"path/filepath"
	"slices"
	"strings"
)

const policyMaps = "smtp_tls_policy_maps"

// Table is one entry of smtp_tls_policy_maps, "type:name" (DATABASE_README).
type Table struct {
	Text  string // as written
	Proxy bool   // it begins with proxy:, so proxymap(8) opens it
	Type  string // "texthash", "socketmap"
	Name  string // what follows

	// Of a socketmap (socketmap_table(5)); all are "" where it is malformed.
	Network string // "unix" or "tcp"
	Address string // path or host:port
	Map     string // the name that is sent with each request
}

// splitTables cuts a list at commas and blanks, but not inside braces, as
// Postfix does (mystrtokq(3) with CHARS_COMMA_SP and CHARS_BRACE).
func splitTables(list string) []string {
	var all []string
	depth, begin := 0, -1
	for i := range len(list) {
		switch c := list[i]; {
		case depth == 0 && strings.IndexByte(", \t\r\n", c) >= 0:
			if begin >= 0 {
				all = append(all, list[begin:i])
			}
			begin = -1
			continue
		case c == '{':
			depth++
		case c == '}' && depth > 0:
			depth--
		}
		if begin < 0 {
			begin = i
		}
	}
	if begin >= 0 {
		all = append(all, list[begin:])
	}
	return all
}

func parseTables(list string) []Table {
	var all []Table
	for _, text := range splitTables(list) {
		all = append(all, parseTable(text))
	}
	return all
}

func parseTable(text string) Table {
	t := Table{Text: text}
	rest, proxy := strings.CutPrefix(text, "proxy:")
	t.Proxy = proxy
	t.Type, t.Name, _ = strings.Cut(rest, ":")
	if t.Type != "socketmap" {
		return t
	}
	kind, rest, _ := strings.Cut(t.Name, ":")
	colon := strings.LastIndexByte(rest, ':')
	if colon <= 0 || colon == len(rest)-1 {
		return t
	}
	address := rest[:colon]
	_, _, err := net.SplitHostPort(address)
	switch {
	case kind == "unix":
		t.Network = "unix"
	case kind == "inet" && err == nil:
		t.Network = "tcp"
	default:
		return t
	}
	t.Address, t.Map = address, rest[colon+1:]
	return t
}

// malformed reports a socketmap that Postfix cannot open: smtp(8) ends.
func (t Table) malformed() bool { return t.Type == "socketmap" && t.Network == "" }

// answersAll reports a table that answers every lookup, so that no table after
// it is asked.
func (t Table) answersAll() bool { return t.Type == "static" }

// program reports a table that another program answers, and no administrator
// fills with exceptions.
func (t Table) program() bool {
	return slices.Contains([]string{"socketmap", "tcp", "ldap", "mysql", "pgsql", "memcache", "mongodb"}, t.Type)
}

// socketmapText writes a table for main.cf.
func socketmapText(t Table) string {
	network, proxy := "unix", ""
	if t.Network == "tcp" {
		network = "inet"
	}
	if t.Proxy {
		proxy = "proxy:"
	}
	return proxy + "socketmap:" + network + ":" + t.Address + ":" + t.Map
}

// proxyAllows reports whether proxymap(8) may open a table: it looks for what
// begins with proxy: in proxy_read_maps.
func (p Postfix) proxyAllows(text string) bool {
	return slices.Contains(splitTables(p.Params["proxy_read_maps"]), text)
}

// Target is where a socketmap is asked.
type Target struct {
	Network string // "unix" or "tcp"
	Address string // the path as the host sees it, or host:port
	Root    string // the directory of the chroot that it is reached from; "": none
}

// String is the address as tlspolicyd writes it.
func (t Target) String() string { return t.Network + ":" + t.Address }

// target resolves the address of a socketmap as a service of master.cf does:
// every daemon of Postfix runs in the queue directory, and for a chrooted one
// that is also the root (smtp(8), proxymap(8)).
func (p Postfix) target(s Service, t Table) Target {
	if t.Network != "unix" {
		return Target{Network: t.Network, Address: t.Address}
	}
	chrooted := s.Chrooted
	if t.Proxy {
		chrooted = slices.ContainsFunc(p.Services, func(s Service) bool { return s.Name == "proxymap" && s.Type == "unix" && s.Chrooted })
	}
	path := t.Address
	switch {
	case chrooted:
		return Target{Network: "unix", Address: filepath.Join(p.queue(), path), Root: p.queue()}
	case !filepath.IsAbs(path):
		path = filepath.Join(p.queue(), path)
	}
	return Target{Network: "unix", Address: filepath.Clean(path)}
}

// inQueue reports a socket below the queue directory, which a chrooted smtp(8)
// can reach.
func (p Postfix) inQueue(t Target) bool {
	rel, err := filepath.Rel(p.queue(), t.Address)
	return t.Network == "unix" && err == nil && filepath.IsLocal(rel)
}

// queries are all socketmaps that Postfix asks about TLS policies, each with the
// services that do.
func (p Postfix) queries() []Probe {
	var list []Probe
	for _, s := range p.clients() {
		for _, t := range parseTables(p.param(s, policyMaps)) {
			if t.Network == "" {
				continue
			}
			target := p.target(s, t)
			i := slices.IndexFunc(list, func(q Probe) bool { return q.Target == target })
			if i < 0 {
				list = append(list, Probe{Target: target})
				i = len(list) - 1
			}
			if !slices.Contains(list[i].Services, s.Name) {
				list[i].Services = append(list[i].Services, s.Name)
			}
		}
	}
	return list
}
