package policymap

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"tlspolicyd/policymap/policy"
	"tlspolicyd/testing/lab"
)

// refreshes are the outcomes of refreshes since the last call.
func (w *witness) refreshes() []Outcome {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := w.ended
	w.ended = nil
	return all
}

// §7: the observer hears what becomes of each refresh.
func TestRefreshIsTold(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		ph := h.PolicyHost("plain.test", enforce)
		h.want("plain.test", secure)
		h.after(day)
		if all := h.seen.refreshes(); !slices.Contains(all, Refreshed) || slices.Contains(all, RefreshFailed) {
			t.Errorf("after a day: %v", all)
		}
		ph.Fault(lab.HostFault{Status: 500})
		h.after(day)
		if all := h.seen.refreshes(); !slices.Contains(all, RefreshFailed) || slices.Contains(all, Refreshed) {
			t.Errorf("with a failing policy host: %v", all)
		}
		h.after(60 * day)
		if all := h.seen.refreshes(); len(all) == 0 || all[len(all)-1] != Expired {
			t.Errorf("after two months without a lookup: %v", all)
		}
	})
}

// DANE that cannot be looked up again is a refresh that failed.
func TestRefreshOfDANEIsTold(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		h.want("full.test", "OK dane-only")
		for range 20 {
			h.after(10 * time.Second)
			h.want("full.test", "OK dane-only")
		}
		h.seen.refreshes()
		h.Down(true)
		h.after(2 * time.Minute)
		h.want("full.test", "OK dane-only")
		h.after(10 * time.Minute)
		if all := h.seen.refreshes(); !slices.Contains(all, RefreshFailed) || slices.Contains(all, Refreshed) {
			t.Errorf("without a resolver: %v", all)
		}
	})
}

func TestResolutionTellsHowLongDNSTook(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		h.PolicyHost("plain.test", enforce)
		h.Delay(500 * time.Millisecond)
		h.DelayHTTP(2 * time.Second)
		h.want("plain.test", secure)
		h.seen.mu.Lock()
		defer h.seen.mu.Unlock()
		r := h.seen.last
		if r.DNS < 500*time.Millisecond || r.Took < r.DNS || r.Took < 2*time.Second {
			t.Errorf("DNS %v of %v", r.DNS, r.Took)
		}
	})
}

func TestTally(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		h.PolicyHost("plain.test", enforce)
		ph := h.PolicyHost("full.test", withMaxAge(enforce, 3600))
		h.want("plain.test", secure)
		h.want("full.test", "OK dane-only")
		h.want("absent.test", "NOTFOUND ")
		synctest.Wait()
		want := Tally{Both: 1, STS: 1, Negative: 1}
		want.Modes[policy.STSEnforce] = 2
		if got, err := h.Tally(context.Background(), day); err != nil || !cmp.Equal(got, want) {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
		ph.Fault(lab.HostFault{Refuse: true})
		h.after(45 * time.Minute)
		if got, err := h.Tally(context.Background(), day); err != nil || got.Expiring != 1 {
			t.Errorf("with a policy that cannot be fetched: %+v, %v", got, err)
		} else if f := got.Failing; f.Count != 1 || f.First[0].Domain != "full.test" || f.First[0].Error == "" || f.First[0].Ends.After(time.Now().Add(15*time.Minute)) {
			t.Errorf("failing: %+v", f)
		} else if e := got.Ending; e.Count != 1 || e.First[0] != f.First[0] {
			t.Errorf("ending: %+v", e)
		}
		var deferred []string
		h.Fault("silent.test", "MX", lab.ServFail)
		h.want("silent.test", "TEMP MX lookup of silent.test: SERVFAIL")
		h.Deferred(func(hop policy.NextHop, reason string, used time.Time) {
			deferred = append(deferred, hop.String()+" "+reason+" "+time.Since(used).Truncate(time.Second).String())
		})
		if want := []string{"silent.test MX lookup of silent.test: SERVFAIL 0s"}; !slices.Equal(deferred, want) {
			t.Errorf("deferred: %q", deferred)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if _, err := h.Tally(ctx, day); err == nil {
			t.Error("counted for nobody")
		}
	})
}
