package main

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tlspolicyd/cmd/tlspolicyd/internal/config"
	"tlspolicyd/cmd/tlspolicyd/internal/logging"
)

// overrideWatch is a reloader that watches one override file, in a bubble of time.
type overrideWatch struct {
	t     *testing.T
	path  string
	used  []map[string]config.FileOverride // what was put in force
	out   bytes.Buffer
	close func() string // ends it and returns the log
}

func newOverrideWatch(t *testing.T) *overrideWatch {
	t.Helper()
	w := &overrideWatch{t: t, path: filepath.Join(t.TempDir(), "list.toml")}
	w.write(`"a.test" = "skip"`)
	log := logging.New(&w.out, logging.Options{Format: logging.Text})
	r := &reloader{cfg: config.Default(), log: log.Logger}
	r.cfg.Policy.OverrideFile = []string{w.path}
	r.override = func(cfg config.Config) { w.used = append(w.used, cfg.FileOverride) }
	lines, err := config.ReadOverrides(r.cfg.Policy.OverrideFile, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.cfg.FileOverride = lines
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); r.watchOverrides(ctx, overridePoll) }()
	time.Sleep(overridePoll / 2) // no file is written at the moment of a tick
	w.close = func() string {
		cancel()
		<-ended
		if err := log.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		return w.out.String()
	}
	return w
}

func (w *overrideWatch) write(lines string) {
	w.t.Helper()
	if err := os.WriteFile(w.path, []byte("[override]\n"+lines+"\n"), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// minute passes; then these lines are in force, and were put there so many times.
func (w *overrideWatch) minute(times int, want ...string) {
	w.t.Helper()
	time.Sleep(time.Minute)
	synctest.Wait()
	if len(w.used) != times {
		w.t.Fatalf("put in force %d times, want %d", len(w.used), times)
	}
	if times == 0 {
		return
	}
	all := map[string]config.FileOverride{}
	for _, line := range want {
		name, policy, _ := strings.Cut(line, "=")
		all[name] = config.FileOverride{Policy: policy, File: w.path}
	}
	if got := w.used[times-1]; !maps.Equal(got, all) {
		w.t.Errorf("in force %v, want %v", got, all)
	}
}

// A changed file is in force within a minute. One that is broken or gone changes
// nothing, is logged once with the place of the mistake, and the list is used again
// when it is repaired.
func TestOverrideFilesAreFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newOverrideWatch(t)
		w.minute(0)
		w.write(`"b.test" = "encrypt"`)
		w.minute(1, "b.test=encrypt")
		w.minute(1, "b.test=encrypt")
		w.write(`"c.test" = "encrpt"`)
		w.minute(1, "b.test=encrypt")
		w.minute(1, "b.test=encrypt")
		if err := os.Remove(w.path); err != nil {
			t.Fatal(err)
		}
		w.minute(1, "b.test=encrypt")
		w.write(`"c.test" = "encrypt"`)
		w.minute(2, "c.test=encrypt")

		// As rsync and configuration management do it.
		before := w.path
		w.path += ".new"
		w.write(`"d.test" = "skip"`)
		if err := os.Rename(w.path, before); err != nil {
			t.Fatal(err)
		}
		w.path = before
		w.minute(3, "d.test=skip")

		log := w.close()
		for line, times := range map[string]int{
			"INFO  override files reloaded overrides=1\n": 3,
			"ERROR override files refused, the old overrides stay reason=\"" + w.path + ":2:12: override.\\\"c.test\\\": \\\"encrpt\\\": not a Postfix security level: ": 1,
			"ERROR override files refused, the old overrides stay reason=\"policy.override_file: open " + w.path + ": no such file or directory\"\n":                     1,
		} {
			if got := strings.Count(log, line); got != times {
				t.Errorf("%d times, want %d: %s\n%s", got, times, line, log)
			}
		}
	})
}

// A file that is being written may be valid in between, with half of its lines.
func TestOverrideFilesAreReadWhenTheyRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newOverrideWatch(t)
		w.minute(0)
		for lines := 1; lines <= 20; lines++ {
			text := ""
			for i := range lines {
				text += fmt.Sprintf("\"%d.test\" = \"skip\"\n", i)
			}
			w.write(text)
			time.Sleep(overridePoll)
		}
		synctest.Wait()
		if len(w.used) != 0 {
			t.Error("it was read while it grew")
		}
		w.write(`"b.test" = "encrypt"`)
		w.minute(1, "b.test=encrypt")
		w.close()
	})
}
