package policymap

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"tlspolicyd/policymap/policy"
	"tlspolicyd/policymap/records"
	"tlspolicyd/store"
	"tlspolicyd/testing/lab"
)

// Scenarios in which somebody wants a weaker answer, or things go wrong at the
// worst moment.

// §3: only a newly fetched policy or its max_age ends a policy, whatever is
// forged beside it.
func TestForgedNullMXErasesNothing(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		h.Insecure("plain.test")
		ph := h.PolicyHost("plain.test", enforce)
		h.want("plain.test", secure)
		h.after(20 * time.Minute)
		h.Replace("_mta-sts.plain.test", "TXT", `"v=STSv1; id=forged"`) // has it fetched in the same moment
		h.Replace("plain.test", "MX", "0 .")
		h.Delay(time.Second, "plain.test")
		h.want("plain.test", secure)
		h.after(6 * time.Minute)
		h.Replace("plain.test", "MX", "10 mx.evil.test.")
		h.Fault("_mta-sts.plain.test", "TXT", lab.NXDomain)
		ph.Fault(lab.HostFault{Refuse: true})
		h.crash()
		h.want("plain.test", secure)
	})
}

// 8461 §3.4, 7505: a null MX is about the domain, not about a smart host of the
// same name; and a fetch that somebody else waits for is not given up.
func TestNullMXOfASmartHost(t *testing.T) {
	inBubble(t, zones+"null.test. A 192.0.2.50\n", func(t *testing.T, h *host) {
		h.Delay(20 * time.Millisecond)
		h.PolicyHost("null.test", enforce).Fault(lab.HostFault{Delay: time.Second})
		var wg sync.WaitGroup
		wg.Go(func() { h.want("null.test", "NOTFOUND ") })
		h.after(5 * time.Millisecond)
		h.want("[null.test]", secure)
		wg.Wait()
		h.after(time.Minute)
		h.want("null.test", "NOTFOUND ")
		h.want("[null.test]", secure)
		h.restart()
		h.want("null.test", "NOTFOUND ")
		h.want("[null.test]", secure)
	})
}

// A domain that takes mail again has its policy again.
func TestNullMXGoes(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		h.PolicyHost("null.test", enforce)
		h.want("null.test", "NOTFOUND ")
		h.Replace("null.test", "MX", "10 mx.plain.test.")
		h.Fault("null.test", "MX", lab.DropOnce) // slower than its policy host
		h.after(61 * time.Minute)
		h.want("null.test", secure)
	})
}

// §6: an answer that ends between two looks at the clock is looked up again.
func TestAskedAtTheInstantOfExpiry(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		h.want("full.test", "OK dane-only")
		h.restart()
		h.after(6 * time.Minute)
		rec, err := h.store.Get("full.test")
		if err != nil {
			t.Fatal(err)
		}
		h.store.setSlow(2 * time.Millisecond)
		h.after(time.Until(rec.DANE[0].ExpiresAt) - time.Millisecond)
		h.want("full.test", "OK dane-only")
	})
}

// A lookup may learn a policy while its expired record waits to be deleted.
func TestExpiredRecordIsAskedForWhileItWaitsToGo(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		h.workers = 1
		h.restart()
		h.PolicyHost("plain.test", withMaxAge(enforce, 300))
		h.want("plain.test", secure)
		h.after(day)
		rec, err := h.store.Get("plain.test")
		if err != nil {
			t.Fatal(err)
		}
		h.after(time.Until(rec.Due) - 30*time.Second)
		busy := h.PolicyHost("busy.test", withMaxAge(enforce, 20))
		h.ask("busy.test")
		busy.Fault(lab.HostFault{Stall: lab.AtHandshake}) // its refresh holds the only worker
		h.after(35 * time.Second)
		h.want("plain.test", secure)
		h.after(90 * time.Second)
		if rec, err := h.store.Get("plain.test"); err != nil || rec.STS == nil || rec.STS.Policy == nil {
			t.Errorf("a policy that Postfix was told is not on disk: %+v, %v", rec, err)
		}
	})
}

// §6, §7: a clock that is set back does not make a remembered failure last.
func TestClockSetBackDuringAFailure(t *testing.T) {
	var mu sync.Mutex
	step := time.Duration(0)
	inBubble(t, zones, func(t *testing.T, h *host) {
		h.wall = func() time.Time {
			mu.Lock()
			defer mu.Unlock()
			return time.Now().Add(step)
		}
		h.restart()
		h.Fault("full.test", "MX", lab.ServFail)
		h.want("full.test", "TEMP MX lookup of full.test: SERVFAIL")
		h.Fault("full.test", "MX", 0)
		mu.Lock()
		step = -5 * time.Hour
		mu.Unlock()
		h.after(2 * time.Minute)
		h.want("full.test", "OK dane-only")
	})
}

