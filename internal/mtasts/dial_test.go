package mtasts

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"tlspolicyd/internal/dnsclient"
	"tlspolicyd/testing/lab"
)

var (
	_ dnsclient.Resolver = slowType{}
	_ net.Conn           = (*watchedConn)(nil)
)

// BEHAVIOUR §3: refused before connecting, by whatever way the address came.
func TestFetchConnectsToNoPrivateAddress(t *testing.T) {
	for _, tc := range []struct{ name, records, reason string }{
		{"loopback", host + ". A 127.0.0.1", "address 127.0.0.1 is not public: loopback"},
		{"private", host + ". A 10.0.0.1", "address 10.0.0.1 is not public: private"},
		{"link-local, where clouds keep their secrets", host + ". A 169.254.169.254", "169.254.169.254 is not public"},
		{"CGNAT", host + ". A 100.64.0.1", "100.64.0.1 is not public"},
		{"multicast", host + ". A 224.0.0.1", "224.0.0.1 is not public"},
		{"documentation", host + ". A 203.0.113.1", "203.0.113.1 is not public"},
		{"IPv6 loopback", host + ". AAAA ::1", "address ::1 is not public"},
		{"unique local", host + ". AAAA fd00::1", "fd00::1 is not public"},
		{"IPv4-mapped", host + ". AAAA ::ffff:127.0.0.1", "127.0.0.1 is not public: loopback"},
		{"NAT64", host + ". AAAA 64:ff9b::10.0.0.1", "is not public: NAT64 form of 10.0.0.1: private"},
		{"6to4", host + ". AAAA 2002:a00:1::", "is not public: 6to4 form of 10.0.0.1: private"},
		{"through an alias", host + ". CNAME router.test.\nrouter.test. A 192.168.1.1", "192.168.1.1 is not public"},
		{"several", host + ". A 10.0.0.1\n" + host + ". A 10.0.0.2", "10.0.0.1 is not public: private (1918) (and 1 more)"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *lab.World, f *Fetcher) {
				w.Zone(tc.records)
				f.AllowNetworks = nil
				var d dialed
				f.Dial = d.through(w.Dial)
				failure := failed(t, f, domain, StageAddress)
				if !strings.Contains(failure.Reason, tc.reason) {
					t.Errorf("reason %q, want %q", failure.Reason, tc.reason)
				}
				if got := d.list(); len(got) != 0 {
					t.Errorf("connected to %v", got)
				}
				if a := failure.Exchange.Addresses; len(a) == 0 || a[0].Refused == "" {
					t.Errorf("addresses %+v", a)
				}
			})
		})
	}
}

// Public addresses need no configuration, and a private one among them is left out.
func TestFetchConnectsToPublicAddressesOnly(t *testing.T) {
	inWorld(t, func(t *testing.T, w *lab.World, f *Fetcher) {
		h := w.PolicyHost(domain, goodFile) // which has an address in 10/8
		public := netip.MustParseAddr("192.0.1.1")
		h.AddAddr(public)
		f.AllowNetworks = nil
		var d dialed
		f.Dial = d.through(w.Dial)
		x := fetched(t, f, domain).Exchange
		if got := d.list(); !slices.Equal(got, []string{"192.0.1.1:443"}) {
			t.Errorf("connected to %v", got)
		}
		if x.Connected.Addr() != public || len(x.Addresses) != 2 {
			t.Errorf("%+v", x)
		}
	})
}

// What is connected to is the address that was checked: the name is looked up
// once, and the connection is not made by name.
func TestFetchLooksUpTheNameOnce(t *testing.T) {
	inWorld(t, func(t *testing.T, w *lab.World, f *Fetcher) {
		h := w.PolicyHost(domain, goodFile)
		var d dialed
		f.Dial = d.through(w.Dial)
		fetched(t, f, domain)
		if a, aaaa := w.Count(host, "A"), w.Count(host, "AAAA"); a != 1 || aaaa != 1 {
			t.Errorf("A asked for %d times, AAAA %d times", a, aaaa)
		}
		if want := []string{h.Addr().String() + ":443"}; !slices.Equal(d.list(), want) {
			t.Errorf("connected to %v, want %v", d.list(), want)
		}
	})
}

