package doctor

import (
	"path/filepath"
	"slices"
)

// Target is where a socketmap is asked.
type Target struct {
	Network string // "unix" or "tcp"
	Address string // the path as the host sees it, or host:port
	Root    string // the directory of the chroot that it is reached from; "": none
}

// String is the address as tlspolicyd writes it.
func (t Target) String() string { return t.Network + ":" + t.Address }

// target resolves the address of a socketmap as a service of master.cf would:
// every daemon of Postfix runs in the queue directory, and for a chrooted one
// that is also the root (smtp(8), proxymap(8)).
func (p Postfix) target(s Service, t Table) Target {
	if t.Network != "unix" {
		return Target{Network: t.Network, Address: t.Address}
	}
	chrooted := s.Chrooted
	if t.Proxied {
		chrooted = p.proxymapChrooted()
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

// inQueue reports a socket that is there for a chrooted smtp(8).
func (p Postfix) inQueue(t Target) bool {
	rel, err := filepath.Rel(p.queue(), t.Address)
	return t.Network == "unix" && err == nil && filepath.IsLocal(rel)
}

func (p Postfix) proxymapChrooted() bool {
	i := slices.IndexFunc(p.Services, func(s Service) bool { return s.Name == "proxymap" && s.Type == "unix" })
	return i >= 0 && p.Services[i].Chrooted
}

// asker is a target and who asks there.
type asker struct {
	Target
	services []string
}

// askers are all socketmaps that Postfix asks about TLS policies.
func (p Postfix) askers() []asker {
	var list []asker
	for _, s := range p.clients() {
		for _, t := range leaves(parseTables(p.param(s, policyMaps))) {
			if t.Network == "" {
				continue
			}
			target := p.target(s, t)
			i := slices.IndexFunc(list, func(a asker) bool { return a.Target == target })
			if i < 0 {
				list = append(list, asker{Target: target})
				i = len(list) - 1
			}
			if !slices.Contains(list[i].services, s.Name) {
				list[i].services = append(list[i].services, s.Name)
			}
		}
	}
	return list
}

const policyMaps = "smtp_tls_policy_maps"
