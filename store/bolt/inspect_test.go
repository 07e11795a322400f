package bolt

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"

	"tlspolicyd/store"
)

// Inspect reports what Open would do with a file, and leaves every byte as
// it is.
func TestInspect(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policies.db")
	if _, err := Inspect(path); !os.IsNotExist(err) {
		t.Fatalf("no file: got %v", err)
	}
	s, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), store.Record{Domain: "a.test"}); err != nil {
		t.Fatal(err)
	}
	if _, err := Inspect(path); !errors.Is(err, store.ErrLocked) {
		t.Errorf("open in a daemon: got %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := Inspect(path); err != nil || info.Records != 1 || info.Schema != schemaVersion {
		t.Errorf("at rest: got %+v, %v", info, err)
	}
	if now, err := os.ReadFile(path); err != nil || string(now) != string(good) {
		t.Errorf("the file was changed (%v)", err)
	}
	if s, err = Open(path, Options{}); err != nil {
		t.Fatalf("its lock is still held: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	for name, c := range map[string]struct {
		damage func(string) error
		want   error
	}{
		"empty":        {func(p string) error { return os.Truncate(p, 0) }, nil},
		"cut short":    {func(p string) error { return os.Truncate(p, int64(3*os.Getpagesize())) }, store.ErrDamaged},
		"no database":  {func(p string) error { return os.WriteFile(p, []byte("words"), 0o600) }, store.ErrDamaged},
		"newer schema": {setSchema("99"), store.ErrNewerSchema},
		"no schema":    {setSchema("x"), store.ErrDamaged},
	} {
		t.Run(name, func(t *testing.T) {
			p := filepath.Join(t.TempDir(), "policies.db")
			if err := errors.Join(os.WriteFile(p, good, 0o600), c.damage(p)); err != nil {
				t.Fatal(err)
			}
			if _, err := Inspect(p); !errors.Is(err, c.want) || (c.want == nil) != (err == nil) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func setSchema(version string) func(string) error {
	return func(path string) error {
		db, err := bbolt.Open(path, 0o600, nil)
		if err != nil {
			return err
		}
		err = db.Update(func(tx *bbolt.Tx) error {
			return tx.Bucket([]byte(bucketMeta)).Put([]byte(keySchema), []byte(version))
		})
		return errors.Join(err, db.Close())
	}
}
