package bolt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"tlspolicyd/store"
)

const fullDiskChildEnv = "TLSPOLICYD_TEST_FULL_DISK"

// inChild runs the test again in a process of its own and reports whether this
// is that process: a limit on the size of files hits the files of the test
// runner as well.
func inChild(t *testing.T) bool {
	t.Helper()
	if os.Getenv(fullDiskChildEnv) != "" {
		return true
	}
	child := exec.Command(os.Args[0], "-test.v", "-test.run=^"+t.Name()+"$")
	child.Env = append(os.Environ(), fullDiskChildEnv+"=1")
	out, err := child.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("%v", err)
	}
	t.Logf("%s", out)
	return false
}

// limitFileSize lets no file grow beyond n bytes nor be written there, for
// root as well and on any file system: what bbolt gets to see is what a full
// disk does.
func limitFileSize(t *testing.T, n uint64) (lift func()) {
	t.Helper()
	signal.Ignore(syscall.SIGXFSZ)
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	set := func(limit syscall.Rlimit) {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
			t.Error(err)
		}
	}
	limited := before
	assign(&limited.Cur, n)
	set(limited)
	lift = func() { set(before) }
	t.Cleanup(lift)
	return lift
}

// assign is for a field that has a sign on some systems.
func assign[T int64 | uint64](to *T, n uint64) { *to = T(n) }

// BEHAVIOUR §6: with a full disk answers go on, from memory, and a metric and
// a log line tell. When there is room again it works as before, without a
// restart.
func TestFullDisk(t *testing.T) {
	if !inChild(t) {
		return
	}
	for _, c := range []struct {
		name  string
		limit func(size int64) uint64
	}{
		{"the file cannot grow", func(size int64) uint64 { return uint64(size) }},
		{"pages in the file cannot be written", func(int64) uint64 { return 3 * uint64(os.Getpagesize()) }},
		{"nothing can be written", func(int64) uint64 { return 0 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := newPath(t)
			someRecords(t, path)
			synctest.Test(t, func(t *testing.T) {
				var log logBuffer
				s := openStore(t, path, Options{Log: log.logger()})
				lift := limitFileSize(t, c.limit(s.Size()))
				kept := fillUp(t, s)
				whileFull(t, s, &log)

				lift()
				mustPut(t, s, policy("after.test"))
				kept = append(kept, "after.test", "later.test", "0815.test")
				if st := s.Stats(); st.Failing || st.Waiting != 0 || len(log.lines("cannot be")) != len(log.lines("written again")) {
					t.Errorf("%+v, log %q", st, log.lines(""))
				}
				closeStore(t, s)

				again := openStore(t, path, Options{})
				for _, domain := range kept {
					wantRecord(t, again, domain)
				}
				if n, err := again.CountDue(policy("").Due); n != again.Len() || err != nil {
					t.Errorf("%d records, %d in the schedule: %v", again.Len(), n, err)
				}
				if aside := asides(t, path); len(aside) > 0 {
					t.Errorf("set aside: %q", aside)
				}
				closeStore(t, again)
			})
		})
	}
}

// large is a record that takes many pages in a row: a small one may still find
// room among those that changes have left behind.
func large(domain string) store.Record {
	rec := policy(domain)
	rec.STS.Policy = make([]byte, 64<<10)
	return rec
}

// fillUp puts records until no more fit, and returns those that were
// acknowledged.
func fillUp(t *testing.T, s *Store) (kept []string) {
	t.Helper()
	failed := 0
	for i := range 1000 {
		rec := large(fmt.Sprintf("fill-%d.test", i))
		err := s.Put(context.Background(), rec)
		if err == nil {
			kept = append(kept, rec.Domain)
			failed = 0
			continue
		}
		if !strings.Contains(err.Error(), s.path) || !strings.Contains(err.Error(), syscall.EFBIG.Error()) {
			t.Errorf("error %q, want one with the path and the reason", err)
		}
		// The pages that the last transaction left behind come free with the next.
		if failed++; failed == 3 {
			t.Logf("full after %d records: %v", len(kept), err)
			return kept
		}
	}
	t.Fatal("the disk does not get full")
	return nil
}

