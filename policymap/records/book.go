// Package records is the only writer of the store. The cold lookup, background
// lookups, the refresher, imports and the clock all change what is known through
// Book.Learn, LearnDANE, LearnSTS and LearnShared, under a lock for its domain, so that no change
// is lost and the answers in memory follow each one; keep writes it. Reschedule and
// Delay move the due time alone.
package records

import (
	"context"
	"hash/maphash"
	"reflect"
	"time"

	"tlspolicyd/internal/dane"
	"tlspolicyd/policymap/policy"
	"tlspolicyd/share"
	"tlspolicyd/store"
)

// maxEndpoints bounds the ways of asking for one domain that are kept: ports,
// with and without brackets.
const maxEndpoints = 16

// RetryUnsaved is the pause between attempts to write what the store could not
// take.
const RetryUnsaved = 10 * time.Second

// clockTrusted is the time after a start by when a time service has set a wrong
// clock.
const clockTrusted = time.Hour

// Urgency is when a change has to be on disk.
type Urgency uint8

const (
	AsNeeded Urgency = iota // at once where the record holds or held a policy or TLSA records, else soon
	Soon                    // within about a second
	AtOnce                  // when Learn returns
)

// Hooks connect a book with its user. All are required. They must not call the
// book, except ClockStepping.
type Hooks struct {
	Schedule func(domain string) policy.Schedule // when facts of a domain are refreshed
	LastUsed func(domain string) time.Time       // the last lookup that memory knows of

	Written     func(rec *store.Record, sts policy.STSFacts, now time.Time) // answers in memory follow; the domain is locked
	Forgotten   func(domain string)                                         // answers in memory go; the domain is locked
	DropAnswers func()                                                      // all answers in memory go
	Due         func(time.Time)                                             // something is due then

	ClockStepping func()                         // the clock is about to follow a step
	Changed       func(policy.Change)            // a policy or DANE state became another one
	StoreFailed   func(domain string, err error) // facts are in memory only
	Defect        func(domain string, recovered any) error
}

// Book keeps the records. It is safe for concurrent use.
type Book struct {
	Clock *Clock

	hooks Hooks
	disk  disk
	ctx   context.Context // ends long work over many records
	seed  maphash.Seed
	locks [256]domainLock // by domain
}

// New makes a book on a store, which the caller closes after the last use of the
// book. ctx ends work over many records early.
func New(ctx context.Context, s store.Store, c *Clock, h Hooks) *Book {
	b := &Book{Clock: c, hooks: h, ctx: ctx, seed: maphash.MakeSeed(), disk: disk{store: s, unsaved: make(map[string]store.Record)}}
	for i := range b.locks {
		b.locks[i] = make(domainLock, 1)
	}
	return b
}

// domainLock is a mutex made of a channel: its holder may wait for the disk, and
// in a synctest bubble time goes on while others wait for a channel only.
type domainLock chan struct{}

func (d domainLock) Lock()   { d <- struct{}{} }
func (d domainLock) Unlock() { <-d }

func (d domainLock) TryLock() bool {
	select {
	case d <- struct{}{}:
		return true
	default:
		return false
	}
}

func (b *Book) lock(domain string) domainLock {
	return b.locks[maphash.String(b.seed, domain)%uint64(len(b.locks))]
}

// guard runs work on the record of a domain. A defect that it meets is reported
// and returned, and the work on other records goes on.
func (b *Book) guard(domain string, work func()) (met error) {
	defer func() {
		if r := recover(); r != nil {
			met = b.hooks.Defect(domain, r)
		}
	}()
	work()
	return nil
}

// Get returns the record of a domain, or an empty one. A record that cannot be
// read counts as none: it is learned again.
func (b *Book) Get(domain string) store.Record { return b.disk.get(domain) }

// Locked calls fn with the record of a domain while no one else changes it.
func (b *Book) Locked(domain string, fn func(store.Record)) {
	mu := b.lock(domain)
	mu.Lock()
	defer mu.Unlock()
	fn(b.disk.get(domain))
}

// TryLocked is Locked, but does not wait: locked is false where the record is
// being changed.
func (b *Book) TryLocked(domain string, fn func(rec store.Record, locked bool)) {
	mu := b.lock(domain)
	locked := mu.TryLock()
	if locked {
		defer mu.Unlock()
	}
	fn(b.disk.get(domain), locked)
}

// Learn changes the record of a domain and has the answers in memory follow.
// What Postfix may be told to insist on is on disk when it returns (8461 §10);
// mere absences are written soon. used is the lookup that wanted to know, zero
// for none. An error means that the record is in memory only; StoreFailed has
// been called.
func (b *Book) Learn(domain string, used time.Time, when Urgency, change func(*store.Record)) error {
	mu := b.lock(domain)
	mu.Lock()
	defer mu.Unlock()
	rec := clone(b.disk.get(domain))
	held := rec.Class
	if change != nil {
		change(&rec)
	}
	rec.Domain = domain
	return b.keep(rec, used, when, held)
}

