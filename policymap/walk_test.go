package policymap

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tlspolicyd/store"
)

// What the disk does not take is listed in its place all the same, in every order,
// and not a second time as the disk still has it.
func TestWalkHasWhatTheDiskRefuses(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		for _, key := range []string{"full.test", "plain.test", "absent.test"} {
			h.PolicyHost(key, enforce)
			h.Lookup(t.Context(), []byte("postfix"), []byte(key))
			time.Sleep(2 * time.Second)
			synctest.Wait()
		}
		h.store.setFull(true)
		time.Sleep(time.Hour)
		h.PolicyHost("partial.test", enforce)
		h.Lookup(t.Context(), []byte("postfix"), []byte("partial.test"))
		if err := h.Refresh(t.Context(), "plain.test"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		want := map[string]int{"absent.test": 1, "full.test": 1, "partial.test": 1, "plain.test": 1}
		for _, order := range []store.Order{store.ByDomain, store.ByDue, store.ByLastUsed} {
			for _, backward := range []bool{false, true} {
				scan := store.Scan{Order: order, Backward: backward}
				seen := map[string]int{}
				var at []store.Position
				if err := h.Walk(scan, func(p store.Position, info func() Info) bool {
					seen[info().Record.Domain]++
					at = append(at, p)
					return true
				}); err != nil {
					t.Fatal(err)
				}
				for domain, n := range want {
					if seen[domain] != n {
						t.Errorf("order %d: %s is listed %d times", order, domain, seen[domain])
					}
				}
				if !slices.IsSortedFunc(at, scan.Compare) {
					t.Errorf("order %d, backward %v: %v", order, backward, at)
				}
				scan.After = at[1]
				var rest []string
				_ = h.Walk(scan, func(p store.Position, _ func() Info) bool {
					rest = append(rest, p.Domain)
					return true
				})
				if len(rest) != len(at)-2 || rest[0] != at[2].Domain {
					t.Errorf("order %d: after the second come %s", order, strings.Join(rest, " "))
				}
			}
		}
	})
}
