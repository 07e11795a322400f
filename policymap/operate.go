package policymap

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"tlspolicyd/internal/dane"
	"tlspolicyd/internal/mtasts"
	"tlspolicyd/store"
)

// This file is what an operator may do with what the map knows. None of it is
// on the path of a lookup.

// Info is what is known of one policy domain, and what it means now.
type Info struct {
	Record store.Record // as stored; LastUsed as far as memory knows

	STS        STSState
	Policy     *mtasts.Policy // in force; nil: none
	STSExpires time.Time      // of the policy in force
	STSReason  string         // STSAbsent: why

	Answers []Answer // for each way the domain was asked for
}

// Answer is what one next hop of a domain gets now.
type Answer struct {
	Key         string // canonical
	DANE        dane.State
	DANEFresh   bool // within its TTL; else State is the last known one
	DANEExpires time.Time
	Decision    Decision
	Reply       string // for the map "postfix"
	TLSRPT      string // for the map "postfix-tlsrpt"
}

// Info returns what is known of a domain, given in A-labels and lower case, or
// false.
func (m *Map) Info(domain string) (Info, bool) {
	rec := m.ledger.get(domain)
	if rec.STS == nil && rec.DANE == nil && len(m.unrecorded(&rec)) == 0 {
		return Info{}, false
	}
	return m.inspect(rec), true
}

// Each calls fn for every domain in order until fn returns false. What is
// written meanwhile may or may not be seen.
func (m *Map) Each(fn func(Info) bool) error {
	return m.ledger.each(func(rec store.Record) bool { return fn(m.inspect(rec)) })
}

// inspect says what a record means. One over which this program stumbles can
// still be listed, exported and purged.
func (m *Map) inspect(rec store.Record) (info Info) {
	if err := m.contain(rec.Domain, func() { info = m.meaning(rec) }); err != nil {
		return Info{Record: rec, STSReason: err.Error()}
	}
	return info
}

func (m *Map) meaning(rec store.Record) Info {
	now := m.clock.now()
	rec.LastUsed = latest(rec.LastUsed, m.usedInMemory(&rec))
	sts := readSTS(rec.STS, now)
	info := Info{Record: rec, STS: sts.state, Policy: sts.policy, STSReason: sts.reason}
	if sts.policy != nil {
		info.STSExpires = sts.until
	}
	for i := range rec.DANE {
		d := &rec.DANE[i]
		facts, fresh := daneFacts(m.counting(d), now)
		a := m.answerOf(hopOf(rec.Domain, d), facts, sts, now)
		a.DANE, a.DANEFresh, a.DANEExpires = dane.State(d.State), fresh, daneExpiry(d, now)
		info.Answers = append(info.Answers, a)
	}
	for _, hop := range m.unrecorded(&rec) {
		info.Answers = append(info.Answers, m.answerOf(hop, DANEFacts{}, sts, now))
	}
	return info
}

// answerOf is what Postfix is told now: the operator's override, or the answer
// in memory, or what the facts come to.
func (m *Map) answerOf(hop NextHop, facts DANEFacts, sts stsFacts, now time.Time) Answer {
	cfg, key := m.config.Load(), hop.String()
	if value, ok := overrideFor(cfg.Overrides, key, hop, true); ok {
		d := overrideDecision(value)
		r := render(d, hop.Domain, nil, value)
		return Answer{Key: key, Decision: d, Reply: string(r.postfix), TLSRPT: string(r.tlsrpt)}
	}
	if e := m.cache.getString(key); e != nil && now.Before(e.until) {
		return Answer{Key: key, Decision: e.decision, Reply: string(e.replies.postfix), TLSRPT: string(e.replies.tlsrpt)}
	}
	if facts.State == dane.Unknown && facts.Reason == "" {
		facts.Reason = "not looked up again yet"
	}
	d := Decide(facts, sts.state, cfg.Settings)
	r := render(d, hop.Domain, sts.policy, "")
	return Answer{Key: key, Decision: d, Reply: string(r.postfix), TLSRPT: string(r.tlsrpt)}
}

// ErrUnknownDomain: nothing is known of the domain.
var ErrUnknownDomain = errors.New("nothing is known of this domain")

