package policy

import "time"

const (
	minTTL = time.Minute    // docs/behaviour.md §6
	maxTTL = 24 * time.Hour // docs/behaviour.md §6
)

// ClampTTL keeps a TTL within the bounds of docs/behaviour.md §6.
func ClampTTL(d time.Duration) time.Duration { return min(max(d, minTTL), maxTTL) }

// NotFuture makes a stored time that is in the future count as now, so that a
// clock set back makes no policy immortal.
func NotFuture(t, now time.Time) time.Time {
	if t.After(now) {
		return now
	}
	return t
}

// Earliest returns the earlier of two times.
func Earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// Latest returns the latest of several times, the zero time for none.
func Latest(times ...time.Time) time.Time {
	var out time.Time
	for _, t := range times {
		if t.After(out) {
			out = t
		}
	}
	return out
}

// notBefore returns t, or floor if t is before it. Zero means never and stays.
func notBefore(t, floor time.Time) time.Time {
	if t.Before(floor) && !t.IsZero() {
		return floor
	}
	return t
}
