package policymap

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tlspolicyd/internal/mtasts"
	"tlspolicyd/policymap/policy"
	"tlspolicyd/testing/lab"
)

func withMaxAge(policy string, seconds int) string {
	return strings.Replace(policy, "604800", fmt.Sprint(seconds), 1)
}

const day = 24 * time.Hour

// §7: every policy is fetched again once a day, whether or not its id changed,
// as long as somebody asks for the domain within 30 days.
func TestPolicyIsFetchedOnceADay(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		ph := h.PolicyHost("plain.test", enforce)
		h.want("plain.test", secure)
		for d := 1; d <= 20; d++ {
			h.after(day)
			if n := ph.Requests() - 1; n < d || n > d*10/9+1 {
				t.Fatalf("%d fetches after %d days", n, d)
			}
		}
		if reply, took := h.askTimed("plain.test"); reply != secure {
			t.Errorf("after 20 days %q, %v", reply, took)
		}
		ph.SetPolicyKeepID(strings.Replace(enforce, "mx: mx.full.test\n", "", 1))
		h.after(day)
		h.want("plain.test", "OK secure match=.plain.test servername=hostname")
	})
}

// §7: a domain that nobody asked for in 30 days is left to expire, and goes.
func TestUnusedDomainIsLeftToExpire(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		ph := h.PolicyHost("plain.test", enforce)
		h.want("plain.test", secure)
		h.after(31 * day)
		n := ph.Requests()
		h.after(7 * day)
		if more := ph.Requests() - n; more != 0 {
			t.Errorf("%d more fetches after 30 days without a lookup", more)
		}
		h.after(3 * day)
		if _, err := h.store.Get("plain.test"); err == nil {
			t.Error("the record is still there")
		}
	})
}

// §7: a policy whose max_age ends because its host has been down all the time is
// a weakening that the operator is told of, once, when it happens.
func TestEndOfAPolicyIsTold(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		ph := h.PolicyHost("plain.test", enforce)
		h.want("plain.test", secure)
		ph.Fault(lab.HostFault{Refuse: true})
		h.after(7*day - time.Minute)
		if c := h.seen.changed(); len(c) != 0 {
			t.Fatalf("told before the end: %+v", c)
		}
		h.after(2 * time.Minute)
		want := policy.Change{Key: "plain.test", What: "MTA-STS", Old: "enforce *.plain.test mx.full.test", New: "absent: max_age is over", Weaker: true}
		if c := h.seen.changed(); len(c) != 1 || c[0] != want {
			t.Fatalf("told of %+v", c)
		}
		h.want("plain.test", "NOTFOUND ")
		h.after(day)
		h.want("plain.test", "NOTFOUND ")
		h.restart()
		h.after(day)
		if c := h.seen.changed(); len(c) != 0 {
			t.Errorf("told again: %+v", c)
		}
		ph.Fault(lab.HostFault{})
		h.ask("plain.test")
		h.after(time.Second)
		h.want("plain.test", secure)
		ph.Fault(lab.HostFault{Refuse: true})
		h.after(7*day + time.Minute)
		if c := h.seen.changed(); len(c) != 1 {
			t.Errorf("of the second end told %+v", c)
		}
	})
}

// The end of a policy that nobody wants is no news to wake somebody for.
func TestEndOfAnUnwantedPolicyIsNoWeakening(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		h.PolicyHost("plain.test", enforce)
		h.want("plain.test", secure)
		h.after(40 * day)
		if c := h.seen.changed(); len(c) != 1 || c[0].Weaker {
			t.Errorf("told of %+v", c)
		}
	})
}

// §7: at half of what is left when max_age is shorter; down to seconds, without
// a busy loop, and only while somebody asks.
func TestShortMaxAge(t *testing.T) {
	for _, c := range []struct {
		maxAge   int
		over     time.Duration
		min, max int
	}{
		{7200, day, 20, 30},
		{10, 10 * time.Minute, 100, 130},
		{1, 10 * time.Minute, 1, 20},
	} {
		t.Run(fmt.Sprint(c.maxAge), func(t *testing.T) {
			inBubble(t, zones, func(t *testing.T, h *host) {
				ph := h.PolicyHost("plain.test", withMaxAge(enforce, c.maxAge))
				h.want("plain.test", secure)
				h.after(c.over)
				if n := ph.Requests(); n < c.min || n > c.max {
					t.Errorf("%d fetches in %v, want %d to %d", n, c.over, c.min, c.max)
				}
				h.want("plain.test", secure)
			})
		})
	}
}

