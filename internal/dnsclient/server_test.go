package dnsclient

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is a DNS server on real UDP and TCP sockets of loopback.
type server struct {
	addr netip.AddrPort

	mu      sync.Mutex
	queries []seen
}

type seen struct {
	network string
	from    netip.AddrPort
	msg     *dns.Msg
}

// serve answers with what reply returns; nil is silence. Several messages go
// out one after the other.
func serve(t *testing.T, reply func(network string, q *dns.Msg) []*dns.Msg) *server {
	t.Helper()
	s := &server{}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		network := w.LocalAddr().Network()
		s.mu.Lock()
		s.queries = append(s.queries, seen{network, netip.MustParseAddrPort(w.RemoteAddr().String()), q.Copy()})
		s.mu.Unlock()
		for _, m := range reply(network, q) {
			if err := w.WriteMsg(m); err != nil {
				return // the client has heard enough
			}
		}
	})
	packet, listener := listen(t)
	s.addr = netip.MustParseAddrPort(packet.LocalAddr().String())
	for _, d := range []*dns.Server{{PacketConn: packet, Handler: handler}, {Listener: listener, Handler: handler}} {
		started, stopped := make(chan struct{}), make(chan error, 1)
		d.NotifyStartedFunc = func() { close(started) }
		go func() { stopped <- d.ActivateAndServe() }()
		<-started
		t.Cleanup(func() {
			if err := d.Shutdown(); err != nil {
				t.Error(err)
			}
			if err := <-stopped; err != nil {
				t.Error(err)
			}
		})
	}
	return s
}

// listen takes one port number for both transports.
func listen(t *testing.T) (net.PacketConn, net.Listener) {
	t.Helper()
	for range 20 {
		packet, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		listener, err := net.Listen("tcp", packet.LocalAddr().String())
		if err == nil {
			return packet, listener
		}
		packet.Close()
	}
	t.Fatal("no port that is free on both UDP and TCP")
	return nil, nil
}

func (s *server) seen() []seen {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]seen(nil), s.queries...)
}

// records reads zone file lines, separated by ";".
func records(t testing.TB, zone string) []dns.RR {
	t.Helper()
	var rrs []dns.RR
	for line := range strings.SplitSeq(zone, ";") {
		rr, err := dns.NewRR(strings.TrimSpace(line))
		if err != nil {
			t.Errorf("%q: %v", line, err) // not Fatal: servers call this too
		}
		if rr == nil {
			continue
		}
		rrs = append(rrs, rr)
	}
	return rrs
}

// reply is a message with AD set.
func reply(t testing.TB, q *dns.Msg, rcode int, answer, authority string) *dns.Msg {
	t.Helper()
	m := new(dns.Msg).SetReply(q)
	m.RecursionAvailable, m.AuthenticatedData, m.Rcode = true, true, rcode
	m.Answer, m.Ns = records(t, answer), records(t, authority)
	return m
}

// answering serves one and the same NOERROR answer.
func answering(t *testing.T, answer string) *server {
	return serve(t, func(_ string, q *dns.Msg) []*dns.Msg {
		return []*dns.Msg{reply(t, q, dns.RcodeSuccess, answer, "")}
	})
}

// failing serves one and the same rcode.
func failing(t *testing.T, rcode int) *server {
	return serve(t, func(_ string, q *dns.Msg) []*dns.Msg {
		return []*dns.Msg{reply(t, q, rcode, "", "")}
	})
}

func client(t *testing.T, servers ...*server) *Client {
	t.Helper()
	var cfg Config
	for _, s := range servers {
		cfg.Servers = append(cfg.Servers, s.addr)
	}
	return newClient(t, cfg)
}

// remote is a client of a server that is not on loopback, as far as it knows.
func remote(t *testing.T, s *server) *Client {
	t.Helper()
	return newClient(t, Config{
		Servers: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.53:53")},
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, s.addr.String())
		},
	})
}

func newClient(t *testing.T, cfg Config) *Client {
	t.Helper()
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// pipes is a network in memory, for tests of time: reply is asked for each
// query; nil is silence.
func pipes(reply func(address string, q *dns.Msg) *dns.Msg) func(context.Context, string, string) (net.Conn, error) {
	return func(_ context.Context, _, address string) (net.Conn, error) {
		here, there := net.Pipe()
		go func() {
			defer there.Close()
			conn := &dns.Conn{Conn: there}
			q, err := conn.ReadMsg()
			if err != nil {
				return
			}
			if m := reply(address, q); m != nil {
				_ = conn.WriteMsg(m)
			}
			_, _ = there.Read(make([]byte, 1)) // until the client hangs up
		}()
		return here, nil
	}
}

// datagramConn is one end of a pipe that passes for a datagram socket: what one
// Write takes, one Read gives.
type datagramConn struct{ net.Conn }

func (datagramConn) ReadFrom([]byte) (int, net.Addr, error) { return 0, nil, net.ErrClosed }
func (datagramConn) WriteTo([]byte, net.Addr) (int, error)  { return 0, net.ErrClosed }

// datagrams is a network in memory whose only server sends one datagram for
// each query.
func datagrams(reply func(q *dns.Msg) *dns.Msg) func(context.Context, string, string) (net.Conn, error) {
	return func(context.Context, string, string) (net.Conn, error) {
		here, there := net.Pipe()
		go func() {
			defer there.Close()
			conn := &dns.Conn{Conn: datagramConn{there}}
			q, err := conn.ReadMsg()
			if err != nil {
				return
			}
			_ = conn.WriteMsg(reply(q))
			_, _ = there.Read(make([]byte, 1)) // until the client hangs up
		}()
		return datagramConn{here}, nil
	}
}

func lookupError(t *testing.T, c *Client, ctx context.Context, name string, qtype uint16) *Error {
	t.Helper()
	a, err := c.Lookup(ctx, name, qtype)
	if err == nil {
		t.Fatalf("no error, answer %+v", a)
	}
	e, ok := err.(*Error)
	if !ok {
		t.Fatalf("error is a %T", err)
	}
	return e
}
