package policy

import (
	"fmt"
	"testing"
	"time"

	"tlspolicyd/internal/dane"
	"tlspolicyd/store"
)

func TestWhenNext(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	plan := Schedule{Interval: day, UnusedFor: 30 * day}
	policy := func(maxAge int) []byte {
		return fmt.Appendf(nil, "version: STSv1\nmode: enforce\nmx: mx.test\nmax_age: %d\n", maxAge)
	}
	for _, c := range []struct {
		name string
		sts  store.STS
		used time.Time
		want time.Time
	}{
		{"fresh, a week", store.STS{Policy: policy(604800), FetchedAt: now, CheckedAt: now}, now, now.Add(day)},
		{"fresh, an hour", store.STS{Policy: policy(3600), FetchedAt: now, CheckedAt: now}, now, now.Add(30 * time.Minute)},
		{"fresh, ten seconds", store.STS{Policy: policy(10), FetchedAt: now, CheckedAt: now}, now, now.Add(5 * time.Second)},
		{"ten seconds, nobody asked for an hour", store.STS{Policy: policy(10), FetchedAt: now, CheckedAt: now}, now.Add(-2 * time.Hour), time.Time{}},
		{"unused", store.STS{Policy: policy(604800), FetchedAt: now, CheckedAt: now}, now.Add(-31 * day), time.Time{}},
		{"failed once", store.STS{Policy: policy(604800), FetchedAt: now.Add(-day), CheckedAt: now, Failures: 1, FailedAt: now}, now, now.Add(5 * time.Minute)},
		{"failed ten times", store.STS{Policy: policy(604800), FetchedAt: now.Add(-day), CheckedAt: now, Failures: 10, FailedAt: now}, now, now.Add(6 * time.Hour)},
		{"failed ten times, an hour left", store.STS{Policy: policy(604800), FetchedAt: now.Add(time.Hour - 7*day), CheckedAt: now, Failures: 10, FailedAt: now}, now, now.Add(15 * time.Minute)},
		{"failed ten times, two minutes left", store.STS{Policy: policy(604800), FetchedAt: now.Add(2*time.Minute - 7*day), CheckedAt: now, Failures: 10, FailedAt: now}, now, now.Add(time.Minute)},
		{"overdue since a week switched off", store.STS{Policy: policy(31557600), FetchedAt: now.Add(-8 * day), CheckedAt: now.Add(-8 * day)}, now.Add(-8 * day), now.Add(-7 * day)},
		{"fetched in the future", store.STS{Policy: policy(604800), FetchedAt: now.Add(day), CheckedAt: now.Add(day)}, now, now.Add(day)},
	} {
		if got := plan.STSDue(&c.sts, ReadSTS(&c.sts, now), now, c.used); !got.Equal(c.want) {
			t.Errorf("%s: due %v, want %v", c.name, got, c.want)
		}
	}
	overdue := store.Record{STS: &store.STS{Policy: policy(31557600), FetchedAt: now.Add(-8 * day)}, LastUsed: now.Add(-8 * day)}
	if got := plan.Next(&overdue, ReadSTS(overdue.STS, now), now, overdue.LastUsed); got.Sub(now) > time.Minute {
		t.Errorf("an overdue refresh is put off by %v", got.Sub(now))
	}
	known := store.DANE{State: uint8(dane.Full), KnownAt: now, ExpiresAt: now.Add(time.Hour)}
	if got := plan.daneDue(&known, now, now); !got.Equal(now.Add(59 * time.Minute)) {
		t.Errorf("DANE in use: due %v", got)
	}
	at := now.Add(59 * time.Minute)
	for used, want := range map[time.Duration]bool{-time.Hour: false, -time.Minute: false, 0: true, 30 * time.Minute: true} {
		if got := wanted(now, now.Add(used), at); got != want {
			t.Errorf("last asked for at %v, due at 59m: wanted %v", used, got)
		}
	}
}

// §7: what is fetched together is not fetched again together, and a domain has
// its own time however often that is computed.
func TestJitter(t *testing.T) {
	times := make(map[time.Duration]bool)
	for i := range 1000 {
		domain := fmt.Sprintf("d%d.test", i)
		d := Jitter(domain, day)
		if d > day || d < day*9/10 || d != Jitter(domain, day) {
			t.Fatalf("%s: %v", domain, d)
		}
		times[d] = true
	}
	if len(times) < 500 {
		t.Errorf("%d times for 1000 domains", len(times))
	}
}

// §7: a fetch time in the future counts as now.
func TestFetchedInTheFuture(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	s := store.STS{Policy: []byte("version: STSv1\nmode: enforce\nmx: mx.test\nmax_age: 604800\n"), FetchedAt: now.Add(365 * day), CheckedAt: now.Add(365 * day), TXTTTL: time.Hour}
	if f := ReadSTS(&s, now); !f.Until.Equal(now.Add(7*day)) || f.Recheck.After(now.Add(day)) {
		t.Errorf("in force until %v, looked at again %v", f.Until, f.Recheck)
	}
}