// §7: nor does a clock that is set forward during a look at the policy host.
func TestClockSetForwardDuringALook(t *testing.T) {
	var mu sync.Mutex
	step := time.Duration(0)
	inBubble(t, zones, func(t *testing.T, h *host) {
		h.wall = func() time.Time {
			mu.Lock()
			defer mu.Unlock()
			return time.Now().Add(step)
		}
		h.restart()
		ph := h.PolicyHost("plain.test", enforce)
		h.want("plain.test", secure)
		h.after(6 * time.Minute)
		ph.SetPolicy(enforce)
		ph.Fault(lab.HostFault{Stall: lab.AtHandshake})
		h.want("plain.test", secure) // starts the look
		mu.Lock()
		step = 30 * day
		mu.Unlock()
		h.after(5 * time.Minute)
		h.want("plain.test", secure)
	})
}

// §6: with a full disk, and as much unwritten as is kept, answers still go on.
func TestFullDiskAndFullMemory(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		h.PolicyHost("plain.test", enforce)
		h.store.setFull(true)
		for i := range 4200 { // more than are kept
			_ = h.book.Learn(fmt.Sprintf("x%d.test", i), time.Time{}, records.AtOnce, nil)
		}
		h.want("plain.test", secure)
		h.want("full.test", "OK dane-only")
	})
}

// §6: a disk that hangs costs one lookup its time, not all of them.
func TestHangingDisk(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		for i := range 300 {
			h.Zone(fmt.Sprintf("h%d.test. 3600 IN MX 10 mx.full.test.", i))
		}
		h.store.setHanging(true)
		h.ask("full.test")
		var wg sync.WaitGroup
		for i := range 300 {
			wg.Go(func() {
				if reply, took := h.askTimed(fmt.Sprintf("h%d.test", i)); reply != "OK dane-only" || took > 6*time.Second {
					t.Errorf("%q after %v", reply, took)
				}
			})
		}
		wg.Wait()
		for i := range 60 { // it is tried again, but not on a lookup's time
			h.Zone(fmt.Sprintf("later%d.test. 3600 IN MX 10 mx.full.test.", i))
			if reply, took := h.askTimed(fmt.Sprintf("later%d.test", i)); reply != "OK dane-only" || took > time.Second {
				t.Errorf("%q after %v", reply, took)
			}
			h.after(time.Second)
		}
		h.store.setHanging(false)
		h.after(records.LongestWrite + 2*records.RetryUnsaved)
		h.crash()
		h.Down(true)
		h.want("h7.test", "OK dane-only")
	})
}

// untilTried waits until a record is being tried on a disk that hangs.
func (h *host) untilTried(domain string) {
	h.t.Helper()
	for range 60 {
		if h.store.hangs() > 0 {
			return
		}
		h.after(time.Second)
	}
	h.t.Fatalf("%s is not tried again", domain)
}

// §6: while a disk that hangs is tried again, nobody waits whose domain happens
// to share the lock of the one that is tried, nor that one itself; and what is
// learned of it meanwhile is what is written in the end.
func TestHangingDiskIsTriedOnNobodysTime(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		h.store.setHanging(true)
		h.want("full.test", "OK dane-only")
		h.untilTried("full.test")
		shares := ""
		h.book.Locked("full.test", func(store.Record) {
			free := true
			for i := 0; free; i++ {
				shares = fmt.Sprintf("x%d.test", i)
				h.book.TryLocked(shares, func(_ store.Record, locked bool) { free = locked })
			}
		})
		h.Zone(shares + ". 3600 IN MX 10 mx.full.test.")
		for _, key := range []string{shares, "full.test:587"} {
			if reply, took := h.askTimed(key); took > time.Second {
				t.Errorf("%s: %q after %v", key, reply, took)
			}
		}
		h.store.setHanging(false)
		h.after(records.LongestWrite + 2*records.RetryUnsaved)
		if h.book.Behind() {
			t.Error("records wait")
		}
		rec, err := h.store.Get("full.test")
		if err != nil || len(rec.DANE) != 2 {
			t.Errorf("%d outcomes of DANE on disk, want those of both ports: %v", len(rec.DANE), err)
		}
		if _, err := h.store.Get(shares); err != nil {
			t.Error(err)
		}
	})
}

// Nothing can be forgotten on a disk that hangs. Who asks for it is told at once,
// and holds up nobody.
func TestPurgeOnAHangingDisk(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		h.store.setHanging(true)
		h.want("full.test", "OK dane-only")
		h.untilTried("full.test")
		began := time.Now()
		err := h.Purge(context.Background(), "full.test")
		if took := time.Since(began); !errors.Is(err, records.ErrHung) || took > time.Second {
			t.Errorf("%v after %v, want %v at once", err, took, records.ErrHung)
		}
		h.store.setHanging(false)
		h.after(records.LongestWrite + 2*records.RetryUnsaved)
		if err := h.Purge(context.Background(), "full.test"); err != nil {
			t.Error(err)
		}
		if _, err := h.store.Get("full.test"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("it is on disk: %v", err)
		}
	})
}

