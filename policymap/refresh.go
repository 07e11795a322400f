package policymap

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"tlspolicyd/store"
)

const (
	refreshBatch = 256              // records looked at in one go, or twice the workers if those are more
	spreadOver   = 10 * time.Minute // overdue work after a start
	maxSleep     = time.Minute      // between looks at the schedule, the clock and the store
	retryUnsaved = 10 * time.Second // between attempts to write what the store could not take
	restMin      = 100 * time.Millisecond
	refreshRetry = 30 * time.Second // pause after a refresh that taught nothing
	defectRetry  = time.Hour        // and after one that ended in a defect of this program
	clockTrusted = time.Hour        // after a start, when the time service has had its say
	noteUseEvery = 10 * time.Minute
	noteUseGrain = time.Hour // a last use on disk is exact to this
)

// alarm wakes the refresher when something is due before it meant to get up.
type alarm struct {
	ring  chan struct{}
	until atomic.Int64 // Unix nanoseconds of the facts' time
}

func (a *alarm) due(t time.Time) {
	if t.UnixNano() < a.until.Load() {
		select {
		case a.ring <- struct{}{}:
		default:
		}
	}
}

// refresher repeats lookups when they are due. The schedule is in the store:
// a restart neither forgets it nor does anything twice.
func (m *Map) refresher() {
	r := &refresher{
		m: m, jobs: make(chan store.Record), busy: make(map[string]bool), resting: make(map[string]time.Time),
		batch: max(refreshBatch, 2*m.concurrency), // those that are being refreshed look due, too
	}
	var workers sync.WaitGroup
	for range m.concurrency {
		workers.Go(r.worker)
	}
	defer workers.Wait()
	defer close(r.jobs)

	_ = m.contain("", m.clampFuture)
	_ = m.contain("", func() { r.backlog = newBacklog(m.clock.now(), m.ledger.store) })
	r.noted = m.clock.now()
	for m.ctx.Err() == nil {
		next := m.clock.now().Add(maxSleep)
		_ = m.contain("", func() { next = r.look() })
		m.alarm.until.Store(next.UnixNano())
		timer := time.NewTimer(next.Sub(m.clock.now()))
		select {
		case <-timer.C:
		case <-m.alarm.ring:
			timer.Reset(restMin) // many may ring at once
			select {
			case <-timer.C:
			case <-m.ctx.Done():
			}
		case <-m.ctx.Done():
		}
		timer.Stop()
	}
}

type refresher struct {
	m       *Map
	jobs    chan store.Record
	batch   int
	backlog backlog
	noted   time.Time // when last uses were last written down

	mu      sync.Mutex
	busy    map[string]bool      // domains that are being refreshed; still due in the store
	resting map[string]time.Time // those that were, are due still, and until when they wait
}

// look does what is called for now and returns when to look again.
func (r *refresher) look() (next time.Time) {
	m := r.m
	m.followClock()
	m.ledger.flush(m.contain)
	if now := m.clock.now(); now.Sub(r.noted) >= noteUseEvery {
		m.noteUse(noteUseGrain)
		r.noted = now
	}
	m.alarm.until.Store(math.MaxInt64) // what is learned from here on rings
	next = r.handOut()
	if m.ledger.behind() {
		next = earliest(next, m.clock.now().Add(retryUnsaved))
	}
	return next
}

// handOut gives what is due to the workers and returns when to look again.
func (r *refresher) handOut() (next time.Time) {
	now := r.m.clock.now()
	next = r.rested(now, now.Add(maxSleep))
	soon, err := r.m.ledger.store.Due(next, r.batch)
	if err != nil {
		r.m.observer.StoreFailed("", err)
		return next
	}
	failing, waiting, handed := false, false, false
	for _, rec := range soon {
		if !r.idle(rec.Domain) {
			continue
		}
		newer, unsaved, any := r.m.ledger.waiting(rec.Domain)
		failing = failing || any
		if unsaved && newer.Due.After(now) {
			continue // done, but the store could not take it
		}
		if rec.Due.After(now) {
			return earliest(next, rec.Due) // sorted: nothing before this one
		}
		if at := r.backlog.turn(rec.Due, now); at.After(now) {
			next, waiting = earliest(next, at), true
			continue
		}
		r.setBusy(rec.Domain, true)
		select {
		case r.jobs <- rec:
			handed = true
		case <-r.m.ctx.Done():
			return next
		}
	}
	if len(soon) == r.batch && handed && !failing && !waiting {
		return now
	}
	return next // while the store takes nothing, what was done looks due: one batch a minute
}

func (r *refresher) worker() {
	for rec := range r.jobs {
		r.work(rec.Domain)
	}
}

// work refreshes one domain. Where that meets a defect the domain is left alone
// for a while; one that cannot even be put off stays busy until the next start.
func (r *refresher) work(domain string) {
	m := r.m
	if m.contain(domain, func() { m.refresh(domain) }) != nil {
		m.observer.Refreshed(domain, RefreshFailed)
		if m.contain(domain, func() { m.putOff(domain, defectRetry) }) != nil {
			return
		}
	}
	due, now := time.Time{}, m.clock.now()
	_ = m.contain(domain, func() { due = m.ledger.get(domain).Due })
	if !due.IsZero() && !due.After(now) {
		due = now.Add(shortest)
		r.rest(domain, due)
	}
	r.setBusy(domain, false)
	if !due.IsZero() {
		m.alarm.due(due) // what became due while it was busy was passed over
	}
}

// rest keeps a domain from being refreshed before a time. It is due in spite of
// a refresh: mostly the store did not take what came of it.
func (r *refresher) rest(domain string, until time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.resting[domain] = until
}

