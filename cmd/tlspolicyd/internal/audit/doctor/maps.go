package doctor

import (
	"slices"
	"strings"
)

// Table is one entry of smtp_tls_policy_maps, "type:name" (DATABASE_README).
type Table struct {
	Text  string // as written
	Proxy bool   // it begins with proxy:
	Type  string // "texthash", "socketmap"
	Name  string // what follows

	// Of a socketmap (socketmap_table(5)).
	Network string // "unix" or "tcp"; "" for something else
	Address string // path or host:port
	Map     string // the name that is sent with each request

	Members []Table // of a pipemap or a unionmap
	Proxied bool    // proxymap(8) asks it: it or a table around it begins with proxy:
}

// splitTables cuts a list at commas and blanks, but not inside of braces, as
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
	t.Proxy, t.Proxied = proxy, proxy
	t.Type, t.Name, _ = strings.Cut(rest, ":")
	switch t.Type {
	case pipeType, unionType:
		t.Members = parseMembers(t.Name, proxy)
		return t
	case "socketmap":
	default:
		return t
	}
	kind, rest, _ := strings.Cut(t.Name, ":")
	colon := strings.LastIndexByte(rest, ':')
	if colon < 0 {
		return t
	}
	switch kind {
	case "unix":
		t.Network = "unix"
	case "inet":
		t.Network = "tcp"
	default:
		return t
	}
	t.Address, t.Map = rest[:colon], rest[colon+1:]
	return t
}

// answersAll reports a table that has a line for every key, so that what stands
// behind it is never asked.
func (t Table) answersAll() bool {
	switch t.Type {
	case "static":
		return true
	case unionType:
		return slices.ContainsFunc(t.Members, Table.answersAll)
	case pipeType:
		return len(t.Members) > 0 && !slices.ContainsFunc(t.Members, func(m Table) bool { return !m.answersAll() })
	}
	return false
}

// local reports a table that an administrator fills with exceptions of his
// own, and no program answers.
func (t Table) local() bool {
	switch t.Type {
	case pipeType, unionType:
		return !slices.ContainsFunc(t.Members, func(m Table) bool { return !m.local() })
	case "texthash", "hash", "btree", "cdb", "lmdb", "dbm", "sdbm", "inline", "static",
		"regexp", "pcre", "cidr", "randmap", "fail", "environ":
		return true
	}
	return false
}

// socketmapText writes a table for main.cf.
func socketmapText(t Table) string {
	network := "unix"
	if t.Network == "tcp" {
		network = "inet"
	}
	proxy := ""
	if t.Proxy {
		proxy = "proxy:"
	}
	return proxy + "socketmap:" + network + ":" + t.Address + ":" + t.Map
}
