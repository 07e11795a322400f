package policymap

import (
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"tlspolicyd/internal/mtasts"
	"tlspolicyd/store"
)

// clockStep is the step of the wall clock that is followed; a smaller one is
// left alone.
const clockStep = time.Minute

// clock is the time by which facts age. It starts at the wall clock and then
// runs with the monotonic one, so that setting the wall clock ends no policy
// and prolongs none.
type clock struct {
	start  time.Time
	wall   func() time.Time
	offset atomic.Int64 // sum of the steps followed, nanoseconds
}

func newClock(wall func() time.Time) *clock {
	if wall == nil {
		wall = time.Now
	}
	c := &clock{start: time.Now(), wall: wall}
	c.offset.Store(int64(wall().Round(0).Sub(c.start.Round(0))))
	return c
}

// now neither allocates nor makes a system call.
func (c *clock) now() time.Time {
	return c.start.Add(time.Since(c.start) + time.Duration(c.offset.Load()))
}

// began returns the start of the clock in the facts' time.
func (c *clock) began() time.Time { return c.start.Add(time.Duration(c.offset.Load())) }

// step returns how far the wall clock is ahead of the facts' time.
func (c *clock) step() time.Duration {
	return c.wall().Round(0).Sub(c.now().Round(0))
}

// followClock takes over a step of the wall clock and moves the stored times
// along, so that facts keep their age.
func (m *Map) followClock() {
	step := m.clock.step()
	if step.Abs() > clockStep {
		m.noteUse(usedGrain * time.Second) // while memory still knows
	}
	switch {
	case step > clockStep:
		// Moved first and followed then: in between, stored times lie in the
		// future and count as now. What is learned meanwhile is moved after.
		from := m.clock.now().Add(-time.Millisecond) // stored times are exact to that
		m.shiftTimes(step, func(t time.Time) bool { return !t.After(from) })
		until := m.clock.now()
		m.clock.offset.Add(int64(step))
		m.shiftTimes(step, func(t time.Time) bool { return t.After(from) && !t.After(until) })
	case step < -clockStep:
		// Followed first and moved then, and only what was learned since the
		// start: times of before may have been right all along. What is learned
		// meanwhile stays.
		began := m.clock.began().Add(-time.Second) // stored times are not exact
		m.clock.offset.Add(int64(step))
		m.cache.clear()
		from := m.clock.now()
		m.shiftTimes(step, func(t time.Time) bool {
			return t.After(began) && (!t.After(from) || t.After(m.clock.now()))
		})
		m.clampFuture()
	default:
		return
	}
	m.cache.clear() // its times are of the old clock
	m.observer.ClockStepped(step)
}

// shiftTimes moves the stored times that are picked by step.
func (m *Map) shiftTimes(step time.Duration, picked func(time.Time) bool) {
	m.rewriteTimes(func(t time.Time) time.Time {
		if t.IsZero() || !picked(t) {
			return t
		}
		return t.Add(step)
	})
}

// clampFuture makes stored times that lie in the future the present, for good:
// what merely counts as now would do so for ever.
func (m *Map) clampFuture() {
	now := m.clock.now()
	if latest, err := m.ledger.latest(); err == nil && !latest.After(now.Add(clockStep)) {
		return // as nearly always: a million records are not read for nothing
	}
	m.rewriteTimes(func(t time.Time) time.Time {
		if t.After(now.Add(clockStep)) {
			return now
		}
		return t
	})
}

// rewriteTimes applies move to the times of every record at which something
// was learned, and writes those that change.
func (m *Map) rewriteTimes(move func(time.Time) time.Time) {
	var g errgroup.Group
	g.SetLimit(64) // they share disk writes
	err := m.ledger.each(func(rec store.Record) bool {
		domain, moves := rec.Domain, false
		moved := cloneRecord(rec)
		_ = m.contain(domain, func() { moves = moveTimes(&moved, move) })
		if !moves {
			return m.ctx.Err() == nil
		}
		g.Go(func() error {
			_ = m.contain(domain, func() {
				_ = m.learn(domain, time.Time{}, asNeeded, func(rec *store.Record) { moveTimes(rec, move) })
			})
			return nil
		})
		return m.ctx.Err() == nil
	})
	_ = g.Wait() // never fails: learn reports for itself
	if err != nil {
		m.observer.StoreFailed("", err)
	}
}

// moveTimes reports whether anything moved. Lifetimes stay as long as they were.
func moveTimes(rec *store.Record, move func(time.Time) time.Time) (moved bool) {
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
		rec.STS = &sts
	}
	for i := range rec.DANE {
		d := &rec.DANE[i]
		ttl := d.ExpiresAt.Sub(d.KnownAt)
		shift(&d.KnownAt)
		d.ExpiresAt = d.KnownAt.Add(ttl)
	}
	return moved
}

// moveFetch moves the time of a fetch. Forward that prolongs the policy, if the
// clock was not wrong but the host slept: so one step is followed, however far
// it goes, and others until the next fetch only up to max_age in all.
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

func cloneRecord(rec store.Record) store.Record {
	rec.DANE = append([]store.DANE(nil), rec.DANE...)
	return rec
}