// rested lets domains go that have waited, and returns when the next one has,
// but no later than at the given time.
func (r *refresher) rested(now, next time.Time) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	for domain, until := range r.resting {
		if until.After(now) {
			next = earliest(next, until)
		} else {
			delete(r.resting, domain)
		}
	}
	return next
}

func (r *refresher) idle(domain string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, rests := r.resting[domain]
	return !rests && !r.busy[domain]
}

func (r *refresher) setBusy(domain string, busy bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if busy {
		r.busy[domain] = true
	} else {
		delete(r.busy, domain)
	}
}

// backlog spreads what was overdue at the start over spreadOver.
type backlog struct {
	began time.Time
	gap   time.Duration
	done  int
}

func newBacklog(now time.Time, s store.Store) backlog {
	n, err := s.CountDue(now)
	if err != nil || n == 0 {
		return backlog{began: now}
	}
	return backlog{began: now, gap: spreadOver / time.Duration(n)}
}

// turn returns when a record that was due at the given time may be refreshed,
// and counts it if that is now.
func (b *backlog) turn(due, now time.Time) time.Time {
	if b.gap == 0 || due.After(b.began) {
		return now
	}
	at := b.began.Add(time.Duration(b.done) * b.gap)
	if !at.After(now) {
		b.done++
	}
	return at
}

// refresh does what is due for a domain, or lets its record go.
func (m *Map) refresh(domain string) {
	rec := m.ledger.get(domain) // it may have waited for a worker, and changed
	now := m.clock.now()
	if rec.Due.IsZero() || rec.Due.After(now) {
		return
	}
	used := latest(notFuture(rec.LastUsed, now), m.usedInMemory(&rec))
	plan := m.schedule(domain)
	isDue := func(t time.Time) bool { return !t.IsZero() && !t.After(now) }

	policy := isDue(plan.stsDue(rec.STS, now, used)) &&
		(readSTS(rec.STS, now).policy != nil || wanted(rec.STS.CheckedAt, used, now))
	dueDANE := func(d *store.DANE) bool {
		return now.Before(daneExpiry(d, now)) && isDue(plan.daneDue(d, now, used)) && now.Sub(used) <= daneTTL(d)+usedGrain*time.Second
	}
	flights := m.lookUpAgain(&rec, dueDANE, policy, onSchedule)
	if len(flights) == 0 {
		if m.expire(domain) {
			m.observer.Refreshed(domain, Expired)
			return
		}
		if endedPolicy(rec.STS, now) != nil && !rec.STS.EndTold {
			_ = m.learn(domain, time.Time{}, soon, nil)
		}
	}
	for _, done := range flights {
		<-done
	}
	if m.ctx.Err() != nil {
		return
	}
	if len(flights) > 0 {
		after := m.ledger.get(domain)
		m.observer.Refreshed(domain, outcomeOf(&rec, &after, now, dueDANE))
	}
	m.postpone(domain, refreshRetry) // whatever happened, it must not stay due
}

// outcomeOf holds a record against what it was before a refresh that began at
// the given time and looked at what dane picks.
func outcomeOf(before, after *store.Record, began time.Time, dane func(*store.DANE) bool) Outcome {
	if after.STS != nil && !after.STS.FailedAt.Before(began) {
		return RefreshFailed
	}
	for i := range before.DANE {
		was := &before.DANE[i]
		is := endpoint(after, hopOf(before.Domain, was))
		if dane(was) && (is == nil || !is.KnownAt.After(was.KnownAt)) {
			return RefreshFailed
		}
	}
	return Refreshed
}

// lookUpAgain starts the lookups of a record that are called for; each channel
// is closed when one has ended.
func (m *Map) lookUpAgain(rec *store.Record, dane func(*store.DANE) bool, policy bool, why occasion) (flights []<-chan struct{}) {
	if policy {
		flights = append(flights, m.lookAtSTS(rec.Domain, why))
	}
	for i := range rec.DANE {
		if d := &rec.DANE[i]; dane(d) {
			done := make(chan struct{})
			result := m.startDANE(hopOf(rec.Domain, d), time.Time{})
			go func() {
				defer close(done)
				<-result
			}()
			flights = append(flights, done)
		}
	}
	return flights
}

// expire removes a record in which nothing can serve any more. Expired policies
// outlive the first hour after a start: the clock may yet turn out to have run
// ahead.
func (m *Map) expire(domain string) bool {
	mu := m.ledger.lock(domain)
	mu.Lock()
	defer mu.Unlock()
	rec := m.ledger.get(domain)
	now := m.clock.now()
	if now.Before(keepUntil(&rec, now)) || rec.Class == store.Positive && now.Sub(m.clock.began()) < clockTrusted {
		return false
	}
	if err := m.forget(context.Background(), domain); err != nil {
		m.observer.StoreFailed(domain, err)
		return false // and due again later, not at once
	}
	return true
}

// forget removes the record of a domain and the answers that rest on it. The
// lock of the domain is held.
func (m *Map) forget(ctx context.Context, domain string) error {
	ctx, cancel := context.WithTimeout(ctx, putTimeout)
	defer cancel()
	err := m.ledger.remove(ctx, domain)
	for _, e := range m.cache.ofDomain(domain) {
		m.cache.remove(e.hop.String())
	}
	return err
}

// noteUse writes down when domains were last asked for, where the store is
// behind by more than grain.
func (m *Map) noteUse(grain time.Duration) {
	m.cache.each(func(e *entry) {
		if e.decision.Row == RowOverride || e.used().Sub(e.noted) <= grain {
			return
		}
		_ = m.contain(e.hop.Domain, func() { _ = m.learn(e.hop.Domain, e.used(), soon, nil) })
	})
}
