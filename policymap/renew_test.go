package policymap

import (
	"strings"
	"testing"
	"time"

	"tlspolicyd/internal/mtasts"
	"tlspolicyd/policymap/policy"
	"tlspolicyd/store"
	"tlspolicyd/testing/lab"
)

// §7: a policy in force is renewed over HTTPS whatever becomes of its TXT record;
// only an absence that DNSSEC proves ends that.
func TestRenewalDoesNotDependOnTXT(t *testing.T) {
	for name, tt := range map[string]struct {
		fault   lab.Fault
		proved  bool
		renewed bool
	}{
		"SERVFAIL":         {lab.ServFail, true, true},
		"silent":           {lab.Drop, true, true},
		"refused":          {lab.Refused, true, true},
		"unproved absence": {lab.NXDomain, false, true},
		"proved absence":   {lab.NXDomain, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, zones, func(t *testing.T, h *host) {
				ph := h.PolicyHost("plain.test", enforce)
				h.want("plain.test", secure)
				if !tt.proved {
					h.Insecure("plain.test")
				}
				h.Fault("_mta-sts.plain.test", "TXT", tt.fault)
				before := ph.Requests()
				for range 5 * 24 {
					h.want("plain.test", secure)
					h.after(time.Hour)
				}
				if n := ph.Requests() - before; tt.renewed && n < 5 || !tt.renewed && n > 0 {
					t.Errorf("%d fetches in 5 days", n)
				}
				h.after(4 * day)
				if tt.renewed {
					h.want("plain.test", secure)
				} else {
					h.want("plain.test", "NOTFOUND ")
				}
			})
		})
	}
}

// §6: of a record in steady use the TXT record is looked up once for each TTL, and
// nothing is written where only that moved; also where DANE is unknown and no
// answer stays long.
func TestSteadyUseCostsOneTXTLookupForEachTTL(t *testing.T) {
	for name, mx := range map[string]lab.Fault{"DANE known": 0, "DANE unknown": lab.ServFail} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, zones, func(t *testing.T, h *host) {
				h.PolicyHost("plain.test", strings.Replace(enforce, "enforce", "testing", 1))
				h.Fault("plain.test", "MX", mx)
				h.ask("plain.test")
				h.after(2 * time.Hour) // the TXT record has a TTL of an hour at most
				h.ask("plain.test")
				h.after(time.Second)
				h.ResetQueries()
				writes := h.store.writes.Load()
				const hits = 400
				for range hits {
					h.ask("plain.test")
					h.after(time.Second)
				}
				if n := h.Count("_mta-sts.plain.test", "TXT"); n > 2 {
					t.Errorf("%d TXT lookups for %d lookups in 7 minutes", n, hits)
				}
				if n := h.store.writes.Load() - writes; n > 2 {
					t.Errorf("%d writes for %d lookups", n, hits)
				}
			})
		})
	}
}

// §7: a host that answers a new id with the old file for a while, as a CDN does, is
// followed within minutes of its change.
func TestFileThatFollowsItsID(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		ph := h.PolicyHost("plain.test", enforce)
		h.Replace("_mta-sts.plain.test", "TXT", `_mta-sts.plain.test. 60 IN TXT "v=STSv1; id=`+ph.ID()+`"`)
		h.want("plain.test", secure)
		h.after(2 * time.Hour)
		h.Replace("_mta-sts.plain.test", "TXT", `_mta-sts.plain.test. 60 IN TXT "v=STSv1; id=new"`)
		h.want("plain.test", secure)
		h.after(10 * time.Minute)
		ph.SetPolicyKeepID(strings.Replace(enforce, "mx: mx.full.test\n", "", 1))
		h.after(12 * time.Minute)
		h.want("plain.test", "OK secure match=.plain.test servername=hostname")
	})
	inBubble(t, zones, func(t *testing.T, h *host) { // an id that was changed for nothing
		ph := h.PolicyHost("plain.test", enforce)
		h.want("plain.test", secure)
		h.after(2 * time.Hour)
		h.Replace("_mta-sts.plain.test", "TXT", `_mta-sts.plain.test. 3600 IN TXT "v=STSv1; id=new"`)
		before := ph.Requests()
		for range 12 {
			h.want("plain.test", secure)
			h.after(time.Hour)
		}
		if n := ph.Requests() - before; n != 4 {
			t.Errorf("%d fetches, want one for the id and three more", n)
		}
	})
}

