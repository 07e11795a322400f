package policy

import (
	"testing"
	"time"

	"tlspolicyd/internal/dane"
	"tlspolicyd/internal/mtasts"
	"tlspolicyd/store"
)

const day = 24 * time.Hour

// How long an answer is good, as a function of what it rests on (§6).
func TestHold(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	in := func(d time.Duration) time.Time { return now.Add(d) }
	ttl := func(d time.Duration) *store.DANE { return &store.DANE{KnownAt: now, ExpiresAt: in(d)} }
	enforce := &mtasts.Policy{Mode: mtasts.Enforce, MX: []string{"mx.test"}, MaxAge: 7 * day}
	enforced := STSFacts{State: STSEnforce, Policy: enforce, Known: true, Until: in(2 * time.Hour), Recheck: in(time.Minute)}
	absent := STSFacts{Known: true, Until: in(20 * time.Minute), Recheck: in(20 * time.Minute)}
	unknown := STSFacts{}
	none, full := DANEFacts{State: dane.None}, DANEFacts{State: dane.Full}
	for _, c := range []struct {
		name           string
		d              Decision
		facts          DANEFacts
		dn             *store.DANE
		sts            STSFacts
		alone          bool
		until, recheck time.Duration // recheck -1: never
	}{
		{"DANE expires first", Decision{}, none, ttl(time.Hour), enforced, false, time.Hour, time.Minute},
		{"the policy expires first", Decision{}, none, ttl(3 * time.Hour), enforced, false, 2 * time.Hour, time.Minute},
		{"the absence expires first", Decision{}, none, ttl(time.Hour), absent, false, 20 * time.Minute, 20 * time.Minute},
		{"a TTL of seconds counts as a minute", Decision{}, none, ttl(time.Second), absent, false, time.Minute, 20 * time.Minute},
		{"a TTL of a week counts as a day", Decision{}, full, ttl(7 * day), unknown, true, day, 0},
		{"the fetch still runs", Decision{}, none, ttl(time.Hour), unknown, false, time.Minute, -1},
		{"DANE alone, MTA-STS not looked up", Decision{}, full, ttl(time.Hour), unknown, true, time.Hour, 0},
		{"DANE alone, MTA-STS looked up a moment ago", Decision{}, full, ttl(time.Hour), STSFacts{Recheck: in(5 * time.Minute)}, true, time.Hour, 5 * time.Minute},
		{"max_age 0", Decision{}, none, ttl(time.Hour), STSFacts{State: STSEnforce, Policy: enforce, Once: true}, false, 0, -1},
		{"a failure", Decision{KeepAtMost: KeepFailure}, DANEFacts{}, nil, absent, true, 10 * time.Second, 20 * time.Minute},
		{"some hosts failed", Decision{KeepAtMost: keepIncomplete}, DANEFacts{HasTLSA: true}, nil, absent, false, 5 * time.Minute, 20 * time.Minute},
		{"as last known", Decision{Stale: true}, DANEFacts{State: dane.Full, Age: 5 * time.Hour}, ttl(time.Hour), absent, true, 5 * time.Minute, 10 * time.Second},
		{"as last known, the policy expires first", Decision{Stale: true}, DANEFacts{State: dane.None, Age: 5 * time.Hour}, ttl(time.Hour), enforced, false, 5 * time.Minute, 10 * time.Second},
	} {
		until, recheck := View{Now: now, STS: c.sts, DANE: c.facts, Fresh: c.dn != nil && !c.d.Stale, stored: c.dn}.hold(c.d, c.alone)
		if until != in(c.until) {
			t.Errorf("%s: good for %v, want %v", c.name, until.Sub(now), c.until)
		}
		if never := c.recheck < 0; never != recheck.IsZero() || !never && recheck != in(c.recheck) {
			t.Errorf("%s: looked up again in %v, want %v", c.name, recheck.Sub(now), c.recheck)
		}
	}
}
