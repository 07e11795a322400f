package bolt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

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
		_, err := checkPages(&r, int64(len(file)), budget)
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

// A record whose key was changed, and stays in order, is never asked for again.
// It is found on opening, removed, and the log says so; the others stay.
func TestRecordUnderAnotherKey(t *testing.T) {
	path := newPath(t)
	file := someRecords(t, path)
	at := keyInTree(t, path, "0815.test")
	file[at+int64(len("0815.test"))-1]++
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	if info, err := Inspect(path); err != nil || info.Records != 2000 {
		t.Errorf("inspect: %+v, %v", info, err)
	}
	var log logBuffer
	s := openStore(t, path, Options{Log: log.logger()})
	mustPut(t, s, policy("new.test"))
	if got := s.Stats(); got.Damaged != 1 || got.Records != 2000 {
		t.Errorf("%d damaged and %d records, want 1 and 2000", got.Damaged, got.Records)
	}
	if lines := log.lines("damaged records removed"); len(lines) != 1 || !strings.Contains(lines[0], "records=1") {
		t.Errorf("log %q", lines)
	}
	if _, err := s.Get("0815.test"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("get: %v, want %v", err, store.ErrNotFound)
	}
	wantRecord(t, s, "0814.test")
	wantRecord(t, s, "0816.test")
}

// keyInTree returns where in the file the key of a record is.
func keyInTree(t *testing.T, path, domain string) int64 {
	t.Helper()
	s := openStore(t, path, Options{})
	defer closeStore(t, s)
	var at int64
	err := s.view(func(b buckets) error {
		k, _ := b.records.Cursor().Seek([]byte(domain))
		at = int64(uintptr(unsafe.Pointer(&k[0])) - s.file.Load().db.Info().Data)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// A page that counts one record less than it has is in order by itself. The
// record is gone; the log says so once, and the others stay.
func TestRecordGoneWithoutATrace(t *testing.T) {
	path := newPath(t)
	file := someRecords(t, path)
	at, page := int(keyInTree(t, path, "0815.test")), os.Getpagesize()
	header := file[at/page*page:]
	binary.NativeEndian.PutUint16(header[10:], binary.NativeEndian.Uint16(header[10:])-1)
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	if info, err := Inspect(path); err != nil || info.Records != 1999 {
		t.Errorf("inspect: %+v, %v", info, err)
	}
	for start, want := range []int{1, 0} {
		var log logBuffer
		s := openStore(t, path, Options{Log: log.logger()})
		found := 0
		if err := s.Walk(store.Scan{}, func(store.Record) bool { found++; return true }); err != nil {
			t.Fatal(err)
		}
		if got := s.Stats(); found != 1999 || got.Records != 1999 || got.Damaged != uint64(want) {
			t.Errorf("start %d: %d records, %+v", start, found, got)
		}
		if lines := log.lines("records are missing"); len(lines) != want || want > 0 && !strings.Contains(lines[0], "records=1") {
			t.Errorf("start %d: log %q", start, lines)
		}
		closeStore(t, s)
	}
}

// A branch whose key is another one leads past what is before it, or behind.
func TestKeysInTheWrongPage(t *testing.T) {
	for name, change := range map[string]func(key []byte){
		"before": func(key []byte) { key[len(key)-1]++ }, // now looked for in the page before
		"behind": func(key []byte) { key[3]-- },          // the end of the page before is now looked for here
	} {
		t.Run(name, func(t *testing.T) {
			path := newPath(t)
			file := someRecords(t, path)
			eachBranch(t, file, func(_ uint64, elements []byte) {
				second := elements[elementSize:]
				at, size := binary.NativeEndian.Uint32(second), binary.NativeEndian.Uint32(second[4:])
				if key := second[at : at+size]; len(key) == len("0815.test") { // no time before it: the records
					change(key)
				}
			})
			if err := os.WriteFile(path, file, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := Inspect(path); !errors.Is(err, store.ErrDamaged) {
				t.Errorf("inspect: %v, want %v", err, store.ErrDamaged)
			}
			wantSetAside(t, path, file, "out of order")
		})
	}
}

// What the store itself writes over a long life passes the check every time.
func TestGoodFileIsNeverSetAside(t *testing.T) {
	path := newPath(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for range tries(15, 1000) {
		s := openStore(t, path, Options{MaxEntries: 2000})
		for range 1 + random.IntN(8) {
			recs, gone := make([]store.Record, 1+random.IntN(300)), make([]string, random.IntN(200))
			for i := range recs {
				recs[i] = policy(fmt.Sprintf("%x.test", random.IntN(6000)))
			}
			for i := range gone {
				gone[i] = fmt.Sprintf("%x.test", random.IntN(6000))
			}
			mustPut(t, s, recs...)
			if err := s.Delete(t.Context(), gone...); err != nil {
				t.Fatal(err)
			}
		}
		records := s.Len()
		if got := s.Stats().Damaged; got > 0 {
			t.Fatalf("%d damaged", got)
		}
		closeStore(t, s)
		file := readFile(t, path)
		seen, err := checkPages(bytes.NewReader(file), int64(len(file)), checkedLeaves)
		if err != nil || seen.records != records || seen.partly || len(seen.suspects) > 0 {
			t.Fatalf("%d records, seen %+v, %v", records, seen, err)
		}
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
		for _, order := range []store.Order{store.ByDomain, store.ByDue, store.ByLastUsed} {
			for _, backward := range []bool{false, true} {
				err := s.Walk(store.Scan{Order: order, Backward: backward}, func(store.Record) bool { return true })
				if err != nil && !errors.Is(err, store.ErrDamaged) {
					t.Errorf("walk: %v", err)
				}
			}
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
