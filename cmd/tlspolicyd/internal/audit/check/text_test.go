package check

import (
	"testing"
	"time"
)

func TestLeftText(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		left time.Duration
		want string
	}{
		{-time.Second, "expired 2026-03-01"},
		{0, "expired 2026-03-01"},
		{10*time.Minute + time.Second, "expires in 10 minutes, at 2026-03-01T12:10:01Z"},
		{2 * time.Hour, "expires in 2 hours, at 2026-03-01T14:00:00Z"},
		{47 * time.Hour, "expires in 47 hours, at 2026-03-03T11:00:00Z"},
		{48 * time.Hour, "expires 2026-03-03, 2 days left"},
	} {
		if got := leftText(now.Add(test.left), now); got != test.want {
			t.Errorf("%v: %q, want %q", test.left, got, test.want)
		}
	}
}

func TestIssuerText(t *testing.T) {
	for name, want := range map[string]string{
		"":             "an issuer without a name",
		"CN=\x1b[2J x": `CN=\x1b[2J x`,
	} {
		if got := issuerText(name); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}
