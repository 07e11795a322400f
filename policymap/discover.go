package policymap

import (
	"context"
	"time"

	"tlspolicyd/internal/mtasts"
	"tlspolicyd/store"
)

// This file finds out about MTA-STS for one policy domain and keeps what it
// found, for a cold lookup, a background look or the refresher alike.

// occasion is why somebody looks at a policy domain, and so when the policy file
// is fetched.
type occasion uint8

const (
	onLookup   occasion = iota // where the id is new, or no policy is in force
	onSchedule                 // also where a policy of that id is in force
	onOrder                    // the operator's: also where a fetch has just failed
)

// stsFlight is one look at a policy domain, for all who want it at the same time.
type stsFlight struct {
	done   chan struct{}
	cancel context.CancelFunc
	wanted int // how many have not given it up; Map.mu
	why    occasion

	// Set before done is closed.
	learned *store.STS     // the facts as they are now; nil: nothing was learned
	once    *mtasts.Policy // max_age 0: for those who wait, and kept nowhere (8461 §3.2)
}

// wait reports whether the flight ended within d.
func (f *stsFlight) wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(max(d, 0))
	defer timer.Stop()
	select {
	case <-f.done:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

// startSTS looks at a domain's TXT record and fetches its policy where that is
// called for, once however many ask, and keeps what it finds.
func (m *Map) startSTS(domain string, used time.Time, why occasion) *stsFlight {
	m.mu.Lock()
	defer m.mu.Unlock()
	if f := m.looking[domain]; f != nil && f.wanted > 0 {
		f.wanted++
		return f
	}
	ctx, cancel := context.WithTimeout(m.ctx, stsTimeout)
	f := &stsFlight{done: make(chan struct{}), cancel: cancel, wanted: 1, why: why}
	if m.closed {
		cancel()
		close(f.done)
		return f
	}
	m.looking[domain] = f
	m.work.Go(func() {
		defer cancel()
		defer close(f.done)
		defer m.landed(domain, f)
		defer func() {
			if r := recover(); r != nil { // a defect in one look is not the end of all others
				m.observer.Fetched(domain, why != onLookup, 0, m.panicked(domain, r))
			}
		}()
		f.learned, f.once = m.discover(ctx, domain, used, why)
	})
	return f
}

// lookAtSTS is startSTS for one who wants no less than why asks for: a look that
// is under way for less is waited for, and followed by another.
func (m *Map) lookAtSTS(domain string, why occasion) (done <-chan struct{}) {
	f := m.startSTS(domain, time.Time{}, why)
	if f.why >= why {
		return f.done
	}
	all := make(chan struct{})
	go func() {
		defer close(all)
		for f.why < why {
			<-f.done
			f = m.startSTS(domain, time.Time{}, why)
		}
		<-f.done
	}()
	return all
}

func (m *Map) landed(domain string, f *stsFlight) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.looking[domain] == f {
		delete(m.looking, domain)
	}
}

// abandon gives a flight up. It ends when nobody else wants it.
func (m *Map) abandon(f *stsFlight) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if f.wanted--; f.wanted == 0 {
		f.cancel()
	}
}

// discover is 8461 §3 for one domain: TXT record, then the policy file.
func (m *Map) discover(ctx context.Context, domain string, used time.Time, why occasion) (sts *store.STS, once *mtasts.Policy) {
	cfg := m.config.Load()
	txt := mtasts.LookupRecord(ctx, cfg.Resolver, domain)
	if ctx.Err() != nil {
		return nil, nil // abandoned or stopping: nothing was learned
	}
	checked := m.clock.now()
	var got fetched
	if txt.Found && wantsFetch(m.ledger.get(domain).STS, txt.Record.ID, checked, why) {
		got = m.fetch(ctx, cfg.Fetcher, domain, why)
		if got.givenUp {
			return nil, nil // the new id must not look as though it had been followed
		}
	}
	_ = m.learn(domain, used, asNeeded, func(rec *store.Record) {
		now := m.clock.now()
		before := readSTS(rec.STS, now)
		// Changed here and not before the look: the record may have moved on.
		after := store.STS{}
		if rec.STS != nil {
			after = *rec.STS
		}
		noteTXT(&after, txt, checked, why)
		got.note(&after, now, why)
		rec.STS = &after
		sts = &after
		if change, ok := changeOfSTS(domain, before, readSTS(&after, now)); ok {
			m.observer.Changed(change)
		}
	})
	if got.policy != nil && got.policy.Policy.MaxAge == 0 {
		once = &got.policy.Policy
	}
	return sts, once
}