// §7: near its end a policy whose fetches fail is tried often enough to be saved.
func TestPolicyIsSavedBeforeItsEnd(t *testing.T) {
	for name, tt := range map[string]struct {
		maxAge  time.Duration
		healthy time.Duration // before the end the policy host is well again
	}{
		"a week":      {7 * day, 20 * time.Minute},
		"ten minutes": {10 * time.Minute, 90 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, zones, func(t *testing.T, h *host) {
				ph := h.PolicyHost("plain.test", withMaxAge(enforce, int(tt.maxAge/time.Second)))
				h.want("plain.test", secure)
				began := time.Now()
				ph.Fault(lab.HostFault{Refuse: true})
				for left := tt.maxAge; left > tt.healthy; left = tt.maxAge - time.Since(began) {
					h.want("plain.test", secure)
					h.after(min(5*time.Minute, left-tt.healthy))
				}
				ph.Fault(lab.HostFault{})
				h.after(tt.healthy - 2*time.Second)
				h.want("plain.test", secure)
				h.after(4 * time.Second) // past what would have been the end
				h.Down(true)
				h.want("plain.test", secure)
			})
		})
	}
}

// §3: a TXT lookup that fails does not put off the fetch (8461 §3.3).
func TestFailedTXTLookupDelaysNoFetch(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		h.PolicyHost("plain.test", enforce)
		h.Fault("_mta-sts.plain.test", "TXT", lab.ServFail)
		h.want("plain.test", "NOTFOUND ")
		for range 6 {
			h.after(50 * time.Second)
			h.ask("plain.test")
		}
		h.Fault("_mta-sts.plain.test", "TXT", 0)
		h.after(70 * time.Second)
		h.want("plain.test", secure)
	})
}

// A lookup whose time for the policy host is over takes a policy that is there.
func TestFlightThatHasEndedCountsAsEnded(t *testing.T) {
	f := &stsFlight{done: make(chan struct{})}
	if f.wait(t.Context(), 0) {
		t.Error("a flight under way has ended")
	}
	close(f.done)
	for range 1000 {
		if !f.wait(t.Context(), 0) {
			t.Fatal("a flight that has ended counts as under way")
		}
	}
}

// When a policy file is fetched, by occasion and TXT answer (§3, §7).
func TestWantsFetch(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	found := func(id string) mtasts.RecordResult {
		return mtasts.RecordResult{Found: true, Record: mtasts.Record{ID: id}}
	}
	failed, absent, gone := mtasts.RecordResult{Failed: true}, mtasts.RecordResult{}, mtasts.RecordResult{}
	gone.Answer.Authentic = true
	inForce := &store.STS{Policy: []byte(enforce), PolicyID: "1", FetchedAt: now, TXTID: "1"}
	wasGone := &store.STS{Policy: []byte(enforce), PolicyID: "1", FetchedAt: now, TXTGone: true}
	ended := &store.STS{Policy: []byte(enforce), PolicyID: "1", FetchedAt: now.Add(-8 * day), TXTID: "1"}
	failsInForce := &store.STS{Policy: []byte(enforce), PolicyID: "1", FetchedAt: now, TXTID: "1", FailedID: "1", FailedAt: now.Add(-time.Minute)}
	fails := &store.STS{TXTID: "1", FailedID: "1", FailedAt: now.Add(-time.Minute)}
	for _, c := range []struct {
		name                       string
		sts                        *store.STS
		txt                        mtasts.RecordResult
		lookup, schedule, operator bool
	}{
		{"nothing known", nil, found("1"), true, true, true},
		{"nothing known, TXT fails", nil, failed, false, false, false},
		{"nothing known, no record", nil, absent, false, false, false},
		{"in force, same id", inForce, found("1"), false, true, true},
		{"in force, new id", inForce, found("2"), true, true, true},
		{"in force, TXT fails", inForce, failed, false, true, true},
		{"in force, no record, unproved", inForce, absent, false, true, true},
		{"in force, no record, proved", inForce, gone, false, false, false},
		{"in force, proved before, now TXT fails", wasGone, failed, false, false, false},
		{"ended, same id", ended, found("1"), true, true, true},
		{"ended, TXT fails", ended, failed, false, false, false},
		{"the fetch has just failed", fails, found("1"), false, false, true},
		{"in force, the fetch has just failed", failsInForce, found("1"), false, true, true},
		{"the fetch has just failed, new id", fails, found("2"), true, true, true},
	} {
		got := [3]bool{
			policy.WantsFetch(c.sts, c.txt, now, policy.OnLookup),
			policy.WantsFetch(c.sts, c.txt, now, policy.OnSchedule),
			policy.WantsFetch(c.sts, c.txt, now, policy.OnRequest),
		}
		if want := [3]bool{c.lookup, c.schedule, c.operator}; got != want {
			t.Errorf("%s: for a message, on schedule, for the operator: %v, want %v", c.name, got, want)
		}
	}
}
