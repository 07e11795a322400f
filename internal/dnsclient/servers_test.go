package dnsclient

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
)

// BEHAVIOUR §4: several servers: the next one on time-out or SERVFAIL.
func TestNextServerAnswers(t *testing.T) {
	good := answering(t, "a.test. 60 A 192.0.2.1")
	closed := &server{addr: closedPort(t)}
	lame := serve(t, func(_ string, q *dns.Msg) []*dns.Msg {
		m := reply(t, q, dns.RcodeSuccess, "", "test. 60 NS ns.test.")
		m.RecursionAvailable = false
		return []*dns.Msg{m}
	})
	for name, bad := range map[string]*server{
		"SERVFAIL":                 failing(t, dns.RcodeServerFailure),
		"REFUSED":                  failing(t, dns.RcodeRefused),
		"NOTAUTH":                  failing(t, dns.RcodeNotAuth),
		"NOTIMP":                   failing(t, dns.RcodeNotImplemented),
		"port closed":              closed,
		"referral from a lame one": lame,
		"alias loop is no reason":  good,
	} {
		t.Run(name, func(t *testing.T) {
			a, err := client(t, bad, good).Lookup(t.Context(), "a.test", dns.TypeA)
			if err != nil || len(a.Records) != 1 || a.Server != good.addr {
				t.Errorf("%+v, %v", a, err)
			}
		})
	}
}

func closedPort(t *testing.T) netip.AddrPort {
	packet, listener := listen(t)
	defer packet.Close()
	defer listener.Close()
	return netip.MustParseAddrPort(packet.LocalAddr().String())
}

func TestSilentServerIsAskedAgainThenLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var asked []string
		dial := pipes(func(address string, q *dns.Msg) *dns.Msg {
			mu.Lock()
			defer mu.Unlock()
			asked = append(asked, address)
			if address == "192.0.2.1:53" && len(asked) < 6 {
				return nil
			}
			if address == "192.0.2.2:53" && len(asked) < 3 {
				return reply(t, q, dns.RcodeServerFailure, "", "")
			}
			return reply(t, q, dns.RcodeSuccess, "a.test. 60 A 192.0.2.1", "")
		})
		servers := []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:53"), netip.MustParseAddrPort("192.0.2.2:53")}
		c := newClient(t, Config{Servers: servers, Dial: dial})

		// One is silent, two says SERVFAIL, one gets its second round.
		start := time.Now()
		e := lookupError(t, c, t.Context(), "a.test", dns.TypeA)
		if e.Kind != ServFail || e.Server != servers[1] {
			t.Errorf("%v: SERVFAIL says more than silence", e)
		}
		if d := time.Since(start); d != 10*time.Second {
			t.Errorf("took %v: want two tries of 5 s", d)
		}
		lookup := func() {
			if _, err := c.Lookup(t.Context(), "a.test", dns.TypeA); err != nil {
				t.Error(err)
			}
		}
		lookup()                // the silent one would cost 5 s, so two is asked first
		time.Sleep(time.Minute) // and after a while one is tried again
		lookup()
		want := []string{
			"192.0.2.1:53", "192.0.2.2:53", "192.0.2.1:53",
			"192.0.2.2:53",
			"192.0.2.1:53", "192.0.2.2:53",
		}
		mu.Lock()
		defer mu.Unlock()
		if diff := cmp.Diff(want, asked); diff != "" {
			t.Error(diff)
		}
	})
}

// askedInOrder runs one lookup after the other in front of two servers in
// memory and returns which were asked. speak says what they do.
func askedInOrder(t *testing.T, speak func(address string, n int, q *dns.Msg) *dns.Msg, lookups ...func(context.Context, *Client)) []string {
	t.Helper()
	var asked []string
	synctest.Test(t, func(t *testing.T) {
		dial := func(ctx context.Context, network, address string) (net.Conn, error) {
			asked = append(asked, address) // by the one goroutine that looks up
			n := len(asked)
			return pipes(func(_ string, q *dns.Msg) *dns.Msg { return speak(address, n, q) })(ctx, network, address)
		}
		c := newClient(t, Config{Servers: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:53"), netip.MustParseAddrPort("192.0.2.2:53")}, Dial: dial})
		for _, lookup := range lookups {
			lookup(t.Context(), c)
		}
	})
	return asked
}

func TestServerThatSpeaksAgainKeepsItsPlace(t *testing.T) {
	lookup := func(ctx context.Context, c *Client) {
		if _, err := c.Lookup(ctx, "a.test", dns.TypeA); err != nil {
			t.Error(err)
		}
	}
	asked := askedInOrder(t, func(_ string, n int, q *dns.Msg) *dns.Msg {
		switch n {
		case 1:
			return nil // a lost datagram
		case 2:
			return reply(t, q, dns.RcodeServerFailure, "", "")
		}
		return reply(t, q, dns.RcodeSuccess, "a.test. 60 A 192.0.2.1", "")
	}, lookup, lookup)
	want := []string{"192.0.2.1:53", "192.0.2.2:53", "192.0.2.1:53", "192.0.2.1:53"}
	if diff := cmp.Diff(want, asked); diff != "" {
		t.Error(diff)
	}
}

func TestCallersDeadlineSaysNothingAboutTheServer(t *testing.T) {
	hasty := func(ctx context.Context, c *Client) {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if e := lookupError(t, c, ctx, "a.test", dns.TypeA); e.Kind != Timeout {
			t.Error(e)
		}
	}
	asked := askedInOrder(t, func(string, int, *dns.Msg) *dns.Msg { return nil }, hasty, hasty)
	if diff := cmp.Diff([]string{"192.0.2.1:53", "192.0.2.1:53"}, asked); diff != "" {
		t.Error(diff)
	}
}

func TestCanceledEvenAfterAFailureWasSaid(t *testing.T) {
	asked := askedInOrder(t, func(address string, _ int, q *dns.Msg) *dns.Msg {
		if address == "192.0.2.1:53" {
			return reply(t, q, dns.RcodeServerFailure, "", "")
		}
		return nil
	}, func(ctx context.Context, c *Client) {
		ctx, cancel := context.WithCancel(ctx)
		time.AfterFunc(time.Second, cancel)
		if e := lookupError(t, c, ctx, "a.test", dns.TypeA); e.Kind != Canceled {
			t.Error(e)
		}
	})
	if len(asked) != 2 {
		t.Error(asked)
	}
}
