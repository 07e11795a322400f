package policymap

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"tlspolicyd/policymap/policy"
	"tlspolicyd/testing/lab"
)

const (
	tlsa  = "3 1 1 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	tlsa0 = "0 1 1 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
)

// zones is a domain for each DANE state; PolicyHost adds MTA-STS to them.
const zones = `
full.test.            3600 IN MX 10 mx.full.test.
mx.full.test.         3600 IN A 192.0.2.1
_25._tcp.mx.full.test. 3600 IN TLSA ` + tlsa + `
_587._tcp.mx.full.test. 3600 IN TLSA ` + tlsa0 + `

partial.test.         3600 IN MX 10 mx.full.test.
partial.test.         3600 IN MX 20 mx.plain.test.

insecure.test.        3600 IN MX 10 mx.full.test.

plain.test.           3600 IN MX 10 mx.plain.test.
mx.plain.test.        3600 IN A 192.0.2.2

null.test.            3600 IN MX 0 .
`

const enforce = "version: STSv1\nmode: enforce\nmx: *.plain.test\nmx: mx.full.test\nmax_age: 604800\n"

const secure = "OK secure match=.plain.test:mx.full.test servername=hostname"

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
}

// §5: the rows of the table, from the wire to the reply.
func TestRowsFromTheWire(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		h.Insecure("insecure.test", "plain.test")
		for _, d := range []string{"full.test", "partial.test", "insecure.test", "plain.test"} {
			h.PolicyHost(d, enforce)
		}
		h.PolicyHost("testing.test", strings.Replace(enforce, "enforce", "testing", 1))
		h.PolicyHost("none.test", "version: STSv1\nmode: none\nmax_age: 86400\n")
		h.Zone("broken.test. MX 10 mx.broken.test.\nmx.broken.test. A 192.0.2.9\n")
		h.Fault("_25._tcp.mx.broken.test", "TLSA", lab.ServFail)

		h.DelayHTTP(time.Millisecond)
		for _, c := range []struct {
			key, reply string
			row        policy.Row
		}{
			{"full.test", "OK dane-only", policy.RowFull},
			{"[mx.full.test]", "OK dane-only", policy.RowFull},
			{"full.test:587", secure, policy.RowUnusable},  // none of its TLSA records is usable
			{"partial.test", "OK dane", policy.RowPartial}, // DANE decides alone, the policy is not waited for
			{"insecure.test", secure, policy.RowInsecureSTS},
			{"plain.test", secure, policy.RowEnforce},
			{"testing.test", "NOTFOUND ", policy.RowTesting},
			{"none.test", "NOTFOUND ", policy.RowNone},
			{"absent.test", "NOTFOUND ", policy.RowNone},
			{"broken.test", "TEMP TLSA lookup of _25._tcp.mx.broken.test: SERVFAIL…", policy.RowUnknown},
		} {
			h.want(c.key, c.reply)
			if got := h.seen.lastRow(); got != c.row {
				t.Errorf("%s: row %s, want %s", c.key, got, c.row)
			}
			h.after(time.Second)
			h.want(c.key, c.reply) // the cached answer is the same
			if got := h.seen.lastOrigin(); got != Cached {
				t.Errorf("%s: asked again it was %v", c.key, got)
			}
		}
	})
}

// §2: nothing is looked up for parents, literals and nonsense; §1: map names.
func TestKeysThatAreNotLookedUp(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		h.PolicyHost("plain.test", enforce)
		for _, key := range []string{".plain.test", "[192.0.2.1]", "[IPv6:2001:db8::1]:25", "192.0.2.1", "/x", "", "a b"} {
			h.want(key, "NOTFOUND ")
		}
		if q := h.Queries(); len(q) != 0 {
			t.Errorf("asked %v", q)
		}
		for name, want := range map[string]string{
			"postfix": secure, "QUERY": secure,
			"postfix-tlsrpt": secure + " policy_type=sts", "QUERYwithTLSRPT": secure + " policy_type=sts",
			"other": `PERM unknown map "other": use postfix or postfix-tlsrpt`,
		} {
			got := string(h.Lookup(context.Background(), []byte(name), []byte("plain.test")))
			if !strings.HasPrefix(got, want) || strings.Contains(got, "policy_type") != strings.Contains(want, "policy_type") {
				t.Errorf("map %s: got %q", name, got)
			}
		}
	})
}

