package bolt

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"tlspolicyd/store"
)

// Whatever a broken disk makes of the file: it is opened, with what is in it
// or empty, and a record read from it is one that was written.
func FuzzDamagedFile(f *testing.F) {
	dir := f.TempDir()
	good := someRecords(f, filepath.Join(dir, "good.db"))
	good = good[:len(used(f, good))]
	want, err := store.EncodeRecord(policy("0815.test"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint32(0), uint32(len(good)), []byte{})
	f.Add(uint32(os.Getpagesize()), uint32(len(good)), []byte{0xFF})
	f.Add(uint32(len(good)/2), uint32(len(good)), make([]byte, 512))
	f.Add(uint32(0), uint32(len(good)/2), []byte("\x00\x01"))
	f.Add(uint32(3*os.Getpagesize()+pageHeaderSize), uint32(len(good)), []byte{0xFF, 0, 0xFF})
	path := filepath.Join(dir, "policies.db")
	f.Fuzz(func(t *testing.T, at, size uint32, noise []byte) {
		bad := append([]byte(nil), good...)
		for i, b := range noise {
			bad[(int(at)+i)%len(bad)] ^= b
		}
		if err := os.WriteFile(path, bad[:int(size)%(len(bad)+1)], 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(path, Options{})
		if errors.Is(err, store.ErrNewerSchema) {
			return // which a flipped bit can make of it
		} else if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if rec, err := s.Get("0815.test"); err == nil {
			if got, _ := store.EncodeRecord(rec); string(got) != string(want) {
				t.Errorf("read what was never written: %+v", rec)
			}
		} else if !errors.Is(err, store.ErrNotFound) && !errors.Is(err, store.ErrDamaged) {
			t.Errorf("get: %v", err)
		}
		if _, err := s.Due(policy("").Due, 100); err != nil && !errors.Is(err, store.ErrDamaged) {
			t.Errorf("due: %v", err)
		}
		if err := s.Each(func(store.Record) bool { return true }); err != nil && !errors.Is(err, store.ErrDamaged) {
			t.Errorf("each: %v", err)
		}
		mustPut(t, s, policy("new.test"))
		wantRecord(t, s, "new.test")
		s.Close()
		removeAll(t, asides(t, path))
	})
}

func removeAll(t *testing.T, paths []string) {
	t.Helper()
	for _, path := range paths {
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	}
}