// Records that nobody needs any more stay while the disk takes nothing, are
// tried now and then, and hold up no lookup; they go when it works again.
func TestRecordsThatEndOnABadDisk(t *testing.T) {
	for name, spoil := range map[string]func(*watchedStore, bool){
		"hanging": (*watchedStore).setHanging, "full": (*watchedStore).setFull,
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, zones, func(t *testing.T, h *host) {
				eye := &stumblingEye{refreshes: map[string]int{}}
				h.Map.Close()
				h.Map = New(Options{Store: h.store, Config: h.config, Observer: Observers{eye}})
				h.want("full.test", "OK dane-only")
				h.after(2 * time.Second)
				spoil(h.store, true)
				h.after(5 * day)
				eye.mu.Lock()
				if n := eye.refreshes[fmt.Sprint("full.test ", Expired)]; n > 0 {
					t.Errorf("told %d times that it has gone", n)
				}
				eye.mu.Unlock()
				if _, err := h.store.Get("full.test"); err != nil {
					t.Fatal("nothing was there to end")
				}
				looked := h.store.dues.Load()
				h.after(time.Hour)
				if n := h.store.dues.Load() - looked; n > 3600 {
					t.Errorf("looked for what is due %d times within an hour", n)
				}
				spoil(h.store, false)
				h.after(time.Hour)
				if _, err := h.store.Get("full.test"); !errors.Is(err, store.ErrNotFound) {
					t.Errorf("it is still there: %v", err)
				}
			})
		})
	}
}

// §6: what was told while the disk was full is written as soon as it takes
// something again.
func TestWhatWaitedIsWrittenWithTheNext(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		h.PolicyHost("plain.test", enforce)
		h.store.setFull(true)
		h.want("plain.test", secure)
		h.want("full.test", "OK dane-only")
		h.after(5 * time.Minute)
		h.store.setFull(false)
		h.Zone("another.test. 3600 IN MX 10 mx.full.test.")
		h.want("another.test", "OK dane-only")
		h.after(time.Second)
		h.crash()
		h.Down(true)
		h.want("plain.test", secure)
		h.want("full.test", "OK dane-only")
	})
}

// §3: max_age 0 replaces a policy, and is fetched for no lookup that DANE decides.
func TestMaxAgeZeroBesideOthers(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		ph := h.PolicyHost("plain.test", enforce)
		h.want("plain.test", secure)
		ph.SetPolicy(withMaxAge("version: STSv1\nmode: testing\nmx: *.plain.test\nmax_age: 604800\n", 0))
		h.after(6 * time.Minute)
		h.ask("plain.test")
		h.after(time.Second)
		h.want("plain.test", "NOTFOUND ")

		ph = h.PolicyHost("full.test", withMaxAge(enforce, 0))
		for range 100 {
			h.want("full.test", "OK dane-only")
			h.after(time.Second)
		}
		if n := ph.Requests(); n > 2 {
			t.Errorf("%d fetches for 100 lookups that DANE decides", n)
		}
	})
}

// §3: a new id is tried at once, though the old one failed a minute ago.
func TestNewIDAfterAFailedFetch(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		ph := h.PolicyHost("plain.test", enforce)
		h.Replace("_mta-sts.plain.test", "TXT", `_mta-sts.plain.test. 60 IN TXT "v=STSv1; id=one"`)
		ph.Fault(lab.HostFault{Status: 500})
		h.want("plain.test", "NOTFOUND ")
		ph.Fault(lab.HostFault{})
		h.Replace("_mta-sts.plain.test", "TXT", `_mta-sts.plain.test. 60 IN TXT "v=STSv1; id=two"`)
		h.after(61 * time.Second)
		h.ask("plain.test")
		h.after(time.Second)
		h.want("plain.test", secure)
	})
}

// §7: so many fetches at a time, and no more.
func TestRefresherWorkers(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		h.workers = 3
		h.restart()
		var hosts []*lab.PolicyHost
		for i := range 10 {
			d := fmt.Sprintf("d%d.test", i)
			hosts = append(hosts, h.PolicyHost(d, withMaxAge(enforce, 7200)))
			h.want(d, secure)
		}
		for _, ph := range hosts {
			ph.Fault(lab.HostFault{Stall: lab.AtHeaders})
		}
		h.after(time.Hour + 30*time.Second) // all are due at the same time; each takes a minute
		started := 0
		for _, ph := range hosts {
			started += ph.Requests() - 1
		}
		if started != 3 {
			t.Errorf("%d fetches were started, want 3", started)
		}
	})
}

