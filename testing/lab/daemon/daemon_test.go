package daemon

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestEnvironmentOfTheDaemon(t *testing.T) {
	got := withoutSystemd([]string{"PATH=/bin", "LISTEN_FDS=1", "NOTIFY_SOCKET=/x", "STATE_DIRECTORY=/y", "HOME=/"})
	if d := cmp.Diff([]string{"PATH=/bin", "HOME=/"}, got); d != "" {
		t.Error(d)
	}
}