// §7: failures back off and never shorten the policy; §3: nor does a TXT record
// that is gone, which ends the fetching.
func TestFailuresNeverShortenThePolicy(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		ph := h.PolicyHost("plain.test", enforce)
		h.want("plain.test", secure)
		ph.Fault(lab.HostFault{Refuse: true})
		h.Fault("mta-sts.plain.test", "A", lab.ServFail)
		h.after(6 * day)
		if n := h.Count("mta-sts.plain.test", "A"); n < 20 || n > 60 {
			t.Errorf("%d tries in 5 days of failures, want a pause that grows from 5 minutes to 6 hours", n)
		}
		h.want("plain.test", secure)
		h.after(day)
		h.want("plain.test", "NOTFOUND ") // 7 days from the last fetch
	})
	inBubble(t, zones, func(t *testing.T, h *host) {
		ph := h.PolicyHost("plain.test", enforce)
		h.want("plain.test", secure)
		ph.RemoveTXT()
		h.after(6 * day)
		if n := ph.Requests(); n != 1 {
			t.Errorf("%d fetches without a TXT record", n-1)
		}
		h.want("plain.test", secure)
	})
}

// 8460 §4.3: the report of a failed fetch says which policy applied meanwhile.
func TestFailedFetchIsReportedWithThePolicyInForce(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		want := func(stage mtasts.Stage, inForce string) {
			t.Helper()
			h.seen.mu.Lock()
			defer h.seen.mu.Unlock()
			f := h.seen.fetched
			failed, _ := errors.AsType[*mtasts.FetchError](f.Err)
			if f.Domain != "plain.test" || failed == nil || failed.Stage != stage {
				t.Errorf("%+v, want a failure at %s", f, stage)
			}
			got := ""
			if f.InForce != nil {
				got = policy.DescribePolicy(f.InForce)
			}
			if got != inForce {
				t.Errorf("in force: %q, want %q", got, inForce)
			}
		}
		ph := h.PolicyHost("plain.test", enforce)
		ph.Fault(lab.HostFault{Status: 404})
		h.want("plain.test", "NOTFOUND ")
		want(mtasts.StageStatus, "")
		ph.Fault(lab.HostFault{})
		h.after(time.Hour)
		h.want("plain.test", secure)
		ph.Fault(lab.HostFault{Refuse: true})
		h.after(2 * day)
		want(mtasts.StageConnect, "enforce *.plain.test mx.full.test")
		h.after(6 * day)
		h.want("plain.test", "NOTFOUND ")
		want(mtasts.StageConnect, "")
	})
}

// §6: a changed id is noticed by a hit, within minutes; the hit does not wait.
func TestChangedIDIsFollowed(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		ph := h.PolicyHost("plain.test", enforce)
		h.want("plain.test", secure)
		ph.SetPolicy("version: STSv1\nmode: testing\nmx: mx.plain.test\nmax_age: 604800\n")
		h.after(6 * time.Minute)
		if reply, took := h.askTimed("plain.test"); reply != secure || took != 0 {
			t.Errorf("the hit that starts it: %q after %v", reply, took)
		}
		h.after(time.Second)
		h.want("plain.test", "NOTFOUND ")
		changes := h.seen.changed()
		if len(changes) != 1 || !changes[0].Weaker || !strings.HasPrefix(changes[0].Old, "enforce") || !strings.HasPrefix(changes[0].New, "testing") {
			t.Errorf("told of %+v", changes)
		}
	})
}

