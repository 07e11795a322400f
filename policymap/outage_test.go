package policymap

import (
	"context"
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"tlspolicyd/internal/dnsclient"
	"tlspolicyd/policymap/policy"
	"tlspolicyd/store"
	"tlspolicyd/testing/lab"
)

// What holds while DNS fails: docs/behaviour.md §5, "Unknown, last known state
// at most 24 h old".

// dayLong has TTLs of a day.
const dayLong = `
full.test.    86400 IN MX 10 mx.full.test.
mx.full.test. 86400 IN A 192.0.2.1
_25._tcp.mx.full.test. 86400 IN TLSA ` + tlsa

// A domain without DANE is known to be without for 24 h, asked for in between
// or not, and however short its TTL is.
func TestNoneStandsInForADay(t *testing.T) {
	for name, every := range map[string]time.Duration{"not asked for": 23 * time.Hour, "asked for now and then": 20 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, zones, func(t *testing.T, h *host) {
				h.NegativeTTL(5 * time.Minute)
				h.want("plain.test", "NOTFOUND ")
				h.Down(true)
				for passed := every; passed < 24*time.Hour; passed += every {
					h.after(every)
					h.want("plain.test", "NOTFOUND ")
				}
				h.after(2 * time.Hour)
				h.want("plain.test", "TEMP …")
				h.Down(false)
				h.after(policy.KeepFailure + time.Second)
				h.want("plain.test", "NOTFOUND ")
				h.after(3 * day)
				if _, err := h.store.Get("plain.test"); err == nil {
					t.Error("the record stays for ever")
				}
			})
		})
	}
}

// 7672 §2.1.3: what was seen without AD bits that count is no proof of absence
// once there is a resolver whose AD bits do; not as long as it is fresh, nor as
// a last known state, nor after a restart.
func TestAbsenceSeenUnvalidatedIsNotBelievedLater(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		far := netip.MustParseAddrPort("198.51.100.9:53")
		h.AddResolver(far, 0)
		untrusted, err := dnsclient.New(dnsclient.Config{Servers: []netip.AddrPort{far}, Dial: h.Dial})
		if err != nil {
			t.Fatal(err)
		}
		trusted := h.config
		blind := h.config
		blind.Resolver = untrusted
		h.Reconfigure(blind)
		h.want("full.test", "NOTFOUND ")
		h.want("partial.test", "NOTFOUND ")
		n := h.Count("full.test", "MX")
		h.want("full.test", "NOTFOUND ")
		if h.Count("full.test", "MX") != n {
			t.Error("not kept while nothing has changed")
		}
		h.Reconfigure(trusted)
		h.want("full.test", "OK dane-only")
		h.restart() // with the trusted resolver
		h.Fault("partial.test", "MX", lab.ServFail)
		h.want("partial.test", "TEMP …")
	})
}

// A TTL of a day leaves a domain in use with half a day of last known state.
func TestLongTTLLeavesALastKnownState(t *testing.T) {
	inBubble(t, dayLong, func(t *testing.T, h *host) {
		h.NegativeTTL(day)
		for range 23 {
			h.want("full.test", "OK dane-only")
			h.after(time.Hour)
		}
		h.Down(true)
		for range 10 {
			h.after(time.Hour)
			h.want("full.test", "OK dane-only")
		}
	})
}

// Hostile domains whose policy hosts hang cannot keep others from their first
// policy for longer than a lookup waits.
func TestHangingPolicyHostsMakeRoom(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		h.Map.Close()
		var clients atomic.Int64 // each lookup is of another one: no client has too many
		h.Map = New(Options{
			Store: h.store, Config: h.config, Observer: h.seen,
			Client: func(context.Context) string { return fmt.Sprint(clients.Add(1)) },
		})
		h.PolicyHost("plain.test", enforce)
		for i := range 3 * maxFetches {
			d := fmt.Sprintf("evil%d.test", i)
			h.Zone(d + ". IN MX 10 mx.plain.test.")
			h.PolicyHost(d, enforce).Fault(lab.HostFault{Stall: lab.AtConnect})
			go h.ask(d)
		}
		h.after(time.Second)
		h.want("plain.test", "NOTFOUND ") // after fetch.wait: its fetch waits for a place
		h.after(15 * time.Second)
		h.want("plain.test", secure)
	})
}

// One message a day is in use, too: lookups after half a day are made, although
// nobody asked in that half.
func TestLongTTLIsRefreshedForOneMessageADay(t *testing.T) {
	inBubble(t, dayLong, func(t *testing.T, h *host) {
		h.NegativeTTL(day)
		h.want("full.test", "OK dane-only")
		h.after(25 * time.Hour)
		h.Down(true)
		h.after(12*time.Hour + 30*time.Minute)
		h.want("full.test", "OK dane-only")
	})
}

// More workers than a batch has records: what is being refreshed still looks
// due, and must not hide the rest, nor be asked for again and again.
func TestManyRefreshers(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		const domains = refreshBatch + 100
		h.stop()
		h.workers = domains
		h.start()
		var recs []store.Record
		var hosts []*lab.PolicyHost
		old := time.Now().Add(-2 * day)
		for i := range domains {
			domain := fmt.Sprintf("d%d.test", i)
			ph := h.PolicyHost(domain, enforce)
			ph.Fault(lab.HostFault{Stall: lab.AtHeaders})
			hosts = append(hosts, ph)
			recs = append(recs, store.Record{Domain: domain, LastUsed: time.Now(), STS: &store.STS{
				Policy: []byte(enforce), PolicyID: ph.ID(), TXTID: ph.ID(), TXTTTL: time.Minute, FetchedAt: old, CheckedAt: old,
			}})
		}
		if err := h.Import(context.Background(), recs); err != nil {
			t.Fatal(err)
		}
		h.after(30 * time.Second)
		for i, ph := range hosts {
			if ph.Connections() == 0 {
				t.Fatalf("%s waits for others", recs[i].Domain)
			}
		}
		before := h.store.dues.Load()
		h.after(20 * time.Second)
		if n := h.store.dues.Load() - before; n > 10 {
			t.Errorf("the schedule was read %d times in 20 s with nothing to do", n)
		}
	})
}
