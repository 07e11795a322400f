package policymap

import (
	"sync"
	"testing"
	"time"

	"tlspolicyd/internal/dane"
	"tlspolicyd/store"
	"tlspolicyd/testing/lab"
)

// §6 (A4): an answer as last known is looked up again every 10 s while it is asked
// for, however long the TXT record is good.
func TestStaleAnswerIsFollowedThoughTheTXTRecordIsGood(t *testing.T) {
	inBubble(t, twoHosts+tlsa1+tlsa2, func(t *testing.T, h *host) {
		h.PolicyHost("two.test", twoPolicy)
		h.Replace("_mta-sts.two.test", "TXT", `_mta-sts.two.test. 3600 IN TXT "v=STSv1; id=1"`)
		for range 65 { // past the end of the TTL: the TXT record was looked up again
			h.want("two.test", "OK dane-only")
			h.after(time.Minute)
		}
		h.after(10 * time.Minute)
		h.Fault("two.test", "MX", lab.ServFail)
		h.want("two.test", "OK dane-only")
		h.Fault("two.test", "MX", 0)
		h.Replace("_25._tcp.mx1.two.test", "TLSA")
		h.Replace("_25._tcp.mx2.two.test", "TLSA")
		for range 6 {
			h.after(30 * time.Second)
			h.ask("two.test")
		}
		h.want("two.test", twoSecure)
	})
}

// §6: a new policy is followed though DANE is as last known, by the next lookup.
func TestStaleAnswerFollowsANewPolicy(t *testing.T) {
	inBubble(t, twoHosts, func(t *testing.T, h *host) {
		p := h.PolicyHost("two.test", twoPolicy)
		h.want("two.test", twoSecure)
		h.after(10 * time.Minute)
		h.Fault("two.test", "MX", lab.ServFail)
		h.Delay(time.Second, "_mta-sts.two.test")
		p.SetPolicy("version: STSv1\nmode: enforce\nmx: mx1.two.test\nmax_age: 604800\n")
		h.want("two.test", twoSecure)
		h.after(3 * time.Second)
		h.want("two.test", "OK secure match=mx1.two.test servername=hostname")
	})
}

// §6: a failure is remembered for 10 s, though the TXT lookup ends after it.
func TestFailureIsRememberedThoughTheTXTLookupEndsLater(t *testing.T) {
	inBubble(t, twoHosts, func(t *testing.T, h *host) {
		h.Fault("mx1.two.test", "", lab.ServFail)
		h.Fault("mx2.two.test", "", lab.ServFail)
		h.Delay(3*time.Second, "_mta-sts.two.test")
		const temp = "TEMP A lookup of mx1.two.test: SERVFAIL"
		h.want("two.test", temp)
		h.after(5 * time.Second)
		h.ResetQueries()
		h.want("two.test", temp)
		if n := h.Count("mx1.two.test", "A"); n != 0 {
			t.Errorf("%d lookups within 10 s of one that failed", n)
		}
	})
}

// §6: without lookups for a while the next one tries DNS before it answers as last
// known.
func TestStaleAnswerIsNotServedForHoursUntried(t *testing.T) {
	inBubble(t, twoHosts+tlsa1+tlsa2, func(t *testing.T, h *host) {
		h.want("two.test", "OK dane-only")
		h.after(10 * time.Minute)
		h.Fault("two.test", "MX", lab.ServFail)
		h.want("two.test", "OK dane-only")
		h.Fault("two.test", "MX", 0)
		h.Replace("_25._tcp.mx1.two.test", "TLSA")
		h.Replace("_25._tcp.mx2.two.test", "TLSA")
		h.after(20 * time.Hour)
		h.want("two.test", "NOTFOUND ")
	})
}

// §6: the TTL that is found counts, also where it is shorter than the one before.
func TestShorterTXTTTLIsFollowed(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		h.PolicyHost("plain.test", enforce)
		h.NegativeTTL(day)
		h.Replace("_mta-sts.plain.test", "TXT", `_mta-sts.plain.test. 86400 IN TXT "v=STSv1; id=1"`)
		h.want("plain.test", secure)
		h.after(25 * time.Hour)
		h.want("plain.test", secure)
		h.Replace("_mta-sts.plain.test", "TXT", `_mta-sts.plain.test. 60 IN TXT "v=STSv1; id=2"`)
		h.after(time.Second)
		if err := h.Refresh(t.Context(), "plain.test"); err != nil {
			t.Fatal(err)
		}
		h.ResetQueries()
		for range 10 {
			h.want("plain.test", secure)
			h.after(2 * time.Minute)
		}
		if n := h.Count("_mta-sts.plain.test", "TXT"); n < 8 {
			t.Errorf("%d TXT lookups in 20 minutes of a record with a TTL of a minute", n)
		}
	})
}

