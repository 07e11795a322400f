package bolt

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/bbolt"

	"tlspolicyd/store"
)

func TestDatabaseIsTheOwnersAlone(t *testing.T) {
	path := newPath(t)
	openStore(t, path, Options{})
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o600 {
		t.Errorf("mode %o, want 600", got)
	}
}

// A path that cannot be a database is the operator's mistake, not damage:
// nothing is renamed.
func TestPathThatCannotBeADatabase(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	below := filepath.Join(dir, "file")
	if err := os.WriteFile(below, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, path, want string }{
		{"a directory", dir, "is a directory"},
		{"no regular file", fifo, "not a regular file"},
		{"below a file", filepath.Join(below, "policies.db"), "not a directory"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := Open(c.path, Options{})
			if err == nil {
				s.Close()
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %q, want one with %q", err, c.want)
			}
			if aside := asides(t, c.path); len(aside) > 0 {
				t.Errorf("set aside: %q", aside)
			}
		})
	}
}

// asides returns what was set aside of a database.
func asides(t testing.TB, path string) []string {
	t.Helper()
	names, err := filepath.Glob(path + ".damaged-*")
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestDatabaseInUse(t *testing.T) {
	path := newPath(t)
	first := openStore(t, path, Options{})
	mustPut(t, first, policy("a.test"))
	synctest.Test(t, func(t *testing.T) {
		s, err := Open(path, Options{})
		if !errors.Is(err, store.ErrLocked) || !strings.Contains(err.Error(), path) {
			t.Errorf("error %v, want %v with the path", err, store.ErrLocked)
		}
		if err == nil {
			s.Close()
		}
	})
	if aside := asides(t, path); len(aside) > 0 {
		t.Errorf("set aside while in use: %q", aside)
	}
	wantRecord(t, first, "a.test")
}

// A restart may overlap with the end of the process before it.
func TestDatabaseInUseForAMoment(t *testing.T) {
	path := newPath(t)
	synctest.Test(t, func(t *testing.T) {
		first, err := Open(path, Options{})
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(lockWait/2, func() { first.Close() })
		second, err := Open(path, Options{})
		if err != nil {
			t.Fatal(err)
		}
		closeStore(t, second)
	})
}

// editMeta changes the meta bucket of a closed database behind the store's back.
func editMeta(t *testing.T, path string, edit func(meta *bbolt.Bucket) error) {
	t.Helper()
	editFile(t, path, func(tx *bbolt.Tx) error { return edit(tx.Bucket([]byte(bucketMeta))) })
}

func editFile(t *testing.T, path string, edit func(*bbolt.Tx) error) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Update(edit), db.Close()); err != nil {
		t.Fatal(err)
	}
}

// BEHAVIOUR §6: a newer schema version is refused with a clear error and left
// untouched.
func TestNewerSchemaIsLeftUntouched(t *testing.T) {
	path := newPath(t)
	s := openStore(t, path, Options{})
	mustPut(t, s, policy("a.test"))
	closeStore(t, s)
	editMeta(t, path, func(meta *bbolt.Bucket) error {
		return meta.Put([]byte(keySchema), []byte("7"))
	})
	before := readFile(t, path)
	if s, err := Open(path, Options{}); err == nil {
		s.Close()
		t.Error("a newer schema was opened")
	} else if !errors.Is(err, store.ErrNewerSchema) || !strings.Contains(err.Error(), "version 7") ||
		!strings.Contains(err.Error(), "up to 1") || !strings.Contains(err.Error(), path) {
		t.Errorf("error %q, want %q with both versions and the path", err, store.ErrNewerSchema)
	}
	if string(readFile(t, path)) != string(before) {
		t.Error("the file was changed")
	}
	if aside := asides(t, path); len(aside) > 0 {
		t.Errorf("set aside: %q", aside)
	}
	// Nor is it kept locked.
	editMeta(t, path, func(meta *bbolt.Bucket) error {
		return meta.Put([]byte(keySchema), []byte("1"))
	})
	wantRecord(t, openStore(t, path, Options{}), "a.test")
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A process killed between the creation of the file and the first transaction
// leaves an empty file, or an empty bbolt database. Neither is damaged.
func TestCreationCutShort(t *testing.T) {
	for name, make := range map[string]func(path string) error{
		"no byte": func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"no bucket": func(path string) error {
			db, err := bbolt.Open(path, 0o600, nil)
			if err != nil {
				return err
			}
			return db.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := newPath(t)
			if err := make(path); err != nil {
				t.Fatal(err)
			}
			s := openStore(t, path, Options{})
			mustPut(t, s, policy("a.test"))
			if aside := asides(t, path); len(aside) > 0 {
				t.Errorf("set aside: %q", aside)
			}
		})
	}
}

// The database may be a link to another disk: what is set aside stays there.
func TestDamagedDatabaseBehindALink(t *testing.T) {
	dir := t.TempDir()
	target, link := filepath.Join(dir, "disk", "real.db"), filepath.Join(dir, "policies.db")
	err := errors.Join(
		os.Mkdir(filepath.Dir(target), 0o700),
		os.WriteFile(target, []byte("damaged"), 0o600),
		os.Symlink(target, link),
	)
	if err != nil {
		t.Fatal(err)
	}
	openStore(t, link, Options{})
	if aside := asides(t, target); len(aside) != 1 {
		t.Errorf("set aside beside the target: %q", aside)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("the link is gone: %v %v", info, err)
	}
}

// Records above a lowered limit are evicted without any Put, some thousand at a time.
func TestLimitLowered(t *testing.T) {
	path := newPath(t)
	s := openStore(t, path, Options{})
	recs := make([]store.Record, 2*evictAtOnce+2)
	for i := range recs {
		recs[i].Domain = fmt.Sprintf("%d.test", i)
	}
	mustPut(t, s, recs...)
	closeStore(t, s)
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, path, Options{MaxEntries: 1})
		time.Sleep(2 * flushAfter)
		synctest.Wait()
		if st := s.Stats(); st.Records != 1 || st.Commits != 3 || int(st.Evicted) != len(recs)-1 {
			t.Errorf("%+v, want 1 record after 3 commits", st)
		}
		closeStore(t, s)
	})
}