// §2: case, final dot and U-labels are the same next hop, looked up once.
func TestFormsOfOneKeyShareALookup(t *testing.T) {
	inBubble(t, "xn--bcher-kva.test. MX 10 mx.full.test.\n"+zones, func(t *testing.T, h *host) {
		for _, key := range []string{"bücher.test", "xn--bcher-kva.test", "XN--BCHER-KVA.Test.", "BÜCHER.test:25", "bücher.test:smtp"} {
			h.want(key, "OK dane-only")
		}
		if n := h.Count("xn--bcher-kva.test", "MX"); n != 1 {
			t.Errorf("%d MX lookups, want 1", n)
		}
	})
}

// §6: the same domain is looked up once at a time, however many ask.
func TestHundredConnectionsOneLookup(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		ph := h.PolicyHost("plain.test", enforce)
		h.Delay(20 * time.Millisecond)
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() { h.want("plain.test", secure) })
		}
		wg.Wait()
		if mx, txt := h.Count("plain.test", "MX"), h.Count("_mta-sts.plain.test", "TXT"); mx != 1 || txt != 1 || ph.Requests() != 1 {
			t.Errorf("%d MX lookups, %d TXT lookups, %d fetches; want one each", mx, txt, ph.Requests())
		}
	})
}

// The cold path costs the slower of the two chains: they run side by side.
// The bubble's clock is exact, so what is left over is none.
func TestColdLookupCostsTheSlowerChain(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		h.PolicyHost("plain.test", enforce)
		h.Delay(20 * time.Millisecond)
		h.DelayHTTP(60 * time.Millisecond)
		// MTA-STS: TXT, addresses of the policy host, response. DANE: MX, addresses, TLSA.
		sts, dane := 2*20*time.Millisecond+60*time.Millisecond, 3*20*time.Millisecond
		_, took := h.askTimed("plain.test")
		t.Logf("cold lookup %v; MTA-STS chain %v, DANE chain %v", took, sts, dane)
		if want := max(sts, dane); took < want || took > want+5*time.Millisecond {
			t.Errorf("took %v, want %v", took, want)
		}
	})
}

// §6: where DANE alone decides, the answer does not wait for a policy host.
func TestDANEDoesNotWaitForThePolicyHost(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		h.PolicyHost("full.test", enforce).Fault(lab.HostFault{Stall: lab.AtHandshake})
		h.PolicyHost("partial.test", enforce).Fault(lab.HostFault{Stall: lab.AtHandshake})
		for key, want := range map[string]string{"full.test": "OK dane-only", "partial.test": "OK dane"} {
			if reply, took := h.askTimed(key); reply != want || took > 0 {
				t.Errorf("%s: %q after %v", key, reply, took)
			}
		}
	})
}

// §6: a first lookup waits fetch.wait; the fetch goes on, and what it finds
// applies as soon as it is there.
func TestSlowPolicyHostCostsOneDelivery(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		ph := h.PolicyHost("plain.test", enforce)
		ph.Fault(lab.HostFault{Delay: 8 * time.Second})
		reply, took := h.askTimed("plain.test")
		if reply != "NOTFOUND " || took != 5*time.Second {
			t.Errorf("first: %q after %v", reply, took)
		}
		if reply, took := h.askTimed("plain.test"); reply != "NOTFOUND " || took != 0 {
			t.Errorf("second: %q after %v", reply, took)
		}
		h.after(4 * time.Second)
		if reply, took := h.askTimed("plain.test"); reply != secure || took != 0 {
			t.Errorf("once fetched: %q after %v", reply, took)
		}
		if n := ph.Requests(); n != 1 {
			t.Errorf("%d fetches", n)
		}
	})
}

// §3: a failed fetch means no policy, and is not repeated for the same id
// within 5 minutes; a new id is tried at once.
func TestFailedFetchIsNotRepeated(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		h.memory = 1
		ph := h.PolicyHost("plain.test", enforce)
		ph.Fault(lab.HostFault{Status: 503})
		// A hit after its TTL looks at the record again, but not at the host.
		h.Replace("_mta-sts.plain.test", "TXT", fmt.Sprintf(`_mta-sts.plain.test. 60 IN TXT "v=STSv1; id=%s;"`, ph.ID()))
		for range 4 {
			h.want("plain.test", "NOTFOUND ")
			h.after(70 * time.Second)
		}
		if n := ph.Requests(); n != 1 {
			t.Errorf("%d fetches within 5 minutes", n)
		}
		ph.Fault(lab.HostFault{})
		ph.SetPolicy(enforce)
		h.after(5 * time.Minute)
		h.want("plain.test", secure)
	})
}

