package policymap

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"tlspolicyd/internal/dane"
	"tlspolicyd/policymap/policy"
	"tlspolicyd/policymap/records"
	"tlspolicyd/store"
	"tlspolicyd/testing/lab"
)

func TestOperatorSeesWhatIsKnown(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		h.PolicyHost("plain.test", enforce)
		h.want("plain.test", secure)
		h.want("[mx.full.test]:587", "OK dane")
		h.after(time.Minute)
		h.want("plain.test", secure)

		info, ok := h.Info("plain.test")
		if !ok || info.STS != policy.STSEnforce || info.Policy == nil || len(info.Answers) != 1 {
			t.Fatalf("got %+v %v", info, ok)
		}
		if a := info.Answers[0]; a.Key != "plain.test" || a.DANE != dane.None || !a.DANEFresh || a.Reply != secure || a.Decision.Row != policy.RowEnforce {
			t.Errorf("answer %+v", a)
		}
		if left := time.Until(info.STSExpires); left < 7*day-2*time.Minute || left > 7*day {
			t.Errorf("expires in %v", left)
		}
		if ago := time.Since(info.Record.LastUsed); ago > policy.UsedGrain {
			t.Errorf("last used %v ago", ago)
		}
		if _, ok := h.Info("absent.test"); ok {
			t.Error("something is known of a domain that nobody asked for")
		}
		var keys []string
		if err := h.Each(func(i Info) bool {
			keys = append(keys, i.Answers[0].Key)
			return true
		}); err != nil || len(keys) != 2 || keys[0] != "[mx.full.test]:587" {
			t.Errorf("domains %v, %v", keys, err)
		}
	})
}

// A refresh within a millisecond of the lookup, which is as exact as a record is,
// is seen to have looked DANE up.
func TestRefreshAtOnceShows(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		h.want("full.test", "OK dane-only")
		for range 3 { // all within one millisecond
			before, _ := h.Info("full.test")
			if err := h.Refresh(context.Background(), "full.test"); err != nil {
				t.Fatal(err)
			}
			after, _ := h.Info("full.test")
			if was, is := before.Record.DANE[0].KnownAt, after.Record.DANE[0].KnownAt; !is.After(was) {
				t.Errorf("known at %v, and before the refresh at %v", is, was)
			}
		}
	})
}

func TestOperatorRefreshesAndPurges(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		ph := h.PolicyHost("plain.test", enforce)
		h.want("plain.test", secure)
		ph.SetPolicyKeepID("version: STSv1\nmode: none\nmax_age: 86400\n")
		h.Replace("_25._tcp.mx.plain.test", "TLSA", tlsa)
		if err := h.Refresh(context.Background(), "plain.test"); err != nil {
			t.Fatal(err)
		}
		h.want("plain.test", "OK dane-only")
		if info, _ := h.Info("plain.test"); info.STS != policy.STSNone {
			t.Errorf("policy %v", info.STS)
		}
		if err := h.Refresh(context.Background(), "absent.test"); !errors.Is(err, ErrUnknownDomain) {
			t.Errorf("refresh of an unknown domain: %v", err)
		}

		if err := h.Purge(context.Background(), "plain.test", "absent.test"); err != nil {
			t.Fatal(err)
		}
		if _, ok := h.Info("plain.test"); ok {
			t.Error("still known")
		}
		n := h.Count("plain.test", "MX")
		h.want("plain.test", "OK dane-only")
		if h.Count("plain.test", "MX") != n+1 {
			t.Error("answered without a lookup")
		}
	})
}

// An answer that rests on no record (its DANE lookup fails) is the operator's to
// see, to refresh and to purge like any other, and follows a new policy at once
// (§3).
func TestOperatorAndUnknownDANE(t *testing.T) {
	ctx := context.Background()
	inBubble(t, zones, func(t *testing.T, h *host) {
		const secure = "OK secure match=mx.full.test servername=hostname"
		h.Insecure("insecure.test")
		h.Fault("_25._tcp.mx.full.test", "TLSA", lab.ServFail)
		ph := h.PolicyHost("insecure.test", "version: STSv1\nmode: enforce\nmx: mx.full.test\nmax_age: 604800\n")
		h.want("insecure.test", secure)
		info, _ := h.Info("insecure.test")
		if len(info.Answers) != 1 || info.Answers[0].Reply != secure || info.Answers[0].Decision.Reason == "" {
			t.Fatalf("got %+v", info.Answers)
		}
		ph.SetPolicy("version: STSv1\nmode: none\nmax_age: 604800\n")
		if err := h.Refresh(ctx, "insecure.test"); err != nil {
			t.Fatal(err)
		}
		h.want("insecure.test", "OK dane")
		h.Fault("_25._tcp.mx.full.test", "TLSA", 0)
		if err := h.Refresh(ctx, "insecure.test"); err != nil {
			t.Fatal(err)
		}
		h.want("insecure.test", "OK dane")
	})
	inBubble(t, zones, func(t *testing.T, h *host) {
		h.Fault("plain.test", "MX", lab.ServFail)
		h.want("plain.test", "TEMP …")
		h.Fault("plain.test", "MX", 0)
		if err := h.Purge(ctx, "plain.test"); err != nil {
			t.Fatal(err)
		}
		h.want("plain.test", "NOTFOUND ")
	})
}

