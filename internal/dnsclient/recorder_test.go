package dnsclient

import (
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

func TestRecorderKeepsEveryLookupInOrderOfStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial := pipes(func(_ string, q *dns.Msg) *dns.Msg {
			if q.Question[0].Name == "slow.test." {
				time.Sleep(2 * time.Second)
				return reply(t, q, dns.RcodeServerFailure, "", "")
			}
			return reply(t, q, dns.RcodeSuccess, "fast.test. 60 A 192.0.2.1", "")
		})
		r := NewRecorder(newClient(t, Config{Servers: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:53")}, Dial: dial}))
		start := time.Now()
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = r.Lookup(t.Context(), "slow.test", dns.TypeA) })
		time.Sleep(time.Second)
		if _, err := r.Lookup(t.Context(), "fast.test", dns.TypeA); err != nil {
			t.Error(err)
		}
		if got := r.Lookups(); len(got) != 1 || got[0].Name != "fast.test" {
			t.Errorf("one is under way: %+v", got)
		}
		wg.Wait()
		got := r.Lookups()
		if len(got) != 2 || got[0].Name != "slow.test" || got[1].Name != "fast.test" {
			t.Fatalf("%+v", got)
		}
		slow, fast := got[0], got[1]
		if slow.Err == nil || slow.Type != dns.TypeA || slow.Duration != 2*time.Second || !slow.Start.Equal(start) {
			t.Errorf("%+v", slow)
		}
		if fast.Err != nil || len(fast.Answer.Records) != 1 || fast.Duration != 0 || !fast.Start.Equal(start.Add(time.Second)) {
			t.Errorf("%+v", fast)
		}
	})
}
