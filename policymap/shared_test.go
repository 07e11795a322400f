package policymap

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tlspolicyd/share"
	"tlspolicyd/share/sharetest"
	"tlspolicyd/store"
	"tlspolicyd/testing/lab"
)

var fleetKey = share.Keys{[]byte("a key of this fleet alone")}

const plainFile = "version: STSv1\nmode: enforce\nmx: mx.plain.test\nmax_age: 604800\n"

// inFleet runs a scenario with hosts that share policies, each with a database of
// its own, in front of one small internet.
func inFleet(t *testing.T, zone string, n int, scenario func(t *testing.T, e *sharetest.Engine, hosts []*host)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		world, e := lab.New(), sharetest.NewEngine()
		defer world.Close()
		world.Zone(zone)
		var hosts []*host
		for i := range n {
			name := fmt.Sprintf("host%d.test", i)
			h := &host{World: world, t: t, path: filepath.Join(t.TempDir(), "policies.db"), fleet: e.Member(name, fleetKey)}
			h.config.Host = name
			h.start()
			defer func() { h.stop() }()
			hosts = append(hosts, h)
		}
		scenario(t, e, hosts)
	})
}

// sealed is what a member of the fleet with the key can write, however hostile.
func sealed(domain, file, id string, age time.Duration, format int64) share.Entry {
	e := fleetKey.Seal(domain, share.Policy{File: []byte(file), ID: id, Host: "evil.test"}, time.Now().Add(-age), time.Now().Add(time.Hour).UnixMicro())
	e.Format = format
	return e
}

func TestOneHostFetchesForAll(t *testing.T) {
	for _, at := range []string{"one after another", "all at once"} {
		t.Run(at, func(t *testing.T) {
			inFleet(t, zones, 10, func(t *testing.T, _ *sharetest.Engine, hosts []*host) {
				ph := hosts[0].PolicyHost("plain.test", enforce)
				ph.Fault(lab.HostFault{Delay: 500 * time.Millisecond})
				for _, h := range hosts {
					if at == "all at once" {
						go h.want("plain.test", secure)
					} else {
						h.want("plain.test", secure)
					}
				}
				synctest.Wait()
				hosts[0].after(10 * time.Second)
				if n := ph.Requests(); n != 1 {
					t.Errorf("%d fetches for ten hosts", n)
				}
				for _, h := range hosts {
					h.want("plain.test", secure)
				}
				// A day of refreshing: one fetch, and all know it.
				hosts[0].after(day)
				if n := ph.Requests(); n > 3 {
					t.Errorf("%d fetches after a day", n)
				}
				for i, h := range hosts {
					if age := time.Since(h.book.Get("plain.test").STS.FetchedAt); age > day {
						t.Errorf("host %d has a policy of %v", i, age)
					}
				}
			})
		})
	}
}

