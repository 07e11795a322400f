package bolt

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"tlspolicyd/store"
)

// countingReader counts the bytes that are read.
type countingReader struct {
	*bytes.Reader
	n int
}

func (r *countingReader) ReadAt(p []byte, at int64) (int, error) {
	n, err := r.Reader.ReadAt(p, at)
	r.n += n
	return n, err
}

// A large database must open at once: beyond the budget leaf pages are not
// read, branch pages are.
func TestCheckOfALargeFile(t *testing.T) {
	good := used(t, someRecords(t, newPath(t)))
	read := func(file []byte, budget int64) (int, error) {
		r := countingReader{Reader: bytes.NewReader(file)}
		err := checkPages(&r, int64(len(file)), budget)
		return r.n, err
	}
	all, err := read(good, checkedLeaves)
	if err != nil {
		t.Fatal(err)
	}
	branches, err := read(good, 0)
	if err != nil {
		t.Fatal(err)
	}
	if all < len(good)/2 || branches > all/10 {
		t.Errorf("of %d bytes read %d with leaves, %d without", len(good), all, branches)
	}
	damaged := 0
	eachBranch(t, good, func(_ uint64, elements []byte) {
		garble(elements[:elementSize])
		if _, err := read(good, 0); err != nil {
			damaged++
		}
		garble(elements[:elementSize])
	})
	if damaged == 0 {
		t.Error("no damage to a branch page was found")
	}
}

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