// §4, 7505: a domain without mail has no policy, and its policy host is left alone.
func TestNullMXAbandonsTheFetch(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		ph := h.PolicyHost("null.test", enforce)
		ph.Fault(lab.HostFault{Delay: time.Second})
		if reply, took := h.askTimed("null.test"); reply != "NOTFOUND " || took != 0 {
			t.Errorf("%q after %v", reply, took)
		}
		h.after(10 * time.Second)
		h.want("null.test", "NOTFOUND ")
		if rec, err := h.store.Get("null.test"); err != nil || rec.STS != nil && rec.STS.Policy != nil {
			t.Errorf("the policy was fetched all the same: %+v, %v", rec, err)
		}
	})
}

// The same when the policy host is quicker than the MX answer, and after a
// restart.
func TestNullMXHasNoPolicyHoweverQuickItsHost(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		ph := h.PolicyHost("null.test", enforce)
		h.Delay(300*time.Millisecond, "null.test")
		for range 3 {
			h.want("null.test", "NOTFOUND ")
			h.restart()
		}
		if n := ph.Requests(); n > 1 {
			t.Errorf("%d fetches", n)
		}
	})
}

// A policy in force outlives a null MX, which may be forged.
func TestNullMXDoesNotEndAPolicyInForce(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		h.PolicyHost("plain.test", enforce)
		h.want("plain.test", secure)
		h.Replace("plain.test", "MX", "0 .")
		h.after(time.Hour)
		h.want("plain.test", secure)
	})
}

// §6: no lookup takes longer than 15 s, whatever is silent; a failure is
// remembered for 10 s, so that a storm of retries costs one lookup.
func TestSilentDNSIsBoundedAndRemembered(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		h.Down(true)
		reply, took := h.askTimed("plain.test")
		if !strings.HasPrefix(reply, "TEMP MX lookup of plain.test: ") || took > 15*time.Second {
			t.Errorf("%q after %v", reply, took)
		}
		h.ResetQueries()
		for range 50 {
			if reply, took := h.askTimed("plain.test"); !strings.HasPrefix(reply, "TEMP ") || took != 0 {
				t.Errorf("%q after %v", reply, took)
			}
		}
		if q := h.Queries(); len(q) != 0 {
			t.Errorf("%d queries in the storm", len(q))
		}
		h.Down(false)
		h.after(11 * time.Second)
		h.want("plain.test", "NOTFOUND ")
	})
}

// §3: a failing TXT lookup counts as an absent policy for 60 s at most, while
// the background tries again; it is never TEMP.
func TestFailingTXTLookup(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		h.PolicyHost("plain.test", enforce)
		h.Fault("_mta-sts.plain.test", "TXT", lab.ServFail)
		h.want("plain.test", "NOTFOUND ")
		h.Fault("_mta-sts.plain.test", "TXT", 0)
		h.after(61 * time.Second)
		if reply, took := h.askTimed("plain.test"); reply != secure || took != 0 {
			t.Errorf("a minute later: %q after %v", reply, took)
		}
	})
}

// §3: max_age 0 is used once and not kept.
func TestMaxAgeZero(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		ph := h.PolicyHost("plain.test", strings.Replace(enforce, "604800", "0", 1))
		h.want("plain.test", secure)
		h.want("plain.test", secure)
		if n := ph.Requests(); n != 2 {
			t.Errorf("%d fetches, want one for each lookup", n)
		}
		h.after(2 * time.Second)
		if rec, err := h.store.Get("plain.test"); err != nil || rec.STS == nil || rec.STS.Policy != nil {
			t.Errorf("kept %+v, %v", rec.STS, err)
		}
		ph.Fault(lab.HostFault{Refuse: true})
		h.want("plain.test", "NOTFOUND ")
	})
}

// §5: one failing host, a failing AAAA or a failing policy host never causes TEMP.
func TestOneFailingHostIsNotTEMP(t *testing.T) {
	inBubble(t, zones+`
two.test. MX 10 mx.full.test.
two.test. MX 20 mx.dead.test.
mx.dead.test. A 192.0.2.7
three.test. MX 10 mx.plain.test.
three.test. MX 20 mx.gone.test.
four.test. MX 10 mx.plain.test.
four.test. MX 20 mx.dead.test.
`, func(t *testing.T, h *host) {
		h.Fault("_25._tcp.mx.dead.test", "TLSA", lab.ServFail)
		h.Fault("mx.gone.test", "", lab.ServFail)
		h.Fault("mx.plain.test", "AAAA", lab.ServFail)
		h.PolicyHost("plain.test", enforce).Fault(lab.HostFault{Refuse: true})
		h.want("two.test", "OK dane")
		h.want("three.test", "NOTFOUND ")
		h.want("four.test", "OK dane")
		h.want("plain.test", "NOTFOUND ")

		// Kept 5 minutes at most.
		h.Fault("_25._tcp.mx.dead.test", "TLSA", 0)
		h.Replace("_25._tcp.mx.dead.test", "TLSA", tlsa)
		h.after(5*time.Minute + time.Second)
		h.want("two.test", "OK dane-only")
	})
}