// The gain in security: a host that is cut off from TXT and the policy host knows
// what another one learned.
func TestPolicyOfAnotherHostWhereTXTAndHTTPSAreBlocked(t *testing.T) {
	for name, block := range map[string]func(h *host, ph *lab.PolicyHost){
		"TXT SERVFAIL":       func(h *host, _ *lab.PolicyHost) { h.Fault("_mta-sts.plain.test", "TXT", lab.ServFail) },
		"TXT silent":         func(h *host, _ *lab.PolicyHost) { h.Fault("_mta-sts.plain.test", "TXT", lab.Drop) },
		"TXT denied":         func(h *host, _ *lab.PolicyHost) { h.Replace("_mta-sts.plain.test", "TXT") },
		"policy host silent": func(_ *host, ph *lab.PolicyHost) { ph.Fault(lab.HostFault{Stall: lab.AtConnect}) },
		"policy host silent, new id": func(_ *host, ph *lab.PolicyHost) {
			ph.SetPolicy(enforce)
			ph.Fault(lab.HostFault{Stall: lab.AtConnect})
		},
		"policy host fails, new id": func(_ *host, ph *lab.PolicyHost) { ph.SetPolicy(enforce); ph.Fault(lab.HostFault{Status: 500}) },
	} {
		t.Run(name, func(t *testing.T) {
			inFleet(t, zones, 2, func(t *testing.T, _ *sharetest.Engine, hosts []*host) {
				a, b := hosts[0], hosts[1]
				b.stop() // it hears of nothing meanwhile
				ph := a.PolicyHost("plain.test", enforce)
				a.want("plain.test", secure)
				a.after(time.Minute)
				block(a, ph)
				b.fleet = deaf{b.fleet}
				b.start()
				reply, took := b.askTimed("plain.test")
				most := 300 * time.Millisecond
				if strings.HasSuffix(name, "new id") {
					most = 4 * time.Second // of the new file something may come yet
				}
				if reply != secure || took > most {
					t.Errorf("%q after %v", reply, took)
				}
				if s := b.book.Get("plain.test").STS; s.SharedBy != "host0.test" || s.SharedSince.IsZero() {
					t.Errorf("the record does not say where it is from: %+v", s)
				}
				b.crash()
				b.want("plain.test", secure)
			})
		})
	}
}

// A renewal while TXT fails does not take the id from what is shared: without it
// each host whose TXT works would fetch the file itself.
func TestOfferWhileTXTIsBlockedKeepsTheID(t *testing.T) {
	inFleet(t, zones, 1, func(t *testing.T, _ *sharetest.Engine, hosts []*host) {
		h := hosts[0]
		ph := h.PolicyHost("plain.test", enforce)
		h.want("plain.test", secure)
		synctest.Wait()
		before, err := h.fleet.Ask(t.Context(), "plain.test")
		if err != nil || before.ID == "" {
			t.Fatalf("got %+v, %v", before, err)
		}
		h.Fault("_mta-sts.plain.test", "TXT", lab.ServFail)
		h.after(2 * day)
		after, err := h.fleet.Ask(t.Context(), "plain.test")
		if err != nil || after.ID != before.ID || ph.Requests() < 2 || after.Age > day {
			t.Errorf("got %+v, %v after %d fetches, want the id %q", after, err, ph.Requests(), before.ID)
		}
	})
}

// deaf is a fleet of whose changes nothing is heard.
type deaf struct{ share.Fleet }

func (deaf) Watch(ctx context.Context, _ func(string, share.Policy)) { <-ctx.Done() }

// Rule 1: nothing but policy files that were fetched goes out.
func TestOnlyFetchedPoliciesAreShared(t *testing.T) {
	inFleet(t, zones, 2, func(t *testing.T, e *sharetest.Engine, hosts []*host) {
		a, b := hosts[0], hosts[1]
		a.want("full.test", "OK dane-only")
		a.want("plain.test", "NOTFOUND ")
		a.PolicyHost("once.test", withMaxAge(plainFile, 0))
		_ = a.ask("once.test")
		a.PolicyHost("broken.test", "rubbish")
		_ = a.ask("broken.test")
		// An import is not a fetch.
		rec := a.book.Get("plain.test")
		rec.Domain, rec.DANE = "imported.test", nil
		rec.STS.Policy, rec.STS.PolicyID, rec.STS.FetchedAt = []byte(plainFile), "1", time.Now()
		if err := a.Import(t.Context(), []store.Record{rec}); err != nil {
			t.Fatal(err)
		}
		a.after(time.Minute)
		if err := b.fleet.Each(t.Context(), func(domain string, _ share.Policy) error { t.Errorf("%s is shared", domain); return nil }); err != nil {
			t.Error(err)
		}
		// What is adopted is not offered again.
		e.Put("shared.test", sealed("shared.test", plainFile, "1", time.Hour, 1))
		a.after(time.Second)
		if p, err := a.fleet.Ask(t.Context(), "shared.test"); err != nil || p.Host != "evil.test" {
			t.Errorf("%+v, %v", p, err)
		}
	})
}

