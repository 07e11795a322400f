package dane

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"tlspolicyd/internal/dnsclient"
	"tlspolicyd/testing/lab"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world runs a test inside a bubble, with a small internet and a resolver on
// it. In zones DIGEST stands for a SHA2-256 digest.
func world(t *testing.T, zone string, test func(t *testing.T, w *lab.World, r dnsclient.Resolver)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := lab.New()
		defer w.Close()
		w.Zone(strings.ReplaceAll(zone, "DIGEST", strings.Repeat("ab", 32)))
		r, err := dnsclient.New(dnsclient.Config{Servers: []netip.AddrPort{w.DNSAddr()}, Dial: w.Dial})
		if err != nil {
			t.Fatal(err)
		}
		test(t, w, r)
	})
}

// BEHAVIOUR §4: secure original but insecure target: TLSA at the original name,
// and a usable record there counts towards Full (7672 §2.2.2).
func TestSecureAliasOfInsecureTarget(t *testing.T) {
	const zone = `example.test. MX 10 alias.test.
		alias.test. CNAME mx1.test.
		mx1.test. A 192.0.2.1
		_25._tcp.mx1.test. TLSA 3 1 1 DIGEST
	`
	for name, test := range map[string]struct{ zone, want string }{
		"with TLSA at the original name": {
			zone + "_25._tcp.alias.test. TLSA 3 1 1 DIGEST",
			"full +tlsa\nalias.test: usable TLSA\n",
		},
		"without": {zone, "none +none\nalias.test: no TLSA\n"},
	} {
		t.Run(name, func(t *testing.T) {
			world(t, test.zone, func(t *testing.T, w *lab.World, r dnsclient.Resolver) {
				w.Insecure("mx1.test")
				got := Lookup(t.Context(), secureAliases{r, w}, Target{Domain: "example.test", Port: 25})
				if diff := cmp.Diff(test.want, outcomeOf(got)); diff != "" {
					t.Error(diff)
				}
				if got.Hosts[0].Secure {
					t.Error("the addresses pass for secure")
				}
				if n := w.Count("_25._tcp.mx1.test", "TLSA"); n != 0 {
					t.Errorf("%d TLSA questions at the insecure name", n)
				}
			})
		})
	}
}

// secureAliases makes the alias itself secure, whatever its target is.
type secureAliases struct {
	dnsclient.Resolver
	w *lab.World
}

func (s secureAliases) Lookup(ctx context.Context, name string, qtype uint16) (dnsclient.Answer, error) {
	if qtype == dns.TypeCNAME {
		s.w.Secure("mx1.test")
		defer s.w.Insecure("mx1.test")
	}
	return s.Resolver.Lookup(ctx, name, qtype)
}

// BEHAVIOUR §4: no TLSA query where addresses are insecure or absent.
func TestNoTLSAQueryWithoutSecureAddress(t *testing.T) {
	world(t, `example.test. MX 10 mx1.test.
		example.test. MX 20 nothing.test.`+hosts, func(t *testing.T, w *lab.World, r dnsclient.Resolver) {
		w.Insecure("mx1.test")
		got := Lookup(t.Context(), r, Target{Domain: "example.test", Port: 25})
		if got.State != None || w.Count("*", "TLSA") != 0 || w.Count("*", "CNAME") != 0 {
			t.Errorf("%s%v", outcomeOf(got), w.Queries())
		}
	})
}

// BEHAVIOUR §4: without a trusted path nothing is secure (7672 §2.1.3).
func TestUntrustedResolverKnowsNoDANE(t *testing.T) {
	world(t, `example.test. MX 10 mx1.test.
		_25._tcp.mx1.test. TLSA 3 1 1 DIGEST`+hosts, func(t *testing.T, w *lab.World, _ dnsclient.Resolver) {
		remote := netip.MustParseAddrPort("192.0.2.53:53")
		w.AddResolver(remote, 0)
		for trusted, want := range map[bool]State{false: None, true: Full} {
			r, err := dnsclient.New(dnsclient.Config{Servers: []netip.AddrPort{remote}, Dial: w.Dial, TrustAD: trusted})
			if err != nil {
				t.Fatal(err)
			}
			if got := Lookup(t.Context(), r, Target{Domain: "example.test", Port: 25}); got.State != want {
				t.Errorf("trusted %v: %s", trusted, outcomeOf(got))
			}
		}
	})
}

