package policy

import (
	"strings"
	"testing"
	"time"

	"tlspolicyd/share"
	"tlspolicyd/store"
)

// docs/behaviour.md §8: what becomes of a policy of another host.
func TestAdopt(t *testing.T) {
	const ours = "version: STSv1\nmode: enforce\nmx: mx.example.test\nmax_age: 604800\n"
	other, week := strings.Replace(ours, "enforce", "none", 1), 7*24*time.Hour
	another := strings.Replace(ours, "mx.", "mx2.", 1)
	const txtID = "txt"
	now := time.Now()
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	known := func(fetched, since time.Duration) store.STS {
		s := store.STS{Policy: []byte(ours), PolicyID: "1", FetchedAt: ago(fetched)}
		if since > 0 {
			s.SharedSince = ago(since)
		}
		return s
	}
	for name, tt := range map[string]struct {
		have    store.STS
		file    string
		id      string
		age     time.Duration
		want    Adoption
		since   time.Duration // SharedSince afterwards, before now; -1: zero
		afterID string
	}{
		"nothing known":                    {store.STS{}, ours, "1", time.Hour, Adopted, 0, "1"},
		"nothing known, over":              {store.STS{}, ours, "1", week, Ignored, -1, ""},
		"nothing known, max_age 0":         {store.STS{}, strings.Replace(ours, "604800", "0", 1), "1", 0, Ignored, -1, ""},
		"nothing known, malformed":         {store.STS{}, "x", "1", 0, Ignored, -1, ""},
		"nothing known, not enforced":      {store.STS{}, other, "1", 0, Ignored, -1, ""},
		"not enforced, the id of TXT":      {store.STS{}, other, txtID, 0, Adopted, 0, txtID},
		"ours is over":                     {known(week, 0), another, "2", 0, Adopted, 0, "2"},
		"ours is over, not enforced":       {known(week, 0), other, "2", 0, Ignored, -1, "1"},
		"ours is over and was theirs":      {known(week, week+time.Hour), another, "2", 0, Adopted, week + time.Hour, "2"},
		"identical and younger":            {known(time.Hour, 0), ours, "9", time.Minute, Adopted, time.Hour, "1"},
		"identical and younger, as before": {known(time.Hour, 48*time.Hour), ours, "1", 0, Adopted, 48 * time.Hour, "1"},
		"identical, of the same age":       {known(time.Hour, 0), ours, "1", time.Hour, SameAge, -1, "1"},
		"identical and older":              {known(time.Hour, 0), ours, "1", 2 * time.Hour, Ignored, -1, "1"},
		"another, younger, of another id":  {known(time.Hour, 0), other, "2", 0, Hint, -1, "1"},
		"another of the same id":           {known(time.Hour, 0), other, "1", 0, Ignored, -1, "1"},
		"another and older":                {known(time.Hour, 0), other, "2", 2 * time.Hour, Ignored, -1, "1"},
		"another, just fetched here":       {known(time.Minute, 0), other, "2", 0, Ignored, -1, "1"},
		"fetched in the future":            {store.STS{}, ours, "1", -time.Hour, Adopted, 0, "1"},
	} {
		s := tt.have
		got := Adopt(&s, share.Policy{File: []byte(tt.file), ID: tt.id, Age: tt.age, Host: "a.test"}, txtID, now)
		since := time.Duration(-1)
		if !s.SharedSince.IsZero() {
			since = now.Sub(s.SharedSince)
		}
		if got != tt.want || since != tt.since || s.PolicyID != tt.afterID {
			t.Errorf("%s: %d, shared for %v, id %q", name, got, since, s.PolicyID)
		}
		if s.FetchedAt.After(now) || got == Adopted && string(s.Policy) != tt.file || got != Adopted && string(s.Policy) != string(tt.have.Policy) {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

// When a host fetches itself what others renew for it.
func TestVerifyIsDue(t *testing.T) {
	now, day := time.Now(), 24*time.Hour
	c := Schedule{Interval: day, UnusedFor: 30 * day, VerifyAfter: 7 * day}
	s := &store.STS{
		Policy:    []byte("version: STSv1\nmode: enforce\nmx: mx.example.test\nmax_age: 604800\n"),
		FetchedAt: now.Add(-time.Hour), SharedSince: now.Add(-6 * day),
	}
	due := func(used time.Duration) time.Duration {
		at := c.STSDue(s, ReadSTS(s, now), now, now.Add(-used))
		if at.IsZero() {
			return 0
		}
		return at.Sub(now).Round(time.Minute)
	}
	if got := due(0); got != 23*time.Hour || c.Own(s, now) {
		t.Errorf("before: due in %v", got)
	}
	s.SharedSince = now.Add(-7*day + time.Hour)
	if got := due(0); got != time.Hour || c.Own(s, now) || !c.Own(s, now.Add(time.Hour)) {
		t.Errorf("an hour before: due in %v", got)
	}
	s.SharedSince = now.Add(-8 * day)
	if got := due(0); got != -day {
		t.Errorf("overdue: due in %v", got)
	}
	s.Failures, s.FailedID, s.FailedAt = 3, "1", now.Add(-time.Minute) // it was tried, with pauses
	if got := due(0); got != 19*time.Minute {
		t.Errorf("after failures: due in %v", got)
	}
	if got := due(31 * day); got != 0 {
		t.Errorf("not in use: due in %v", got)
	}
}
