package bolt

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"tlspolicyd/store"
)

// mixed is record i of a cache as it is in use: half of the domains have
// nothing, a quarter DANE, a quarter MTA-STS.
func mixed(i int) store.Record {
	rec := policy(fmt.Sprintf("mail-domain-%06x.example.test", uint32(i)*2654435761>>8)) // in no order
	at := rec.LastUsed.Add(time.Duration(i) * time.Second)
	rec.LastUsed, rec.Due = at, at.Add(24*time.Hour)
	switch i % 4 {
	case 0:
		rec.STS.FetchedAt, rec.STS.CheckedAt = at, at
	case 1:
		rec.STS = &store.STS{CheckedAt: at, TXTTTL: time.Hour}
		rec.DANE = []store.DANE{{Port: 25, State: 2, KnownAt: at, ExpiresAt: at.Add(time.Hour)}}
	default:
		rec.Class = store.Negative
		rec.STS = &store.STS{CheckedAt: at, TXTTTL: time.Hour}
	}
	return rec
}

// fill puts n mixed records, as many at a time as an import does.
func fill(b testing.TB, s *Store, n int) {
	b.Helper()
	recs := make([]store.Record, 0, 1000)
	for i := range n {
		if recs = append(recs, mixed(i)); len(recs) == cap(recs) || i == n-1 {
			mustPut(b, s, recs...)
			recs = recs[:0]
		}
	}
}

// The size of the file for each domain, and the time it takes to open it.
func BenchmarkOpen(b *testing.B) {
	for _, n := range []int{1000, 100_000} {
		b.Run(fmt.Sprintf("records=%d", n), func(b *testing.B) {
			path := newPath(b)
			s := openStore(b, path, Options{})
			fill(b, s, n)
			size := s.Size()
			closeStore(b, s)
			for b.Loop() {
				s, err := Open(path, Options{})
				if err != nil {
					b.Fatal(err)
				}
				s.Close()
			}
			b.ReportMetric(float64(size)/float64(n), "file-bytes/domain")
		})
	}
}

func BenchmarkPut(b *testing.B) {
	for _, goroutines := range []int{1, 100} {
		b.Run(fmt.Sprintf("goroutines=%d", goroutines), func(b *testing.B) {
			s := openStore(b, newPath(b), Options{})
			fill(b, s, 10_000)
			commits := s.Stats().Commits
			var next atomic.Int64
			b.SetParallelism(max(1, goroutines/2)) // times GOMAXPROCS
			put := func() error { return s.Put(context.Background(), mixed(int(next.Add(1)))) }
			b.ResetTimer()
			if goroutines == 1 {
				for range b.N {
					if err := put(); err != nil {
						b.Fatal(err)
					}
				}
			} else {
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						if err := put(); err != nil {
							b.Error(err)
						}
					}
				})
			}
			b.ReportMetric(float64(s.Stats().Commits-commits)/float64(b.N), "commits/op")
		})
	}
}

func BenchmarkGet(b *testing.B) {
	s := openStore(b, newPath(b), Options{})
	const n = 100_000
	fill(b, s, n)
	domains := make([]string, n)
	for i := range domains {
		domains[i] = mixed(i).Domain
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := s.Get(domains[i%n]); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDue(b *testing.B) {
	s := openStore(b, newPath(b), Options{})
	fill(b, s, 100_000)
	all := mixed(200_000).Due
	b.Run("first 32", func(b *testing.B) {
		for b.Loop() {
			if recs, err := s.Due(all, 32); err != nil || len(recs) != 32 {
				b.Fatal(len(recs), err)
			}
		}
	})
	b.Run("count 100000", func(b *testing.B) {
		for b.Loop() {
			if n, err := s.CountDue(all); err != nil || n != 100_000 {
				b.Fatal(n, err)
			}
		}
	})
}
