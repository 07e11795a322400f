package bolt

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"tlspolicyd/store"
)

// soakEnv makes the tests of power loss try more files (make soak).
const soakEnv = "TLSPOLICYD_SOAK"

func tries(short, long int) int {
	if os.Getenv(soakEnv) != "" {
		return long
	}
	return short
}

// Power fails between two commits, on a disk that keeps its promises: what was
// written before the last fsync is there, and of what came after it any page,
// torn or not. bbolt writes data pages, then fsync, then one meta page, then
// fsync. So whatever became of the pages that differ, a record that was
// acknowledged before is there, and nothing is set aside.
func TestPowerLossBetweenTwoCommits(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "policies.db")
	first, second := names("a", 300), names("b", 300)
	write := func(domains []string) []byte {
		s := openStore(t, path, Options{})
		for _, domain := range domains {
			mustPut(t, s, policy(domain))
		}
		closeStore(t, s)
		return readFile(t, path)
	}
	before := write(first)
	s := openStore(t, path, Options{})
	recs := make([]store.Record, len(second))
	for i, domain := range second {
		recs[i] = policy(domain)
	}
	mustPut(t, s, recs...) // one commit
	closeStore(t, s)
	after := readFile(t, path)

	page := os.Getpagesize()
	metaOfAfter := bytes.Equal(before[:page], after[:page]) // else the first
	meta := 0
	if metaOfAfter {
		meta = page
	}
	lost := filepath.Join(dir, "lost.db")
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	mixed := 0
	for n := range tries(150, 5_000) {
		file := torn(random, before, after, page)
		copy(file[meta:meta+page], before[meta:meta+page])
		want := first
		switch n % 3 {
		case 1: // the meta page itself is torn
			file = bytes.Clone(after)
			at := pageHeaderSize + random.IntN(metaSize)
			copy(file[meta+at:meta+page], before[meta+at:meta+page])
		case 2: // all was written, but not acknowledged any more
			file, want = bytes.Clone(after), append(first, second...)
		}
		if !bytes.Equal(file, before) && !bytes.Equal(file, after) {
			mixed++
		}
		if err := os.WriteFile(lost, file, 0o600); err != nil {
			t.Fatal(err)
		}
		again := openStore(t, lost, Options{})
		for _, domain := range want {
			wantRecord(t, again, domain)
		}
		mustPut(t, again, policy("new.test"))
		closeStore(t, again)
		if aside := asides(t, lost); len(aside) > 0 || t.Failed() {
			t.Fatalf("try %d: set aside %q", n, aside)
		}
	}
	if mixed == 0 {
		t.Error("no file was torn")
	}
}

func names(prefix string, n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("%s%03d.test", prefix, i)
	}
	return list
}

// torn returns the file before a commit with some of the pages of the file
// after it, whole or in part. It is as long as either.
func torn(random *rand.Rand, before, after []byte, page int) []byte {
	file := bytes.Clone(before)
	if len(after) > len(file) && random.IntN(2) == 0 {
		file = append(file, make([]byte, len(after)-len(file))...)
	}
	for at := 0; at < min(len(file), len(after)); at += page {
		to := min(at+page, len(file), len(after))
		switch random.IntN(3) {
		case 0:
			copy(file[at:to], after[at:to])
		case 1: // in sectors
			to = at + 512*random.IntN((to-at)/512+1)
			copy(file[at:to], after[at:to])
		}
	}
	return file
}

// Power fails on a disk that reports writes it has not done, or a file system loses
// pages: the end of the file is missing, or pages hold noise, zeros or those of
// another place. The undamaged records are read, or the file is set aside and an
// empty one created, with a log line. A record that is read is one that was written.
func TestPowerLossOnADiskThatLies(t *testing.T) {
	dir := t.TempDir()
	good := used(t, someRecords(t, filepath.Join(dir, "good.db")))
	path := filepath.Join(dir, "policies.db")
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	opened, dropped, setAsides := 0, 0, 0
	count := tries(150, 3_000)
	for n := range count {
		if err := os.WriteFile(path, damage(random, good), 0o600); err != nil {
			t.Fatal(err)
		}
		var log logBuffer
		s := openStore(t, path, Options{Log: log.logger()})
		found := 0
		for i := range 2000 {
			domain := fmt.Sprintf("%04d.test", i)
			rec, err := s.Get(domain)
			switch {
			case err == nil:
				found++
				wantSame(t, rec, policy(domain))
			case !errors.Is(err, store.ErrNotFound) && !errors.Is(err, store.ErrDamaged):
				t.Errorf("get: %v", err)
			}
		}
		mustPut(t, s, policy("new.test")) // by now it is set aside, where it had to be
		wantRecord(t, s, "new.test")
		aside, logged, damaged := asides(t, path), log.lines("set aside"), s.Stats().Damaged
		closeStore(t, s)
		switch {
		case len(aside) != len(logged):
			t.Errorf("set aside %q, logged %q", aside, logged)
		case len(aside) > 0:
			setAsides++
		case found == 2000:
			opened++
		case damaged == 0:
			t.Errorf("%d of 2000 records found, and nothing was logged", found)
		default:
			dropped++
		}
		removeAll(t, aside)
		if t.Failed() {
			t.Fatalf("try %d", n)
		}
	}
	t.Logf("%d files: %d opened with all, %d without damaged records, %d set aside", count, opened, dropped, setAsides)
	if opened+dropped == 0 || setAsides == 0 {
		t.Error("too few kinds of damage")
	}
}

func wantSame(t *testing.T, got, want store.Record) {
	t.Helper()
	a, err := store.EncodeRecord(got)
	if err != nil {
		t.Fatal(err)
	}
	b, err := store.EncodeRecord(want)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a, b) {
		t.Errorf("read what was never written: %+v", got)
	}
}

// damage returns a copy that a disk has damaged.
func damage(random *rand.Rand, good []byte) []byte {
	file := bytes.Clone(good)
	page := os.Getpagesize()
	pages := len(file) / page
	if random.IntN(4) == 0 {
		return file[:random.IntN(len(file))] // cut
	}
	for range 1 + random.IntN(3) {
		p := file[page*random.IntN(pages):][:page]
		switch random.IntN(4) {
		case 0: // noise in a part of one sector
			p = p[512*random.IntN(page/512):][:1+random.IntN(512)]
			fallthrough
		case 1:
			for i := range p {
				p[i] = byte(random.Uint32())
			}
		case 2:
			clear(p)
		case 3:
			copy(p, good[page*random.IntN(pages):][:page])
		}
	}
	return file
}
