package storetest

import (
	"fmt"
	"testing"
	"time"

	"tlspolicyd/store"
)

func ranked(domain string, class store.Class, used time.Duration) store.Record {
	rec := full(domain)
	rec.Class, rec.LastUsed = class, start().Add(used)
	return rec
}

func testEviction(t *testing.T, backend Backend) {
	s := opened(t, backend(t, 4))
	put(t, s, ranked("policy-old.test", store.Positive, 1*time.Hour))
	put(t, s, ranked("policy-new.test", store.Positive, 2*time.Hour))
	put(t, s, ranked("negative-old.test", store.Negative, 3*time.Hour))
	put(t, s, ranked("negative-new.test", store.Negative, 4*time.Hour))

	for _, step := range []struct{ put, gone string }{
		{"policy-1.test", "negative-old.test"}, // negative answers first, however fresh
		{"policy-2.test", "negative-new.test"},
		{"policy-3.test", "policy-old.test"}, // then what was not asked for longest
	} {
		put(t, s, ranked(step.put, store.Positive, 5*time.Hour))
		wantNone(t, s, step.gone)
		if n := s.Len(); n != 4 {
			t.Fatalf("%d records after %s, want 4", n, step.put)
		}
	}
	// Being asked for counts, through PutLater as well; so does what was evicted
	// leave nothing behind in the schedule.
	s.PutLater(ranked("policy-new.test", store.Positive, 6*time.Hour))
	put(t, s, ranked("policy-4.test", store.Positive, 7*time.Hour))
	wantNone(t, s, "policy-1.test")
	due, err := s.Due(start().Add(48*time.Hour), 10)
	if err != nil || len(due) != 4 {
		t.Errorf("%d due, %v; want 4", len(due), err)
	}
}

func testNegativeGoesFirst(t *testing.T, backend Backend) {
	s := opened(t, backend(t, 3))
	thirtyDays := 30 * 24 * time.Hour
	policies := []store.Record{
		ranked("a.test", store.Positive, -thirtyDays),
		ranked("b.test", store.Positive, -thirtyDays),
		ranked("c.test", store.Positive, -thirtyDays),
	}
	put(t, s, policies...)
	for i := range 10 {
		negative := ranked(fmt.Sprintf("negative-%d.test", i), store.Negative, 0)
		if i%2 == 0 {
			put(t, s, negative)
			wantNone(t, s, negative.Domain)
		} else {
			s.PutLater(negative)
		}
	}
	put(t, s, ranked("negative-last.test", store.Negative, 0))
	for _, rec := range policies {
		want(t, s, rec)
	}
	if n := s.Len(); n != 3 {
		t.Errorf("%d records, want 3", n)
	}
}
