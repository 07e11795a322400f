package storetest

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"tlspolicyd/store"
)

func dueAt(domain string, at time.Time) store.Record {
	rec := full(domain)
	rec.Due = at
	return rec
}

func wantDue(t *testing.T, s store.Store, at time.Time, limit int, domains ...string) {
	t.Helper()
	recs, err := s.Due(at, limit)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, rec := range recs {
		got = append(got, rec.Domain)
		want(t, s, rec)
	}
	if diff := cmp.Diff(domains, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("due at %v (-want +got):\n%s", at, diff)
	}
	if limit <= len(domains) {
		return
	}
	if n, err := s.CountDue(at); err != nil || n != len(domains) {
		t.Errorf("%d counted as due at %v, want %d: %v", n, at, len(domains), err)
	}
}

func wantNext(t *testing.T, s store.Store, at time.Time) {
	t.Helper()
	var next time.Time
	recs, err := s.Due(start().Add(1000*time.Hour), 1)
	if len(recs) > 0 {
		next = recs[0].Due
	}
	if err != nil || !next.Equal(at) {
		t.Errorf("next due %v, %v; want %v", next, err, at)
	}
}

func wantLatest(t *testing.T, s store.Store, at time.Time) {
	t.Helper()
	if got, err := s.Latest(); err != nil || !got.Equal(at) {
		t.Errorf("latest %v, %v; want %v", got, err, at)
	}
}

func testLatest(t *testing.T, backend Backend) {
	open := backend(t, 0)
	s := open()
	wantLatest(t, s, time.Time{})
	at := start()
	used := store.Record{Domain: "used.test", LastUsed: at, Due: at.Add(time.Hour)}
	put(t, s, used)
	wantLatest(t, s, at)
	for i, rec := range []store.Record{
		{Domain: "a.test", DANE: []store.DANE{{Port: 25, KnownAt: at.Add(time.Minute), ExpiresAt: at.Add(time.Hour)}}},
		{Domain: "b.test", STS: &store.STS{CheckedAt: at.Add(2 * time.Minute)}},
		{Domain: "c.test", STS: &store.STS{FailedAt: at.Add(3 * time.Minute)}},
		{Domain: "d.test", STS: &store.STS{Policy: []byte{}, FetchedAt: at.Add(4 * time.Minute)}},
	} {
		put(t, s, rec)
		wantLatest(t, s, at.Add(time.Duration(i+1)*time.Minute))
	}
	used.LastUsed = at.Add(5 * time.Minute)
	s.PutLater(used)
	wantLatest(t, s, used.LastUsed)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = opened(t, open)
	wantLatest(t, s, used.LastUsed)
	put(t, s, store.Record{Domain: "used.test", LastUsed: at})
	if got, err := s.Latest(); err != nil || got.Before(at.Add(4*time.Minute)) {
		t.Errorf("latest %v, %v: it is never earlier than a time in a record", got, err)
	}
}

func testSchedule(t *testing.T, backend Backend) {
	open := backend(t, 0)
	s := open()
	at := start()
	wantNext(t, s, time.Time{})
	put(t, s,
		dueAt("a-third.test", at.Add(3*time.Second)),
		dueAt("z-first.test", at.Add(-24*365*60*time.Hour)), // before 1970
		dueAt("never.test", time.Time{}),
		dueAt("m-second.test", at.Add(2*time.Second)),
		dueAt("b-third.test", at.Add(3*time.Second)),
	)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = opened(t, open)
	wantNext(t, s, at.Add(-24*365*60*time.Hour))
	wantDue(t, s, at, 10, "z-first.test")
	wantDue(t, s, at.Add(2*time.Second-time.Millisecond), 10, "z-first.test")
	wantDue(t, s, at.Add(2*time.Second), 10, "z-first.test", "m-second.test")
	wantDue(t, s, at.Add(time.Hour), 10, "z-first.test", "m-second.test", "a-third.test", "b-third.test")
	wantDue(t, s, at.Add(time.Hour), 2, "z-first.test", "m-second.test")
	wantDue(t, s, at.Add(time.Hour), 0)
}

func testScheduleChanges(t *testing.T, backend Backend) {
	s := opened(t, backend(t, 0))
	at := start()
	put(t, s, dueAt("a.test", at), dueAt("b.test", at.Add(time.Second)))

	// Nothing is refreshed twice: once the new time is written, in whatever
	// way, the old one is removed (BEHAVIOUR §7).
	put(t, s, dueAt("a.test", at.Add(time.Hour)))
	wantNext(t, s, at.Add(time.Second))
	wantDue(t, s, at.Add(time.Minute), 10, "b.test")
	s.PutLater(dueAt("b.test", at.Add(2*time.Hour)))
	wantNext(t, s, at.Add(time.Hour))
	wantDue(t, s, at.Add(time.Minute), 10)
	wantDue(t, s, at.Add(24*time.Hour), 10, "a.test", "b.test")

	s.PutLater(dueAt("new.test", at))
	wantNext(t, s, at)
	wantDue(t, s, at.Add(24*time.Hour), 2, "new.test", "a.test")

	put(t, s, dueAt("a.test", time.Time{}), dueAt("b.test", time.Time{}), dueAt("new.test", time.Time{}))
	wantNext(t, s, time.Time{})
	wantDue(t, s, at.Add(24*time.Hour), 10)
}