// §3: an unchanged id does not prolong a policy: its lifetime counts from the fetch.
func TestUnchangedIDDoesNotProlong(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		ph := h.PolicyHost("plain.test", withMaxAge(enforce, 86400))
		h.want("plain.test", secure)
		ph.Fault(lab.HostFault{Refuse: true})
		for range 23 {
			h.after(time.Hour)
			h.want("plain.test", secure)
		}
		h.after(time.Hour + time.Minute)
		h.want("plain.test", "NOTFOUND ")
	})
}

// §3: mode none fetched afresh replaces the policy at once.
func TestModeNoneReplacesAtOnce(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		ph := h.PolicyHost("plain.test", enforce)
		h.want("plain.test", secure)
		ph.SetPolicy("version: STSv1\nmode: none\nmax_age: 86400\n")
		h.after(6 * time.Minute)
		h.ask("plain.test")
		h.after(time.Second)
		h.want("plain.test", "NOTFOUND ")
	})
}

// §6, §7: DANE that appears takes over; DANE that goes is told at warn.
func TestDANEAppearsAndGoes(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		h.PolicyHost("plain.test", enforce)
		h.want("plain.test", secure)
		h.Replace("_25._tcp.mx.plain.test", "TLSA", tlsa)
		h.after(6 * time.Minute)
		h.want("plain.test", "OK dane-only")
		h.Replace("_25._tcp.mx.plain.test", "TLSA")
		h.after(6 * time.Minute)
		h.want("plain.test", secure)
		changes := h.seen.changed()
		if len(changes) != 2 || changes[0].Weaker || !changes[1].Weaker || changes[1].What != "DANE" {
			t.Errorf("told of %+v", changes)
		}
	})
}

// §7: DANE and negative answers are refreshed ahead of expiry for domains that
// are asked for, so that these never wait; others are left alone.
func TestAnswersInUseNeverWait(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		h.Delay(20 * time.Millisecond)
		for _, key := range []string{"full.test", "absent.test"} {
			h.ask(key)
			for range 600 {
				h.after(time.Minute)
				if _, took := h.askTimed(key); took != 0 {
					t.Fatalf("%s: a lookup took %v", key, took)
				}
			}
		}
		h.after(6 * time.Hour)
		h.ResetQueries()
		h.after(6 * time.Hour)
		if q := h.Queries(); len(q) != 0 {
			t.Errorf("%d queries for domains that nobody asks for", len(q))
		}
	})
}

// §5, §6: a DNS outage after caching: the answers stay, without waiting.
func TestDNSOutage(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		h.PolicyHost("plain.test", enforce)
		want := map[string]string{"plain.test": secure, "full.test": "OK dane-only", "partial.test": "OK dane", "absent.test": "NOTFOUND "}
		for key, reply := range want {
			h.want(key, reply)
		}
		h.Down(true)
		waited := time.Duration(0)
		for range 22 * 60 {
			h.after(time.Minute)
			for key, reply := range want {
				got, took := h.askTimed(key)
				if got != reply {
					t.Fatalf("%s: %q", key, got)
				}
				waited = max(waited, took)
			}
		}
		if waited > knownWait {
			t.Errorf("a lookup waited %v", waited)
		}
		t.Logf("longest wait in 22 hours of outage: %v", waited)
		h.after(3 * time.Hour)
		h.want("full.test", "TEMP MX lookup of full.test…")
		h.Down(false)
		h.after(11 * time.Second)
		h.want("full.test", "OK dane-only")
	})
}

// §6: what Postfix was told is on disk before the reply, with the DANE state
// behind it: after a crash and without network the answers are the same.
func TestCrashWithoutNetwork(t *testing.T) {
	inBubble(t, zones+"two.test. MX 10 mx.full.test.\ntwo.test. MX 20 mx.dead.test.\nmx.dead.test. A 192.0.2.7\n", func(t *testing.T, h *host) {
		h.Fault("_25._tcp.mx.dead.test", "TLSA", lab.ServFail)
		h.Insecure("insecure.test")
		h.PolicyHost("plain.test", enforce)
		h.PolicyHost("insecure.test", enforce)
		want := map[string]string{
			"plain.test": secure, "full.test": "OK dane-only", "partial.test": "OK dane", "[mx.full.test]:587": "OK dane",
			"insecure.test": secure, "two.test": "OK dane",
		}
		for key, reply := range want {
			h.want(key, reply)
			h.crash() // at once after each reply
		}
		h.Down(true)
		for range 3 {
			for key, reply := range want {
				h.want(key, reply)
			}
			h.after(7 * time.Hour)
		}
	})
}