// §7 (A11): a refresh at half a day that fails is tried again, and not only before
// the TTL ends.
func TestFailedRefreshAtHalfADayIsTriedAgain(t *testing.T) {
	inBubble(t, dayLong, func(t *testing.T, h *host) {
		h.NegativeTTL(day)
		for range 12 {
			h.want("full.test", "OK dane-only")
			h.after(time.Hour)
		}
		h.Fault("full.test", "MX", lab.ServFail)
		h.after(70 * time.Minute)
		h.Fault("full.test", "MX", 0)
		for range 9 {
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

// In the first hour after a start expired policies stay, and are not worked on again
// and again.
func TestExpiredPolicyIsLeftAloneAfterAStart(t *testing.T) {
	inBubble(t, twoHosts+tlsa1+tlsa2, func(t *testing.T, h *host) {
		h.PolicyHost("two.test", withMaxAge(twoPolicy, 86400))
		h.want("two.test", "OK dane-only")
		h.after(time.Minute)
		h.stop()
		time.Sleep(7 * day)
		h.start()
		h.after(11 * time.Minute)
		before := h.store.writes.Load()
		h.after(40 * time.Minute)
		if n := h.store.writes.Load() - before; n > 3 {
			t.Errorf("%d writes in 40 minutes for one expired record", n)
		}
	})
}

// §4: that a host had no address says nothing about its TLSA records once it has one.
func TestHostThatGetsAnAddress(t *testing.T) {
	const oneAddress = "two.test. 60 IN MX 10 mx1.two.test.\ntwo.test. 60 IN MX 20 mx2.two.test.\nmx1.two.test. 60 IN A 192.0.2.11\n"
	inBubble(t, oneAddress, func(t *testing.T, h *host) {
		h.NegativeTTL(time.Minute)
		h.PolicyHost("two.test", twoPolicy)
		h.want("two.test", twoSecure)
		h.after(10 * time.Minute)
		h.Zone("mx2.two.test. 60 IN A 192.0.2.12\n")
		h.Fault("_25._tcp.mx2.two.test", "TLSA", lab.ServFail)
		h.want("two.test", "OK secure match=mx1.two.test servername=hostname")
	})
}

// Many that wait for one silent domain are one lookup.
func TestWaitersForOneDomainHaveOnePlace(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		h.Fault("plain.test", "MX", lab.Drop)
		var wg sync.WaitGroup
		for range 2 * maxLookups {
			wg.Go(func() { h.ask("plain.test") })
		}
		h.after(time.Second)
		h.want("full.test", "OK dane-only")
		wg.Wait()
	})
}

// §7: each new id that comes with the old file gets its own fetches again.
func TestSecondNewIDWithTheOldFile(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		ph := h.PolicyHost("plain.test", enforce)
		id := func(id string) {
			h.Replace("_mta-sts.plain.test", "TXT", `_mta-sts.plain.test. 60 IN TXT "v=STSv1; id=`+id+`"`)
		}
		id("a1")
		h.want("plain.test", secure)
		h.after(2 * time.Hour)
		id("a2")
		for range 20 {
			h.ask("plain.test")
			h.after(2 * time.Minute)
		}
		id("a3")
		before := ph.Requests()
		for range 60 {
			h.ask("plain.test")
			h.after(2 * time.Minute)
		}
		if n := ph.Requests() - before; n != 4 {
			t.Errorf("%d fetches in two hours, want one for the id and three more", n)
		}
	})
}

// §4 (A7): a null MX that is over does not let a later one end a policy that came in
// between.
func TestNullMXAfterAPolicy(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		h.Insecure("null.test")
		h.want("null.test", "NOTFOUND ")
		h.after(2 * time.Hour)
		h.Fault("null.test", "MX", lab.ServFail)
		h.PolicyHost("null.test", enforce)
		h.want("null.test", secure)
		h.Fault("null.test", "MX", 0)
		h.after(2 * time.Hour)
		h.want("null.test", secure)
	})
}

// §4 (A7): nor does one that is imported.
func TestImportedNullMXEndsNoPolicy(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		h.PolicyHost("plain.test", enforce)
		h.want("plain.test", secure)
		h.after(time.Second)
		null := store.Record{Domain: "plain.test", DANE: []store.DANE{{
			Port: 25, MX: uint8(dane.MXInsecure), NullMX: true, KnownAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour),
		}}}
		if err := h.Import(t.Context(), []store.Record{null}); err != nil {
			t.Fatal(err)
		}
		h.want("plain.test", secure)
	})
}
