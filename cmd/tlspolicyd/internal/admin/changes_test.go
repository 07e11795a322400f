package admin

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tlspolicyd/policymap/policy"
)

func noted(c *Changes, key string, weaker bool) {
	c.Changed(policy.Change{Key: key, What: "MTA-STS", Old: "enforce mx.test", New: "testing mx.test", Weaker: weaker})
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func keysOf(c *Changes) (keys []string) {
	for _, one := range c.List("") {
		keys = append(keys, one.Key)
	}
	return keys
}

func TestChangesSurviveARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "changes")
	for i := range 3 {
		c := NewChanges(path, quiet())
		noted(c, fmt.Sprintf("d%d.test", i), i == 1)
		c.Close()
	}
	// A crash cuts the last line.
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(f, `{"at":"2026-11-28T10:00:00Z","next_ho`)
	f.Close()
	c := NewChanges(path, quiet())
	noted(c, "d3.test", false)
	c.Close()
	c = NewChanges(path, quiet())
	defer c.Close()
	if got := strings.Join(keysOf(c), " "); got != "d0.test d1.test d2.test d3.test" {
		t.Error(got)
	}
	if list := c.List("d1.test"); len(list) != 1 || !list[0].Weaker || list[0].At.IsZero() {
		t.Errorf("%+v", list)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// However many changes there are, the file stays small, and those that made a
// policy weaker are the last to go.
func TestChangesAreBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "changes")
	c := NewChanges(path, quiet())
	for i := range 100 {
		noted(c, fmt.Sprintf("weaker%d.test", i), true)
	}
	const n = 30000
	for i := range n {
		noted(c, fmt.Sprintf("d%05d.test", i), false)
	}
	c.Close()
	info, err := os.Stat(path)
	if err != nil || info.Size() > maxChanges || info.Size() < maxChanges/4 {
		t.Errorf("%d bytes, %v", info.Size(), err)
	}
	c = NewChanges(path, quiet())
	defer c.Close()
	keys := keysOf(c)
	if keys[0] != "weaker0.test" || keys[99] != "weaker99.test" || keys[len(keys)-1] != fmt.Sprintf("d%05d.test", n-1) {
		t.Errorf("%d are left, %s to %s", len(keys), keys[0], keys[len(keys)-1])
	}
}

// A disk that takes nothing costs one log line and the history; what is in memory
// goes out when the disk works again.
func TestChangesOnADiskThatFails(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "later")
	path := filepath.Join(dir, "changes")
	var log bytes.Buffer
	c := NewChanges(path, slog.New(slog.NewTextHandler(&log, nil)))
	for i := range 3 {
		noted(c, fmt.Sprintf("d%d.test", i), false)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	noted(c, "d3.test", false)
	c.Close()
	c = NewChanges(path, quiet())
	defer c.Close()
	if got := strings.Join(keysOf(c), " "); got != "d0.test d1.test d2.test d3.test" {
		t.Error(got)
	}
	if n := strings.Count(log.String(), "cannot be written"); n > 1 {
		t.Errorf("%d log lines", n)
	}
}
