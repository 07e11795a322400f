// Package storetest holds an implementation of store.Store against what the
// interface promises. Each implementation runs it in its own tests.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tlspolicyd/store"
)

// Backend is an empty place where records can be kept.
type Backend func(t *testing.T, maxEntries int) (open func() store.Store)

// Run runs the suite. backend is called once for each test; the function that
// it returns opens the same place each time, and is called again only after
// Close. maxEntries is 0 where the number does not matter.
func Run(t *testing.T, backend Backend) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, Backend)
	}{
		{"facts come back as they were", testRoundTrip},
		{"no record", testNotFound},
		{"the caller's memory stays its own", testOwnership},
		{"what was put is there after a restart (BEHAVIOUR §6)", testDurable},
		{"one bad record fails the whole call", testAllOrNothing},
		{"a cancelled call", testCancelled},
		{"later is seen at once and kept", testPutLater},
		{"the last of several writes wins", testLastWins},
		{"delete", testDelete},
		{"the schedule survives a restart (BEHAVIOUR §7)", testSchedule},
		{"the schedule follows changes", testScheduleChanges},
		{"the latest time survives a restart", testLatest},
		{"all records in order", testEach},
		{"writing while listing", testEachWhileWriting},
		{"in each order, page by page", testWalk},
		{"eviction order (BEHAVIOUR §6)", testEviction},
		{"no policy is evicted for a negative answer (BEHAVIOUR §6)", testNegativeGoesFirst},
		{"many at once", testConcurrent},
		{"closed", testClosed},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, backend) })
	}
}

func ctx() context.Context { return context.Background() }

// start is the time at which the records of the tests were learned. The
// milliseconds must be kept, what is below need not.
func start() time.Time { return time.Date(2026, 3, 29, 0, 59, 59, 987e6, time.UTC) }

func opened(t *testing.T, open func() store.Store) store.Store {
	t.Helper()
	s := open()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

func put(t *testing.T, s store.Store, recs ...store.Record) {
	t.Helper()
	if err := s.Put(ctx(), recs...); err != nil {
		t.Fatalf("put: %v", err)
	}
}

func want(t *testing.T, s store.Store, rec store.Record) {
	t.Helper()
	got, err := s.Get(rec.Domain)
	if err != nil {
		t.Fatalf("get %s: %v", rec.Domain, err)
	}
	if diff := cmp.Diff(rec, got); diff != "" {
		t.Errorf("%s (-put +got):\n%s", rec.Domain, diff)
	}
}

func wantNone(t *testing.T, s store.Store, domain string) {
	t.Helper()
	if _, err := s.Get(domain); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("get %s: %v, want %v", domain, err, store.ErrNotFound)
	}
}

// full is a record with every field set, and with a policy file that no text
// format would pass unharmed.
func full(domain string) store.Record {
	at := start()
	return store.Record{
		Domain: domain,
		STS: &store.STS{
			Policy:      []byte("version: STSv1\r\nmode: enforce\nmx: \x00\xff\xfe{}\r\n\r\n"),
			PolicyID:    "20260329T0100",
			FetchedAt:   at,
			TXTID:       "20260329T0200",
			CheckedAt:   at.Add(time.Hour),
			TXTTTL:      time.Hour,
			TXTError:    "two records",
			FailedID:    "20260329T0200",
			FailedAt:    at.Add(time.Hour),
			Failures:    7,
			Error:       "certificate: expired",
			EndReported: true, TXTFailed: true, TXTGone: true, Unchanged: 1, SharedSince: at, SharedBy: "a.test",
			Moved: time.Hour,
		},
		DANE: []store.DANE{
			{Port: 25, State: 2, KnownAt: at, ExpiresAt: at.Add(time.Hour)},
			{Literal: true, Port: 587, SomeTLSA: true, NullMX: true, KnownAt: at, ExpiresAt: at.Add(time.Minute)},
			{
				Port: 24, MX: 2, NoDomain: true, Omitted: 3, Unvalidated: true, KnownAt: at, ExpiresAt: at.Add(time.Hour),
				Hosts: []store.Host{
					{Name: "mx1.example.test", Preference: 10, Verdict: 7, KnownAt: at.Add(-time.Hour), Failure: 1, Error: "A lookup of mx1.example.test: SERVFAIL"},
					{Name: "mx2.example.test", Preference: 20, Error: "no answer"},
				},
			},
		},
		LastUsed: at.Add(time.Minute),
		Due:      at.Add(24 * time.Hour),
		Class:    store.Positive,
	}
}

