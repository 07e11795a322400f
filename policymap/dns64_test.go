package policymap

import (
	"testing"

	"tlspolicyd/testing/lab"
)

// Behaviour §4, §5: where some addresses of a host are insecure, Postfix has to
// decide address by address. That is level dane, with a policy in force too.
func TestDANEOfAHostWithOneInsecureFamily(t *testing.T) {
	const more = "mx.full.test. AAAA 64:ff9b::192.0.2.1\n"
	inBubble(t, zones+more, func(t *testing.T, h *host) {
		h.want("full.test", "OK dane-only")
	})
	inBubble(t, zones+more, func(t *testing.T, h *host) {
		h.Fault("mx.full.test", "AAAA", lab.NoAD)
		h.PolicyHost("full.test", enforce)
		h.want("full.test", "OK dane")
	})
}
