package dnsclient

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

// BEHAVIOUR §4: queries carry both DO and AD.
func TestQueryCarriesRDADAndDO(t *testing.T) {
	s := answering(t, "a.test. 60 A 192.0.2.1")
	c := remote(t, s)
	ports := map[uint16]bool{}
	for range 8 {
		if _, err := c.Lookup(t.Context(), "a.test", dns.TypeA); err != nil {
			t.Fatal(err)
		}
	}
	for _, q := range s.seen() {
		opt := q.msg.IsEdns0()
		if q.network != "udp" || !q.msg.RecursionDesired || !q.msg.AuthenticatedData || q.msg.CheckingDisabled ||
			opt == nil || !opt.Do() || opt.UDPSize() != 1232 {
			t.Errorf("query over %s: %v", q.network, q.msg)
		}
		ports[q.from.Port()] = true
	}
	if len(s.seen()) != 8 || len(ports) < 2 {
		t.Errorf("%d queries from source ports %v: want 8 from fresh ports (RFC 5452 §4.5)", len(s.seen()), ports)
	}
}

// BEHAVIOUR §4: UDP first, TCP when truncated.
func TestTruncatedAnswerIsAskedForOverTCP(t *testing.T) {
	for name, mangle := range map[string]func(*dns.Msg){
		"TC bit":                 func(m *dns.Msg) { m.Answer, m.Truncated = nil, true },
		"larger than our buffer": func(*dns.Msg) {},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, func(network string, q *dns.Msg) []*dns.Msg {
				m := reply(t, q, dns.RcodeSuccess, "", "")
				for i := range 300 {
					m.Answer = append(m.Answer, records(t, "a.test. 60 A 192.0.2."+string(rune('0'+i%10))+"; a.test. 60 AAAA 2001:db8::1")...)
				}
				if network == "udp" {
					mangle(m)
				}
				return []*dns.Msg{m}
			})
			a, err := client(t, s).Lookup(t.Context(), "a.test", dns.TypeA)
			if err != nil || len(a.Records) != 10 {
				t.Errorf("%d records, %v: want 10", len(a.Records), err)
			}
			if q := s.seen(); len(q) != 2 || q[1].network != "tcp" {
				t.Errorf("queries: %v", q)
			}
		})
	}
}

func TestTruncatedOverTCPIsMalformed(t *testing.T) {
	s := serve(t, func(_ string, q *dns.Msg) []*dns.Msg {
		m := reply(t, q, dns.RcodeSuccess, "", "")
		m.Truncated = true
		return []*dns.Msg{m}
	})
	if e := lookupError(t, client(t, s), t.Context(), "a.test", dns.TypeA); e.Kind != Malformed {
		t.Error(e)
	}
}

// strays are answers to a question that was not asked: RFC 5452 §9.1.
func strays(t *testing.T, q *dns.Msg) map[string]*dns.Msg {
	m := map[string]*dns.Msg{}
	for name, change := range map[string]func(*dns.Msg){
		"wrong id":       func(m *dns.Msg) { m.Id++ },
		"wrong name":     func(m *dns.Msg) { m.Question[0].Name = "b.test." },
		"wrong type":     func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAAAA },
		"wrong class":    func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS },
		"a query":        func(m *dns.Msg) { m.Response = false },
		"wrong opcode":   func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify },
		"no question":    func(m *dns.Msg) { m.Question = nil },
		"two questions":  func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) },
		"SERVFAIL, b.":   func(m *dns.Msg) { m.Question[0].Name, m.Rcode = "b.test.", dns.RcodeServerFailure },
		"truncated, id":  func(m *dns.Msg) { m.Id, m.Truncated = m.Id+1, true },
		"NXDOMAIN alone": func(m *dns.Msg) { m.Question, m.Rcode = nil, dns.RcodeNameError },
	} {
		m[name] = reply(t, q, dns.RcodeSuccess, "a.test. 60 A 203.0.113.66", "")
		change(m[name])
	}
	return m
}

