package policymap

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/singleflight"

	"tlspolicyd/internal/dane"
	"tlspolicyd/internal/dnsclient"
	"tlspolicyd/policymap/policy"
	"tlspolicyd/policymap/records"
	"tlspolicyd/store"
)

const (
	lookupTimeout = 15 * time.Second                       // no lookup takes longer, whatever does not answer
	daneTimeout   = 14 * time.Second                       // leaves a second to decide, write and reply
	knownWait     = 2 * time.Second                        // how long a lookup waits where a last known state can be used
	timeToWrite   = lookupTimeout - 2*records.LongestWrite // until then a lookup may still wait for the disk
)

var errStopping = errors.New("tlspolicyd is stopping")

// lookups looks next hops up that memory and store do not know: one flight for
// each next hop and each DANE evaluation, for all that ask meanwhile.
type lookups struct {
	*core
	sts         *stsLookups
	cold, danes singleflight.Group
	places      places
	client      func(context.Context) string // see Options.Client
}

// flight runs fn once for all that want the same at the same time. It counts as
// work that Close waits for, and a defect in it ends one lookup, not the service
// of all others.
func (l *lookups) flight(g *singleflight.Group, key string, fn func() any) <-chan singleflight.Result {
	return g.DoChan(key, func() (v any, err error) {
		if !l.during(func() { err = l.guard(key, func() { v = fn() }) }) {
			return nil, errStopping
		}
		if failed, ok := v.(error); ok {
			return nil, failed
		}
		return v, err
	})
}

// startLookup starts the cold lookup of a next hop. Its answer replaces the one
// in memory.
func (l *lookups) startLookup(hop policy.NextHop) <-chan singleflight.Result {
	return l.flight(&l.cold, hop.String(), func() any { return l.lookUp(hop, l.book.Clock.Now()) })
}

// await waits for the cold lookup of a next hop, which has a place among those of
// its client as long as it is under way.
func (l *lookups) await(ctx context.Context, hop policy.NextHop) *entry {
	client := l.client(ctx)
	reason := errStopping
	select {
	case r := <-l.flight(&l.cold, hop.String(), func() any {
		asked := l.book.Clock.Now()
		leave, err := l.places.take(l.ctx, client)
		if err != nil {
			return l.withoutLookup(hop, err)
		}
		defer leave()
		return l.lookUp(hop, asked)
	}):
		if r.Err == nil {
			return r.Val.(*entry)
		}
		reason = r.Err
	case <-ctx.Done():
	case <-l.ctx.Done():
	}
	return &entry{hop: hop, answer: policy.Failure(hop, policy.ReasonOf(reason))}
}

// withoutLookup answers by what is last known, and keeps nothing.
func (l *lookups) withoutLookup(hop policy.NextHop, err error) *entry {
	cfg, rec := l.config.Load(), l.book.Get(hop.Domain)
	v := l.view(cfg, &rec, hop, l.book.Clock.Now())
	v.DANE = v.DANE.Failed(policy.ReasonOf(err))
	return &entry{hop: hop, answer: v.Answer(cfg.Settings)}
}