// Rebinding: a name that has a public address when it is checked and one of the
// operator's network when it is used. Each fetch asks once, checks what it got,
// and connects to that; the next one checks anew.
func TestFetchAfterRebinding(t *testing.T) {
	const public, private = "192.0.1.1", "127.0.0.1"
	inWorld(t, func(t *testing.T, w *lab.World, f *Fetcher) {
		w.PolicyHost(domain, goodFile).AddAddr(netip.MustParseAddr(public))
		inside := w.PolicyHost("inside.test", goodFile)
		inside.AddName(host) // its certificate would do
		inside.AddAddr(netip.MustParseAddr(private))
		f.AllowNetworks = nil
		var d dialed
		f.Dial = d.through(w.Dial)
		asked := 0
		real := f.Resolver
		f.Resolver = resolverFunc(func(ctx context.Context, name string, qtype uint16) (dnsclient.Answer, error) {
			if qtype == dns.TypeA {
				asked++
				w.Replace(host, "A", []string{public, private}[(asked-1)%2])
			}
			return real.Lookup(ctx, name, qtype)
		})
		for range 3 {
			d.forget()
			if x := fetched(t, f, domain).Exchange; x.Connected.Addr().String() != public || !slices.Equal(d.list(), []string{public + ":443"}) {
				t.Errorf("connected to %v, tried %v", x.Connected, d.list())
			}
			d.forget()
			if failure := failed(t, f, domain, StageAddress); len(d.list()) != 0 {
				t.Errorf("%v, and tried %v", failure, d.list())
			}
		}
		if asked != 6 || inside.Connections() != 0 {
			t.Errorf("A asked for %d times in 6 fetches, %d connections inside", asked, inside.Connections())
		}
		// Both at once: the public one is used, whichever comes first.
		w.Replace(host, "A", private, public)
		f.Resolver = real
		d.forget()
		fetched(t, f, domain)
		if !slices.Equal(d.list(), []string{public + ":443"}) {
			t.Errorf("tried %v", d.list())
		}
	})
}

// An IPv4-mapped address is one of IPv4 and treated as such.
func TestFetchIPv4MappedAllowed(t *testing.T) {
	inWorld(t, func(t *testing.T, w *lab.World, f *Fetcher) {
		h := w.PolicyHost(domain, goodFile)
		w.Replace(host, "A")
		w.Zone(host + ". AAAA ::ffff:" + h.Addr().String())
		if x := fetched(t, f, domain).Exchange; x.Connected.Addr() != h.Addr() {
			t.Errorf("connected to %v", x.Connected)
		}
	})
}

// DNS says that there is nothing to connect to, or says nothing.
func TestFetchWithoutAddress(t *testing.T) {
	for _, tc := range []struct {
		name   string
		set    func(w *lab.World)
		reason string
	}{
		{"NXDOMAIN", func(*lab.World) {}, "does not exist (NXDOMAIN)"},
		{"no address", func(w *lab.World) { w.Zone(host + `. TXT "x"`) }, "has no address"},
		{"SERVFAIL", func(w *lab.World) { w.Fault(host, "ANY", lab.ServFail) }, "lookup of " + host + ": SERVFAIL"},
		{"SERVFAIL for A, no AAAA", func(w *lab.World) {
			w.Zone(host + `. TXT "x"`)
			w.Fault(host, "A", lab.ServFail)
		}, "A lookup of " + host + ": SERVFAIL"},
		{"silence", func(w *lab.World) { w.Fault(host, "ANY", lab.Drop) }, "lookup of " + host + ": no answer"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *lab.World, f *Fetcher) {
				tc.set(w)
				if failure := failed(t, f, domain, StageDNS); !strings.Contains(failure.Reason, tc.reason) {
					t.Errorf("reason %q, want %q", failure.Reason, tc.reason)
				}
			})
		})
	}
}

// secondFamilyWait is how long the slower address family is waited for (dnsclient).
const secondFamilyWait = 2 * time.Second

