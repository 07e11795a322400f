package storetest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tlspolicyd/store"
)

// Each order, in both directions, as a whole and in pages that each begin after
// the last record of the one before.
func testWalk(t *testing.T, backend Backend) {
	s := opened(t, backend(t, 0))
	all := make([]store.Record, 700)
	for i := range all {
		rec := full(fmt.Sprintf("d%04d.test", i))
		rec.Due = start().Add(time.Duration(i*37%101) * time.Second)
		rec.LastUsed = start().Add(time.Duration(i*53%97) * time.Second)
		rec.Class = store.Class(i % 2)
		if i == 3 {
			rec.Due, rec.LastUsed = time.Time{}, time.Time{}
		}
		all[i] = rec
	}
	put(t, s, all[1:]...)
	s.PutLater(all[0])

	for _, order := range []store.Order{store.ByDomain, store.ByDue, store.ByLastUsed} {
		for _, backward := range []bool{false, true} {
			scan := store.Scan{Order: order, Backward: backward}
			sorted := slices.Clone(all)
			if order == store.ByDue {
				sorted = slices.DeleteFunc(sorted, func(r store.Record) bool { return r.Due.IsZero() })
			}
			slices.SortFunc(sorted, func(a, b store.Record) int {
				return scan.Compare(scan.PositionOf(&a), scan.PositionOf(&b))
			})
			for _, page := range []int{1000, 100, 1} {
				name := fmt.Sprintf("order %d, backward %v, pages of %d", order, backward, page)
				if got := walkInPages(t, s, scan, page); !cmp.Equal(domains(got), domains(sorted)) {
					t.Errorf("%s: (-want +got):\n%s", name, cmp.Diff(domains(sorted), domains(got)))
				}
			}
			// After a position whose record has gone.
			gone := scan
			gone.After = store.Position{At: start().Add(50 * time.Second), Domain: "d0350.testing"}
			want := slices.DeleteFunc(sorted, func(r store.Record) bool { return gone.Compare(gone.PositionOf(&r), gone.After) <= 0 })
			if got := walkInPages(t, s, gone, 1000); !cmp.Equal(domains(got), domains(want)) {
				t.Errorf("order %d, backward %v, from between two: %d records, want %d", order, backward, len(got), len(want))
			}
		}
	}
}

func walkInPages(t *testing.T, s store.Store, scan store.Scan, page int) (got []store.Record) {
	t.Helper()
	for {
		n := 0
		if err := s.Walk(scan, func(rec store.Record) bool {
			got = append(got, rec)
			scan.After = scan.PositionOf(&rec)
			n++
			return n < page
		}); err != nil {
			t.Fatal(err)
		}
		if n < page {
			return got
		}
	}
}

func domains(recs []store.Record) (names []string) {
	for i := range recs {
		names = append(names, recs[i].Domain)
	}
	return names
}
