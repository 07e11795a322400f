package policymap

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"tlspolicyd/internal/dane"
	"tlspolicyd/internal/defect"
	"tlspolicyd/internal/dnsclient"
	"tlspolicyd/internal/mtasts"
	"tlspolicyd/policymap/policy"
	"tlspolicyd/store"
	"tlspolicyd/testing/lab"
)

// stumbling is a resolver that has a defect: it cannot take one answer.
type stumbling struct {
	dnsclient.Resolver
	at string // "name TYPE"
}

func (s stumbling) Lookup(ctx context.Context, name string, qtype uint16) (dnsclient.Answer, error) {
	if strings.TrimSuffix(name, ".")+" "+dns.TypeToString[qtype] == s.at {
		stumble(name)
	}
	return s.Resolver.Lookup(ctx, name, qtype)
}

func stumble(name string) { panic("cannot take " + name) }

// alarmed is an observer that keeps the defects it is told of.
type alarmed struct {
	Observers
	mu    sync.Mutex
	keys  []string
	texts []string
	stack string
}

func (a *alarmed) Panicked(key string, err *defect.Error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.keys, a.texts, a.stack = append(a.keys, key), append(a.texts, err.Error()), err.Stack
}

// A defect met in one answer ends that look and nothing else, whichever of its
// goroutines met it, and the operator learns where it is.
func TestDefectEndsOneLook(t *testing.T) {
	for _, tc := range []struct{ at, key, reply string }{
		{"full.test MX", "full.test", "TEMP internal error: cannot take full.test"},
		{"mx.full.test A", "full.test", "TEMP internal error: cannot take mx.full.test"},
		{"mx.full.test AAAA", "full.test", "TEMP internal error: cannot take mx.full.test"},
		{"_25._tcp.mx.full.test TLSA", "full.test", "TEMP internal error: cannot take _25._tcp.mx.full.test"},
		{"_mta-sts.plain.test TXT", "plain.test", "NOTFOUND "},
		{"mta-sts.plain.test A", "plain.test", "NOTFOUND "},
		{"mta-sts.plain.test AAAA", "plain.test", "NOTFOUND "},
		{"connection", "plain.test", "NOTFOUND "},
	} {
		t.Run(tc.at, func(t *testing.T) {
			inBubble(t, zones, func(t *testing.T, h *host) {
				h.PolicyHost("plain.test", enforce)
				resolver := stumbling{h.config.Resolver, tc.at}
				dial := h.Dial
				if tc.at == "connection" {
					dial = func(context.Context, string, string) (net.Conn, error) { stumble(tc.at); return nil, nil }
				}
				seen := &alarmed{}
				h.Map.Close()
				h.Map = New(Options{
					Store: h.store, Observer: Observers{Observers{}, seen},
					Config: Config{Resolver: resolver, Fetcher: &mtasts.Fetcher{
						Resolver: resolver, RootCAs: h.Roots(), Dial: dial,
						AllowNetworks: []netip.Prefix{netip.MustParsePrefix(lab.Network)},
					}},
				})

				h.want(tc.key, tc.reply)
				h.want("null.test", "NOTFOUND ")
				seen.mu.Lock()
				defer seen.mu.Unlock()
				if len(seen.keys) != 1 || seen.keys[0] != tc.key || !strings.HasPrefix(seen.texts[0], "internal error: cannot take ") {
					t.Fatalf("told of %q: %q", seen.keys, seen.texts)
				}
				if !strings.Contains(seen.stack, "policymap.stumble") {
					t.Errorf("the stack does not tell where it happened:\n%s", seen.stack)
				}
			})
		})
	}
}

// stumblingStore has a defect while it is on: it cannot take the record of one
// domain.
type stumblingStore struct {
	store.Store
	at string
	on atomic.Bool
}

func (s *stumblingStore) Get(domain string) (store.Record, error) {
	if domain == s.at && s.on.Load() {
		panic("cannot take " + domain)
	}
	return s.Store.Get(domain)
}

// stumblingEye is an observer with a defect: it cannot be told of one domain's
// refresh.
type stumblingEye struct {
	alarmed
	at        string
	refreshes map[string]int // mu
}

