package policymap

import (
	"bytes"
	"context"
	"errors"
	"sync/atomic"
	"time"

	"tlspolicyd/internal/mtasts"
	"tlspolicyd/policymap/policy"
	"tlspolicyd/share"
)

// This file is what lookups have of a fleet: policies that other hosts fetched. It
// is asked beside DNS and never instead of it, and where it does not answer, this
// host does everything itself. What is believed is in package policy (Adopt).

const (
	txtGrace   = 250 * time.Millisecond // how long a lookup waits for TXT where a shared policy could answer
	firstPause = 20 * time.Millisecond  // between two looks whether another host has fetched
	lastPause  = 200 * time.Millisecond
	maxHinted  = 32 // fetches at a time because another host has another file
)

// shared is the state of that.
type shared struct {
	hinted         chan struct{} // one token for each fetch for a hint
	adopted, hints atomic.Uint64
}

func newShared() shared { return shared{hinted: make(chan struct{}, maxHinted)} }

// asked is the question to the fleet of a lookup where no policy is in force here;
// nil: it was not asked.
type asked struct {
	l     *stsLookups
	cfg   *Config
	f     *stsFlight
	began time.Time
	adopt func(txtID string) bool
	done  chan struct{} // closed when the fleet answered

	waited time.Duration // for the fleet after TXT was known; of settle

	// Set before done is closed.
	err    error        // of Ask
	policy share.Policy // these where there is none
	at     time.Time
	late   *time.Timer // has it adopted, if nothing better is known by then
}

// askFleet asks the other hosts for a policy while the TXT record is looked up. If
// that takes long, what they have is adopted meanwhile.
func (l *stsLookups) askFleet(ctx context.Context, cfg *Config, f *stsFlight, domain string, used time.Time) *asked {
	if l.fleet == nil || policy.ReadSTS(l.book.Get(domain).STS, l.book.Clock.Now()).Policy != nil {
		return nil
	}
	a := &asked{l: l, cfg: cfg, f: f, began: time.Now(), done: make(chan struct{}), err: share.ErrDown}
	a.adopt = func(txtID string) bool { return l.adopt(f, domain, used, a.current(), txtID) }
	l.work.Go(func() {
		defer close(a.done)
		_ = l.guard(domain, func() {
			a.policy, a.err = l.fleet.Ask(ctx, domain)
			if a.at = time.Now(); a.err != nil {
				return
			}
			a.late = time.AfterFunc(txtGrace-time.Since(a.began), func() {
				l.start(func() { _ = l.guard(domain, func() { a.adopt("") }) })
			})
		})
	})
	return a
}

// current is the policy with its age now.
func (a *asked) current() share.Policy {
	p := a.policy
	p.Age += time.Since(a.at)
	return p
}

// settle is told what the TXT lookup found. The policy of another host is adopted
// where there is no record, or one of the same id. With another id it waits for a
// fetch, but not past the time that a lookup does.
func (a *asked) settle(txt mtasts.RecordResult) {
	if a == nil {
		return
	}
	began := time.Now()
	<-a.done // the fleet takes share.timeout at most
	a.waited = time.Since(began)
	switch {
	case a.err != nil:
	case !txt.Found, txt.Record.ID == a.policy.ID:
		a.late.Stop()
		a.adopt(idOf(txt))
	default:
		a.late.Reset(a.cfg.FetchWait*3/4 - time.Since(a.began))
	}
}

// failed adopts what there is, because this host could not fetch.
func (a *asked) failed() {
	if a != nil && a.err == nil {
		a.adopt("")
	}
}

func (a *asked) stop() {
	if a == nil {
		return
	}
	<-a.done
	if a.late != nil {
		a.late.Stop()
	}
}

// adopt takes over a policy of another host for a flight, and reports whether it is
// in force now; watch may have been faster.
func (l *stsLookups) adopt(f *stsFlight, domain string, used time.Time, p share.Policy, txtID string) bool {
	outcome := l.learn(domain, used, p, txtID)
	if outcome != policy.Adopted && outcome != policy.SameAge {
		return false
	}
	f.adoptOnce.Do(func() { close(f.adopted) })
	return true
}

func (l *stsLookups) learn(domain string, used time.Time, p share.Policy, txtID string) policy.Adoption {
	outcome := l.book.LearnShared(domain, used, p, txtID)
	if outcome == policy.Adopted {
		l.shared.adopted.Add(1)
	}
	return outcome
}