// §7: after a restart nothing is refreshed twice; after a week switched off the
// overdue work is spread over 10 minutes, at most 32 at a time.
func TestRestartAndBacklog(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		const n = 300
		var hosts []*lab.PolicyHost
		for i := range n {
			d := fmt.Sprintf("d%d.test", i)
			hosts = append(hosts, h.PolicyHost(d, strings.Replace(enforce, "604800", "31557600", 1)))
			h.want(d, secure)
		}
		total := func() (sum int) {
			for _, ph := range hosts {
				sum += ph.Requests()
			}
			return sum
		}
		h.after(time.Minute)
		h.restart()
		h.after(time.Hour)
		if got := total(); got != n {
			t.Errorf("%d fetches after a restart, want none but the first %d", got, n)
		}

		h.stop()
		time.Sleep(7 * day) // switched off
		h.ResetQueries()
		h.start()
		var perMinute []int
		for range 11 {
			before := total()
			h.after(time.Minute)
			perMinute = append(perMinute, total()-before)
		}
		if got := total(); got != 2*n {
			t.Errorf("%d fetches after a week switched off, want %d", got-n, n)
		}
		for i, got := range perMinute {
			if i < 9 && (got < n/10-10 || got > n/10+10) {
				t.Errorf("minute %d: %d fetches, want about %d: %v", i, got, n/10, perMinute)
			}
		}
	})
}

// §7: a clock that jumps makes no policy immortal nor all policies vanish.
func TestClockSteps(t *testing.T) {
	const year = 365 * day
	for _, c := range []struct {
		name string
		step time.Duration
	}{{"a year ahead", year}, {"a year back", -year}} {
		t.Run(c.name, func(t *testing.T) {
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
				h.after(day + time.Hour)
				h.want("plain.test", secure)
				ph.Fault(lab.HostFault{Refuse: true})
				h.Down(true)

				mu.Lock()
				step = c.step
				mu.Unlock()
				h.after(2 * time.Minute)
				h.want("plain.test", secure)
				h.crash()
				h.after(time.Minute)
				h.want("plain.test", secure)
				h.Down(false)
				h.after(5 * day)
				h.want("plain.test", secure)
				h.after(3 * day) // max_age is 7 days, counted from the fetch
				h.want("plain.test", "NOTFOUND ")
			})
		})
	}
}

// When a domain was last asked for follows a clock that jumps ahead: else it
// would look as though nobody had asked for it since.
func TestLastUseFollowsTheClock(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		var ahead atomic.Int64
		h.wall = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
		h.restart()
		h.want("full.test", "OK dane-only")
		h.restart()
		ahead.Store(int64(365 * day))
		h.after(2 * time.Minute)
		rec, err := h.store.Get("full.test")
		if ago := h.wall().Sub(rec.LastUsed); err != nil || ago > time.Hour {
			t.Errorf("last used %v ago, %v", ago, err)
		}
	})
}

// §7: a small step leaves every lifetime as long as it was, too.
func TestSmallClockSteps(t *testing.T) {
	for _, step := range []time.Duration{2 * day, -2 * day} {
		t.Run(step.String(), func(t *testing.T) {
			var stepped atomic.Bool
			inBubble(t, zones, func(t *testing.T, h *host) {
				h.wall = func() time.Time {
					if stepped.Load() {
						return time.Now().Add(step)
					}
					return time.Now()
				}
				h.restart()
				ph := h.PolicyHost("plain.test", withMaxAge(enforce, 7*86400))
				h.want("plain.test", secure)
				ph.Fault(lab.HostFault{Refuse: true})
				h.after(3 * day)
				stepped.Store(true)
				h.after(4*day - time.Minute)
				h.want("plain.test", secure)
				h.restart() // what is on disk has kept its age as well
				h.want("plain.test", secure)
				h.after(2 * time.Minute)
				h.want("plain.test", "NOTFOUND ")
				if len(h.seen.steps) != 0 {
					t.Errorf("the step was seen again after the restart: %v", h.seen.steps)
				}
			})
		})
	}
}