// §5: overrides come before everything.
func TestOverrides(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		h.PolicyHost("plain.test", enforce)
		with := h.config
		with.Overrides = policy.Overrides{"full.test": {Policy: "skip"}, ".test": {Policy: "encrypt"}, "plain.test": {Policy: "lookup"}}
		h.Reconfigure(with)
		h.want("full.test", "NOTFOUND ")
		h.want("[FULL.test]:587", "NOTFOUND ")
		h.want("full.test:nosuchservice", "NOTFOUND ")
		h.want("partial.test", "OK encrypt")
		h.want("partial.test", "OK encrypt")
		h.want(".test", "NOTFOUND ")
		h.want("plain.test", secure)
		if n := h.Count("full.test", "MX"); n != 0 {
			t.Errorf("looked %d times at an overridden domain", n)
		}
		h.SetOverrides(policy.Overrides{"full.test": {Policy: "may"}})
		h.want("full.test", "OK may")
		h.want("partial.test", "OK dane")
		h.Reconfigure(h.config)
		h.want("full.test", "OK dane-only")
	})
}

// §6: a full disk: answers go on, from memory, and the observer is told; when
// there is room again, what was learned is written.
func TestFullDisk(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		h.PolicyHost("plain.test", enforce)
		h.store.setFull(true)
		h.want("plain.test", secure)
		h.want("plain.test", secure)
		h.want("full.test", "OK dane-only")
		if len(h.seen.failed) == 0 {
			t.Error("nobody was told")
		}
		h.store.setFull(false)
		h.after(2 * time.Minute)
		h.crash()
		h.Down(true)
		h.want("plain.test", secure)
	})
}

// §6: a disk that works again has no weaker record than Postfix was given, from the
// first moment on: absences that were learned before a policy wait no shorter.
func TestDiskThatRecovers(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		h.PolicyHost("plain.test", enforce)
		h.DelayHTTP(time.Second) // DANE is decided, and queued, before the policy is there
		works := h.store.refuse()
		h.want("plain.test", secure)
		works()
		h.crash()
		h.Down(true)
		h.want("plain.test", secure)
	})
}

// §6: a hit never touches the store, and does not allocate.
func TestHitAllocatesNothingAndLeavesTheStoreAlone(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		h.PolicyHost("plain.test", enforce)
		keys := [][]byte{[]byte("plain.test"), []byte("PLAIN.test"), []byte("full.test"), []byte("absent.test"), []byte(".parent.test")}
		for _, k := range keys {
			h.ask(string(k))
		}
		h.Map.observer = Observers(nil)
		h.after(0)
		calls := h.store.count()
		for _, k := range keys {
			for _, name := range []string{"postfix", "postfix-tlsrpt"} {
				name := []byte(name)
				if n := testing.AllocsPerRun(100, func() { h.Lookup(context.Background(), name, k) }); n != 0 {
					t.Errorf("%s, map %s: %v allocations", k, name, n)
				}
			}
		}
		if n := h.store.count() - calls; n != 0 {
			t.Errorf("%d calls of the store", n)
		}
	})
}

// A cache that is too small loses answers, not facts.
func TestEvictedFromMemoryIsAnsweredFromTheStore(t *testing.T) {
	inBubble(t, "", func(t *testing.T, h *host) {
		h.stop()
		h.memory = 1
		h.start()
		for i := range 4500 {
			h.Zone(fmt.Sprintf("d%d.test. 86400 IN MX 10 mx.test.", i))
		}
		h.Zone("mx.test. 86400 IN A 192.0.2.1\n_25._tcp.mx.test. 86400 IN TLSA " + tlsa)
		for i := range 4500 {
			h.want(fmt.Sprintf("d%d.test", i), "OK dane-only")
		}
		h.Down(true)
		for i := range 4500 {
			h.want(fmt.Sprintf("d%d.test", i), "OK dane-only")
		}
	})
}