// lookUp looks a next hop up: DANE and MTA-STS side by side, as far as the store
// does not know them already. It ends within lookupTimeout of when it was asked for.
func (l *lookups) lookUp(hop policy.NextHop, asked time.Time) *entry {
	began := l.book.Clock.Now()
	cfg := l.config.Load()
	untrusted := !cfg.trusted()
	rec := l.book.Get(hop.Domain)
	v := l.view(cfg, &rec, hop, began)

	var sts, recheck *stsFlight
	switch {
	case !v.STS.Known && !(v.Fresh && v.DANE.NullMX):
		sts = l.sts.startSTS(hop.Domain, began, policy.OnLookup)
	case v.STS.Known && began.After(v.STS.Recheck) && !l.lookedUpSTS(v):
		recheck = l.sts.startSTS(hop.Domain, began, policy.OnLookup) // the policy in force answers meanwhile
	}
	var done evaluation
	var dns time.Duration
	if !v.Fresh || v.Decide(cfg.Settings).Level == policy.Temporary {
		done = l.awaitDANE(cfg, &rec, v, asked)
		v.DANE = done.facts
		dns = l.book.Clock.Now().Sub(began)
	}
	inTime := false
	switch {
	case sts == nil:
	case v.DANE.NullMX:
		l.sts.abandon(sts) // 7505: no mail will go there
	case !policy.DANEAlone(v.DANE, cfg.Settings):
		inTime = sts.wait(l.ctx, min(cfg.FetchWait, daneTimeout)-l.book.Clock.Now().Sub(asked))
	}

	if done.res != nil && l.book.Clock.Now().Sub(asked) < timeToWrite {
		l.writeEvidence(hop, *done.res, began, untrusted || !l.config.Load().trusted())
	}
	e := l.conclude(cfg, v, sts, inTime)
	if recheck != nil {
		l.followUp(e, recheck)
	}
	l.observer.Resolved(Resolution{
		Key: hop.String(), Decision: e.answer.Decision, STS: e.answer.STS, STSWhy: e.answer.STSWhy,
		Reply: string(e.answer.Replies.Postfix), Took: l.book.Clock.Now().Sub(began), DNS: dns,
	})
	return e
}

// writeEvidence has the evidence on disk with a policy that was learned since: when
// DANE was decided nothing called for writing it at once, and it was evicted.
func (l *lookups) writeEvidence(hop policy.NextHop, res dane.Result, used time.Time, untrusted bool) {
	if rec := l.book.Get(hop.Domain); rec.Class == store.Positive && policy.Endpoint(&rec, hop) == nil {
		l.book.LearnDANE(hop, res, used, untrusted)
	}
}

// lookedUpSTS reports whether the answer before, which has ended, already had the
// TXT record looked up within its TTL.
func (l *lookups) lookedUpSTS(v policy.View) bool {
	old := l.cache.getString(v.Hop.String())
	return old != nil && old.answer.TXTUntil.Equal(v.STS.Recheck) && v.Now.UnixNano() < old.txt.Load()
}

// conclude makes the answer of a cold lookup and keeps it. sts is the flight that
// the lookup waited for, nil for none, and inTime says that it ended in time.
// The record is read once more, while the domain is locked: what was learned
// meanwhile is in the answer, and what is learned later finds it in memory and
// has it follow.
func (l *lookups) conclude(cfg *Config, looked policy.View, sts *stsFlight, inTime bool) (e *entry) {
	l.book.Locked(looked.Hop.Domain, func(rec store.Record) {
		now := l.book.Clock.Now()
		v := l.view(cfg, &rec, looked.Hop, now)
		if !v.Fresh {
			v.DANE = looked.DANE
		}
		switch {
		case inTime && sts.once != nil:
			v.STS = policy.OncePolicy(sts.once)
		case inTime && sts.fault != nil && !v.STS.Known:
			v.STS.Fault = policy.ReasonOf(sts.fault)
		case inTime && sts.learned != nil && !v.STS.Known:
			v.STS = policy.ReadSTS(sts.learned, now) // the store could not take it
		case sts != nil && !inTime && !v.STS.Known:
			v.STS.Reason = "not waited for"
		}
		e = &entry{hop: v.Hop, answer: v.Answer(cfg.Settings), noted: rec.LastUsed}
		e.lastUsed.Store(now.Unix())
		if e.answer.Until.After(now) {
			l.keep(e, cfg)
		}
	})
	return e
}

// evaluation is a finished evaluation of DANE.
type evaluation struct {
	facts policy.DANEFacts // beside the evidence before it
	res   *dane.Result     // nil: it was not waited for
}

