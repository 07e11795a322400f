package records

import (
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"tlspolicyd/internal/mtasts"
	"tlspolicyd/store"
)

// rewriters is how many records are rewritten at a time: they share disk writes.
const rewriters = 64

// FollowClock takes over a step of the wall clock and moves the stored times
// along, so that facts keep their age. It returns the step, 0 for none. Answers
// in memory are dropped.
func (b *Book) FollowClock() time.Duration {
	step := b.Clock.step()
	if step.Abs() <= clockStep {
		return 0
	}
	b.hooks.ClockStepping()
	if step > 0 {
		// Moved first and followed then: in between, stored times are in the
		// future and count as now. What is learned meanwhile is moved after.
		from := b.Clock.Now().Add(-time.Millisecond) // stored times are exact to that
		b.shiftTimes(step, func(t time.Time) bool { return !t.After(from) })
		until := b.Clock.Now()
		b.Clock.offset.Add(int64(step))
		b.shiftTimes(step, func(t time.Time) bool { return t.After(from) && !t.After(until) })
	} else {
		// Followed first and moved then, and only what was learned since the
		// start: older times may have been right all along. What is learned
		// meanwhile stays.
		began := b.Clock.Began().Add(-time.Second) // stored times are not exact
		b.Clock.offset.Add(int64(step))
		b.hooks.DropAnswers()
		from := b.Clock.Now()
		b.shiftTimes(step, func(t time.Time) bool {
			return t.After(began) && (!t.After(from) || t.After(b.Clock.Now()))
		})
		b.ClampFuture()
	}
	b.hooks.DropAnswers() // their times are of the old clock
	return step
}

// shiftTimes moves the stored times that are picked by step.
func (b *Book) shiftTimes(step time.Duration, picked func(time.Time) bool) {
	b.rewriteTimes(func(t time.Time) time.Time {
		if t.IsZero() || !picked(t) {
			return t
		}
		return t.Add(step)
	})
}

// ClampFuture makes stored times that are in the future the present, for good:
// as long as they only count as now, they never age.
func (b *Book) ClampFuture() {
	now := b.Clock.Now()
	if latest, err := b.disk.latest(); err == nil && !latest.After(now.Add(clockStep)) {
		return // nearly always: a million records are not read for nothing
	}
	b.rewriteTimes(func(t time.Time) time.Time {
		if t.After(now.Add(clockStep)) {
			return now
		}
		return t
	})
}

// rewriteTimes applies move to the times of every record at which something
// was learned, and writes the records that change.
func (b *Book) rewriteTimes(move func(time.Time) time.Time) {
	var g errgroup.Group
	g.SetLimit(rewriters)
	err := b.Each(func(rec store.Record) bool {
		moved := clone(rec)
		if !MoveTimes(&moved, move) {
			return b.ctx.Err() == nil
		}
		g.Go(func() error {
			return b.guard(rec.Domain, func() {
				_ = b.Learn(rec.Domain, time.Time{}, AsNeeded, func(rec *store.Record) { MoveTimes(rec, move) })
			})
		})
		return b.ctx.Err() == nil
	})
	_ = g.Wait() // Learn and guard have reported it
	if err != nil {
		b.hooks.StoreFailed("", err)
	}
}

// MoveTimes applies move to the times of a record at which something was
// learned, and reports whether any changed. Lifetimes stay as long as they were.
func MoveTimes(rec *store.Record, move func(time.Time) time.Time) (moved bool) {
	shift := func(t *time.Time) {
		if to := move(*t); !to.Equal(*t) {
			*t, moved = to, true
		}
	}
	shift(&rec.LastUsed)
	if rec.STS != nil {
		sts := *rec.STS
		moved = moveFetch(&sts, move) || moved
		shift(&sts.CheckedAt)
		shift(&sts.FailedAt)
		shift(&sts.SharedSince)
		rec.STS = &sts
	}
	for i := range rec.DANE {
		d := &rec.DANE[i]
		ttl := d.ExpiresAt.Sub(d.KnownAt)
		shift(&d.KnownAt)
		d.Hosts = slices.Clone(d.Hosts)
		for j := range d.Hosts {
			shift(&d.Hosts[j].KnownAt)
		}
		d.ExpiresAt = d.KnownAt.Add(ttl)
	}
	return moved
}

// moveFetch moves the time of a fetch. Forward that prolongs the policy, if the
// clock was right and the host slept: so one step is followed, however far it
// goes, and others until the next fetch only up to max_age in all.
func moveFetch(s *store.STS, move func(time.Time) time.Time) bool {
	to := move(s.FetchedAt)
	by := to.Sub(s.FetchedAt)
	if by == 0 {
		return false
	}
	if by > 0 && s.Moved > 0 {
		if p, err := mtasts.ParsePolicy(s.Policy); err != nil || s.Moved+by > p.MaxAge {
			return false
		}
	}
	s.FetchedAt = to
	s.Moved += max(by, 0)
	return true
}

func clone(rec store.Record) store.Record {
	rec.DANE = append([]store.DANE(nil), rec.DANE...)
	return rec
}