func TestForeignDatagramsDoNotEndALookup(t *testing.T) {
	s := serve(t, func(_ string, q *dns.Msg) []*dns.Msg {
		var out []*dns.Msg
		for _, m := range strays(t, q) {
			out = append(out, m)
		}
		good := reply(t, q, dns.RcodeSuccess, "a.test. 60 A 192.0.2.1", "")
		good.Question[0].Name = "A.tESt." // any case will do
		return append(out, good)
	})
	a, err := client(t, s).Lookup(t.Context(), "a.test", dns.TypeA)
	if err != nil {
		t.Fatal(err)
	}
	if got := a.Records[0].(*dns.A).A.String(); got != "192.0.2.1" || len(s.seen()) != 1 {
		t.Errorf("got %s after %d queries", got, len(s.seen()))
	}
}

func TestOnlyForeignDatagramsAreATimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial := datagrams(func(q *dns.Msg) *dns.Msg { return strays(t, q)["wrong id"] })
		c := newClient(t, Config{Servers: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")}, Dial: dial})
		e := lookupError(t, c, t.Context(), "a.test", dns.TypeA)
		if e.Kind != Timeout || !strings.Contains(e.Error(), "1 datagrams ignored") {
			t.Error(e)
		}
	})
}

func TestMismatchOnAStreamIsMalformed(t *testing.T) {
	for _, name := range []string{"wrong id", "wrong name", "a query"} {
		s := serve(t, func(network string, q *dns.Msg) []*dns.Msg {
			m := reply(t, q, dns.RcodeSuccess, "", "")
			m.Truncated = true
			if network == "tcp" {
				m = strays(t, q)[name]
			}
			return []*dns.Msg{m}
		})
		if e := lookupError(t, client(t, s), t.Context(), "a.test", dns.TypeA); e.Kind != Malformed {
			t.Errorf("%s: %v", name, e)
		}
	}
}

func TestErrorInABareHeaderIsHeard(t *testing.T) {
	s := serve(t, func(_ string, q *dns.Msg) []*dns.Msg {
		m := reply(t, q, dns.RcodeRefused, "", "")
		m.Question = nil
		return []*dns.Msg{m}
	})
	if e := lookupError(t, client(t, s), t.Context(), "a.test", dns.TypeA); e.Kind != Refused || e.Rcode != dns.RcodeRefused {
		t.Error(e)
	}
}

func TestLookupEndsWithItsContext(t *testing.T) {
	silent := pipes(func(string, *dns.Msg) *dns.Msg { return nil })
	one := []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")}
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, Config{Servers: one, Dial: silent})
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		e := lookupError(t, c, ctx, "a.test", dns.TypeA)
		if e.Kind != Timeout || !e.Timeout() || e.Wait != 0 || time.Since(start) != 3*time.Second {
			t.Errorf("%v after %v", e, time.Since(start))
		}
		if got, want := e.Error(), "A lookup of a.test: no answer from 127.0.0.1:53"; got != want {
			t.Errorf("got %q want %q", got, want)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, Config{Servers: one, Dial: silent})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		start := time.Now()
		e := lookupError(t, c, ctx, "a.test", dns.TypeA)
		if e.Kind != Canceled || !errors.Is(e, context.Canceled) || time.Since(start) != time.Second {
			t.Errorf("%v after %v", e, time.Since(start))
		}
	})
	synctest.Test(t, func(t *testing.T) { // a dial that hangs, as to a dropped SYN
		hang := func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		c := newClient(t, Config{Servers: one, Dial: hang, Timeout: 2 * time.Second})
		e := lookupError(t, c, t.Context(), "a.test", dns.TypeA)
		if got, want := e.Error(), "A lookup of a.test: no answer within 2s from 127.0.0.1:53"; got != want {
			t.Errorf("got %q want %q", got, want)
		}
	})
}

func TestSlowDrippingStreamIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial := func(context.Context, string, string) (net.Conn, error) {
			here, there := net.Pipe()
			go func() {
				defer there.Close()
				if _, err := (&dns.Conn{Conn: there}).ReadMsg(); err != nil {
					return
				}
				for { // a length of 257, then a byte a second
					if _, err := there.Write([]byte{1}); err != nil {
						return
					}
					time.Sleep(time.Second)
				}
			}()
			return here, nil
		}
		c := newClient(t, Config{Servers: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")}, Dial: dial})
		start := time.Now()
		if e := lookupError(t, c, t.Context(), "a.test", dns.TypeA); e.Kind != Timeout || time.Since(start) != 10*time.Second {
			t.Errorf("%v after %v", e, time.Since(start))
		}
		time.Sleep(time.Second) // the dripping side sees the hang-up
	})
}