// noteTXT notes what the TXT lookup said.
func noteTXT(s *store.STS, txt mtasts.RecordResult, checked time.Time, why occasion) {
	s.CheckedAt, s.TXTTTL = checked, clampTTL(txt.Answer.TTL)
	switch {
	case txt.Failed:
		s.TXTTTL, s.TXTError = txtRetry, reasonOf(txt.Err)
		if why != onLookup { // what lookups find does not make the refresher's pauses longer
			s.FailedAt = checked
			s.Failures++
		}
	case !txt.Found:
		s.TXTID, s.TXTError = "", reasonOf(txt.Err)
	default:
		s.TXTID, s.TXTError = txt.Record.ID, ""
	}
}

// wantsFetch says whether the policy file is to be fetched now, the TXT record
// having this id.
func wantsFetch(s *store.STS, id string, now time.Time, why occasion) bool {
	if s == nil || why == onOrder {
		return true
	}
	if s.FailedID == id && now.Sub(notFuture(s.FailedAt, now)) < fetchRetry {
		return false
	}
	return why == onSchedule || id != s.PolicyID || readSTS(s, now).policy == nil
}

// fetched is the outcome of a fetch; the zero value: none was made.
type fetched struct {
	policy  *mtasts.Fetched
	err     error
	givenUp bool // says nothing about the policy host
}

// fetch gets the policy file. Fetches of lookups are bounded in number; those
// of the refresher are by its workers, so that silent policy hosts do not keep
// it from its work.
func (m *Map) fetch(ctx context.Context, f Fetcher, domain string, why occasion) (out fetched) {
	if why == onLookup {
		held, leave := m.takePlace(ctx)
		defer leave()
		ctx = held
	}
	if ctx.Err() != nil {
		return fetched{givenUp: true}
	}
	began := m.clock.now()
	out.policy, out.err = f.Fetch(ctx, domain)
	if ctx.Err() != nil {
		return fetched{givenUp: true}
	}
	m.observer.Fetched(domain, why != onLookup, m.clock.now().Sub(began), out.err)
	return out
}

// takePlace waits for one of the places of fetches that a lookup waits for. When
// none can be waiting any more, the fetch moves to the places of the late ones,
// and the context returned ends where those are taken. So, however many policy
// hosts hang, the places that matter are free again within seconds.
func (m *Map) takePlace(ctx context.Context) (_ context.Context, leave func()) {
	ctx, cancel := context.WithCancel(ctx)
	select {
	case m.fetches <- struct{}{}:
	case <-ctx.Done():
		return ctx, cancel
	}
	place, moved := m.fetches, make(chan struct{})
	late := time.AfterFunc(m.config.Load().FetchWait+time.Second, func() {
		defer close(moved)
		select {
		case m.lateFetches <- struct{}{}:
			<-m.fetches
			place = m.lateFetches
		default:
			cancel()
		}
	})
	return ctx, func() {
		if !late.Stop() {
			<-moved
		}
		<-place
		cancel()
	}
}

// note notes the outcome. A failure never ends or shortens a policy (8461 §5.1).
func (f fetched) note(s *store.STS, now time.Time, why occasion) {
	switch {
	case f.err != nil:
		s.FailedID, s.FailedAt, s.Error = s.TXTID, now, reasonOf(f.err)
		if why != onLookup {
			s.Failures++
		}
	case f.policy != nil:
		s.FailedID, s.FailedAt, s.Error, s.Failures = "", time.Time{}, "", 0
		s.Policy, s.PolicyID, s.FetchedAt = f.policy.Body, s.TXTID, now
		s.EndTold, s.Moved = false, 0
		if f.policy.Policy.MaxAge == 0 {
			s.Policy, s.PolicyID = nil, ""
		}
	}
}