// RFC 7672 §2.2.2: clients evaluate DANE address by address, so a host with
// secure addresses in one family only has TLSA records that count, and never
// allows Full. DNS64 makes up insecure AAAA answers beside a secure A (6147
// §5.5).
func TestOneAddressFamilyIsInsecure(t *testing.T) {
	const tlsa = "\n_25._tcp.mx1.test. TLSA "
	for _, test := range []struct{ name, tlsa, faults, want string }{
		{"usable", tlsa + "3 1 1 DIGEST", "", "partial +tlsa\nmx1.test: usable TLSA, some addresses insecure\n"},
		{"MX insecure too", tlsa + "3 1 1 DIGEST", "example.test MX NoAD", "insecure-mx +mxinsecure +tlsa\nmx1.test: usable TLSA, some addresses insecure\n"},
		{"unusable", tlsa + "1 1 1 DIGEST", "", "partial +tlsa\nmx1.test: unusable TLSA\n"},
		{"none", "", "", "none +none\nmx1.test: no TLSA\n"},
		{"the TLSA lookup fails (7672 §2.1.2)", "", "_25._tcp.mx1.test TLSA ServFail", "unknown\nmx1.test: lookup failed\n"},
	} {
		for _, qtype := range []string{"A", "AAAA"} {
			t.Run(test.name+", "+qtype+" insecure", func(t *testing.T) {
				world(t, `example.test. MX 10 mx1.test.
					mx1.test. AAAA 64:ff9b::192.0.2.1`+hosts+test.tlsa, func(t *testing.T, w *lab.World, r dnsclient.Resolver) {
					w.Fault("mx1.test", qtype, lab.NoAD)
					if name, fault, ok := strings.Cut(test.faults, " "); ok {
						qtype, kind, _ := strings.Cut(fault, " ")
						w.Fault(name, qtype, map[string]lab.Fault{"NoAD": lab.NoAD, "ServFail": lab.ServFail}[kind])
					}
					got := Lookup(t.Context(), r, Target{Domain: "example.test", Port: 25})
					if diff := cmp.Diff(test.want, outcomeOf(got)); diff != "" {
						t.Error(diff)
					}
					if h := got.Hosts[0]; h.Secure || len(h.Addresses) != 2 {
						t.Errorf("secure %v, addresses %v", h.Secure, h.Addresses)
					}
				})
			})
		}
	}
}

// manyHosts is a domain with n hosts in order of preference, all with TLSA.
func manyHosts(n int) string {
	var zone strings.Builder
	for i := range n {
		fmt.Fprintf(&zone, "example.test. MX %d mx%d.test.\nmx%d.test. A 192.0.2.1\n_25._tcp.mx%d.test. TLSA 3 1 1 DIGEST\n", i, i, i, i)
	}
	return zone.String()
}

// Bad input of the issue: 1,000 MX records and more.
func TestHostileMXSetIsBounded(t *testing.T) {
	world(t, manyHosts(maxHosts+2), func(t *testing.T, w *lab.World, r dnsclient.Resolver) {
		// All looked at are usable, but Full would speak for all.
		got := Lookup(t.Context(), r, Target{Domain: "example.test", Port: 25})
		if got.State != Partial || got.MX.Omitted != 2 || len(got.Hosts) != maxHosts || got.Hosts[maxHosts-1].Name != "mx31.test" {
			t.Error(outcomeOf(got))
		}

		w.Fault("example.test", "MX", lab.Huge)
		w.ResetQueries()
		got = Lookup(t.Context(), r, Target{Domain: "example.test", Port: 25})
		if got.State != None || got.MX.Omitted < 1000 || len(got.Hosts) != maxHosts {
			t.Errorf("%s, %d left out", got.State, got.MX.Omitted)
		}
		if n := len(w.Queries()); n != 2+2*maxHosts { // MX over UDP and TCP, A and AAAA each
			t.Errorf("%d questions", n)
		}
	})
}

func TestHugeAddressAndTLSASets(t *testing.T) {
	world(t, `example.test. MX 10 mx1.test.`+hosts, func(t *testing.T, w *lab.World, r dnsclient.Resolver) {
		w.Fault("mx1.test", "A", lab.Huge)
		w.Fault("_25._tcp.mx1.test", "TLSA", lab.Huge)
		got := Lookup(t.Context(), r, Target{Domain: "example.test", Port: 25})
		if got.State != Full || len(got.Hosts[0].Addresses) != dnsclient.MaxAddresses {
			t.Errorf("%s, %d addresses", got.State, len(got.Hosts[0].Addresses))
		}
	})
}

