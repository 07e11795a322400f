package bolt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"strings"
	"testing"
	"testing/synctest"

	"go.etcd.io/bbolt"

	"tlspolicyd/store"
)

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

// eachBranch calls fn for the branch pages, free ones included.
func eachBranch(t testing.TB, file []byte, fn func(id uint64, elements []byte)) {
	t.Helper()
	size := uint64(os.Getpagesize())
	for id := uint64(2); id < uint64(len(used(t, file)))/size; id++ {
		p := file[id*size : (id+1)*size]
		if binary.NativeEndian.Uint64(p) == id && binary.NativeEndian.Uint16(p[8:]) == branchPage {
			fn(id, p[pageHeaderSize:])
		}
	}
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
		reason string
		damage func(file []byte) []byte
	}{
		{"text", "not a bbolt database", func([]byte) []byte { return []byte("no database\n") }},
		{"one byte", "not a bbolt database", func([]byte) []byte { return []byte{0} }},
		{"zeros", "not a bbolt database", func([]byte) []byte { return make([]byte, 1<<20) }},
		{"cut off in the first page", "cut short: 0 of", func(f []byte) []byte { return f[:100] }},
		{"cut off after the meta pages", "cut short: 2 of", func(f []byte) []byte { return f[:2*page] }},
		{"cut off in the middle", "cut short", func(f []byte) []byte { return f[:len(used(t, f))/2] }},
		{"last page in use cut off", "cut short", func(f []byte) []byte { return f[:len(used(t, f))-1] }},
		{"both meta pages garbled", "both of its meta pages", func(f []byte) []byte { garble(f[:2*page]); return f }},
		{"tail garbled", "says it is page", func(f []byte) []byte {
			u := used(t, f)
			garble(u[len(u)/2:])
			return f
		}},
		{"tail of zeros", "says it is page 0", func(f []byte) []byte {
			u := used(t, f)
			clear(u[len(u)/2:])
			return f
		}},
		{"tail from another place", "says it is page", func(f []byte) []byte {
			u := used(t, f)
			copy(u[len(u)/2:], u[len(u)/4:len(u)/2])
			return f
		}},
		{"list of free pages garbled", "cannot be free", func(f []byte) []byte {
			m, _ := readMeta(bytes.NewReader(f), int64(len(f)))
			garble(f[m.freelist*uint64(page)+pageHeaderSize:][:8])
			return f
		}},
		{"root garbled", "runs past its end", func(f []byte) []byte {
			m, _ := readMeta(bytes.NewReader(f), int64(len(f)))
			garble(f[m.root*uint64(page)+pageHeaderSize:][:elementSize])
			return f
		}},
		{"page in use listed as free", "is used and free", func(f []byte) []byte {
			m, _ := readMeta(bytes.NewReader(f), int64(len(f)))
			binary.NativeEndian.PutUint64(f[m.freelist*uint64(page)+pageHeaderSize:], m.root)
			return f
		}},
		{"page that is its own child", "more than 32 levels", func(f []byte) []byte {
			eachBranch(t, f, func(id uint64, elements []byte) {
				binary.NativeEndian.PutUint64(elements[8:], id)
			})
			return f
		}},
		{"page in two places", "is used twice", func(f []byte) []byte {
			eachBranch(t, f, func(_ uint64, elements []byte) {
				copy(elements[elementSize+8:][:8], elements[8:16])
			})
			return f
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := newPath(t)
			bad := c.damage(bytes.Clone(good))
			if err := os.WriteFile(path, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			wantSetAside(t, path, bad, c.reason)
		})
	}
}

func TestDatabaseOfAnotherProgramIsSetAside(t *testing.T) {
	for _, c := range []struct {
		name, reason string
		edit         func(*bbolt.Tx) error
	}{
		{"other buckets", "another program", func(tx *bbolt.Tx) error {
			_, err := tx.CreateBucket([]byte("other"))
			return errors.Join(err, tx.DeleteBucket([]byte(bucketMeta)))
		}},
		{"other meta", "another program", func(tx *bbolt.Tx) error {
			return tx.Bucket([]byte(bucketMeta)).Put([]byte(keyApplication), []byte("other"))
		}},
		{"no schema", "no schema", func(tx *bbolt.Tx) error {
			return tx.Bucket([]byte(bucketMeta)).Delete([]byte(keySchema))
		}},
		{"schema 0", "no schema", func(tx *bbolt.Tx) error {
			return tx.Bucket([]byte(bucketMeta)).Put([]byte(keySchema), []byte("0"))
		}},
		{"no records", "bucket is missing", func(tx *bbolt.Tx) error { return tx.DeleteBucket([]byte(bucketRecords)) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := newPath(t)
			closeStore(t, openStore(t, path, Options{}))
			editFile(t, path, c.edit)
			wantSetAside(t, path, readFile(t, path), c.reason)
		})
	}
}

// This package always writes the list of free pages; without it bbolt would go through the
// whole file, in a goroutine of its own, where a panic ends the process.
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
	wantSetAside(t, path, file, "outside of the file")
}

func wantSetAside(t *testing.T, path string, content []byte, reason string) {
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
		!strings.Contains(lines[0], reason) {
		t.Errorf("log %q, want one line with both names and %q", lines, reason)
	}
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
