package policymap

import (
	"math"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"tlspolicyd/policymap/policy"
	"tlspolicyd/policymap/records"
	"tlspolicyd/store"
)

const (
	refreshBatch = 256              // records read in one go, or twice the workers if those are more
	spreadOver   = 10 * time.Minute // overdue work after a start
	maxSleep     = time.Minute      // between two looks at the schedule, the clock and the store
	restMin      = 100 * time.Millisecond
	refreshRetry = 30 * time.Second // pause after a refresh that taught nothing
	defectRetry  = time.Hour        // and after one that ended in a defect of this program
	noteUseEvery = 10 * time.Minute
	noteUseGrain = time.Hour // a last use on disk is exact to this
)

// refresher repeats lookups when they are due. The schedule is in the store:
// a restart neither forgets it nor does anything twice.
type refresher struct {
	*lookups
	concurrency int
	jobs        chan store.Record
	batch       int
	backlog     backlog
	noted       time.Time // when last uses were last written down

	restMu  sync.Mutex
	busy    map[string]bool      // domains that are being refreshed; still due in the store
	resting map[string]time.Time // refreshed and due still: until when they wait
}

func newRefresher(l *lookups, concurrency int) *refresher {
	return &refresher{
		lookups: l, concurrency: concurrency,
		jobs: make(chan store.Record), busy: make(map[string]bool), resting: make(map[string]time.Time),
		batch: max(refreshBatch, 2*concurrency), // those that are being refreshed look due, too
	}
}

// run works until the map is closed.
func (r *refresher) run() {
	var workers sync.WaitGroup
	for range r.concurrency {
		workers.Go(r.worker)
	}
	defer workers.Wait()
	defer close(r.jobs)

	clock := r.book.Clock
	_ = r.guard("", r.book.ClampFuture)
	_ = r.guard("", func() { r.backlog = newBacklog(clock.Now(), r.book) })
	r.noted = clock.Now()
	for r.ctx.Err() == nil {
		next := clock.Now().Add(maxSleep)
		_ = r.guard("", func() { next = r.look() })
		r.wake.until.Store(next.UnixNano())
		timer := time.NewTimer(next.Sub(clock.Now()))
		select {
		case <-timer.C:
		case <-r.wake.up:
			timer.Reset(restMin) // many may come at once
			select {
			case <-timer.C:
			case <-r.ctx.Done():
			}
		case <-r.ctx.Done():
		}
		timer.Stop()
	}
}

// look does what is called for now and returns when to look again.
func (r *refresher) look() (next time.Time) {
	if step := r.book.FollowClock(); step != 0 {
		r.backlog.began = r.backlog.began.Add(step)
		r.observer.ClockStepped(step)
	}
	r.book.Flush()
	if now := r.book.Clock.Now(); now.Sub(r.noted) >= noteUseEvery {
		r.noteUse(noteUseGrain)
		r.noted = now
	}
	r.wake.until.Store(math.MaxInt64) // what is learned from here on wakes
	next = r.handOut()
	if r.book.Behind() {
		next = policy.Earliest(next, r.book.Clock.Now().Add(records.RetryUnsaved))
	}
	return next
}

