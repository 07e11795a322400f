package policymap

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"tlspolicyd/testing/lab"
)

// An hour of lookups, refreshes and failures: there are no more goroutines at
// its end than after its first minutes, and none once the map is closed (which
// the bubble sees to). That connections and files are closed too is seen with
// the real daemon, in testing/soak.
func TestAnHourLeavesNoGoroutine(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		for i := range 24 {
			domain := fmt.Sprintf("p%d.test", i)
			ph := h.PolicyHost(domain, withMaxAge(enforce, 600+100*i))
			h.Zone(domain + ". 60 IN MX 10 mx.full.test.")
			switch i % 4 {
			case 1:
				ph.Fault(lab.HostFault{Stall: lab.Stall(1 + i/4%4)})
			case 2:
				h.Fault(domain, "MX", lab.Drop)
			case 3:
				h.Fault("_mta-sts."+domain, "TXT", lab.ServFail)
			}
		}
		most := make([]int, 3) // goroutines in each third
		for n := range 720 {
			key := fmt.Sprintf("p%d.test", n%24)
			if n%7 == 0 {
				key = fmt.Sprintf("unknown%d.test", n)
			}
			go h.ask(key)
			time.Sleep(5 * time.Second)
			most[n/240] = max(most[n/240], runtime.NumGoroutine())
		}
		t.Logf("goroutines at most, every 20 minutes: %d", most)
		if most[2] > most[0]+most[0]/2 {
			buf := make([]byte, 1<<20)
			t.Errorf("goroutines at most, every 20 minutes: %d: %s", most, buf[:runtime.Stack(buf, true)])
		}
		h.after(time.Minute) // the last lookups
	})
}
