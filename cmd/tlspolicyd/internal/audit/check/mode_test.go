package check

import (
	"testing"
	"time"
)

func TestExpiresSoon(t *testing.T) {
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
		if got := expiresSoon(now.Add(test.left-test.life), now.Add(test.left), now); got != test.want {
			t.Errorf("life %v, left %v: %t", test.life, test.left, got)
		}
	}
}