// obtain gets the policy of a domain: from the host that has just fetched it, or by
// a fetch of which the other hosts have the use.
func (l *stsLookups) obtain(ctx context.Context, cfg *Config, f *stsFlight, domain string, used time.Time, txt mtasts.RecordResult, others *asked) fetched {
	if l.fleet == nil {
		return l.fetch(ctx, cfg, domain, f.why)
	}
	var lease share.Lease
	if others == nil || answered(others.err) {
		var adopted bool
		if lease, adopted = l.claim(ctx, cfg, f, domain, used, txt, others); adopted {
			return fetched{}
		}
	}
	got := l.fetch(ctx, cfg, domain, f.why)
	if got.policy == nil || got.policy.Policy.MaxAge == 0 {
		l.fleet.Release(domain, lease)
		if got.err != nil {
			others.failed()
		}
		return got
	}
	id := idOf(txt)
	if known := l.book.Get(domain).STS; id == "" && bytes.Equal(known.Policy, got.policy.Body) {
		id = known.PolicyID // an offer without an id would have each host fetch the same file again
	}
	l.fleet.Offer(domain, share.Policy{File: got.policy.Body, ID: id}, lease)
	return got
}

// claim gets the right to fetch for the fleet. While another host has it, this one
// waits for what that fetches, and adopts it. Where nothing comes of it, it fetches
// without: no other host can keep it from that.
func (l *stsLookups) claim(ctx context.Context, cfg *Config, f *stsFlight, domain string, used time.Time, txt mtasts.RecordResult, others *asked) (lease share.Lease, adopted bool) {
	began, schedule := time.Now(), cfg.schedule(domain)
	known, now := l.book.Get(domain).STS, l.book.Clock.Now()
	inForce := policy.ReadSTS(known, now).Policy != nil
	if f.why == policy.OnRequest || schedule.Own(known, now) || inForce && txt.Found && txt.Record.ID != known.PolicyID {
		return lease, false // of a new id the file is another one, which is not adopted
	}
	adopt := func(p share.Policy, err error) bool {
		return err == nil && (!txt.Found || p.ID == txt.Record.ID) && (!inForce || young(schedule, p)) && l.adopt(f, domain, used, p, idOf(txt))
	}
	left := cfg.ShareTimeout // a lookup waits for the engine no longer, in all
	if others != nil {
		if left -= others.waited; left < others.at.Sub(others.began) {
			return lease, false // it would not answer within that
		}
	} else { // what there is may do without a lease
		p, err := l.fleet.Ask(ctx, domain)
		if adopted = adopt(p, err); adopted || !answered(err) {
			return lease, adopted
		}
	}
	first, cancel := context.WithTimeout(ctx, left)
	defer cancel()
	for limited, pause := first, firstPause; ; limited, pause = ctx, min(2*pause, lastPause) {
		lease, p, err := l.fleet.Claim(limited, domain)
		if adopt(p, err) {
			l.fleet.Release(domain, lease)
			return share.Lease{}, true
		}
		if lease.Token != "" || !answered(err) || time.Since(began) > cfg.FetchWait/4 || !sleep(ctx, pause) {
			return lease, false
		}
	}
}

// idOf returns the id of a TXT record; "": there is none.
func idOf(txt mtasts.RecordResult) string {
	if !txt.Found {
		return ""
	}
	return txt.Record.ID
}

// answered reports whether Ask was answered. A host whose engine does not answer,
// or says what it does not believe, waits for it no second time.
func answered(err error) bool { return err == nil || errors.Is(err, share.ErrNone) }

func young(s policy.Schedule, p share.Policy) bool {
	parsed, err := mtasts.ParsePolicy(p.File)
	return err == nil && s.Young(parsed.MaxAge, p.Age)
}

// sleep waits, and reports whether ctx has not ended.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// watch adopts what other hosts fetch, and fetches what they have another file of,
// until the map is closed.
func (l *stsLookups) watch() {
	l.fleet.Watch(l.ctx, func(domain string, p share.Policy) {
		_ = l.guard(domain, func() { l.heard(domain, p) })
	})
}

func (l *stsLookups) heard(domain string, p share.Policy) {
	outcome := l.learn(domain, time.Time{}, p, "")
	now := l.book.Clock.Now()
	used := policy.Latest(l.book.Get(domain).LastUsed, l.usedInMemory(domain))
	if outcome != policy.Hint || now.Sub(used) > l.config.Load().UnusedFor {
		return
	}
	select {
	case l.hinted <- struct{}{}:
	case <-l.ctx.Done():
		return
	}
	l.hints.Add(1)
	if !l.start(func() {
		defer func() { <-l.hinted }()
		<-l.startSTSFor(domain, policy.OnSchedule)
	}) {
		<-l.hinted
	}
}

// Shared counts what came of other hosts since the start.
type Shared struct {
	Adopted uint64 // policies taken over
	Hints   uint64 // fetches because another host had another file
}

// Shared returns the counts.
func (m *Map) Shared() Shared {
	return Shared{m.sts.shared.adopted.Load(), m.sts.hints.Load()}
}