// BEHAVIOUR §3: happy eyeballs over IPv6 and IPv4 (8305). Times are those of
// the bubble, where nothing takes time by itself.
func TestFetchHappyEyeballs(t *testing.T) {
	v6, v6b := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
	for _, tc := range []struct {
		name  string
		set   func(w *lab.World, f *Fetcher)
		over6 bool
		dials int
		after time.Duration // of the whole fetch
	}{
		{"both work", func(*lab.World, *Fetcher) {}, true, 1, 0},
		{"IPv6 is silent", func(w *lab.World, _ *Fetcher) { w.Silent(v6, v6b) }, false, 2, attemptDelay},
		{"IPv6 is refused", func(w *lab.World, f *Fetcher) { f.Dial = refusing(w, v6, v6b) }, false, 2, refusalDelay},
		{"the first address of IPv6 is silent, and IPv4 is refused", func(w *lab.World, f *Fetcher) {
			w.Silent(v6)
			f.Dial = refusingIPv4(w)
		}, true, 3, attemptDelay + refusalDelay},
		{"AAAA is never answered", func(w *lab.World, _ *Fetcher) { w.Fault(host, "AAAA", lab.Drop) }, false, 1, secondFamilyWait},
		{"AAAA fails", func(w *lab.World, _ *Fetcher) { w.Fault(host, "AAAA", lab.ServFail) }, false, 1, 0},
		{"A is never answered", func(w *lab.World, _ *Fetcher) { w.Fault(host, "A", lab.Drop) }, true, 1, secondFamilyWait},
		{"A fails", func(w *lab.World, _ *Fetcher) { w.Fault(host, "A", lab.ServFail) }, true, 1, 0},
		{"AAAA comes later", func(_ *lab.World, f *Fetcher) {
			f.Resolver = slowType{f.Resolver, dns.TypeAAAA, time.Second}
		}, true, 1, time.Second},
		{"AAAA comes too late", func(_ *lab.World, f *Fetcher) {
			f.Resolver = slowType{f.Resolver, dns.TypeAAAA, 3 * time.Second}
		}, false, 1, secondFamilyWait},
		{"A comes late, and IPv6 is refused", func(w *lab.World, f *Fetcher) {
			f.Resolver = slowType{f.Resolver, dns.TypeA, time.Second}
			f.Dial = refusing(w, v6, v6b)
		}, false, 2, time.Second + refusalDelay},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *lab.World, f *Fetcher) {
				h := w.PolicyHost(domain, goodFile)
				h.AddAddr(v6)
				h.AddAddr(v6b)
				tc.set(w, f)
				var d dialed
				if f.Dial == nil {
					f.Dial = w.Dial
				}
				f.Dial = d.through(f.Dial)
				x := fetched(t, f, domain).Exchange
				if x.Connected.Addr().Is6() != tc.over6 {
					t.Errorf("connected to %v after %v", x.Connected, d.list())
				}
				if len(d.list()) != tc.dials {
					t.Errorf("tried %v, want %d", d.list(), tc.dials)
				}
				if x.Total != tc.after {
					t.Errorf("took %v, want %v", x.Total, tc.after)
				}
			})
		})
	}
}

// A host with a thousand addresses, all silent, costs eight connections and
// the time of one fetch.
func TestFetchBoundsAttempts(t *testing.T) {
	for _, tc := range []struct {
		name  string
		stage Stage
		dial  dialFunc
	}{
		{"silent", StageTimeout, func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}},
		{"refused", StageConnect, func(context.Context, string, string) (net.Conn, error) {
			return nil, &net.OpError{Op: "dial", Err: fmt.Errorf("no \x1b[2J route")}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *lab.World, f *Fetcher) {
				w.Fault(host, "ANY", lab.Huge)
				f.AllowNetworks = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
				var d dialed
				f.Dial = d.through(tc.dial)
				failure := failed(t, f, domain, tc.stage)
				if got := d.list(); len(got) != 8 {
					t.Errorf("%d connections", len(got))
				}
				if n := len(failure.Exchange.Addresses); n > 16 {
					t.Errorf("%d addresses reported", n)
				}
				if tc.stage == StageConnect && !strings.Contains(failure.Reason, `:443: no \x1b[2J route (and 7 more)`) {
					t.Errorf("reason %q", failure.Reason)
				}
			})
		})
	}
}