// What Postfix is told is what the operator sees, overrides included.
func TestOperatorSeesOverrides(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		h.want("full.test", "OK dane-only")
		cfg := h.config
		cfg.Overrides = policy.Overrides{"full.test": {Policy: "skip", File: "/etc/shared.toml"}}
		h.Reconfigure(cfg)
		info, _ := h.Info("full.test")
		why := `the operator's override "skip" in /etc/shared.toml`
		if a := info.Answers[0]; a.Reply != "NOTFOUND " || a.Decision.Why != why || a.Decision.Row != policy.RowOverride || a.DANE != dane.Full {
			t.Errorf("got %+v", a)
		}
	})
}

// Somebody repaired the policy host and says so: it is asked again at once.
func TestOperatorRefreshesAfterAFailedFetch(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		ph := h.PolicyHost("plain.test", enforce)
		ph.Fault(lab.HostFault{Status: 500})
		h.want("plain.test", "NOTFOUND ")
		ph.Fault(lab.HostFault{})
		if err := h.Refresh(context.Background(), "plain.test"); err != nil {
			t.Fatal(err)
		}
		h.want("plain.test", secure)
	})
}

func TestOperatorWarms(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		h.PolicyHost("plain.test", enforce)
		for key, want := range map[string]policy.Level{"plain.test": policy.Secure, "full.test": policy.DANEOnly, "absent.test": policy.NoPolicy, "192.0.2.1": policy.NoPolicy} {
			for range 2 {
				if d := h.Warm(context.Background(), key); d.Level != want {
					t.Errorf("%s: %v, want %v", key, d.Level, want)
				}
			}
		}
		h.Down(true)
		h.want("plain.test", secure)
	})
}

// A cache that moves to another host: what was learned later wins.
func TestImport(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		ph := h.PolicyHost("plain.test", enforce)
		h.want("plain.test", secure)
		h.want("full.test", "OK dane-only")
		var moved []store.Record
		_ = h.Each(func(i Info) bool {
			moved = append(moved, i.Record)
			return true
		})
		h.after(time.Hour)
		ph.SetPolicy("version: STSv1\nmode: testing\nmx: *.plain.test\nmax_age: 604800\n")
		h.ask("plain.test")
		h.after(time.Second)
		h.want("plain.test", "NOTFOUND ")
		if err := h.Purge(context.Background(), "full.test"); err != nil {
			t.Fatal(err)
		}
		if err := h.Import(context.Background(), moved); err != nil {
			t.Fatal(err)
		}
		h.Down(true)
		h.want("plain.test", "NOTFOUND ")
		h.want("full.test", "OK dane-only")
		h.crash()
		h.want("full.test", "OK dane-only")

		h.store.setFull(true)
		if err := h.Import(context.Background(), moved); !errors.Is(err, errDiskFull) {
			t.Errorf("import on a full disk: %v", err)
		}
	})
}

// §7: an imported time in the future counts as now: no policy becomes immortal.
func TestImportFromAHostWhoseClockRanAhead(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		ph := h.PolicyHost("plain.test", enforce)
		h.want("plain.test", secure)
		info, _ := h.Info("plain.test")
		moved := info.Record
		records.MoveTimes(&moved, func(at time.Time) time.Time { return at.Add(20 * 365 * day) })
		if err := h.Purge(context.Background(), "plain.test"); err != nil {
			t.Fatal(err)
		}
		if err := h.Import(context.Background(), []store.Record{moved}); err != nil {
			t.Fatal(err)
		}
		ph.Fault(lab.HostFault{Refuse: true})
		h.want("plain.test", secure)
		h.after(6 * day)
		h.want("plain.test", secure)
		h.after(day + time.Hour)
		h.want("plain.test", "NOTFOUND ")
	})
}

// §7: a policy that an import makes weaker is told like any other.
func TestImportTellsOfChanges(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		ph := h.PolicyHost("plain.test", enforce)
		h.want("plain.test", secure)
		before, _ := h.Info("plain.test")
		h.after(time.Hour)
		ph.SetPolicy("version: STSv1\nmode: none\nmax_age: 86400\n")
		if err := h.Refresh(context.Background(), "plain.test"); err != nil {
			t.Fatal(err)
		}
		weaker, _ := h.Info("plain.test")
		if err := h.Purge(context.Background(), "plain.test"); err != nil {
			t.Fatal(err)
		}
		for _, rec := range []store.Record{before.Record, weaker.Record} {
			if err := h.Import(context.Background(), []store.Record{rec}); err != nil {
				t.Fatal(err)
			}
		}
		if c := h.seen.changed(); len(c) != 2 || !c[1].Weaker {
			t.Errorf("told of %+v", c)
		}
	})
}

// What the store could not take is there all the same for whoever asks.
func TestOperatorSeesWhatIsNotWritten(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		h.want("full.test", "OK dane-only")
		h.store.setFull(true)
		h.want("[mx.full.test]", "OK dane-only")
		h.want("partial.test", "OK dane")
		h.want("a.test", "NOTFOUND ")
		var keys []string
		if err := h.Each(func(i Info) bool {
			keys = append(keys, i.Record.Domain)
			return true
		}); err != nil || !slices.Equal(keys, []string{"full.test", "mx.full.test", "partial.test"}) {
			t.Errorf("got %v, %v", keys, err)
		}
	})
}