// Rule 2: no member, however hostile, weakens or exchanges what a host knows.
func TestHostileMember(t *testing.T) {
	const none = "version: STSv1\nmode: none\nmax_age: 604800\n"
	theirs := strings.ReplaceAll(enforce, "full.test", "evil.test")
	for name, file := range map[string]string{"weaker": none, "other hosts": theirs} {
		t.Run(name, func(t *testing.T) {
			inFleet(t, zones, 2, func(t *testing.T, e *sharetest.Engine, hosts []*host) {
				a := hosts[0]
				ph := a.PolicyHost("plain.test", enforce)
				a.want("plain.test", secure)
				a.after(10 * time.Minute)
				n := ph.Requests()
				for range 50 {
					e.Put("plain.test", sealed("plain.test", file, "evil", 0, 1))
					a.want("plain.test", secure)
					a.after(time.Second)
				}
				// It is a hint, and not to more than a fetch now and then.
				if more := ph.Requests() - n; more < 1 || more > 2 {
					t.Errorf("%d fetches for hints", more)
				}
				if a.Shared().Hints == 0 {
					t.Error("hints were not counted")
				}
				a.after(3 * day)
				a.want("plain.test", secure)
				// With TXT and policy host blocked, too.
				a.Down(true)
				a.restart()
				a.want("plain.test", secure)
			})
		})
	}
}

// Where this host knows nothing, a policy that is not enforced, which may be an old
// one, does not keep the first message from what this host finds itself.
func TestPolicyThatIsNotEnforcedFillsNoVoid(t *testing.T) {
	none := strings.Replace(enforce, "enforce", "none", 1)
	for name, prepare := range map[string]func(h *host, put func()){
		"heard of before":   func(h *host, put func()) { put(); h.after(time.Second) },
		"while TXT is slow": func(h *host, put func()) { h.fleet = deaf{h.fleet}; h.restart(); put() },
	} {
		t.Run(name, func(t *testing.T) {
			inFleet(t, zones, 1, func(t *testing.T, e *sharetest.Engine, hosts []*host) {
				h := hosts[0]
				h.PolicyHost("plain.test", enforce)
				h.Delay(time.Second, "_mta-sts.plain.test")
				prepare(h, func() { e.Put("plain.test", sealed("plain.test", none, "old", time.Hour, 1)) })
				h.want("plain.test", secure)
			})
		})
	}
}

// With the id of the TXT record it is what a fetch would bring.
func TestPolicyThatIsNotEnforcedIsFetchedOnce(t *testing.T) {
	inFleet(t, zones, 2, func(t *testing.T, _ *sharetest.Engine, hosts []*host) {
		ph := hosts[0].PolicyHost("plain.test", strings.Replace(enforce, "enforce", "testing", 1))
		for _, h := range hosts {
			h.want("plain.test", "NOTFOUND ")
			h.after(time.Second)
		}
		if n := ph.Requests(); n != 1 || hosts[1].book.Get("plain.test").STS.SharedBy == "" {
			t.Errorf("%d fetches", n)
		}
	})
}

func TestEntriesThatAreNotAdopted(t *testing.T) {
	for name, e := range map[string]func() share.Entry{
		"forged": func() share.Entry {
			x := sealed("plain.test", enforce, "1", 0, 1)
			x.File = []byte(strings.Replace(enforce, "604800", "31557600", 1))
			return x
		},
		"of another domain": func() share.Entry { return sealed("full.test", enforce, "1", 0, 1) },
		"newer format":      func() share.Entry { return sealed("plain.test", enforce, "1", 0, 2) },
		"over":              func() share.Entry { return sealed("plain.test", enforce, "1", 604800*time.Second, 1) },
		"in the future":     func() share.Entry { return sealed("plain.test", enforce, "1", -time.Hour, 1) },
		"max_age 0":         func() share.Entry { return sealed("plain.test", withMaxAge(enforce, 0), "1", 0, 1) },
		"rubbish":           func() share.Entry { return sealed("plain.test", "rubbish", "1", 0, 1) },
	} {
		t.Run(name, func(t *testing.T) {
			inFleet(t, zones, 1, func(t *testing.T, engine *sharetest.Engine, hosts []*host) {
				engine.Put("plain.test", e())
				hosts[0].after(time.Second)
				hosts[0].want("plain.test", "NOTFOUND ")
				if s := hosts[0].book.Get("plain.test").STS; s != nil && s.Policy != nil {
					t.Errorf("adopted: %+v", s)
				}
			})
		})
	}
}