// §7: an expired policy is not deleted soon after a start, when the clock may
// yet turn out to have run ahead.
func TestStartedWithAClockThatRunsAhead(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		h.PolicyHost("plain.test", enforce)
		h.want("plain.test", secure)
		h.stop()
		var right atomic.Bool
		h.wall = func() time.Time {
			if right.Load() {
				return time.Now()
			}
			return time.Now().Add(365 * day)
		}
		h.Down(true)
		h.start()
		h.after(30 * time.Minute)
		right.Store(true)
		h.after(2 * time.Minute)
		h.want("plain.test", secure)
	})
}

// §7: started with a clock that is right again after one that ran ahead, a
// fetch time in the future counts as now, once and not for ever.
func TestFetchTimeInTheFuture(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		h.stop()
		h.wall = func() time.Time { return time.Now().Add(365 * day) }
		h.start()
		ph := h.PolicyHost("plain.test", enforce)
		h.want("plain.test", secure)
		h.stop()
		h.wall = nil
		h.start()
		ph.Fault(lab.HostFault{Refuse: true})
		h.want("plain.test", secure)
		h.after(6 * day)
		h.want("plain.test", secure)
		h.after(day + time.Hour)
		h.want("plain.test", "NOTFOUND ")
	})
}

// §7: all records are read at a start only where one may have a time in the
// future: with a million of them that would be the whole of the first seconds.
func TestStartReadsAllRecordsOnlyIfItMust(t *testing.T) {
	for _, ahead := range []bool{false, true} {
		inBubble(t, zones, func(t *testing.T, h *host) {
			if ahead {
				h.stop()
				h.wall = func() time.Time { return time.Now().Add(365 * day) }
				h.start()
			}
			h.PolicyHost("plain.test", enforce)
			h.want("plain.test", secure)
			h.stop()
			h.wall = nil
			h.start()
			h.after(time.Minute)
			h.want("plain.test", secure)
			if read := h.store.lists > 0; read != ahead {
				t.Errorf("a clock that ran ahead: %v; all records were read: %v", ahead, read)
			}
		})
	}
}

// §7: no policy becomes immortal, not even on a host that sleeps every night,
// where the wall clock goes on and the monotonic one does not.
func TestPolicyEndsOnAHostThatSleeps(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		var slept atomic.Int64
		h.stop()
		h.wall = func() time.Time { return time.Now().Add(time.Duration(slept.Load())) }
		h.start()
		ph := h.PolicyHost("plain.test", withMaxAge(enforce, 86400))
		h.want("plain.test", secure)
		ph.Fault(lab.HostFault{Refuse: true})
		for range 3 {
			h.after(4 * time.Hour)
			slept.Add(int64(20 * time.Hour))
			h.after(2 * time.Minute)
			h.ask("plain.test")
		}
		h.want("plain.test", "NOTFOUND ")
	})
}

// §7: work that was overdue at the start is spread over 10 minutes. A step of the
// clock back during or after that does not stop refreshes for as long.
func TestClockStepsBackAfterAnOverdueStart(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		var behind atomic.Int64
		h.wall = func() time.Time { return time.Now().Add(-time.Duration(behind.Load())) }
		h.restart()
		h.want("none.test", "NOTFOUND ")
		h.after(time.Minute)
		h.stop()
		h.after(time.Hour) // what is known of none.test is due by then
		h.start()
		h.after(20 * time.Minute)
		behind.Store(int64(5 * time.Hour))
		h.after(5 * time.Minute)
		ph := h.PolicyHost("plain.test", withMaxAge(enforce, 1200))
		h.want("plain.test", secure)
		h.after(2 * time.Hour)
		if n := ph.Requests(); n < 10 {
			t.Errorf("%d fetches in two hours of a policy that lives 20 minutes", n)
		}
		h.want("plain.test", secure)
	})
}
