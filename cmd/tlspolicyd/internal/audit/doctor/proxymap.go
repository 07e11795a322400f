package doctor

import (
	"slices"
	"strings"
)

const readMaps = "proxy_read_maps"

// proxyAllows reports whether proxymap(8) may open a table: it looks for what
// begins with proxy: in proxy_read_maps.
func (p Postfix) proxyAllows(t Table) bool {
	return slices.ContainsFunc(proxied(parseTables(p.Params[readMaps])), func(a Table) bool { return a.Text == t.Text })
}

// refused are the tables of a list that proxymap(8) may not open.
func (p Postfix) refused(list string) []string {
	var all []string
	for _, t := range proxied(parseTables(list)) {
		if !p.proxyAllows(t) {
			all = append(all, t.Text)
		}
	}
	return all
}

// followsMain reports whether proxy_read_maps names smtp_tls_policy_maps, and so
// allows whatever is written there.
func (p Postfix) followsMain() bool {
	return slices.ContainsFunc(splitTables(p.RawProxy), func(word string) bool {
		return word == "$"+policyMaps || word == "${"+policyMaps+"}" || word == "$("+policyMaps+")"
	})
}

// refusedMended are those that proxymap(8) would refuse once the list of a
// service is mended: by a new name, or out of a unionmap that is allowed whole.
func (f Facts) refusedMended(s Service) []string {
	if _, override := s.Overrides[policyMaps]; !override && f.Postfix.followsMain() {
		return nil
	}
	value := f.Postfix.param(s, policyMaps)
	return f.Postfix.refused(f.repaired(s, value, value))
}

// allowing is proxy_read_maps with all that it lacks, before and after the lists
// are mended: one value for all findings, so that no command undoes another.
func (f Facts) allowing() string {
	p := f.Postfix
	var all []string
	for _, s := range p.clients() {
		for _, text := range slices.Concat(p.refused(p.param(s, policyMaps)), f.refusedMended(s)) {
			if !slices.Contains(all, text) {
				all = append(all, text)
			}
		}
	}
	return strings.TrimSpace(strings.Join(all, " ") + " " + p.RawProxy)
}