func whileFull(t *testing.T, s *Store, log *logBuffer) {
	t.Helper()
	lines := len(log.lines(""))
	before := s.Stats().WriteErrors
	for range 10 * retryAfter / time.Second {
		s.PutLater(large("later.test")) // asked for again and again
		time.Sleep(time.Second)
	}
	synctest.Wait()
	if tries := s.Stats().WriteErrors - before; tries < 9 || tries > 11 {
		t.Errorf("%d attempts in %v, want one in %v", tries, 10*retryAfter, retryAfter)
	}
	wantRecord(t, s, "later.test")
	wantRecord(t, s, "0815.test")
	if due, err := s.Due(policy("").Due, 10); len(due) != 10 || err != nil {
		t.Errorf("%d due: %v", len(due), err)
	}
	if !s.Stats().Failing || lines == 0 || len(log.lines("")) != lines {
		t.Errorf("%+v, log %q", s.Stats(), log.lines(""))
	}
}

// A first start on a full disk answers from memory. It leaves nothing that would be
// taken for a damaged database, and writes as soon as there is room.
func TestFullDiskAtTheFirstStart(t *testing.T) {
	if !inChild(t) {
		return
	}
	for _, limit := range []int{0, 2 * os.Getpagesize(), 4 * os.Getpagesize()} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			path := newPath(t)
			lift := limitFileSize(t, uint64(limit))
			var log logBuffer
			s := openStore(t, path, Options{Log: log.logger()})
			fromMemory(t, s, &log)
			lift()
			mustPut(t, s, policy("a.test"))
			wantHealthy(t, s, &log)
			closeStore(t, s)
			wantRecord(t, openStore(t, path, Options{}), "later.test")
			if aside := asides(t, path); len(aside) > 0 {
				t.Errorf("set aside: %q", aside)
			}
		})
	}
}

// fromMemory checks a store that has no file to write to.
func fromMemory(t *testing.T, s *Store, log *logBuffer) {
	t.Helper()
	if err := s.Put(context.Background(), policy("a.test")); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("put: %v, want %v", err, store.ErrUnavailable)
	}
	s.PutLater(policy("later.test"))
	wantRecord(t, s, "later.test")
	if _, err := s.Get("a.test"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("get: %v, want %v", err, store.ErrNotFound)
	}
	if due, err := s.Due(policy("").Due, 5000); err != nil || len(due) == 0 || due[len(due)-1].Domain != "later.test" {
		t.Errorf("due: %d records, %v", len(due), err)
	}
	if !errors.Is(s.Health(), store.ErrUnavailable) || len(log.lines("cannot be opened for writing")) != 1 {
		t.Errorf("health %v, log %q", s.Health(), log.lines(""))
	}
}

func wantHealthy(t *testing.T, s *Store, log *logBuffer) {
	t.Helper()
	if s.Health() != nil || len(log.lines("can be written again")) != 1 {
		t.Errorf("health %v, log %q", s.Health(), log.lines(""))
	}
}

// A full disk and a damaged file at the start: the file is set aside once, and
// answers come from memory until there is room.
func TestFullDiskAndADamagedFile(t *testing.T) {
	if !inChild(t) {
		return
	}
	path := newPath(t)
	if err := os.WriteFile(path, []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	lift := limitFileSize(t, 0)
	var log logBuffer
	s := openStore(t, path, Options{Log: log.logger()})
	fromMemory(t, s, &log)
	lift()
	mustPut(t, s, policy("a.test"))
	wantHealthy(t, s, &log)
	if aside := asides(t, path); len(aside) != 1 {
		t.Errorf("set aside: %q", aside)
	}
	closeStore(t, s)
}
