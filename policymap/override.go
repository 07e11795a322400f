package policymap

import (
	"strings"
	"time"
)

// Overrides are the operator's own answers: a host name, or ".parent" for all
// names below it, to "skip" (NOTFOUND), "lookup" (as though there were no
// line) or a literal Postfix policy. Keys are A-labels in lower case without
// final dot; package config sees to that.
type Overrides map[string]string

const (
	overrideSkip   = "skip"
	overrideLookup = "lookup"
)

// Find returns the value for a host: of the host itself, else of the nearest
// parent.
func (o Overrides) Find(host string) (value string, ok bool) {
	if value, ok = o[host]; ok {
		return value, true
	}
	for i := strings.IndexByte(host, '.'); i >= 0; {
		if value, ok = o[host[i:]]; ok {
			return value, true
		}
		next := strings.IndexByte(host[i+1:], '.')
		if next < 0 {
			break
		}
		i += 1 + next
	}
	return "", false
}

// overrideFor finds the override for a key, by its host alone, whatever
// service stands behind it.
func overrideFor(o Overrides, key string, hop NextHop, parsed bool) (value string, ok bool) {
	if len(o) == 0 || key == "" || key[0] == '.' {
		return "", false
	}
	host := hop.Domain
	if !parsed {
		raw, _ := hostPart(key)
		if host, ok = hostName(raw); !ok {
			return "", false
		}
	}
	value, ok = o.Find(host)
	return value, ok && value != overrideLookup
}

func overrideDecision(value string) Decision {
	if value == overrideSkip {
		return Decision{Level: NoPolicy, Row: RowOverride, Why: `the operator's override "skip"`}
	}
	return Decision{Level: Override, Row: RowOverride, Why: "the operator's override"}
}

// override answers a key by the operator's word, or returns nil.
func (m *Map) override(key string, hop NextHop, parsed bool) *entry {
	cfg := m.config.Load()
	value, ok := overrideFor(cfg.Overrides, key, hop, parsed)
	if !ok {
		return nil
	}
	now := m.clock.now()
	d := overrideDecision(value)
	e := &entry{hop: hop, decision: d, replies: render(d, hop.Domain, nil, value), until: now.Add(24 * time.Hour)}
	if parsed {
		e.lastUsed.Store(now.Unix())
		m.keep(e, cfg)
	}
	return e
}
