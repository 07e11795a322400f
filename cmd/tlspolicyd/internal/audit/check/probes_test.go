package check

import (
	"context"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"tlspolicyd/cmd/tlspolicyd/internal/audit/smtpprobe"
	"tlspolicyd/testing/lab"
)

// A domain at the end of its time hands no half-made probe to those that wait
// for it, nor to those that come later.
func TestUnfinishedProbesAreNotShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := lab.New()
		defer w.Close()
		addr := netip.MustParseAddr("10.20.99.1")
		w.Silent(addr)
		var p probes
		probe := func(left time.Duration) smtpprobe.Cause {
			ctx, cancel := context.WithTimeout(t.Context(), left)
			defer cancel()
			return p.probe(ctx, &smtpprobe.Prober{Dial: w.Dial}, "mx.test", netip.AddrPortFrom(addr, 25)).Cause
		}
		late, waiting := make(chan smtpprobe.Cause), make(chan smtpprobe.Cause)
		go func() { late <- probe(2 * time.Second) }()
		synctest.Wait()
		go func() { waiting <- probe(20 * time.Second) }()
		if got := <-late; got != smtpprobe.Unfinished {
			t.Errorf("with little time: %q", got)
		}
		synctest.Wait() // the other has begun anew
		if got := probe(time.Second); got != smtpprobe.Unfinished {
			t.Errorf("not waited for: %q", got)
		}
		if got := <-waiting; got != smtpprobe.Silence {
			t.Errorf("with time enough: %q", got)
		}
		if got := probe(0); got != smtpprobe.Silence {
			t.Errorf("known, and no time needed: %q", got)
		}
	})
}