// Refresh looks a domain up again now, DANE and MTA-STS, the policy file too
// even where it has just failed, and returns when that is done. A domain that
// nobody asked for yet is ErrUnknownDomain: Warm is for these.
func (m *Map) Refresh(ctx context.Context, domain string) error {
	rec := m.ledger.get(domain)
	unrecorded := m.unrecorded(&rec)
	if rec.STS == nil && rec.DANE == nil && len(unrecorded) == 0 {
		return ErrUnknownDomain
	}
	flights := m.lookUpAgain(&rec, func(*store.DANE) bool { return true }, true, onOrder)
	if rec.DANE == nil && len(unrecorded) == 0 {
		unrecorded = []NextHop{{Domain: domain, Port: 25}}
	}
	for _, hop := range unrecorded {
		flights = append(flights, m.lookUpCold(hop))
	}
	for _, done := range flights {
		select {
		case <-done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// lookUpCold starts a cold lookup, whose answer replaces the one in memory; the
// channel is closed when it has ended.
func (m *Map) lookUpCold(hop NextHop) <-chan struct{} {
	done := make(chan struct{})
	result := m.flight(&m.cold, hop.String(), func() any { return m.resolve(hop) })
	go func() {
		defer close(done)
		<-result
	}()
	return done
}

// unrecorded returns the next hops of a domain that were answered without
// anything becoming known that is worth a record: their DANE lookups fail.
func (m *Map) unrecorded(rec *store.Record) (hops []NextHop) {
	for _, e := range m.cache.ofDomain(rec.Domain) {
		if e.decision.Row != RowOverride && endpoint(rec, e.hop) == nil {
			hops = append(hops, e.hop)
		}
	}
	slices.SortFunc(hops, func(a, b NextHop) int { return strings.Compare(a.String(), b.String()) })
	return hops
}

// Purge forgets domains, in memory and on disk. The next lookup of one starts
// from nothing: a policy that cannot be fetched then is lost.
func (m *Map) Purge(ctx context.Context, domains ...string) error {
	for _, domain := range domains {
		if err := m.purge(ctx, domain); err != nil {
			return err
		}
	}
	return nil
}

func (m *Map) purge(ctx context.Context, domain string) error {
	mu := m.ledger.lock(domain)
	mu.Lock()
	defer mu.Unlock()
	return m.forget(ctx, domain) // without a look at the record, whatever it is like
}

// Warm looks a next hop up as a message to it would, and returns the decision.
// A key that is no next hop is answered as Postfix would be.
func (m *Map) Warm(ctx context.Context, key string) Decision {
	hop, ok := ParseNextHop(key)
	if e := m.override(key, hop, ok); e != nil {
		return e.decision
	}
	if !ok {
		return Decision{Level: NoPolicy, Row: RowNotLookedUp, Why: whyNotLookedUp(key)}
	}
	now := m.clock.now()
	if rec := m.ledger.get(hop.Domain); rec.STS != nil || rec.DANE != nil {
		if e := m.fromFacts(m.config.Load(), hop, &rec, now); e != nil {
			return e.decision
		}
	}
	return m.lookup(ctx, hop, hop.String()).decision
}

// importers is how many records are taken over at a time: they share disk writes.
const importers = 64

// Import takes over records of another store, durably. Where a domain is known
// already, what was learned later wins, for MTA-STS and each DANE state apart.
// Times that lie in the future become the present. A record over which this
// program stumbles is left out, and the error names the first; all others are taken.
func (m *Map) Import(ctx context.Context, recs []store.Record) error {
	g, working := errgroup.WithContext(ctx)
	g.SetLimit(importers)
	stumbled := make([]error, len(recs)) // nil: it was taken
	for i, in := range recs {
		if working.Err() != nil {
			break
		}
		g.Go(func() error {
			var err error
			stumbled[i] = m.contain(in.Domain, func() {
				err = m.learn(in.Domain, time.Time{}, atOnce, func(rec *store.Record) { m.merge(rec, in) })
			})
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for i, err := range stumbled {
		if err != nil {
			return fmt.Errorf("%s was not taken over: %w", recs[i].Domain, err)
		}
	}
	return ctx.Err()
}

// laterSTS reports whether a was learned after b: by the fetch, because a policy
// counts more than a look at its TXT record, then by that look.
func laterSTS(a, b *store.STS) bool {
	if !a.FetchedAt.Equal(b.FetchedAt) {
		return a.FetchedAt.After(b.FetchedAt)
	}
	return a.CheckedAt.After(b.CheckedAt)
}

// merge adds to rec what in knows better, and tells of what that changes.
func (m *Map) merge(rec *store.Record, in store.Record) {
	now := m.clock.now()
	in = cloneRecord(in)
	moveTimes(&in, func(t time.Time) time.Time { return notFuture(t, now) })
	rec.LastUsed = latest(rec.LastUsed, in.LastUsed)
	if in.STS != nil && (rec.STS == nil || laterSTS(in.STS, rec.STS)) {
		if change, ok := changeOfSTS(rec.Domain, readSTS(rec.STS, now), readSTS(in.STS, now)); ok {
			m.observer.Changed(change)
		}
		rec.STS = in.STS
	}
	for _, d := range in.DANE {
		hop := hopOf(rec.Domain, &d)
		old := endpoint(rec, hop)
		switch {
		case old == nil && len(rec.DANE) < maxEndpoints:
			rec.DANE = append(rec.DANE, d)
		case old != nil && old.KnownAt.Before(d.KnownAt):
			if change, ok := changeOfDANE(hop, old, d); ok {
				m.observer.Changed(change)
			}
			*old = d
		}
	}
}