// Rule 3: an adopted policy ends with its max_age, counted from the fetch.
func TestAdoptedPolicyEndsWithItsMaxAge(t *testing.T) {
	inFleet(t, zones, 1, func(t *testing.T, e *sharetest.Engine, hosts []*host) {
		h := hosts[0]
		h.Fault("_mta-sts.plain.test", "TXT", lab.ServFail)
		e.Put("plain.test", sealed("plain.test", enforce, "1", 6*day, 1))
		h.after(time.Second)
		e.Fail(errors.New("gone"), false)
		h.want("plain.test", secure)
		h.after(day - time.Minute)
		h.want("plain.test", secure)
		h.after(2 * time.Minute)
		h.want("plain.test", "NOTFOUND ")
	})
}

// Rule 4: a host fetches what others renew for it every share.verify_after.
func TestVerifyAfter(t *testing.T) {
	inFleet(t, zones, 1, func(t *testing.T, e *sharetest.Engine, hosts []*host) {
		h := hosts[0]
		ph := h.PolicyHost("plain.test", enforce)
		h.want("plain.test", secure)
		id := h.book.Get("plain.test").STS.PolicyID
		for d := 1; d <= 28; d++ {
			for range 4 { // another host renews it, before it is due here
				e.Put("plain.test", sealed("plain.test", enforce, id, 0, 1))
				h.after(day / 4)
			}
			h.want("plain.test", secure)
		}
		if n := ph.Requests() - 1; n < 4 || n > 5 {
			t.Errorf("%d fetches in four weeks", n)
		}
		// Where it cannot, it tries again, and the policy goes on applying.
		ph.Fault(lab.HostFault{Status: 500})
		for range 21 {
			e.Put("plain.test", sealed("plain.test", enforce, id, 0, 1))
			h.after(day)
			h.want("plain.test", secure)
		}
		if s := h.book.Get("plain.test").STS; s.SharedBy != "evil.test" || s.Failures == 0 {
			t.Errorf("%+v", s)
		}
	})
}

// No delivery is ever harmed: whatever the engine does, answers are those of a host
// without it.
func TestEngineThatFails(t *testing.T) {
	for name, silent := range map[string]bool{"at once": false, "silent": true} {
		t.Run(name, func(t *testing.T) {
			inFleet(t, zones, 1, func(t *testing.T, e *sharetest.Engine, hosts []*host) {
				h := hosts[0]
				e.Fail(errors.New("no"), silent)
				ph := h.PolicyHost("plain.test", enforce)
				reply, took := h.askTimed("plain.test")
				if reply != secure || took > 300*time.Millisecond {
					t.Errorf("%q after %v", reply, took)
				}
				if reply, took := h.askTimed("plain.test"); reply != secure || took != 0 {
					t.Errorf("hit: %q after %v", reply, took)
				}
				h.want("full.test", "OK dane-only")
				h.want("insecure.test", h.ask("insecure.test"))
				h.after(3 * day)
				if n := ph.Requests(); n < 4 {
					t.Errorf("%d fetches in three days", n)
				}
				e.Fail(nil, false)
				h.after(day + day/4) // what it knows is offered with its next refresh
				if _, err := h.fleet.Ask(t.Context(), "plain.test"); err != nil {
					t.Error(err)
				}
				e.Flush()
				h.want("plain.test", secure)
			})
		})
	}
}

