package policy

import (
	"strings"

	"tlspolicyd/internal/hostname"
	"tlspolicyd/internal/printable"
)

// OverrideLine is the operator's own answer.
type OverrideLine struct {
	Policy string // "skip" (NOTFOUND), "lookup" (as though there were no line) or a literal Postfix policy
	File   string // that it is from; "": the configuration
}

// Overrides are the operator's own answers: to a host name, or to ".parent" for all
// names below it. Keys are A-labels in lower case without final dot, as package
// config writes them.
type Overrides map[string]OverrideLine

const (
	overrideSkip   = "skip"
	overrideLookup = "lookup"
)

// Find returns the value for a host: of the host itself, else of the nearest
// parent.
func (o Overrides) Find(host string) (value OverrideLine, ok bool) {
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
	return OverrideLine{}, false
}

// For returns the operator's answer to a key, or false where there is none. The
// host of the key alone counts, whatever its service; hop is what ParseNextHop
// made of the key, the zero value where it is not a next hop.
func (o Overrides) For(key string, hop NextHop) (value OverrideLine, ok bool) {
	if len(o) == 0 || key == "" || key[0] == '.' {
		return OverrideLine{}, false
	}
	host := hop.Domain
	if host == "" { // the service may be unknown, and the host not
		raw, _ := hostPart(key)
		parsed, err := hostname.Parse(raw)
		if err != nil {
			return OverrideLine{}, false
		}
		host = parsed
	}
	value, ok = o.Find(host)
	return value, ok && value.Policy != overrideLookup
}

// Decision is the decision that an override stands for.
func (o OverrideLine) Decision() Decision {
	d := Decision{Level: Override, Row: RowOverride, Why: "the operator's override"}
	if o.Policy == overrideSkip {
		d.Level = NoPolicy
		d.Why += ` "skip"`
	}
	if o.File != "" {
		d.Why += " in " + printable.Line(o.File, 200)
	}
	return d
}