// handOut gives what is due to the workers and returns when to look again.
func (r *refresher) handOut() (next time.Time) {
	now := r.book.Clock.Now()
	next = r.rested(now, now.Add(maxSleep))
	soon, err := r.book.Due(next, r.batch)
	if err != nil {
		r.observer.StoreFailed("", err)
		return next
	}
	failing, waiting, handed := false, false, false
	for _, rec := range soon {
		if !r.idle(rec.Domain) {
			continue
		}
		newer, unsaved, any := r.book.Unsaved(rec.Domain)
		failing = failing || any
		if unsaved && newer.Due.After(now) {
			continue // done, but the store could not take it
		}
		if rec.Due.After(now) {
			return policy.Earliest(next, rec.Due) // sorted: nothing before this one
		}
		if at := r.backlog.turn(rec.Due, now); at.After(now) {
			next, waiting = policy.Earliest(next, at), true
			continue
		}
		r.setBusy(rec.Domain, true)
		select {
		case r.jobs <- rec:
			handed = true
		case <-r.ctx.Done():
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
// for a while; one that cannot even be delayed stays busy until the next start.
func (r *refresher) work(domain string) {
	if r.guard(domain, func() { r.refresh(domain) }) != nil {
		r.observer.Refreshed(domain, RefreshFailed)
		if r.guard(domain, func() { r.book.Delay(domain, defectRetry) }) != nil {
			return
		}
	}
	due, now := r.book.Get(domain).Due, r.book.Clock.Now()
	if !due.IsZero() && !due.After(now) {
		due = now.Add(policy.MinPause)
		r.rest(domain, due)
	}
	r.setBusy(domain, false)
	if !due.IsZero() {
		r.wake.due(due) // what became due while it was busy was passed over
	}
}

// refresh does what is due for a domain, or lets its record go.
func (r *refresher) refresh(domain string) {
	rec := r.book.Get(domain) // it may have waited for a worker, and changed
	now := r.book.Clock.Now()
	if rec.Due.IsZero() || rec.Due.After(now) {
		return
	}
	used := policy.Latest(policy.NotFuture(rec.LastUsed, now), r.usedInMemory(domain))
	sts := policy.ReadSTS(rec.STS, now)
	stsDue, daneDue := r.config.Load().schedule(domain).DueNow(&rec, sts, now, used)
	started := r.startAgain(&rec, daneDue, stsDue, policy.OnSchedule)
	if len(started) == 0 {
		if r.book.Expire(domain) {
			r.observer.Refreshed(domain, Expired)
			return
		}
		if sts.Ended != nil && !rec.STS.EndReported {
			_ = r.book.Learn(domain, time.Time{}, records.Soon, nil)
		}
	}
	for _, done := range started {
		<-done
	}
	if r.ctx.Err() != nil {
		return
	}
	if len(started) > 0 {
		after := r.book.Get(domain)
		r.observer.Refreshed(domain, outcomeOf(&rec, &after, now, daneDue))
	}
	r.book.Reschedule(domain, refreshRetry) // whatever happened, it must not stay due
}

// outcomeOf compares a record with what it was before a refresh that began at
// the given time and evaluated the endpoints.
func outcomeOf(before, after *store.Record, began time.Time, endpoints []int) Outcome {
	if s := after.STS; s != nil && (!s.FailedAt.Before(began) || s.TXTFailed && !s.CheckedAt.Before(began) && s.FetchedAt.Before(began)) {
		return RefreshFailed
	}
	for _, i := range endpoints {
		was := &before.DANE[i]
		is := policy.Endpoint(after, policy.HopOf(before.Domain, was))
		if is == nil || !is.KnownAt.After(was.KnownAt) || slices.ContainsFunc(is.Hosts, func(h store.Host) bool { return h.Error != "" }) {
			return RefreshFailed
		}
	}
	return Refreshed
}

// rest keeps a domain from being refreshed before a time. It is due in spite of
// a refresh: mostly the store did not take what came of it.
func (r *refresher) rest(domain string, until time.Time) {
	r.restMu.Lock()
	defer r.restMu.Unlock()
	r.resting[domain] = until
}

// rested lets domains go that have waited, and returns when the next one has,
// but no later than at the given time.
func (r *refresher) rested(now, next time.Time) time.Time {
	r.restMu.Lock()
	defer r.restMu.Unlock()
	for domain, until := range r.resting {
		if until.After(now) {
			next = policy.Earliest(next, until)
		} else {
			delete(r.resting, domain)
		}
	}
	return next
}

func (r *refresher) idle(domain string) bool {
	r.restMu.Lock()
	defer r.restMu.Unlock()
	_, rests := r.resting[domain]
	return !rests && !r.busy[domain]
}

func (r *refresher) setBusy(domain string, busy bool) {
	r.restMu.Lock()
	defer r.restMu.Unlock()
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

func newBacklog(now time.Time, b *records.Book) backlog {
	n, err := b.CountDue(now)
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

// startAgain starts the lookups of a record that are called for; each channel is
// closed when one has ended.
func (l *lookups) startAgain(rec *store.Record, endpoints []int, sts bool, why policy.Occasion) (started []<-chan struct{}) {
	if sts {
		started = append(started, l.sts.startSTSFor(rec.Domain, why))
	}
	for i := range rec.DANE {
		if slices.Contains(endpoints, i) {
			started = append(started, ended(l.startDANE(rec, policy.HopOf(rec.Domain, &rec.DANE[i]), time.Time{})))
		}
	}
	return started
}

// ended returns a channel that is closed when a flight has ended.
func ended(flight <-chan singleflight.Result) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		<-flight
	}()
	return done
}
