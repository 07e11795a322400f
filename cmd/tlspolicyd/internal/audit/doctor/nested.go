package doctor

import "strings"

// The tables that hold others (DATABASE_README). proxymap(8) looks for proxy:
// inside of the same two.
const (
	pipeType  = "pipemap"  // what one makes of a key is the key of the next
	unionType = "unionmap" // all of them are asked, and their answers joined by commas
)

// parseMembers reads what stands in the braces of a pipemap or a unionmap.
func parseMembers(name string, proxied bool) []Table {
	name = strings.TrimSpace(name)
	if len(name) < 2 || name[0] != '{' || name[len(name)-1] != '}' {
		return nil
	}
	members := parseTables(name[1 : len(name)-1])
	if proxied {
		markProxied(members)
	}
	return members
}

func markProxied(tables []Table) {
	for i := range tables {
		tables[i].Proxied = true
		markProxied(tables[i].Members)
	}
}

// leaves are the tables that are asked in the end, at any depth.
func leaves(tables []Table) []Table {
	var all []Table
	for _, t := range tables {
		if len(t.Members) > 0 {
			all = append(all, leaves(t.Members)...)
		} else {
			all = append(all, t)
		}
	}
	return all
}

// proxied are the tables that proxymap(8) is to open, at any depth.
func proxied(tables []Table) []Table {
	var all []Table
	for _, t := range tables {
		if t.Proxy {
			all = append(all, t)
		} else {
			all = append(all, proxied(t.Members)...)
		}
	}
	return all
}

// oursIn returns our table, which may be one inside of another.
func (f Facts) oursIn(s Service, t Table) (ours Table, found bool) {
	for _, leaf := range leaves([]Table{t}) {
		if f.isOurs(s, leaf) {
			return leaf, true
		}
	}
	return Table{}, false
}

// at is where our table stands in a list, or a table that holds ours; -1: there
// is none. One of its own counts first.
func (f Facts) at(s Service, tables []Table) int {
	nested := -1
	for i, t := range tables {
		if f.isOurs(s, t) {
			return i
		}
		if _, found := f.oursIn(s, t); found && nested < 0 {
			nested = i
		}
	}
	return nested
}

// unfolded is a list with the members of a unionmap in its place where one of
// them is ours. The first table that has an answer decides then.
func (f Facts) unfolded(s Service, tables []Table) []Table {
	var all []Table
	for _, t := range tables {
		if _, found := f.oursIn(s, t); !found || t.Type != unionType {
			all = append(all, t)
			continue
		}
		members := t.Members
		if t.Proxy {
			var texts []string
			for _, m := range members {
				texts = append(texts, "proxy:"+strings.TrimPrefix(m.Text, "proxy:"))
			}
			members = parseTables(strings.Join(texts, " "))
		}
		all = append(all, f.unfolded(s, members)...)
	}
	return all
}