// laggingAAAA is a resolver that never gets an answer about AAAA.
type laggingAAAA struct{ dnsclient.Resolver }

func (r laggingAAAA) Lookup(ctx context.Context, name string, qtype uint16) (dnsclient.Answer, error) {
	if qtype == dns.TypeAAAA {
		<-ctx.Done()
		return dnsclient.Answer{}, ctx.Err()
	}
	return r.Resolver.Lookup(ctx, name, qtype)
}

// Answers of 64 KiB about every host are not held: neither while the other
// address family is waited for, nor in the outcome.
func TestHugeAnswersAreNotHeld(t *testing.T) {
	const most = 1 << 20
	held := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	world(t, manyHosts(maxHosts), func(t *testing.T, w *lab.World, r dnsclient.Resolver) {
		for i := range maxHosts {
			w.Fault(fmt.Sprintf("mx%d.test", i), "A", lab.Huge)
			w.Fault(fmt.Sprintf("_25._tcp.mx%d.test", i), "TLSA", lab.Huge)
		}
		before := held()
		done := make(chan Result, 1)
		go func() {
			done <- Lookup(t.Context(), laggingAAAA{r}, Target{Domain: "example.test", Port: 25})
		}()
		time.Sleep(time.Second) // the bubble's clock: every A is there
		if more := held() - before; more > most {
			t.Errorf("%d KiB held for AAAA", more>>10)
		}
		res := <-done
		if res.State != Full {
			t.Error(outcomeOf(res))
		}
		if more := held() - before; more > most {
			t.Errorf("%d KiB held in the outcome", more>>10)
		}
		for _, h := range res.Hosts {
			if len(h.TLSA) != maxTLSA || len(h.Addresses) != dnsclient.MaxAddresses {
				t.Errorf("%s: %d TLSA records, %d addresses", h.Name, len(h.TLSA), len(h.Addresses))
			}
		}
	})
}

func TestAliasLoopOfAHostFailsThatHost(t *testing.T) {
	for _, fault := range []lab.Fault{lab.CNAMELoop, lab.EndlessCNAMEs} {
		world(t, `example.test. MX 10 mx1.test.`, func(t *testing.T, w *lab.World, r dnsclient.Resolver) {
			w.Fault("mx1.test", "", fault)
			got := Lookup(t.Context(), r, Target{Domain: "example.test", Port: 25})
			if want := "unknown\nmx1.test: lookup failed\n"; outcomeOf(got) != want {
				t.Error(outcomeOf(got))
			}
		})
	}
}

func TestCanceledLookupKnowsNothing(t *testing.T) {
	world(t, `example.test. MX 10 mx1.test.`+hosts, func(t *testing.T, _ *lab.World, r dnsclient.Resolver) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		got := Lookup(ctx, r, Target{Domain: "example.test", Port: 25})
		if got.State != Unknown || !errors.Is(got.Err, context.Canceled) {
			t.Errorf("%s, %v", outcomeOf(got), got.Err)
		}
	})
}

// Issue 2: a cold DANE chain costs the MX lookup and the slowest host, of which
// A and AAAA are one step.
func TestHostsAreLookedUpSideBySide(t *testing.T) {
	for n, steps := range map[int]time.Duration{
		1:               3,
		hostsAtOnce:     3,
		2 * hostsAtOnce: 5, // no more than so many at once
	} {
		world(t, manyHosts(n), func(t *testing.T, w *lab.World, r dnsclient.Resolver) {
			w.Delay(20 * time.Millisecond)
			start := time.Now()
			got := Lookup(t.Context(), r, Target{Domain: "example.test", Port: 25})
			if d := time.Since(start); d != steps*20*time.Millisecond || got.State != Full {
				t.Errorf("%d hosts took %v in the bubble: want %d steps of 20 ms; %s", n, d, steps, outcomeOf(got))
			}
		})
	}
}

// An address family that hangs counts as failed soon after the other answered.
func TestHangingAddressFamilyIsNotWaitedFor(t *testing.T) {
	world(t, `example.test. MX 10 mx1.test.
		_25._tcp.mx1.test. TLSA 3 1 1 DIGEST`+hosts, func(t *testing.T, w *lab.World, r dnsclient.Resolver) {
		w.Fault("mx1.test", "AAAA", lab.Drop)
		start := time.Now()
		got := Lookup(t.Context(), r, Target{Domain: "example.test", Port: 25})
		if d := time.Since(start); d != 2*time.Second || got.State != Full {
			t.Errorf("%s took %v", outcomeOf(got), d)
		}
	})
}
