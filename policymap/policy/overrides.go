package policy

import (
	"strings"

	"tlspolicyd/internal/hostname"
)

// Overrides are the operator's own answers: a host name, or ".parent" for all
// names below it, to "skip" (NOTFOUND), "lookup" (as though there were no
// line) or a literal Postfix policy. Keys are A-labels in lower case without
// final dot, as package config writes them.
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

// For returns the operator's answer to a key, or false where there is none. The
// host of the key alone counts, whatever its service; hop is what ParseNextHop
// made of the key, the zero value where it is not a next hop.
func (o Overrides) For(key string, hop NextHop) (value string, ok bool) {
	if len(o) == 0 || key == "" || key[0] == '.' {
		return "", false
	}
	host := hop.Domain
	if host == "" { // the service may be unknown, and the host not
		raw, _ := hostPart(key)
		parsed, err := hostname.Parse(raw)
		if err != nil {
			return "", false
		}
		host = parsed
	}
	value, ok = o.Find(host)
	return value, ok && value != overrideLookup
}

// OverrideDecision is the decision that an override stands for.
func OverrideDecision(value string) Decision {
	if value == overrideSkip {
		return Decision{Level: NoPolicy, Row: RowOverride, Why: `the operator's override "skip"`}
	}
	return Decision{Level: Override, Row: RowOverride, Why: "the operator's override"}
}
