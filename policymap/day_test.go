package policymap

import (
	"strings"
	"testing"
	"time"
)

// What a domain in steady use costs in a day, with a lookup each minute: printed for
// docs/figures.md with go test -v -run TestADayOfADomainInUse ./policymap.
func TestADayOfADomainInUse(t *testing.T) {
	for _, tt := range []struct {
		name, key, policy  string
		mostWrites, mostQs int
	}{
		{"DANE", "full.test", "", 80, 400},
		{"MTA-STS, enforce", "plain.test", enforce, 80, 400},
		{"MTA-STS, testing", "plain.test", strings.Replace(enforce, "enforce", "testing", 1), 80, 400},
		{"neither", "plain.test", "", 80, 400},
	} {
		inBubble(t, zones, func(t *testing.T, h *host) {
			h.NegativeTTL(time.Hour)
			if tt.policy != "" {
				h.PolicyHost(tt.key, tt.policy)
			}
			h.ask(tt.key)
			h.after(time.Hour)
			h.ResetQueries()
			writes := h.store.writes.Load()
			for range 24 * 60 {
				h.ask(tt.key)
				h.after(time.Minute)
			}
			writes, queries := h.store.writes.Load()-writes, len(h.Queries())
			t.Logf("%-18s %4d writes, %4d DNS queries", tt.name, writes, queries)
			if int(writes) > tt.mostWrites || queries > tt.mostQs {
				t.Errorf("%s: want at most %d writes and %d queries", tt.name, tt.mostWrites, tt.mostQs)
			}
		})
	}
}
