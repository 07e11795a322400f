package bolt

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"

	"tlspolicyd/store"
)

// mapped is how many bytes of a file this process has in its memory.
func mapped(t *testing.T, path string) int {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	ours, found, total := false, false, 0
	for line := range strings.Lines(string(maps)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch {
		case strings.Contains(name, "-"): // the address of the next mapping
			ours = strings.HasSuffix(strings.TrimSpace(line), " "+path)
			found = found || ours
		case ours && name == "Rss":
			kib, err := strconv.Atoi(strings.Fields(value)[0])
			if err != nil {
				t.Fatal(err)
			}
			total += kib << 10
		}
	}
	if !found {
		t.Fatalf("%s is not mapped", path)
	}
	return total
}

func TestMemoryOfALargeFileIsGivenBack(t *testing.T) { // issue 5: a million domains in 250 MB
	path := newPath(t)
	s := openStore(t, path, Options{})
	const n, size = 1600, 60 << 10
	file := bytes.Repeat([]byte("x: y\n"), size/5)
	for i := range n {
		rec := policy(fmt.Sprintf("d%d.test", i))
		rec.STS.Policy = file
		s.PutLater(rec)
		if i%100 == 99 {
			s.flush()
		}
	}
	if s.Size() < smallFile+n*size/4 {
		t.Fatalf("the file has %d bytes only", s.Size())
	}
	// Readers and the giving back get in no one's way.
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for i := range n {
				rec, err := s.Get(fmt.Sprintf("d%d.test", i))
				if err != nil || !bytes.Equal(rec.STS.Policy, file) {
					t.Errorf("d%d.test: %v", i, err)
					return
				}
			}
		})
	}
	readers.Wait()
	// A record here has as many pages as a read maps at a time elsewhere.
	most := 2 * readsMapped * (64 << 10)
	if got := mapped(t, path); got > most {
		t.Errorf("%d MB of the file are in memory, want at most %d", got>>20, most>>20)
	}
	if err := s.Each(func(rec store.Record) bool { return bytes.Equal(rec.STS.Policy, file) }); err != nil {
		t.Error(err)
	}
	if got := mapped(t, path); got > most {
		t.Errorf("%d MB of the file are in memory after a list of it, want at most %d", got>>20, most>>20)
	}
}
