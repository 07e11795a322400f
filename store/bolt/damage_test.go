package bolt

import (
	"bytes"
	"context"
	"errors"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/bbolt"

	"tlspolicyd/store"
)

// BEHAVIOUR §6: a file that is damaged while it is open costs what is in it,
// not the daemon. Reads fail as damaged until an empty file has taken its
// place, within about a second and without a restart.
func TestFileDamagedWhileOpen(t *testing.T) {
	for _, c := range []struct {
		name   string
		damage func(path string, file []byte) error
	}{
		{"cut to nothing", func(path string, _ []byte) error { return os.Truncate(path, 0) }},
		{"cut off after the meta pages", func(path string, _ []byte) error { return os.Truncate(path, 2*int64(os.Getpagesize())) }},
		{"garbled", func(path string, file []byte) error { garble(file); return overwrite(path, file) }},
		{"garbled behind the meta pages", func(path string, file []byte) error {
			garble(file[2*os.Getpagesize():])
			return overwrite(path, file)
		}},
		{"zeros behind the meta pages", func(path string, file []byte) error {
			clear(file[2*os.Getpagesize():])
			return overwrite(path, file)
		}},
	} {
		t.Run(c.name+", found by a read", func(t *testing.T) {
			path := newPath(t)
			file := someRecords(t, path)
			synctest.Test(t, func(t *testing.T) {
				var log logBuffer
				s := openStore(t, path, Options{Log: log.logger()})
				if err := c.damage(path, file); err != nil {
					t.Fatal(err)
				}
				if _, err := s.Get("0815.test"); !errors.Is(err, store.ErrDamaged) {
					t.Errorf("get: %v, want %v", err, store.ErrDamaged)
				}
				synctest.Wait()
				wantFresh(t, s, &log)
				closeStore(t, s)
			})
		})
		t.Run(c.name+", found by a write", func(t *testing.T) {
			path := newPath(t)
			file := someRecords(t, path)
			synctest.Test(t, func(t *testing.T) {
				var log logBuffer
				s := openStore(t, path, Options{Log: log.logger()})
				if err := c.damage(path, file); err != nil {
					t.Fatal(err)
				}
				// The write itself is not lost.
				mustPut(t, s, policy("new.test"))
				wantFresh(t, s, &log)
				closeStore(t, s)
			})
		})
	}
}

// overwrite writes into the file that is there, as a broken disk would.
func overwrite(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Close())
}

func wantFresh(t *testing.T, s *Store, log *logBuffer) {
	t.Helper()
	mustPut(t, s, policy("new.test"))
	wantRecord(t, s, "new.test")
	if _, err := s.Get("0815.test"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("get of what was lost: %v, want %v", err, store.ErrNotFound)
	}
	if n := s.Len(); n != 1 {
		t.Errorf("%d records, want 1", n)
	}
	if aside := asides(t, s.path); len(aside) != 1 || len(log.lines("set aside")) != 1 {
		t.Errorf("set aside: %q, log %q", aside, log.lines(""))
	}
	if got := s.Stats().Damaged; got != 1 {
		t.Errorf("counted %d times, want once", got)
	}
}

// A disk that damages every file must not be filled with them.
func TestDamagedAgainWithinTheHour(t *testing.T) {
	path := newPath(t)
	synctest.Test(t, func(t *testing.T) {
		var log logBuffer
		s := openStore(t, path, Options{Log: log.logger()})
		ctx := context.Background()
		damage := func() {
			if err := os.Truncate(path, 0); err != nil {
				t.Fatal(err)
			}
		}
		damage()
		mustPut(t, s, policy("a.test"))
		damage()
		for range 100 {
			if err := s.Put(ctx, policy("b.test")); !errors.Is(err, store.ErrDamaged) {
				t.Fatalf("put: %v, want %v", err, store.ErrDamaged)
			}
			if _, err := s.Get("a.test"); !errors.Is(err, store.ErrDamaged) {
				t.Fatalf("get: %v, want %v", err, store.ErrDamaged)
			}
		}
		s.PutLater(policy("c.test"))
		wantRecord(t, s, "c.test") // answers go on from memory
		if aside := asides(t, path); len(aside) != 1 || !s.Stats().Failing || len(log.lines("cannot be written")) != 1 {
			t.Errorf("set aside %q, log %q", aside, log.lines(""))
		}
		time.Sleep(replaceEvery + retryAfter)
		synctest.Wait()
		mustPut(t, s, policy("b.test"))
		wantRecord(t, s, "b.test")
		wantRecord(t, s, "c.test")
		if aside := asides(t, path); len(aside) != 2 || s.Stats().Failing || len(log.lines("written again")) != 1 {
			t.Errorf("set aside %q, log %q", aside, log.lines(""))
		}
		closeStore(t, s)
	})
}

