package bolt

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/bbolt"

	"tlspolicyd/store"
)

func mkfifo(path string) error { return syscall.Mkfifo(path, 0o600) }

// someRecords fills a database of some hundred pages and returns it closed.
func someRecords(t testing.TB, path string) []byte {
	t.Helper()
	s := openStore(t, path, Options{})
	recs := make([]store.Record, 2000)
	for i := range recs {
		recs[i] = policy(fmt.Sprintf("%04d.test", i))
	}
	mustPut(t, s, recs...)
	mustPut(t, s, recs[:100]...) // leaves free pages
	closeStore(t, s)
	return readFile(t, path)
}

// used is the part of a database file that is in use.
func used(t testing.TB, file []byte) []byte {
	t.Helper()
	m, err := readMeta(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	return file[:m.end*uint64(m.pageSize)]
}

func garble(b []byte) {
	for i := range b {
		b[i] ^= 0x5A
	}
}

// BEHAVIOUR §6: a damaged or foreign database file is set aside under another
// name with a clear log line, and the daemon starts with an empty one.
func TestDamagedOrForeignFileIsSetAside(t *testing.T) {
	good := someRecords(t, newPath(t))
	page := os.Getpagesize()
	if len(used(t, good)) < 100*page {
		t.Fatalf("only %d bytes to damage", len(good))
	}
	for _, c := range []struct {
		name   string
		damage func(file []byte) []byte
	}{
		{"text", func([]byte) []byte { return []byte("no database\n") }},
		{"one byte", func([]byte) []byte { return []byte{0} }},
		{"zeros", func([]byte) []byte { return make([]byte, 1<<20) }},
		{"cut off in the first page", func(f []byte) []byte { return f[:100] }},
		{"cut off after the meta pages", func(f []byte) []byte { return f[:2*page] }},
		{"cut off in the middle", func(f []byte) []byte { return f[:len(used(t, f))/2] }},
		{"last page in use cut off", func(f []byte) []byte { return f[:len(used(t, f))-1] }},
		{"both meta pages garbled", func(f []byte) []byte { garble(f[:2*page]); return f }},
		{"tail garbled", func(f []byte) []byte {
			u := used(t, f)
			garble(u[len(u)/2:])
			return f
		}},
		{"tail of zeros", func(f []byte) []byte {
			u := used(t, f)
			clear(u[len(u)/2:])
			return f
		}},
		{"tail from another place", func(f []byte) []byte {
			u := used(t, f)
			copy(u[len(u)/2:], u[len(u)/4:len(u)/2])
			return f
		}},
		{"list of free pages garbled", func(f []byte) []byte {
			m, _ := readMeta(bytes.NewReader(f), int64(len(f)))
			garble(f[m.freelist*uint64(page)+pageHeaderSize:][:8])
			return f
		}},
		{"root garbled", func(f []byte) []byte {
			m, _ := readMeta(bytes.NewReader(f), int64(len(f)))
			garble(f[m.root*uint64(page)+pageHeaderSize:][:elementSize])
			return f
		}},
		{"page that is its own child", func(f []byte) []byte {
			for id := uint64(2); id < uint64(len(used(t, f))/page); id++ {
				if p := f[id*uint64(page):]; binary.NativeEndian.Uint64(p) == id && binary.NativeEndian.Uint16(p[8:]) == branchPage {
					binary.NativeEndian.PutUint64(p[pageHeaderSize+8:], id)
				}
			}
			return f
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := newPath(t)
			bad := c.damage(bytes.Clone(good))
			if err := os.WriteFile(path, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			wantSetAside(t, path, bad)
		})
	}
}

func TestDatabaseOfAnotherProgramIsSetAside(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(*bbolt.Tx) error
	}{
		{"other buckets", func(tx *bbolt.Tx) error {
			_, err := tx.CreateBucket([]byte("other"))
			return errors.Join(err, tx.DeleteBucket([]byte(bucketMeta)))
		}},
		{"other meta", func(tx *bbolt.Tx) error {
			return tx.Bucket([]byte(bucketMeta)).Put([]byte(keyApplication), []byte("other"))
		}},
		{"no schema", func(tx *bbolt.Tx) error {
			return tx.Bucket([]byte(bucketMeta)).Delete([]byte(keySchema))
		}},
		{"schema 0", func(tx *bbolt.Tx) error {
			return tx.Bucket([]byte(bucketMeta)).Put([]byte(keySchema), []byte("0"))
		}},
		{"no records", func(tx *bbolt.Tx) error { return tx.DeleteBucket([]byte(bucketRecords)) }},
		{"wrong number of records", func(tx *bbolt.Tx) error {
			v := append([]byte{0xFF}, tx.Bucket([]byte(bucketMeta)).Get([]byte(keyCount))[1:]...)
			return tx.Bucket([]byte(bucketMeta)).Put([]byte(keyCount), v)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := newPath(t)
			closeStore(t, openStore(t, path, Options{}))
			editFile(t, path, c.edit)
			wantSetAside(t, path, readFile(t, path))
		})
	}
}

// A list of free pages is always written by us; bbolt would go through the
// whole file for lack of it, in a goroutine whose panics nobody can catch.
func TestDatabaseWithoutListOfFreePagesIsSetAside(t *testing.T) {
	path := newPath(t)
	file := someRecords(t, path)
	for _, at := range []int{0, os.Getpagesize()} {
		meta := file[at+pageHeaderSize:]
		binary.NativeEndian.PutUint64(meta[32:], 1<<64-1)
		sum := fnv.New64a()
		sum.Write(meta[:56])
		binary.NativeEndian.PutUint64(meta[56:], sum.Sum64())
	}
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	wantSetAside(t, path, file)
}

func wantSetAside(t *testing.T, path string, content []byte) {
	t.Helper()
	var log logBuffer
	s := openStore(t, path, Options{Log: log.logger()})
	if n := s.Len(); n != 0 {
		t.Errorf("starts with %d records, want none", n)
	}
	mustPut(t, s, policy("new.test"))
	wantRecord(t, s, "new.test")
	aside := asides(t, path)
	if len(aside) != 1 {
		t.Fatalf("set aside: %q", aside)
	}
	if !bytes.Equal(readFile(t, aside[0]), content) {
		t.Error("what was set aside is not what was there")
	}
	lines := log.lines("set aside")
	if len(lines) != 1 || !strings.Contains(lines[0], "path="+path) || !strings.Contains(lines[0], "aside="+aside[0]) ||
		!strings.Contains(lines[0], "reason=") {
		t.Errorf("log: %q", lines)
	}
	t.Logf("%s", lines)
}

// A torn write of one meta page is what bbolt keeps two of them for.
func TestOneDamagedMetaPageLosesNothing(t *testing.T) {
	for _, at := range []int{0, os.Getpagesize()} {
		path := newPath(t)
		file := someRecords(t, path)
		garble(file[at : at+pageHeaderSize+metaSize])
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		s := openStore(t, path, Options{})
		wantRecord(t, s, "1999.test")
		if aside := asides(t, path); len(aside) > 0 {
			t.Errorf("set aside: %q", aside)
		}
		closeStore(t, s)
	}
}

func TestTwoFilesSetAsideInOneSecond(t *testing.T) {
	path := newPath(t)
	synctest.Test(t, func(t *testing.T) {
		for range 3 {
			if err := os.WriteFile(path, []byte("damaged"), 0o600); err != nil {
				t.Fatal(err)
			}
			closeStore(t, openStore(t, path, Options{}))
		}
	})
	if aside := asides(t, path); len(aside) != 3 {
		t.Errorf("set aside: %q, want 3 files", aside)
	}
}

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

// A caller that waits for NextDue must not be woken for ever by an entry that
// leads nowhere.
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
		if next, err := s.NextDue(); err != nil || !next.Equal(policy("").Due) {
			t.Errorf("next due %v: %v", next, err)
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