// An engine that is slow, and not so slow that it counts as down, has a first lookup
// wait for two answers, and for share.timeout in all.
func TestSlowEngine(t *testing.T) {
	for _, delay := range []time.Duration{50 * time.Millisecond, 200 * time.Millisecond} {
		t.Run(delay.String(), func(t *testing.T) {
			inFleet(t, zones, 2, func(t *testing.T, e *sharetest.Engine, hosts []*host) {
				e.Slow(delay)
				ph := hosts[0].PolicyHost("plain.test", enforce)
				most := min(2*delay, 250*time.Millisecond)
				if reply, took := hosts[0].askTimed("plain.test"); reply != secure || took > most {
					t.Errorf("%q after %v", reply, took)
				}
				hosts[0].after(time.Second)
				if reply, took := hosts[1].askTimed("plain.test"); reply != secure || took > delay || ph.Requests() != 1 {
					t.Errorf("of the other host: %q after %v, %d fetches", reply, took, ph.Requests())
				}
				hosts[0].after(day)
				if n := ph.Requests(); n > 3 {
					t.Errorf("%d fetches after a day", n)
				}
			})
		})
	}
}

// The holder of the lease dies in the middle of a fetch: the others wait a quarter of
// fetch.wait, and then fetch themselves. If the engine stops answering meanwhile, they
// wait share.timeout once more.
func TestHolderOfTheLeaseDies(t *testing.T) {
	for name, most := range map[string]time.Duration{"engine answers": 1500 * time.Millisecond, "engine stops": 350 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			inFleet(t, zones, 2, func(t *testing.T, e *sharetest.Engine, hosts []*host) {
				b := hosts[1]
				if lease, _, err := e.Member("dead.test", fleetKey).Claim(t.Context(), "plain.test"); lease.Token == "" {
					t.Fatal(err)
				}
				if name == "engine stops" {
					time.AfterFunc(30*time.Millisecond, func() { e.Fail(share.ErrDown, true) })
				}
				b.PolicyHost("plain.test", enforce)
				if reply, took := b.askTimed("plain.test"); reply != secure || took > most {
					t.Errorf("%q after %v", reply, took)
				}
			})
		})
	}
}

// A policy that was changed where one host sees it is fetched by the others within
// seconds after they see each other again.
func TestChangeReachesTheOtherSideOfAPartition(t *testing.T) {
	inFleet(t, zones, 2, func(t *testing.T, e *sharetest.Engine, hosts []*host) {
		a, b := hosts[0], hosts[1]
		ph := a.PolicyHost("plain.test", enforce)
		a.want("plain.test", secure)
		a.after(time.Second)
		b.want("plain.test", secure)
		a.after(10 * time.Minute)
		ph.SetPolicy(strings.Replace(enforce, "mx: mx.full.test\n", "", 1))
		if err := a.Refresh(t.Context(), "plain.test"); err != nil {
			t.Fatal(err)
		}
		a.after(5 * time.Second)
		for _, h := range hosts {
			h.want("plain.test", "OK secure match=.plain.test servername=hostname")
		}
		if n := ph.Requests(); n != 3 {
			t.Errorf("%d fetches", n)
		}
	})
}

// A host that joins knows what the others know, and keeps it without them.
func TestNewHostThenNoEngine(t *testing.T) {
	inFleet(t, zones, 2, func(t *testing.T, e *sharetest.Engine, hosts []*host) {
		a, b := hosts[0], hosts[1]
		b.stop()
		a.PolicyHost("plain.test", enforce)
		a.want("plain.test", secure)
		a.after(time.Second)
		b.start()
		b.after(2 * time.Second)
		e.Fail(share.ErrDown, false)
		b.Fault("_mta-sts.plain.test", "TXT", lab.ServFail)
		b.restart()
		b.want("plain.test", secure)
	})
}