// awaitDANE evaluates DANE and waits for it; where what is last known gives an
// answer, not for long.
func (l *lookups) awaitDANE(cfg *Config, rec *store.Record, v policy.View, asked time.Time) evaluation {
	wait := lookupTimeout - 500*time.Millisecond - v.Now.Sub(asked)
	if v.Decide(cfg.Settings).Level != policy.Temporary {
		wait = knownWait
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	var reason string
	select {
	case r := <-l.startDANE(rec, v.Hop, v.Now):
		if done, ok := r.Val.(evaluation); ok {
			return done
		}
		reason = policy.ReasonOf(r.Err)
	case <-timer.C:
		reason = fmt.Sprintf("DNS lookups for %s: no answer within %s", v.Hop.Domain, wait)
	case <-l.ctx.Done():
		reason = errStopping.Error()
	}
	return evaluation{facts: v.DANE.Failed(reason)}
}

// startDANE evaluates a next hop of a record, which was read just now, once for all
// that ask meanwhile, and keeps the result.
func (l *lookups) startDANE(rec *store.Record, hop policy.NextHop, used time.Time) <-chan singleflight.Result {
	return l.flight(&l.danes, hop.String(), func() any {
		last := policy.Endpoint(rec, hop)
		now := l.book.Clock.Now()
		null := last != nil && last.NullMX && now.Before(policy.DANEExpiry(last, now))
		bound := policy.ReadSTS(rec.STS, now).Policy != nil && !null
		ctx, cancel := context.WithTimeout(l.ctx, daneTimeout)
		defer cancel()
		cfg := l.config.Load()
		untrusted := !cfg.trusted()
		res := dane.Lookup(ctx, cfg.Resolver, dane.Target{Domain: hop.Domain, Literal: hop.Literal, Port: hop.Port})
		if err := localFault(&res); err != nil {
			res = dane.Result{MX: dane.MX{Err: err}, Outcome: dane.Outcome{Err: err}}
		}
		if bound {
			// A null MX means that MTA-STS has no say, and it can be forged: it
			// ends no policy that was in force before it was seen.
			res.MX.Null = false
		}
		if l.ctx.Err() != nil {
			return errStopping
		}
		return evaluation{l.book.LearnDANE(hop, res, used, untrusted || !cfg.trusted()), &res}
	})
}

// localFault returns the fault of this host that an evaluation met, which says
// nothing about the domain, or nil.
func localFault(res *dane.Result) error {
	if dnsclient.LocalFault(res.Err) {
		return res.Err
	}
	for i := range res.Hosts {
		if err := res.Hosts[i].Err; dnsclient.LocalFault(err) {
			return err
		}
	}
	return nil
}

// stored makes the answer of what the store knows, or returns nil where that is
// not enough. It goes into memory unless the record is being written just now:
// the lookup does not wait for that, and what is learned then must not be
// overwritten.
func (l *lookups) stored(hop policy.NextHop) (e *entry) {
	l.book.TryLocked(hop.Domain, func(rec store.Record, locked bool) {
		if rec.STS == nil && rec.DANE == nil {
			return
		}
		now, cfg := l.book.Clock.Now(), l.config.Load()
		v := l.view(cfg, &rec, hop, now)
		if !v.Enough(cfg.Settings) {
			return
		}
		e = &entry{hop: hop, answer: v.Answer(cfg.Settings), noted: rec.LastUsed}
		e.lastUsed.Store(now.Unix())
		if locked {
			l.keep(e, cfg)
		} else {
			e.prepare(hop.String())
		}
	})
	return e
}

// recheck starts what a hit on an ageing answer calls for: the TXT record, or for a
// stale answer the lookup that failed. The hit does not wait.
func (l *lookups) recheck(e *entry) {
	if !e.answer.Decision.Stale {
		l.followUp(e, l.sts.startSTS(e.hop.Domain, l.book.Clock.Now(), policy.OnLookup))
		return
	}
	l.start(func() {
		defer e.checking.Store(false)
		<-l.startLookup(e.hop)
		e.lookAgain(l.book.Clock.Now().Add(policy.KeepFailure))
	})
}

// followUp has an entry say when the next background lookup is due, once this one
// has ended, whatever it found.
func (l *lookups) followUp(e *entry, sts *stsFlight) {
	l.start(func() {
		defer e.checking.Store(false)
		<-sts.done
		next := l.book.Clock.Now().Add(sts.nextLook())
		e.txt.Store(next.UnixNano())
		if !e.answer.Decision.Stale {
			e.lookAgain(next)
		}
	})
}
