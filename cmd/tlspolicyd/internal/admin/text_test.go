package admin

import (
	"testing"
	"time"
)

func TestAgo(t *testing.T) {
	now := time.Now()
	for d, want := range map[time.Duration]string{
		0: "0s ago", -90 * time.Second: "90s ago", 5 * time.Minute: "in 5m", -3 * time.Hour: "3h ago", 50 * time.Hour: "in 2d",
	} {
		if got := Ago(now.Add(d), now); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
	if Ago(time.Time{}, now) != "-" {
		t.Error("never is a time")
	}
}
