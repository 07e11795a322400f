package bolt

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/bbolt"

	"tlspolicyd/store"
)

// A database file that is not at its path any more is written anew with all that
// is known, at the next write or within a minute.
func TestDatabaseGoneWhileOpen(t *testing.T) {
	for name, remove := range map[string]func(path string) error{
		"removed":            os.Remove,
		"moved away":         func(path string) error { return os.Rename(path, path+".old") },
		"directory removed":  func(path string) error { return os.RemoveAll(filepath.Dir(path)) },
		"an empty file":      func(path string) error { return errors.Join(os.Remove(path), os.WriteFile(path, nil, 0o600)) },
		"a damaged file":     func(path string) error { return errors.Join(os.Remove(path), os.WriteFile(path, []byte("x"), 0o600)) },
		"its own old backup": func(path string) error { return os.Rename(path+".backup", path) },
	} {
		for _, found := range []string{"by a write", "within a minute"} {
			t.Run(name+", found "+found, func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "state", "policies.db")
				backup := someRecords(t, path)
				if err := os.WriteFile(path+".backup", backup, 0o600); err != nil {
					t.Fatal(err)
				}
				synctest.Test(t, func(t *testing.T) {
					var log logBuffer
					s := openStore(t, path, Options{Log: log.logger()})
					mustPut(t, s, policy("since.test"))
					if err := remove(path); err != nil {
						t.Fatal(err)
					}
					n := 2001
					if found == "by a write" {
						mustPut(t, s, policy("new.test"))
						n++
					} else {
						time.Sleep(checkEvery)
						synctest.Wait()
					}
					if s.Len() != n || s.Health() != nil || len(log.lines("database file is gone")) != 1 || len(log.lines("written anew")) != 1 {
						t.Errorf("%d records, health %v, log %q", s.Len(), s.Health(), log.lines(""))
					}
					closeStore(t, s)
					again := openStore(t, path, Options{})
					wantRecord(t, again, "since.test")
					wantRecord(t, again, "0815.test")
					if again.Len() != n {
						t.Errorf("%d records in the new file, want %d", again.Len(), n)
					}
					closeStore(t, again)
				})
			})
		}
	}
}

// While the file cannot be written anew, writes fail, reads go on and the store
// reports that it is not healthy.
func TestDatabaseGoneAndItsPathTaken(t *testing.T) {
	path := newPath(t)
	someRecords(t, path)
	synctest.Test(t, func(t *testing.T) {
		var log logBuffer
		s := openStore(t, path, Options{Log: log.logger()})
		if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o700)); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if err := s.Put(context.Background(), policy("new.test")); !errors.Is(err, store.ErrUnavailable) {
				t.Errorf("put: %v, want %v", err, store.ErrUnavailable)
			}
		}
		wantRecord(t, s, "0815.test")
		if !errors.Is(s.Health(), store.ErrUnavailable) || len(log.lines("level=ERROR")) != 2 {
			t.Errorf("health %v, log %q", s.Health(), log.lines(""))
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		time.Sleep(checkEvery)
		synctest.Wait()
		wantHealthy(t, s, &log)
		mustPut(t, s, policy("new.test"))
		wantRecord(t, s, "0815.test")
		closeStore(t, s)
	})
}

// The log says that a file was cut short, not how that was noticed.
func TestDatabaseCutShort(t *testing.T) {
	path := newPath(t)
	someRecords(t, path)
	synctest.Test(t, func(t *testing.T) {
		var log logBuffer
		s := openStore(t, path, Options{Log: log.logger()})
		if err := os.Truncate(path, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Get("0815.test"); !errors.Is(err, store.ErrDamaged) {
			t.Errorf("get: %v", err)
		}
		synctest.Wait()
		if len(log.lines("the file was cut short to 0 of")) != 1 || len(log.lines("nil pointer")) != 0 {
			t.Errorf("log %q", log.lines(""))
		}
		closeStore(t, s)
	})
}

// The number of records and their size are counted again where they are damaged.
func TestDamagedTotals(t *testing.T) {
	path := newPath(t)
	someRecords(t, path)
	s := openStore(t, path, Options{})
	want := s.Stats()
	closeStore(t, s)
	for _, damage := range []string{"totals", "large"} {
		editFile(t, path, func(tx *bbolt.Tx) error {
			if damage == "large" {
				return tx.DeleteBucket([]byte(bucketLarge))
			}
			return tx.Bucket([]byte(bucketMeta)).Put([]byte(keyTotals), []byte("12345678901234567890"))
		})
		s := openStore(t, path, Options{})
		if got := s.Stats(); got.Records != want.Records || got.Bytes != want.Bytes || want.Bytes == 0 {
			t.Errorf("%s: %+v, want %+v", damage, got, want)
		}
		mustPut(t, s, policy("0000.test"))
		closeStore(t, s)
	}
}