func (e *stumblingEye) Refreshed(domain string, out Outcome) {
	if domain == e.at && out == Refreshed {
		panic("cannot be told of " + domain)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.refreshes[fmt.Sprint(domain, " ", out)]++
}

// stumbleAtBad has two domains known, and everything about bad.test stumble in the
// way that is asked for.
func stumbleAtBad(h *host, at string) (*stumblingStore, *stumblingEye) {
	h.Zone("good.test. MX 10 mx.full.test.\nbad.test. MX 10 mx.full.test.")
	h.PolicyHost("good.test", enforce)
	h.PolicyHost("bad.test", enforce)
	db := &stumblingStore{Store: h.store, at: "bad.test"}
	eye := &stumblingEye{refreshes: map[string]int{}}
	if at == "observer" {
		eye.at = "bad.test"
	}
	h.Map.Close()
	h.Map = New(Options{Store: db, Config: h.config, Observer: Observers{eye}})
	h.want("good.test", "OK dane-only")
	h.want("bad.test", "OK dane-only")
	h.after(time.Minute) // MTA-STS is not waited for
	db.on.Store(at == "store")
	return db, eye
}

// A defect that one record brings about does not keep the refresher from all
// others, nor the record from being tried again.
func TestDefectCostsOneRefresh(t *testing.T) {
	for _, at := range []string{"observer", "store"} {
		t.Run(at, func(t *testing.T) {
			inBubble(t, zones, func(t *testing.T, h *host) {
				db, eye := stumbleAtBad(h, at)
				h.after(2 * day)
				eye.mu.Lock()
				defer eye.mu.Unlock()
				if eye.refreshes["good.test ok"] == 0 || eye.refreshes["bad.test failed"] == 0 {
					t.Errorf("refreshes: %v", eye.refreshes)
				}
				if n := len(eye.keys); n == 0 || n > 100 {
					t.Errorf("told of %d defects in two days", n)
				}
				for _, key := range eye.keys {
					if key != "bad.test" {
						t.Errorf("told of a defect at %q", key)
					}
				}
				db.on.Store(false)
				h.want("bad.test", "OK dane-only") // no lock is held
			})
		})
	}
}

// The last uses of all other domains are written at the end, and the clock is
// followed for them.
func TestDefectCostsOneRecordOfAll(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		var ahead atomic.Int64
		h.wall = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
		db, eye := stumbleAtBad(h, "store")
		h.want("good.test", "OK dane-only")
		h.want("bad.test", "OK dane-only")
		used := time.Now()
		h.Map.Close()
		if rec, err := db.Get("good.test"); err != nil || used.Sub(rec.LastUsed) > policy.UsedGrain {
			t.Errorf("last used %v, want %v: %v", rec.LastUsed, used, err)
		}
		told := len(eye.keys)
		if told == 0 {
			t.Error("no defect was met")
		}

		h.Map = New(Options{Store: db, Config: h.config, Observer: Observers{eye}, Wall: h.wall})
		h.after(time.Second)
		ahead.Store(int64(2 * time.Hour))
		h.after(2 * time.Minute)
		if rec, err := db.Get("good.test"); err != nil || rec.LastUsed.Before(used.Add(2*time.Hour-time.Minute)) {
			t.Errorf("last used %v, want two hours after %v: %v", rec.LastUsed, used, err)
		}
		eye.mu.Lock()
		defer eye.mu.Unlock()
		if len(eye.keys) == told {
			t.Error("no defect was met when the clock was set")
		}
	})
}

// An import takes all other records over, and says which one it could not.
func TestDefectCostsOneImportedRecord(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		db, eye := stumbleAtBad(h, "store")
		var recs []store.Record
		for _, domain := range []string{"one.test", "bad.test", "two.test"} {
			recs = append(recs, store.Record{Domain: domain, DANE: []store.DANE{{
				Port: 25, State: uint8(dane.None), KnownAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour),
			}}})
		}
		err := h.Import(context.Background(), recs)
		if err == nil || err.Error() != "bad.test was not imported: internal error: cannot take bad.test" {
			t.Errorf("got %v", err)
		}
		for _, domain := range []string{"one.test", "two.test"} {
			if _, err := db.Get(domain); err != nil {
				t.Errorf("%s: %v", domain, err)
			}
		}
		if len(eye.keys) != 1 || eye.keys[0] != "bad.test" {
			t.Errorf("told of %q", eye.keys)
		}
		db.on.Store(false)
		if err := h.Import(context.Background(), recs); err != nil {
			t.Error(err)
		}
	})
}

// trustless is a resolver whose AD bits do not count, with a defect once it is on.
type trustless struct {
	dnsclient.Resolver
	on *atomic.Bool
}

func (r trustless) Trusted() bool {
	if r.on.Load() {
		panic("cannot tell")
	}
	return false
}

// A record that meets a defect is listed without its meaning and can be purged,
// and the list goes on.
func TestDefectCostsOneLineOfTheList(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		var on atomic.Bool
		h.config.Resolver = trustless{h.config.Resolver, &on}
		eye := &alarmed{}
		h.Map.Close()
		h.Map = New(Options{Store: h.store, Config: h.config, Observer: Observers{eye}})
		if err := h.Import(context.Background(), []store.Record{{Domain: "good.test", DANE: []store.DANE{{
			Port: 25, State: uint8(dane.Full), KnownAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour),
		}}}}); err != nil {
			t.Fatal(err)
		}
		h.want("plain.test", "NOTFOUND ")
		h.after(2 * time.Second)
		on.Store(true)
		seen := map[string]string{}
		if err := h.Each(func(i Info) bool {
			seen[i.Record.Domain] = fmt.Sprint(len(i.Answers), " ", i.STSReason)
			return true
		}); err != nil {
			t.Fatal(err)
		}
		want := map[string]string{"good.test": "0 internal error: cannot tell", "plain.test": "0 internal error: cannot tell"}
		if d := cmp.Diff(want, seen); d != "" {
			t.Errorf("listed (-want +got):\n%s", d)
		}
		if err := h.Purge(context.Background(), "plain.test"); err != nil {
			t.Error(err)
		}
		on.Store(false)
		if _, ok := h.Info("plain.test"); ok {
			t.Error("still known")
		}
	})
}
