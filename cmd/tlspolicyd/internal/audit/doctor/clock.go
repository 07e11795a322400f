package doctor

import "time"

// Clock is what is known of the wall clock.
type Clock struct {
	Now          time.Time
	Synchronised bool   // as the kernel has it (adjtimex(2))
	Untold       string // why that is not known; ""
}

func gatherClock(now time.Time) Clock {
	c := Clock{Now: now}
	synchronised, err := kernelSynchronised()
	if err != nil {
		c.Untold = err.Error()
	}
	c.Synchronised = synchronised
	return c
}