func TestServerFromBeforeEDNS(t *testing.T) {
	for _, rcode := range []int{dns.RcodeFormatError, dns.RcodeNotImplemented} {
		s := serve(t, func(_ string, q *dns.Msg) []*dns.Msg {
			if q.IsEdns0() != nil {
				return []*dns.Msg{reply(t, q, rcode, "", "")}
			}
			return []*dns.Msg{reply(t, q, dns.RcodeSuccess, "a.test. 60 A 192.0.2.1", "")}
		})
		a, err := client(t, s).Lookup(t.Context(), "a.test", dns.TypeA)
		if q := s.seen(); err != nil || !a.Authentic || len(q) != 2 || !q[1].msg.AuthenticatedData {
			t.Errorf("%+v, %v, queries %v", a, err, q)
		}
	}
}

// BEHAVIOUR §4: the AD bit counts only where every server is a loopback address
// or the operator says so (RFC 7672 §2.1.3).
func TestADCountsFromTrustedServersOnly(t *testing.T) {
	s := answering(t, "a.test. 60 A 192.0.2.1")
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, s.addr.String())
	}
	for _, test := range []struct {
		servers string
		trustAD bool
		want    bool
	}{
		{"127.0.0.1:53", false, true},
		{"127.0.0.53:53", false, true},
		{"[::1]:53", false, true},
		{"[::ffff:127.0.0.1]:53", false, true},
		{"192.0.2.53:53", false, false},
		{"192.0.2.53:53", true, true},
		{"127.0.0.1:53 192.0.2.53:53", false, false},
		{"[fe80::1%lo]:53", false, false},
		// A private network is not the host itself, whatever is on it.
		{"10.0.0.1:53", false, false},
		{"192.168.1.1:53", false, false},
		{"172.16.0.1:53", false, false},
		{"[fd00::1]:53", false, false},
		{"[::ffff:10.0.0.1]:53", false, false},
		{"127.0.0.1:53 192.168.1.1:53", false, false},
		{"10.0.0.1:53", true, true},
	} {
		cfg := Config{Dial: dial, TrustAD: test.trustAD}
		for server := range strings.FieldsSeq(test.servers) {
			cfg.Servers = append(cfg.Servers, netip.MustParseAddrPort(server))
		}
		c := newClient(t, cfg)
		a, err := c.Lookup(t.Context(), "a.test", dns.TypeA)
		if err != nil || a.Authentic != test.want || c.Trusted() != test.want {
			t.Errorf("%s, trust_ad %v: authentic %v, trusted %v, %v; want %v", test.servers, test.trustAD, a.Authentic, c.Trusted(), err, test.want)
		}
		if !slices.Equal(c.Servers(), cfg.Servers) {
			t.Errorf("servers %v", c.Servers())
		}
	}
}

func TestNoADWithoutTheBit(t *testing.T) {
	s := serve(t, func(_ string, q *dns.Msg) []*dns.Msg {
		m := reply(t, q, dns.RcodeSuccess, "a.test. 60 A 192.0.2.1", "")
		m.AuthenticatedData = false
		return []*dns.Msg{m}
	})
	if a, err := client(t, s).Lookup(t.Context(), "a.test", dns.TypeA); err != nil || a.Authentic {
		t.Errorf("%+v, %v", a, err)
	}
}

func TestNewRefusesBadConfiguration(t *testing.T) {
	for want, cfg := range map[string]Config{
		"want an IP address and a port": {Servers: []netip.AddrPort{{}}},
		"192.0.2.1:0":                   {Servers: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:0")}},
		"want a positive duration":      {Timeout: -1},
		"DNS servers: ":                 {ResolvConf: t.TempDir()}, // a directory cannot be read as a file
	} {
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v want %q", err, want)
		}
	}
}

func TestNameThatCannotBeAsked(t *testing.T) {
	c := client(t, answering(t, ""))
	for _, name := range []string{"", "a..test", strings.Repeat("a", 64) + ".test", strings.Repeat("a.", 128)} {
		if e := lookupError(t, c, t.Context(), name, dns.TypeMX); e.Kind != Malformed {
			t.Errorf("%q: %v", name, e)
		}
	}
}
