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
	"tlspolicyd/internal/defect"
	"tlspolicyd/internal/mtasts"
	"tlspolicyd/policymap/policy"
	"tlspolicyd/store"
)

// This file is what an operator may do with what the map knows. None of it is
// on the path of a lookup.

// Info is what is known of one policy domain, and what it means now.
type Info struct {
	Record store.Record // as stored; LastUsed as far as memory knows

	STS        policy.STSState
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
	Decision    policy.Decision
	Reply       string // for the map "postfix"
	TLSRPT      string // for the map "postfix-tlsrpt"
}

func answerOf(key string, d policy.Decision, r policy.Replies) Answer {
	return Answer{Key: key, Decision: d, Reply: string(r.Postfix), TLSRPT: string(r.TLSRPT)}
}

// Info returns what is known of a domain, given in A-labels and lower case, or
// false.
func (m *Map) Info(domain string) (Info, bool) {
	rec := m.book.Get(domain)
	if rec.STS == nil && rec.DANE == nil && len(m.unrecorded(&rec)) == 0 {
		return Info{}, false
	}
	return m.inspect(rec), true
}

// Each calls fn for every domain in order until fn returns false. What is
// written meanwhile may or may not be seen.
func (m *Map) Each(fn func(Info) bool) error {
	return m.Walk(store.Scan{}, func(_ store.Position, info func() Info) bool { return fn(info()) })
}

// Walk is Each in the order of a scan: fn gets the position of each domain, and
// what is known of it only when it calls info, which is most of the work.
func (m *Map) Walk(scan store.Scan, fn func(at store.Position, info func() Info) bool) error {
	return m.book.Walk(scan, func(rec store.Record) bool {
		return fn(scan.PositionOf(&rec), func() Info { return m.inspect(rec) })
	})
}

// Deferred calls fn for each next hop whose last answer, as far as memory has it,
// was TEMP, with the time of its last lookup, in no order.
func (m *Map) Deferred(fn func(hop policy.NextHop, reason string, used time.Time)) {
	m.cache.each(func(e *entry) {
		if e.level == policy.Temporary {
			fn(e.hop, e.answer.Decision.Reason, e.used())
		}
	})
}

// inspect says what a record means. One that meets a defect of this program can
// still be listed, exported and purged.
func (m *Map) inspect(rec store.Record) (info Info) {
	if err := m.guard(rec.Domain, func() { info = m.meaning(rec) }); err != nil {
		return Info{Record: rec, STSReason: err.Error()}
	}
	return info
}

func (m *Map) meaning(rec store.Record) Info {
	now, cfg := m.clock.Now(), m.config.Load()
	rec.LastUsed = policy.Latest(rec.LastUsed, m.usedInMemory(rec.Domain))
	sts := policy.ReadSTS(rec.STS, now)
	info := Info{Record: rec, STS: sts.State, Policy: sts.Policy, STSReason: sts.Reason}
	if sts.Policy != nil {
		info.STSExpires = sts.Expires
	}
	for i := range rec.DANE {
		d := &rec.DANE[i]
		v := policy.Look(&rec, sts, policy.HopOf(rec.Domain, d), cfg.trusted(), now)
		a := m.current(cfg, v)
		a.DANE, a.DANEFresh, a.DANEExpires = v.DANE.State, v.Fresh, policy.DANEExpiry(d, now)
		info.Answers = append(info.Answers, a)
	}
	for _, hop := range m.unrecorded(&rec) {
		info.Answers = append(info.Answers, m.current(cfg, policy.Look(&rec, sts, hop, cfg.trusted(), now)))
	}
	return info
}

// current is what Postfix gets now: the operator's override, or the answer in
// memory, or what the facts come to.
func (m *Map) current(cfg *Config, v policy.View) Answer {
	key := v.Hop.String()
	if line, ok := cfg.Overrides.For(key, v.Hop); ok {
		a := policy.OverrideAnswer(v.Hop, line, v.Now)
		return answerOf(key, a.Decision, a.Replies)
	}
	if e := m.cache.getString(key); e != nil && v.Now.Before(e.answer.Until) {
		return answerOf(key, e.answer.Decision, e.answer.Replies)
	}
	if !v.Fresh && v.DANE.Reason == "" {
		v.DANE.Reason = "not looked up again yet"
	}
	a := v.Answer(cfg.Settings)
	return answerOf(key, a.Decision, a.Replies)
}

