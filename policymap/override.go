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

// override answers a key by the operator's word, or returns nil. It is matched
// against the key's host alone, whatever service stands behind it.
func (m *Map) override(key string, hop NextHop, parsed bool) *entry {
	overrides := m.config.Load().Overrides
	if len(overrides) == 0 {
		return nil
	}
	host := hop.Domain
	if !parsed {
		raw, _ := hostPart(key)
		var ok bool
		if host, ok = hostName(raw); !ok {
			return nil
		}
	}
	value, ok := overrides.Find(host)
	if !ok || value == overrideLookup {
		return nil
	}
	d := Decision{Level: Override, Row: RowOverride, Why: "the operator's override"}
	if value == overrideSkip {
		d = Decision{Level: NoPolicy, Row: RowOverride, Why: `the operator's override "skip"`}
	}
	now := m.clock.now()
	e := &entry{hop: hop, decision: d, replies: render(d, host, nil, value), until: now.Add(24 * time.Hour)}
	if parsed {
		e.lastUsed.Store(now.Unix())
		m.cache.put(hop.String(), e)
	}
	return e
}