// keep finishes the change of a record, which had the given class. The domain is
// locked.
func (b *Book) keep(rec store.Record, used time.Time, when Urgency, held store.Class) error {
	rec.Class = policy.ClassOf(&rec)
	now := b.Clock.Now()
	sts := policy.ReadSTS(rec.STS, now)
	rec.LastUsed = policy.Latest(policy.NotFuture(rec.LastUsed, now), used, b.hooks.LastUsed(rec.Domain))
	b.reportEnd(&rec, sts, now)
	rec.Due = b.hooks.Schedule(rec.Domain).Next(&rec, sts, now, rec.LastUsed)
	if when == AsNeeded && (held == store.Positive || rec.Class == store.Positive) {
		when = AtOnce
	}
	err := b.disk.put(rec, when == AtOnce)
	if err != nil {
		b.hooks.StoreFailed(rec.Domain, err)
	}
	b.hooks.Written(&rec, sts, now)
	b.hooks.Due(rec.Due)
	switch {
	case err != nil:
		b.hooks.Due(now.Add(RetryUnsaved))
	case when == AtOnce && b.disk.behind():
		b.hooks.Due(now) // the disk works again: what waits goes out too
	}
	return err
}

// reportEnd reports, once, that a policy is over: its max_age ended and no newer
// one could be had.
func (b *Book) reportEnd(rec *store.Record, sts policy.STSFacts, now time.Time) {
	if rec.STS == nil || rec.STS.EndReported == (sts.Ended != nil) {
		return
	}
	changed := *rec.STS
	changed.EndReported = sts.Ended != nil // back in force: the clock had run ahead
	rec.STS = &changed
	if sts.Ended != nil {
		inUse := now.Sub(rec.LastUsed) <= b.hooks.Schedule(rec.Domain).UnusedFor
		b.hooks.Changed(policy.EndOfSTS(rec.Domain, sts.Ended, inUse))
	}
}

// LearnDANE merges an evaluation into the evidence of a next hop, and returns what
// that comes to now. An evaluation whose MX lookup failed teaches nothing.
// unvalidated says that the AD bits of the resolver may not have counted.
func (b *Book) LearnDANE(hop policy.NextHop, res dane.Result, used time.Time, unvalidated bool) (facts policy.DANEFacts) {
	if res.MX.Answer == dane.MXFailed {
		rec := b.disk.get(hop.Domain)
		facts, _, _ = policy.Evaluated(policy.Endpoint(&rec, hop), hop, res, unvalidated, b.Clock.Now())
		return facts
	}
	_ = b.Learn(hop.Domain, used, AsNeeded, func(rec *store.Record) {
		now, old := b.Clock.Now(), policy.Endpoint(rec, hop)
		if old != nil && sameMoment(old.KnownAt, now) {
			now = old.KnownAt.Add(time.Millisecond) // that it was looked up again must show
		}
		var merged store.DANE
		facts, merged, _ = policy.Evaluated(old, hop, res, unvalidated, now)
		if change, ok := policy.ChangeOfDANE(hop, old, merged, now); ok {
			b.hooks.Changed(change)
		}
		if old != nil {
			*old = merged
			return
		}
		if len(rec.DANE) >= maxEndpoints {
			rec.DANE = dropOldest(rec.DANE)
		}
		rec.DANE = append(rec.DANE, merged)
	})
	return facts
}

// sameMoment reports whether two evaluations are less than the millisecond apart
// to which a record keeps times; several in one millisecond are a few ahead.
func sameMoment(before, now time.Time) bool {
	ahead := before.UnixMilli() - now.UnixMilli()
	return ahead >= 0 && ahead < 10
}

func dropOldest(list []store.DANE) []store.DANE {
	oldest := 0
	for i := range list {
		if list[i].KnownAt.Before(list[oldest].KnownAt) {
			oldest = i
		}
	}
	return append(list[:oldest], list[oldest+1:]...)
}

// LearnSTS changes the MTA-STS facts of a domain, of which change gets a copy, and
// returns them. Where a policy is in force and nothing but the time of checking
// moved, nothing is written.
func (b *Book) LearnSTS(domain string, used time.Time, change func(s *store.STS, now time.Time)) (learned *store.STS) {
	b.changeSTS(domain, used, AsNeeded, func(s *store.STS, now time.Time) bool {
		change(s, now)
		learned = s
		return true
	})
	return learned
}

// LearnShared takes over a policy that another host fetched, as far as policy.Adopt
// allows with the id of the TXT record. used is the lookup that wanted to know, zero
// for none: then it is written soon.
func (b *Book) LearnShared(domain string, used time.Time, p share.Policy, txtID string) (outcome policy.Adoption) {
	when := AsNeeded
	if used.IsZero() {
		when = Soon
	}
	b.changeSTS(domain, used, when, func(s *store.STS, now time.Time) bool {
		outcome = policy.Adopt(s, p, txtID, now)
		return outcome == policy.Adopted
	})
	return outcome
}