// What was last used is on disk after a stop, and every now and then before.
func TestLastUseIsWrittenDown(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		h.want("full.test", "OK dane-only")
		h.want("absent.test", "NOTFOUND ")
		lastUse := func() time.Duration {
			rec, err := h.store.Get("full.test")
			if err != nil {
				t.Fatal(err)
			}
			return time.Since(rec.LastUsed)
		}
		h.after(50 * time.Minute)
		h.want("full.test", "OK dane-only")
		h.restart()
		if ago := lastUse(); ago > time.Minute {
			t.Errorf("last use %v ago after a stop", ago)
		}
	})
}

// §5, §6: where a last known state can stand in, Observers DNS costs 2 s, also when
// all that is known is that a host had TLSA records; without one, 15 s at most.
func TestSilentDNSWithALastKnownState(t *testing.T) {
	inBubble(t, zones+"two.test. MX 10 mx.full.test.\ntwo.test. MX 20 mx.dead.test.\nmx.dead.test. A 192.0.2.7\n", func(t *testing.T, h *host) {
		h.Fault("_25._tcp.mx.dead.test", "TLSA", lab.ServFail)
		h.want("full.test", "OK dane-only")
		h.want("two.test", "OK dane")
		h.Down(true)
		h.after(3 * time.Hour)
		for key, want := range map[string]string{"full.test": "OK dane-only", "two.test": "OK dane"} {
			if reply, took := h.askTimed(key); reply != want || took > 2*time.Second {
				t.Errorf("%s: %q after %v", key, reply, took)
			}
		}
		if reply, took := h.askTimed("new.test"); !strings.HasPrefix(reply, "TEMP ") || took > 15*time.Second {
			t.Errorf("new.test: %q after %v", reply, took)
		}
		h.after(22 * time.Hour)
		for _, key := range []string{"full.test", "two.test"} {
			if reply := h.ask(key); !strings.HasPrefix(reply, "TEMP ") {
				t.Errorf("%s, last known over a day ago: %q", key, reply)
			}
		}
	})
}

// The ways of asking for one domain that are kept are bounded.
func TestManyPortsOfOneDomain(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		for port := range 40 {
			h.want(fmt.Sprintf("[mx.full.test]:%d", port+1000), "NOTFOUND ")
		}
		if rec, err := h.store.Get("mx.full.test"); err != nil || len(rec.DANE) != 16 {
			t.Errorf("%d kept, %v", len(rec.DANE), err)
		}
	})
}

// policy.Settings that change during a lookup: the answer is given, but not kept.
func TestReconfiguredDuringALookup(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		h.Delay(time.Second)
		var wg sync.WaitGroup
		wg.Go(func() { h.want("full.test", "OK dane-only") })
		h.after(100 * time.Millisecond)
		with := h.config
		with.Overrides = policy.Overrides{"full.test": {Policy: "skip"}}
		h.Reconfigure(with)
		wg.Wait()
		h.want("full.test", "NOTFOUND ")
	})
}

// Lookups after Close are TEMP, at once.
func TestAskedAfterClose(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		h.Map.Close()
		if got := string(h.Lookup(context.Background(), []byte("postfix"), []byte("full.test"))); got != "TEMP tlspolicyd is stopping" {
			t.Errorf("got %q", got)
		}
	})
}

// §6: the answer is derived from both. Sixty domains end their DANE evaluation
// and their fetch at the same instant: whichever is learned last is not lost.
func TestPolicyLearnedWhileTheAnswerIsMade(t *testing.T) {
	var domains []string
	var zone strings.Builder
	for i := range 60 {
		d := fmt.Sprintf("d%d.test", i)
		domains = append(domains, d)
		fmt.Fprintf(&zone, "%s. 60 IN MX 10 mx.%s.\nmx.%s. 60 IN A 192.0.2.1\n", d, d, d)
	}
	inBubble(t, zone.String(), func(t *testing.T, h *host) {
		hosts := make(map[string]*lab.PolicyHost)
		for _, d := range domains {
			hosts[d] = h.PolicyHost(d, "version: STSv1\nmode: enforce\nmx: mx."+d+"\nmax_age: 604800\n")
			h.want(d, "OK secure match=mx."+d+" servername=hostname")
		}
		h.after(time.Hour)
		for _, d := range domains {
			hosts[d].SetPolicy("version: STSv1\nmode: none\nmax_age: 604800\n")
		}
		for _, d := range domains {
			h.ask(d)
		}
		h.after(time.Second)
		for _, d := range domains {
			h.want(d, "NOTFOUND ")
		}
	})
}
