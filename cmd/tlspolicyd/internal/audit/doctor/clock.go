package doctor

import (
	"time"

	"tlspolicyd/cmd/tlspolicyd/internal/audit"
)

// Clock is what is known of the wall clock.
type Clock struct {
	Now          time.Time
	Synchronized bool   // as the kernel reports (adjtimex(2))
	Inconclusive string // why that is not known; ""
}

func gatherClock(now time.Time) Clock {
	c := Clock{Now: now}
	synchronized, err := kernelSynchronized()
	if err != nil {
		c.Inconclusive = err.Error()
	}
	c.Synchronized = synchronized
	return c
}

func judgeClock(f Facts) []audit.Finding {
	c := f.Clock
	now := c.Now.UTC().Format(time.RFC3339)
	advice, fix := f.Units.synchronize()
	switch year := c.Now.UTC().Year(); {
	case year < 2026 || year > 2100: // this program is not older, nor will it be that old
		return []audit.Finding{audit.Failed("clock-wrong", "", "The clock cannot be right: certificates, signatures and policies seem to have expired, or not to be valid yet.",
			now, "Set it. "+advice, fix)}
	case c.Inconclusive != "":
		return []audit.Finding{audit.Inconclusive("clock-inconclusive", "", "Whether the clock is synchronized is unknown.", c.Inconclusive, "Compare it with another: "+now+".")}
	case !c.Synchronized:
		return []audit.Finding{audit.Warned("clock-unsynchronized", "", "The kernel reports that nothing synchronizes the clock, by which certificates and signatures are judged.",
			now, advice, fix)}
	}
	return []audit.Finding{audit.Passed("clock-ok", "", "The kernel reports that the clock is synchronized.", now)}
}

// synchronize is how the clock of this host gets right: by the service that is
// installed.
func (u Units) synchronize() (advice, fix string) {
	for _, t := range u.Time {
		if t.Active == "active" {
			return t.Name + " runs, but has not synchronized the clock: check its servers and the network.", ""
		}
	}
	if len(u.Time) > 0 {
		return "Start the service that synchronizes it.", u.systemctl("enable --now " + u.Time[0].Name)
	}
	return "Install a service that synchronizes it: chrony, ntpsec or systemd-timesyncd.", ""
}