func testRoundTrip(t *testing.T, backend Backend) {
	s := opened(t, backend(t, 0))
	noPolicy := full("no-policy.test")
	noPolicy.STS.Policy = nil
	emptyPolicy := full("empty-policy.test")
	emptyPolicy.STS.Policy = []byte{}
	unknown := store.Record{Domain: "unknown.test", STS: &store.STS{}, DANE: []store.DANE{{}}}
	epoch := store.Record{Domain: "epoch.test", LastUsed: time.Unix(0, 0).UTC(), Due: time.Unix(-1, 0).UTC()}
	for _, rec := range []store.Record{
		full("full.test"), {Domain: "bare.test"}, noPolicy, emptyPolicy, unknown, epoch,
	} {
		put(t, s, rec)
		want(t, s, rec)
	}
}

func testNotFound(t *testing.T, backend Backend) {
	s := opened(t, backend(t, 0))
	put(t, s, full("mail.example.test"))
	// No parent covers a child, and no prefix is taken for the whole (8461 §3.4).
	for _, domain := range []string{"example.test", "a.mail.example.test", "mail.example.tes", "mail.example.test.", ""} {
		wantNone(t, s, domain)
	}
}

func testOwnership(t *testing.T, backend Backend) {
	s := opened(t, backend(t, 0))
	rec, later := full("put.test"), full("later.test")
	put(t, s, rec)
	s.PutLater(later)
	for _, r := range []store.Record{rec, later} {
		r.STS.Policy[0], r.STS.TXTID, r.DANE[0].Port = 'X', "changed", 1
		got, err := s.Get(r.Domain)
		if err != nil {
			t.Fatal(err)
		}
		got.STS.Policy[1] = 'X'
		want(t, s, full(r.Domain))
	}
}