// ErrUnknownDomain: nothing is known of the domain.
var ErrUnknownDomain = errors.New("nothing is known of this domain")

// Refresh looks a domain up again now, DANE and MTA-STS, the policy file too
// even where it has just failed, and returns when that is done. A domain that was
// never asked for is ErrUnknownDomain: Warm is for these.
func (m *Map) Refresh(ctx context.Context, domain string) error {
	rec := m.book.Get(domain)
	unrecorded := m.unrecorded(&rec)
	if rec.STS == nil && rec.DANE == nil && len(unrecorded) == 0 {
		return ErrUnknownDomain
	}
	every := make([]int, len(rec.DANE))
	for i := range every {
		every[i] = i
	}
	started := m.startAgain(&rec, every, true, policy.OnRequest)
	if rec.DANE == nil && len(unrecorded) == 0 {
		unrecorded = []policy.NextHop{{Domain: domain, Port: 25}}
	}
	for _, hop := range unrecorded {
		started = append(started, ended(m.startLookup(hop)))
	}
	for _, done := range started {
		select {
		case <-done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// unrecorded returns the next hops of a domain that were answered without
// anything becoming known that is worth a record: their DANE lookups fail.
func (m *Map) unrecorded(rec *store.Record) (hops []policy.NextHop) {
	for _, e := range m.cache.ofDomain(rec.Domain) {
		if e.answer.Decision.Row != policy.RowOverride && policy.Endpoint(rec, e.hop) == nil {
			hops = append(hops, e.hop)
		}
	}
	slices.SortFunc(hops, func(a, b policy.NextHop) int { return strings.Compare(a.String(), b.String()) })
	return hops
}

// Purge forgets domains, in memory and on disk. The next lookup of one starts
// from nothing: a policy that cannot be fetched then is lost.
func (m *Map) Purge(ctx context.Context, domains ...string) error {
	for _, domain := range domains {
		if err := m.book.Forget(ctx, domain); err != nil {
			return err
		}
	}
	return nil
}

// Warm looks a next hop up as a message to it would, and returns the decision.
// A key that is not a next hop is answered as Postfix would be.
func (m *Map) Warm(ctx context.Context, key string) policy.Decision {
	hop, ok := policy.ParseNextHop(key)
	if e := m.override(key, hop); e != nil {
		return e.answer.Decision
	}
	if !ok {
		return policy.Decision{Level: policy.NoPolicy, Row: policy.RowNotLookedUp, Why: policy.WhyNotLookedUp(key)}
	}
	cfg := m.config.Load()
	if rec := m.book.Get(hop.Domain); rec.STS != nil || rec.DANE != nil {
		if v := m.view(cfg, &rec, hop, m.clock.Now()); v.Enough(cfg.Settings) {
			return v.Answer(cfg.Settings).Decision
		}
	}
	return m.await(ctx, hop).answer.Decision
}

// importers is how many records are imported at a time: they share disk writes.
const importers = 64

// Import takes over records of another store, durably (records.Book.Merge). A
// record that meets a defect of this program is left out, and the error names
// the first; all others are taken.
func (m *Map) Import(ctx context.Context, recs []store.Record) error {
	g, working := errgroup.WithContext(ctx)
	g.SetLimit(importers)
	defects := make([]*defect.Error, len(recs)) // nil: the record was taken
	for i, in := range recs {
		if working.Err() != nil {
			break
		}
		g.Go(func() error {
			err := m.book.Merge(in)
			if errors.As(err, &defects[i]) {
				return nil
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for i, err := range defects {
		if err != nil {
			return fmt.Errorf("%s was not imported: %w", recs[i].Domain, err)
		}
	}
	return ctx.Err()
}
