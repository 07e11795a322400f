package bolt

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"tlspolicyd/store"
)

// sized is a record with a policy file of n bytes.
func sized(domain string, class store.Class, used, n int) store.Record {
	rec := policy(domain)
	rec.Class, rec.LastUsed = class, rec.LastUsed.Add(time.Duration(used)*time.Hour)
	rec.STS.Policy = make([]byte, n)
	return rec
}

// The size of all records is bounded. Large ones of the lowest class are evicted
// first, then those not used for longest.
func TestEvictionBySize(t *testing.T) {
	path := newPath(t)
	s := openStore(t, path, Options{MaxBytes: 100 << 10})
	mustPut(t, s,
		sized("negative-old.test", store.Negative, 1, 1<<10),
		sized("negative-new.test", store.Negative, 2, 1<<10),
		sized("negative-large.test", store.Negative, 9, 20<<10),
		sized("policy-old.test", store.Positive, 1, 1<<10),
		sized("policy-large.test", store.Positive, 9, 30<<10),
		sized("policy-larger.test", store.Positive, 9, 40<<10),
	)
	if n := s.Len(); n != 6 {
		t.Fatalf("%d records, want 6", n)
	}
	for _, step := range []struct {
		put  store.Record
		gone []string
	}{
		{sized("a.test", store.Positive, 5, 10<<10), []string{"negative-large.test"}},
		{sized("b.test", store.Positive, 5, 18<<10), []string{"negative-old.test", "negative-new.test"}},
		{sized("c.test", store.Positive, 5, 20<<10), []string{"policy-larger.test"}},
		{sized("d.test", store.Positive, 5, 60<<10), []string{"d.test"}}, // itself the largest
	} {
		mustPut(t, s, step.put)
		for _, domain := range step.gone {
			if _, err := s.Get(domain); err == nil {
				t.Errorf("after %s, %s is still there", step.put.Domain, domain)
			}
		}
		if got := s.Stats(); got.Bytes > 100<<10 || got.Bytes < 50<<10 {
			t.Errorf("after %s: %+v", step.put.Domain, got)
		}
	}
	for _, domain := range []string{"policy-old.test", "policy-large.test", "a.test", "b.test", "c.test"} {
		wantRecord(t, s, domain)
	}
	want := s.Stats()
	closeStore(t, s)
	s = openStore(t, path, Options{MaxBytes: 60 << 10}) // lowered
	mustPut(t, s, sized("small.test", store.Positive, 9, 100))
	if _, err := s.Get("policy-large.test"); err == nil || s.Len() != want.Records {
		t.Errorf("%+v after the limit was lowered", s.Stats())
	}
}

// The totals are exact after any changes and a restart.
func TestTotalsAreExact(t *testing.T) {
	path := newPath(t)
	opts := Options{MaxEntries: 60, MaxBytes: 400 << 10}
	random := rand.New(rand.NewPCG(3, 4))
	for range 4 {
		s := openStore(t, path, opts)
		for range 150 {
			rec := sized(fmt.Sprintf("%d.test", random.IntN(100)), store.Class(random.IntN(2)), random.IntN(100), random.IntN(20<<10))
			switch random.IntN(4) {
			case 0:
				s.PutLater(rec)
			case 1:
				if err := s.Delete(t.Context(), rec.Domain); err != nil {
					t.Fatal(err)
				}
			default:
				mustPut(t, s, rec)
			}
		}
		s.flush()
		err := s.view(func(b buckets) error {
			want := measure(b.records)
			if got, ok := b.totals(); !ok || got != want || s.Len() != want.records || s.Stats().Bytes != want.bytes {
				t.Errorf("%+v and %+v, want %+v", got, s.Stats(), want)
			}
			if want.records > opts.MaxEntries || want.bytes > opts.MaxBytes {
				t.Errorf("%+v is above the limits", want)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		closeStore(t, s)
	}
}
