package records

import (
	"sync/atomic"
	"time"
)

// clockStep is the step of the wall clock that is followed; a smaller one is
// ignored.
const clockStep = time.Minute

// Clock is the time by which facts age. It starts at the wall clock and then
// runs with the monotonic one, so that setting the wall clock neither ends a
// policy nor prolongs one. It is safe for concurrent use.
type Clock struct {
	start  time.Time
	wall   func() time.Time
	offset atomic.Int64 // sum of the steps followed, nanoseconds
}

// NewClock makes a clock; wall is the wall clock, nil for that of the machine.
func NewClock(wall func() time.Time) *Clock {
	if wall == nil {
		wall = time.Now
	}
	c := &Clock{start: time.Now(), wall: wall}
	c.offset.Store(int64(wall().Round(0).Sub(c.start.Round(0))))
	return c
}

// Now neither allocates nor makes a system call.
func (c *Clock) Now() time.Time {
	return c.start.Add(time.Since(c.start) + time.Duration(c.offset.Load()))
}

// Began returns the start of the clock in its own time.
func (c *Clock) Began() time.Time { return c.start.Add(time.Duration(c.offset.Load())) }

// step returns how far the wall clock is ahead.
func (c *Clock) step() time.Duration {
	return c.wall().Round(0).Sub(c.Now().Round(0))
}
