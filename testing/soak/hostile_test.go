//go:build linux

package soak

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"

	"tlspolicyd/testing/lab"
)

// 64 lookups at the same time of domains with thousands of MX records, a TXT
// record of 64 KiB, and mail hosts with 64 KiB of addresses and of TLSA records:
// the daemon's memory stays within a bound, and it answers about others.
func TestHostileDomainsAtOnce(t *testing.T) {
	const domains, most = 64, 128 << 20
	w := newWorld(t)
	w.Zone("*.huge.invalid. 86400 A 192.0.2.66")
	hosts := scale(4, 256)
	for i := range hosts { // of those that the answers begin with
		w.Fault(fmt.Sprintf("mx%d.huge.invalid", i), "A", lab.Huge)
		w.Fault(fmt.Sprintf("_25._tcp.mx%d.huge.invalid", i), "TLSA", lab.Huge)
	}
	s := newSite(t, w, "")
	d := s.start(t)
	var asking sync.WaitGroup
	for i := range domains {
		domain := fmt.Sprintf("d%d.hostile.test", i)
		w.Fault(domain, "MX", lab.Huge)
		w.Fault("_mta-sts."+domain, "TXT", lab.Huge)
		asking.Go(func() {
			c := d.client()
			defer c.Close()
			// On a slow machine the lab is too slow: the lookup fails, or the hosts with
			// TLSA records are those whose addresses cannot be looked up.
			if got := ask(c, domain); got != "OK dane" && got != "NOTFOUND " && !strings.HasPrefix(got, "TEMP ") {
				t.Errorf("%s: got %q", domain, got)
			}
		})
	}
	c := d.client()
	defer c.Close()
	for range scale(20, 200) {
		// The lab, which makes the large answers, may be too slow for one of them.
		d.await("the answer about another domain", func() bool {
			l := w.dane()
			return ask(c, l.key) == l.want
		})
	}
	asking.Wait()
	_, rest, _ := strings.Cut(d.proc("status"), "VmHWM:")
	kB, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	if kB<<10 > most && !raceDetector {
		t.Errorf("%d MiB of memory at its peak, want %d at most", kB>>10, most>>20)
	}
	t.Logf("%d hostile domains at once, %d hosts with 64 KiB of addresses and of TLSA records: %d MiB at the peak, %d now",
		domains, hosts, kB>>10, d.memory()>>20)
	d.stop()
}
