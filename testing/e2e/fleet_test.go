//go:build e2e

package e2e

import (
	"fmt"
	"testing"
	"time"
)

// TestFleetFigures prints the table of a fleet in docs/figures.md.
func TestFleetFigures(t *testing.T) {
	t.Cleanup(func() {
		if t.Failed() {
			dumpLogs()
		}
	})
	f, err := newFleet(10, 1000, 600)
	if err != nil {
		t.Fatalf("cannot build the fleet: %v", err)
	}
	step := time.Now()
	say := func(format string, args ...any) {
		fmt.Printf("%6.1fs %s\n", time.Since(step).Seconds(), fmt.Sprintf(format, args...))
		step = time.Now()
	}
	say("apart: one after another %d", f.oneAfterAnother(t))
	say("apart: at once %d", f.allAtOnce(t))
	say("apart: a day %d", f.refreshing(t, 1*time.Minute, 1))
	blocked, dane := f.firstMessage(t, "always_refuse")
	say("apart: blocked %d, %v %v; dane %d %v %v", blocked.secure, blocked.quantile(0.5), blocked.quantile(1), dane.notFound, dane.quantile(0.5), dane.quantile(1))
}
