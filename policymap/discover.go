package policymap

import (
	"context"
	"time"

	"golang.org/x/sync/singleflight"

	"tlspolicyd/internal/mtasts"
	"tlspolicyd/store"
)

// This file finds out about MTA-STS for one policy domain and keeps what it
// found, for a cold lookup, a background look or the refresher alike.

// stsOutcome is what a lookup got from a policy flight.
type stsOutcome struct {
	pending   bool           // not done yet: the answer is given without it
	abandoned bool           // not wanted
	once      *mtasts.Policy // max_age 0: for this answer only (8461 §3.2)
}

type policyFlight struct {
	result <-chan singleflight.Result
	giveUp chan struct{}
}

// abandon ends the flight; one that somebody else started goes on.
func (p *policyFlight) abandon() { close(p.giveUp) }

func (p *policyFlight) wait(ctx context.Context, d time.Duration) stsOutcome {
	timer := time.NewTimer(max(d, 0))
	defer timer.Stop()
	select {
	case r := <-p.result:
		once, _ := r.Val.(*mtasts.Policy)
		return stsOutcome{once: once}
	case <-timer.C:
	case <-ctx.Done():
	}
	return stsOutcome{pending: true}
}

// startSTS looks at a domain's TXT record and fetches its policy where that is
// called for, once however many ask, and keeps what it finds. again asks for a
// fetch even though a policy of the same id is in force.
func (m *Map) startSTS(domain string, used time.Time, again bool) *policyFlight {
	p := &policyFlight{giveUp: make(chan struct{})}
	p.result = m.flight(&m.sts, domain, func() any {
		ctx, cancel := context.WithTimeout(m.ctx, stsTimeout)
		defer cancel()
		go func() {
			select {
			case <-p.giveUp:
				cancel()
			case <-ctx.Done():
			}
		}()
		return m.discover(ctx, domain, used, again)
	})
	return p
}

// discover is 8461 §3 for one domain: TXT record, then the policy file. It
// returns a policy only if that is for the waiting lookups alone.
func (m *Map) discover(ctx context.Context, domain string, used time.Time, again bool) (once *mtasts.Policy) {
	found := mtasts.LookupRecord(ctx, m.config.Load().Resolver, domain)
	if ctx.Err() != nil && found.Failed {
		return nil // abandoned or stopping: nothing was learned
	}
	now := m.clock.now()
	var before store.STS
	if rec := m.ledger.get(domain); rec.STS != nil {
		before = *rec.STS
	}
	after := before
	after.CheckedAt = now
	after.TXTTTL = clampTTL(found.Answer.TTL)
	switch {
	case found.Failed:
		after.TXTTTL, after.TXTError = txtRetry, reasonOf(found.Err)
		if again { // what lookups find does not make the refresher's pauses longer
			after.FailedAt = now
			after.Failures++
		}
	case !found.Found:
		after.TXTID, after.TXTError = "", reasonOf(found.Err)
	default:
		after.TXTID, after.TXTError = found.Record.ID, ""
		if m.wantsFetch(&after, now, again) {
			once = m.fetch(ctx, domain, &after, again)
			if ctx.Err() != nil {
				return nil
			}
		}
	}
	_ = m.learn(domain, update{used: used, change: func(rec *store.Record) {
		at := m.clock.now()
		if takesNoMail(rec) && readSTS(rec.STS, at).policy == nil {
			return
		}
		rec.STS = &after
		if change, ok := changeOfSTS(domain, readSTS(&before, at), readSTS(&after, at)); ok {
			m.observer.Changed(change)
		}
	}})
	return once
}

// wantsFetch says whether the policy file is to be fetched now.
func (m *Map) wantsFetch(s *store.STS, now time.Time, again bool) bool {
	if s.FailedID == s.TXTID && now.Sub(notFuture(s.FailedAt, now)) < fetchRetry {
		return false
	}
	return again || s.TXTID != s.PolicyID || readSTS(s, now).policy == nil
}

// fetch gets the policy file and notes the outcome in s.
func (m *Map) fetch(ctx context.Context, domain string, s *store.STS, background bool) (once *mtasts.Policy) {
	select {
	case m.fetches <- struct{}{}:
		defer func() { <-m.fetches }()
	case <-ctx.Done():
		return nil
	}
	began := m.clock.now()
	got, err := m.config.Load().Fetcher.Fetch(ctx, domain)
	if ctx.Err() != nil {
		return nil // abandoned or stopping: says nothing about the policy host
	}
	now := m.clock.now()
	m.observer.Fetched(domain, background, now.Sub(began), err)
	if err != nil {
		// A failure never ends or shortens a policy (8461 §5.1).
		s.FailedID, s.FailedAt, s.Error = s.TXTID, now, reasonOf(err)
		s.Failures++
		return nil
	}
	s.FailedID, s.FailedAt, s.Error, s.Failures = "", time.Time{}, "", 0
	s.Policy, s.PolicyID, s.FetchedAt = got.Body, s.TXTID, now
	if got.Policy.MaxAge == 0 {
		s.Policy, s.PolicyID = nil, ""
		return &got.Policy
	}
	return nil
}