func testDurable(t *testing.T, backend Backend) {
	open := backend(t, 0)
	s := open()
	put(t, s, full("a.test"), full("b.test"))
	put(t, s, full("c.test"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = opened(t, open)
	for _, domain := range []string{"a.test", "b.test", "c.test"} {
		want(t, s, full(domain))
	}
	if n := s.Len(); n != 3 {
		t.Errorf("%d records after a restart, want 3", n)
	}
	if s.Size() <= 0 {
		t.Errorf("size %d", s.Size())
	}
}

func testAllOrNothing(t *testing.T, backend Backend) {
	s := opened(t, backend(t, 0))
	if err := s.Put(ctx(), full("good.test"), full("")); err == nil {
		t.Error("a record without domain was taken")
	}
	wantNone(t, s, "good.test")
	put(t, s) // no records: not an error
}

func testCancelled(t *testing.T, backend Backend) {
	s := opened(t, backend(t, 0))
	cancelled, cancel := context.WithCancel(ctx())
	cancel()
	// Whether it was written is open, what it says is not.
	if err := s.Put(cancelled, full("a.test")); err == nil {
		want(t, s, full("a.test"))
	} else if !errors.Is(err, context.Canceled) {
		t.Errorf("put: %v", err)
	}
	put(t, s, full("b.test"))
	want(t, s, full("b.test"))
}

func testPutLater(t *testing.T, backend Backend) {
	open := backend(t, 0)
	s := open()
	for i := range 100 {
		rec := full(fmt.Sprintf("%d.test", i))
		s.PutLater(rec)
		want(t, s, rec)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = opened(t, open)
	for i := range 100 {
		want(t, s, full(fmt.Sprintf("%d.test", i)))
	}
}

func testLastWins(t *testing.T, backend Backend) {
	open := backend(t, 0)
	s := open()
	version := func(domain string, n int) store.Record {
		rec := full(domain)
		rec.STS.Failures = n
		rec.Due = rec.Due.Add(time.Duration(n) * time.Hour)
		return rec
	}
	s.PutLater(version("put-last.test", 1))
	put(t, s, version("put-last.test", 2))
	want(t, s, version("put-last.test", 2))

	put(t, s, version("later-last.test", 1))
	s.PutLater(version("later-last.test", 2))
	s.PutLater(version("later-last.test", 3))
	want(t, s, version("later-last.test", 3))

	put(t, s, version("same-call.test", 1), version("same-call.test", 2))
	want(t, s, version("same-call.test", 2))

	s.PutLater(full("deleted.test"))
	if err := s.Delete(ctx(), "deleted.test"); err != nil {
		t.Fatal(err)
	}
	wantNone(t, s, "deleted.test")

	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = opened(t, open)
	want(t, s, version("put-last.test", 2))
	want(t, s, version("later-last.test", 3))
	want(t, s, version("same-call.test", 2))
	wantNone(t, s, "deleted.test")
	if n := s.Len(); n != 3 {
		t.Errorf("%d records, want 3", n)
	}
}

func testDelete(t *testing.T, backend Backend) {
	s := opened(t, backend(t, 0))
	put(t, s, full("a.test"), full("b.test"), full("c.test"))
	if err := s.Delete(ctx(), "a.test", "never-there.test", "c.test"); err != nil {
		t.Fatal(err)
	}
	wantNone(t, s, "a.test")
	wantNone(t, s, "c.test")
	want(t, s, full("b.test"))
	if n := s.Len(); n != 1 {
		t.Errorf("%d records, want 1", n)
	}
	due, err := s.Due(start().Add(48*time.Hour), 10)
	if err != nil || len(due) != 1 {
		t.Errorf("%d due, %v; want the one that is left", len(due), err)
	}
}

func testEach(t *testing.T, backend Backend) {
	s := opened(t, backend(t, 0))
	const n = 1000 // more than any implementation reads at a time
	var domains []string
	var recs []store.Record
	for i := range n {
		domains = append(domains, fmt.Sprintf("%04d.test", i))
		recs = append(recs, full(domains[i]))
	}
	put(t, s, recs[1:]...)
	s.PutLater(recs[0])

	var got []string
	err := s.Walk(store.Scan{}, func(rec store.Record) bool {
		got = append(got, rec.Domain)
		want(t, s, rec)
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(domains, got); diff != "" {
		t.Errorf("listed (-want +got):\n%s", diff)
	}
	seen := 0
	if err := s.Walk(store.Scan{}, func(store.Record) bool { seen++; return seen < 3 }); err != nil || seen != 3 {
		t.Errorf("went on to %d records after fn returned false at 3: %v", seen, err)
	}
}

func testEachWhileWriting(t *testing.T, backend Backend) {
	s := opened(t, backend(t, 0))
	var recs []store.Record
	for i := range 600 {
		recs = append(recs, full(fmt.Sprintf("%04d.test", i)))
	}
	put(t, s, recs...)
	// A lister that writes: "cache refresh" of everything, or a lister that
	// removes what it sees.
	seen := 0
	err := s.Walk(store.Scan{}, func(rec store.Record) bool {
		if seen++; seen%100 == 0 {
			if err := s.Delete(ctx(), rec.Domain); err != nil {
				t.Error(err)
			}
		}
		return true
	})
	if err != nil || seen != 600 || s.Len() != 594 {
		t.Errorf("saw %d of 600 records, %d are left, want 594: %v", seen, s.Len(), err)
	}
}

func testConcurrent(t *testing.T, backend Backend) {
	s := opened(t, backend(t, 0))
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 40 {
				rec := full(fmt.Sprintf("%d-%d.test", g, i))
				if i%4 == 0 {
					s.PutLater(rec)
				} else if err := s.Put(ctx(), rec); err != nil {
					t.Errorf("put: %v", err)
				}
				if got, err := s.Get(rec.Domain); err != nil || !cmp.Equal(got, rec) {
					t.Errorf("get %s: %v", rec.Domain, err)
				}
				if _, err := s.CountDue(start()); err != nil {
					t.Errorf("count due: %v", err)
				}
			}
		})
	}
	wg.Wait()
	seen := 0
	if err := s.Walk(store.Scan{}, func(store.Record) bool { seen++; return true }); err != nil || seen != 320 {
		t.Errorf("%d records, want 320: %v", seen, err)
	}
}

func testClosed(t *testing.T, backend Backend) {
	s := opened(t, backend(t, 0)) // and closed again at the end
	put(t, s, full("a.test"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
	s.PutLater(full("b.test"))
	_, getErr := s.Get("a.test")
	_, laterErr := s.Get("b.test")
	_, dueErr := s.Due(start(), 1)
	_, countErr := s.CountDue(start())
	for call, err := range map[string]error{
		"Get":      getErr,
		"Get b":    laterErr,
		"Put":      s.Put(ctx(), full("b.test")),
		"Delete":   s.Delete(ctx(), "a.test"),
		"Due":      dueErr,
		"CountDue": countErr,
		"Walk":     s.Walk(store.Scan{}, func(store.Record) bool { return true }),
	} {
		if !errors.Is(err, store.ErrClosed) {
			t.Errorf("%s after Close: %v, want %v", call, err, store.ErrClosed)
		}
	}
	s.Len()
	s.Size()
}