// changeSTS has change alter a copy of the MTA-STS facts, and keeps it if change
// returns true.
func (b *Book) changeSTS(domain string, used time.Time, when Urgency, change func(s *store.STS, now time.Time) bool) {
	mu := b.lock(domain)
	mu.Lock()
	defer mu.Unlock()
	rec := clone(b.disk.get(domain))
	now := b.Clock.Now()
	before, after := policy.ReadSTS(rec.STS, now), store.STS{}
	if rec.STS != nil {
		after = *rec.STS
	}
	if !change(&after, now) || before.Policy != nil && !after.TXTGone && reflect.DeepEqual(after, checkedAgain(*rec.STS, &after)) {
		return
	}
	if c, ok := policy.ChangeOfSTS(domain, before, policy.ReadSTS(&after, now)); ok {
		b.hooks.Changed(c)
	}
	rec.Domain, rec.STS = domain, &after
	_ = b.keep(rec, used, when, rec.Class)
}

// checkedAgain returns facts as though nothing but the time of checking moved.
func checkedAgain(before store.STS, after *store.STS) store.STS {
	before.CheckedAt, before.TXTTTL = after.CheckedAt, after.TXTTTL
	return before
}

// Reschedule gives a record that is due a later time, by what is in it but not
// before the pause is over.
func (b *Book) Reschedule(domain string, pause time.Duration) {
	b.Locked(domain, func(rec store.Record) {
		now := b.Clock.Now()
		if rec.Due.IsZero() || rec.Due.After(now) {
			return
		}
		next := b.hooks.Schedule(domain).Next(&rec, policy.ReadSTS(rec.STS, now), now, rec.LastUsed)
		rec.Due = policy.Latest(next, now.Add(pause))
		_ = b.disk.put(rec, false) // what is written later cannot fail now
	})
}

// Delay makes a record due after a pause, without reading what is in it.
func (b *Book) Delay(domain string, pause time.Duration) {
	b.Locked(domain, func(rec store.Record) {
		if rec.Due.IsZero() {
			return // it has gone
		}
		rec.Due = b.Clock.Now().Add(pause)
		_ = b.disk.put(rec, false)
	})
}

// Expire removes a record in which nothing can be used any more, and reports
// whether it did. Expired policies outlive the first hour after a start: the
// clock may have run ahead.
func (b *Book) Expire(domain string) (expired bool) {
	b.Locked(domain, func(rec store.Record) {
		now := b.Clock.Now()
		if now.Before(policy.KeepUntil(&rec, policy.ReadSTS(rec.STS, now), now)) {
			return
		}
		if rec.Class == store.Positive && now.Sub(b.Clock.Began()) < clockTrusted {
			rec.Due = b.Clock.Began().Add(policy.Jitter(domain, clockTrusted*5/4)) // spread over minutes
			_ = b.disk.put(rec, false)
			return
		}
		err := b.forget(context.Background(), domain)
		if err != nil {
			b.hooks.StoreFailed(domain, err)
		}
		expired = err == nil // else it is due again later
	})
	return expired
}

// Forget removes the record of a domain, without reading it, and the answers in
// memory that rest on it.
func (b *Book) Forget(ctx context.Context, domain string) error {
	mu := b.lock(domain)
	mu.Lock()
	defer mu.Unlock()
	return b.forget(ctx, domain)
}

func (b *Book) forget(ctx context.Context, domain string) error {
	ctx, cancel := context.WithTimeout(ctx, LongestWrite)
	defer cancel()
	err := b.disk.remove(ctx, domain)
	b.hooks.Forgotten(domain)
	return err
}

// Each calls fn for every record in order of domain, those that the store could
// not take among them, until fn returns false. A record at which fn meets a
// defect is reported, and the next one follows.
func (b *Book) Each(fn func(store.Record) bool) error { return b.Walk(store.Scan{}, fn) }

// Walk is Each in the order of a scan.
func (b *Book) Walk(scan store.Scan, fn func(store.Record) bool) error {
	return b.disk.walk(scan, func(rec store.Record) bool {
		more := true
		_ = b.guard(rec.Domain, func() { more = fn(rec) })
		return more
	})
}

// Due returns records that are due at t, earliest first and at most limit of
// them, as the store has them.
func (b *Book) Due(t time.Time, limit int) ([]store.Record, error) { return b.disk.store.Due(t, limit) }

// CountDue returns how many records are due at t.
func (b *Book) CountDue(t time.Time) (int, error) { return b.disk.store.CountDue(t) }

// Unsaved returns the record of a domain that the store could not take, and
// whether there are any such.
func (b *Book) Unsaved(domain string) (rec store.Record, ok, any bool) { return b.disk.waiting(domain) }

// Behind reports whether there are records that the store could not take.
func (b *Book) Behind() bool { return b.disk.behind() }
