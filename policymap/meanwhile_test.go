package policymap

import (
	"context"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"tlspolicyd/internal/dnsclient"
	"tlspolicyd/policymap/policy"
	"tlspolicyd/store"
	"tlspolicyd/testing/lab"
)

// What is learned, ordered or set while something else is under way.

// A12: a lookup that began through an untrusted resolver proves no absence,
// though it ends after a trusted one was configured.
func TestTrustedResolverComesDuringALookup(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		far := netip.MustParseAddrPort("198.51.100.9:53")
		h.AddResolver(far, 0)
		untrusted, err := dnsclient.New(dnsclient.Config{Servers: []netip.AddrPort{far}, Dial: h.Dial})
		if err != nil {
			t.Fatal(err)
		}
		blind := h.config
		blind.Resolver = untrusted
		h.Reconfigure(blind)
		h.Delay(time.Second)
		var asked sync.WaitGroup
		asked.Go(func() { h.ask("full.test") })
		h.after(1500 * time.Millisecond)
		h.Reconfigure(h.config)
		asked.Wait()
		h.Delay(0)
		h.after(time.Minute)
		h.want("full.test", "OK dane-only")
	})
}

// §7: asked for within its last TTL means the whole of it, though facts in use
// are looked up again after half a day.
func TestDailyMailWithATTLOfADay(t *testing.T) {
	inBubble(t, dayLong, func(t *testing.T, h *host) {
		h.NegativeTTL(day)
		for range 6 {
			h.want("full.test", "OK dane-only")
			h.after(day + time.Minute)
		}
		h.Down(true)
		h.want("full.test", "OK dane-only")
	})
}

// §6: DANE that appears takes over as soon as it is seen, also by the refresher
// while a lookup with the older facts waits for the policy.
func TestDANELearnedWhileTheLookupWaits(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		h.NegativeTTL(10 * time.Minute)
		h.Fault("_mta-sts.plain.test", "TXT", lab.ServFail)
		h.want("plain.test", "NOTFOUND ")
		h.after(8*time.Minute + 57*time.Second)
		h.Zone("_25._tcp.mx.plain.test. 3600 IN TLSA " + tlsa)
		h.Fault("_mta-sts.plain.test", "TXT", 0)
		h.Delay(4*time.Second, "_mta-sts.plain.test")
		h.ask("plain.test")
		h.Delay(0, "_mta-sts.plain.test")
		rec, err := h.store.Get("plain.test")
		if err != nil || len(rec.DANE) != 1 {
			t.Fatal(rec, err)
		}
		if time.Since(rec.DANE[0].KnownAt) > 10*time.Second {
			t.Fatal("nothing was learned meanwhile: the scenario is not what it was")
		}
		h.want("plain.test", "OK dane-only")
	})
}

// An answer out of the store waits for nobody who writes the record just then,
// and does not stay in memory, where it would cover what is written.
func TestRecordIsWrittenWhileTheStoreIsRead(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		h.PolicyHost("plain.test", enforce)
		h.want("plain.test", secure)
		h.Reread()
		h.book.Locked("plain.test", func(store.Record) {
			h.want("plain.test", secure)
			if h.cache.getString("plain.test") != nil {
				t.Error("kept in memory")
			}
		})
		h.want("plain.test", secure)
		if h.cache.getString("plain.test") == nil {
			t.Error("not kept, though nobody was writing")
		}
	})
}

// The operator's refresh fetches, though a look is under way that does not.
func TestRefreshMeetsALook(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		ph := h.PolicyHost("plain.test", enforce)
		h.want("plain.test", secure)
		ph.SetPolicyKeepID(strings.Replace(enforce, "mx: mx.full.test\n", "", 1))
		h.Delay(time.Second, "_mta-sts.plain.test")
		h.sts.startSTS("plain.test", h.clock.Now(), policy.OnLookup)
		if err := h.Refresh(context.Background(), "plain.test"); err != nil {
			t.Fatal(err)
		}
		h.want("plain.test", "OK secure match=.plain.test servername=hostname")
	})
}

// A fetch that is given up for want of room is not taken for one that was made:
// the new policy is followed as soon as there is room.
func TestFetchGivenUpIsMadeLater(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		ph := h.PolicyHost("plain.test", enforce)
		txt := func(id string) {
			h.Replace("_mta-sts.plain.test", "TXT", `_mta-sts.plain.test. 7200 IN TXT "v=STSv1; id=`+id+`"`)
		}
		txt(ph.ID())
		h.want("plain.test", secure)
		for range maxFetches {
			h.sts.lateFetches <- struct{}{}
		}
		ph.SetPolicyKeepID(strings.Replace(enforce, "mx: mx.full.test\n", "", 1))
		txt("new")
		h.DelayHTTP(8 * time.Second)
		h.after(2*time.Hour + time.Minute)
		h.want("plain.test", secure) // starts the look that is given up
		h.after(10 * time.Second)
		for range maxFetches {
			<-h.sts.lateFetches
		}
		h.after(10 * time.Second)
		h.ask("plain.test")
		h.after(10 * time.Second)
		h.want("plain.test", "OK secure match=.plain.test servername=hostname")
	})
}