// The families take turns, so that one that is broken as a whole cannot use up
// all attempts.
func TestFetchFamiliesTakeTurns(t *testing.T) {
	inWorld(t, func(t *testing.T, w *lab.World, f *Fetcher) {
		for i := range 6 {
			w.Zone(fmt.Sprintf("%s. A 203.0.113.%d\n%s. AAAA 2001:db8::%d", host, i, host, i))
		}
		var d dialed
		f.Dial = d.through(w.Dial) // where nothing listens
		failed(t, f, domain, StageConnect)
		order := ""
		for _, addr := range d.list() {
			if strings.HasPrefix(addr, "[") {
				order += "6"
			} else {
				order += "4"
			}
		}
		if order != "64646464" {
			t.Errorf("order %s", order)
		}
	})
}

// A connection that is made after another has won is closed.
func TestFetchClosesTheLoser(t *testing.T) {
	inWorld(t, func(t *testing.T, w *lab.World, f *Fetcher) {
		h := w.PolicyHost(domain, goodFile)
		h.AddAddr(netip.MustParseAddr("2001:db8::1"))
		late := make(chan *watchedConn, 1)
		f.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if !strings.HasPrefix(addr, "[") {
				return w.Dial(ctx, network, addr)
			}
			time.Sleep(2 * attemptDelay) // in the bubble; a dialer that does not listen to ctx
			conn, err := w.Dial(context.WithoutCancel(ctx), network, addr)
			if err != nil {
				return nil, err
			}
			c := &watchedConn{Conn: conn, closed: make(chan struct{})}
			late <- c
			return c, nil
		}
		if x := fetched(t, f, domain).Exchange; x.Connected.Addr() != h.Addr() {
			t.Errorf("connected to %v", x.Connected)
		}
		<-(<-late).closed // a bubble in which this never happens ends in a deadlock, which fails the test
	})
}

// watchedConn tells when it is closed.
type watchedConn struct {
	net.Conn
	once   sync.Once
	closed chan struct{}
}

func (c *watchedConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// slowType delays the answers to questions for one type.
type slowType struct {
	dnsclient.Resolver
	qtype uint16
	delay time.Duration
}

func (s slowType) Lookup(ctx context.Context, name string, qtype uint16) (dnsclient.Answer, error) {
	if qtype == s.qtype {
		select {
		case <-time.After(s.delay):
		case <-ctx.Done():
		}
	}
	return s.Resolver.Lookup(ctx, name, qtype)
}

// refusalDelay is how long a refusal takes.
const refusalDelay = time.Millisecond

// refusing returns a Dial hook that refuses some addresses.
func refusing(w *lab.World, addrs ...netip.Addr) dialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		if slices.Contains(addrs, netip.MustParseAddrPort(addr).Addr()) {
			time.Sleep(refusalDelay)                            // in the bubble
			return w.Dial(ctx, network, "[2001:db8::dead]:443") // where nothing listens
		}
		return w.Dial(ctx, network, addr)
	}
}

func refusingIPv4(w *lab.World) dialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		if netip.MustParseAddrPort(addr).Addr().Is4() {
			time.Sleep(refusalDelay)
			return w.Dial(ctx, network, "[2001:db8::dead]:443")
		}
		return w.Dial(ctx, network, addr)
	}
}

// A lack of file descriptors at one address is not what the other one says.
func TestFetchReportsALocalFault(t *testing.T) {
	inWorld(t, func(t *testing.T, w *lab.World, f *Fetcher) {
		w.Zone(host + ". A 203.0.113.1\n" + host + ". AAAA 2001:db8::1")
		f.Dial = func(_ context.Context, _, addr string) (net.Conn, error) {
			errno := syscall.ECONNREFUSED
			if netip.MustParseAddrPort(addr).Addr().Is4() {
				errno = syscall.EMFILE
			}
			return nil, &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", errno)}
		}
		if err := failed(t, f, domain, StageConnect); !err.LocalFault() {
			t.Errorf("%v: not a local fault", err)
		}
	})
}
