package check

import (
	"testing"
	"time"
)

// An id is letters and digits; most people put a date there.
func TestIDTime(t *testing.T) {
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	for id, want := range map[string]string{
		"20260102":         "2026-01-02T00:00:00Z",
		"20260102T030405Z": "2026-01-02T00:00:00Z",
		"20260102030405":   "2026-01-02T03:04:05Z",
		"2026010203":       "2026-01-02T03:00:00Z",
		"202601020304Z":    "2026-01-02T03:04:00Z",
		"20270102":         "", // not yet
		"19990102":         "",
		"20261302":         "",
		"1":                "",
		"1767225600":       "", // seconds since 1970
		"202601020304050":  "",
		"a20260102":        "",
		"":                 "",
	} {
		got, ok := idTime(id, now)
		if ok != (want != "") || ok && got.Format(time.RFC3339) != want {
			t.Errorf("%q is %v, %t, want %q", id, got, ok, want)
		}
	}
}

func TestEndsSoon(t *testing.T) {
	const day = 24 * time.Hour
	for _, test := range []struct {
		life, left time.Duration
		want       bool
	}{
		{90 * day, 30 * day, false},
		{90 * day, 15 * day, false},
		{90 * day, 13 * day, true},
		{6 * day, 2 * day, false}, // short-lived on purpose
		{6 * day, day, true},
		{25 * time.Hour, 24 * time.Hour, false},
		{90 * day, -day, true},
	} {
		now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		if got := endsSoon(now.Add(test.left-test.life), now.Add(test.left), now); got != test.want {
			t.Errorf("life %v, left %v: %t", test.life, test.left, got)
		}
	}
}