// An operator who removes the file, or moves it away, and one who puts another
// in its place, must not have that one set aside.
func TestDamagedFileThatWasMovedAway(t *testing.T) {
	path, other := newPath(t), newPath(t)
	someRecords(t, other)
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, path, Options{})
		err := errors.Join(os.Truncate(path, 0), os.Rename(path, path+".old"), os.Rename(other, path))
		if err != nil {
			t.Fatal(err)
		}
		mustPut(t, s, policy("new.test"))
		wantRecord(t, s, "0815.test")
		if aside := asides(t, path); len(aside) > 0 {
			t.Errorf("set aside: %q", aside)
		}
		closeStore(t, s)
	})
}

// One record that is garbled costs that record.
func TestGarbledRecord(t *testing.T) {
	path := newPath(t)
	someRecords(t, path)
	editFile(t, path, func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(bucketRecords))
		v := bytes.Clone(b.Get([]byte("0815.test")))
		v[len(v)/2] ^= 1
		return b.Put([]byte("0815.test"), v)
	})
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, path, Options{})
		if _, err := s.Get("0815.test"); !errors.Is(err, store.ErrDamaged) {
			t.Errorf("get: %v, want %v", err, store.ErrDamaged)
		}
		time.Sleep(2 * flushAfter)
		synctest.Wait()
		if _, err := s.Get("0815.test"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("get after a moment: %v, want %v", err, store.ErrNotFound)
		}
		// Its entry in the schedule does not come back again and again.
		due := policy("").Due
		if recs, err := s.Due(due, 5000); err != nil || len(recs) != 1999 {
			t.Errorf("%d due, want 1999: %v", len(recs), err)
		}
		time.Sleep(2 * flushAfter)
		synctest.Wait()
		if n, err := s.CountDue(due); err != nil || n != 1999 || s.Len() != 1999 {
			t.Errorf("%d counted as due of %d, want 1999: %v", n, s.Len(), err)
		}
		mustPut(t, s, policy("0815.test"))
		wantRecord(t, s, "0815.test")
		if s.Len() != 2000 || s.Stats().Damaged != 1 || len(asides(t, path)) != 0 {
			t.Errorf("%d records, %+v", s.Len(), s.Stats())
		}
		closeStore(t, s)
	})
}

// An entry of the schedule without a record is passed over and removed.
func TestScheduleEntryWithoutRecord(t *testing.T) {
	path := newPath(t)
	s := openStore(t, path, Options{})
	mustPut(t, s, policy("a.test"))
	closeStore(t, s)
	editFile(t, path, func(tx *bbolt.Tx) error {
		orphan := policy("orphan.test")
		orphan.Due = orphan.Due.Add(-time.Hour)
		use := policy("orphan.test")
		use.Class = store.Negative
		return errors.Join(
			tx.Bucket([]byte(bucketDue)).Put(dueKey(&orphan), nil),
			tx.Bucket([]byte(bucketDue)).Put([]byte("short"), nil),
			tx.Bucket([]byte(bucketUse)).Put(useKey(&use), nil),
			tx.Bucket([]byte(bucketUse)).Put([]byte{0}, nil),
		)
	})
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, path, Options{MaxEntries: 1})
		if recs, err := s.Due(policy("").Due, 1); err != nil || len(recs) != 1 || recs[0].Domain != "a.test" {
			t.Errorf("due %v: %v", recs, err)
		}
		time.Sleep(2 * flushAfter)
		synctest.Wait()
		if n, err := s.CountDue(policy("").Due); err != nil || n != 1 {
			t.Errorf("%d counted as due, want 1: %v", n, err)
		}
		// Eviction gets past such entries too.
		newer := policy("b.test")
		newer.LastUsed = newer.LastUsed.Add(time.Hour)
		mustPut(t, s, newer)
		wantRecord(t, s, "b.test")
		if s.Len() != 1 || s.Stats().Evicted != 1 {
			t.Errorf("%d records, %+v; want 1 after one eviction", s.Len(), s.Stats())
		}
		closeStore(t, s)
	})
}
