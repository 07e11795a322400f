package policymap

import (
	"strings"
	"testing"

	"tlspolicyd/internal/hostname"
	"tlspolicyd/policymap/policy"
)

// A key has one meaning, whatever its spelling, and the memory cache, which
// looks it up in lower case and nothing more, can give no other's answer.
func FuzzParseNextHop(f *testing.F) {
	for _, s := range []string{"example.test", "[a.test]:587", "bücher.test:smtp", ".x", "[IPv6:::1]", "1.2.3.4", "a:b:c", "\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, key string) {
		hop, ok := policy.ParseNextHop(key)
		var buf [264]byte
		if len(key) <= len(buf) {
			folded := string(fold(&buf, []byte(key)))
			if hit, cached := policy.ParseNextHop(folded); cached && hit.String() == folded && (!ok || hit != hop) {
				t.Errorf("%q: memory answers as for %v, it is %v %v", key, hit, hop, ok)
			}
		}
		if !ok {
			return
		}
		if hop.Port == 0 || hostname.Check(hop.Domain) != nil || hop.Domain != strings.ToLower(hop.Domain) ||
			key[0] == '.' || hop.Literal != (key[0] == '[') {
			t.Errorf("%q: got %+v", key, hop)
		}
		if again, ok := policy.ParseNextHop(hop.String()); !ok || again != hop {
			t.Errorf("%q: %q does not parse back to %+v", key, hop.String(), hop)
		}
		if again, ok := policy.ParseNextHop(strings.ToUpper(hop.String())); !ok || again != hop {
			t.Errorf("%q in capitals is another next hop: %+v", hop, again)
		}
	})
}
