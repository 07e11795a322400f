package dnsclient

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

func lookUpA(t *testing.T, c *Client, name, want string) {
	t.Helper()
	a, err := c.Lookup(t.Context(), name, dns.TypeA)
	if err != nil {
		t.Error(err) // not Fatal: goroutines call this too
		return
	}
	if got := a.Records[0].(*dns.A).A.String(); got != want {
		t.Errorf("%s has the address %s, want %s", name, got, want)
	}
}

// ports returns the source ports of the questions, in order.
func (s *server) ports() (ports []uint16) {
	for _, q := range s.seen() {
		ports = append(ports, q.from.Port())
	}
	return ports
}

// To a resolver on loopback a socket is used again, with an id that is new.
func TestSocketToLoopbackIsUsedAgain(t *testing.T) {
	s := answering(t, "a.test. 60 A 192.0.2.1")
	c := client(t, s)
	ids := map[uint16]bool{}
	for range 20 {
		lookUpA(t, c, "a.test", "192.0.2.1")
	}
	for _, q := range s.seen() {
		ids[q.msg.Id] = true
		if q.from.Port() != s.ports()[0] {
			t.Errorf("source ports %v", s.ports())
			break
		}
	}
	if len(ids) < 15 {
		t.Errorf("%d ids for 20 questions", len(ids))
	}
}

// A socket on which something else than the answer came is not used again: what
// else may come on it is unknown.
func TestSocketWithAStrayAnswerIsNotUsedAgain(t *testing.T) {
	s := serve(t, func(_ string, q *dns.Msg) []*dns.Msg {
		stray := reply(t, q, dns.RcodeSuccess, "a.test. 60 A 203.0.113.66", "")
		stray.Id++
		return []*dns.Msg{stray, reply(t, q, dns.RcodeSuccess, "a.test. 60 A 192.0.2.1", "")}
	})
	c := client(t, s)
	for range 5 {
		lookUpA(t, c, "a.test", "192.0.2.1")
	}
	if distinct := len(set(s.ports())); distinct < 2 { // the kernel may choose one port twice
		t.Errorf("source ports %v", s.ports())
	}
}

// An answer that comes after its question was given up is not taken for the
// answer to the next one, even with the same name, and even if the ids are the
// same by chance: it goes to another port.
func TestLateAnswerIsNotTaken(t *testing.T) {
	asked, late := make(chan struct{}), make(chan struct{})
	var once sync.Once
	s := serve(t, func(_ string, q *dns.Msg) []*dns.Msg {
		address := "192.0.2.1"
		once.Do(func() {
			address = "203.0.113.66"
			close(asked)
			<-late
		})
		return []*dns.Msg{reply(t, q, dns.RcodeSuccess, "a.test. 60 A "+address, "")}
	})
	c := client(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	given := make(chan error, 1)
	go func() {
		_, err := c.Lookup(ctx, "a.test", dns.TypeA)
		given <- err
	}()
	<-asked
	cancel()
	if err := <-given; err == nil {
		t.Error("answered before the answer was sent")
	}
	close(late)
	for range 10 {
		lookUpA(t, c, "a.test", "192.0.2.1")
	}
}

func set(ports []uint16) map[uint16]bool {
	m := map[uint16]bool{}
	for _, p := range ports {
		m[p] = true
	}
	return m
}

// A resolver that is restarted costs one failed lookup while it is down, and none
// afterwards.
func TestRestartOfTheResolver(t *testing.T) {
	start := func(addr, answer string) net.PacketConn {
		pc, err := net.ListenPacket("udp", addr)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			buf := make([]byte, 512)
			for {
				n, from, err := pc.ReadFrom(buf)
				if err != nil {
					return
				}
				q := new(dns.Msg)
				if err := q.Unpack(buf[:n]); err != nil {
					t.Error(err)
				}
				m, err := reply(t, q, dns.RcodeSuccess, strings.TrimSuffix(q.Question[0].Name, ".")+". 60 A "+answer, "").Pack()
				if err != nil {
					t.Error(err)
				}
				if _, err := pc.WriteTo(m, from); err != nil {
					t.Error(err)
				}
			}
		}()
		return pc
	}
	pc := start("127.0.0.1:0", "192.0.2.1")
	addr := pc.LocalAddr().String()
	c := newClient(t, Config{Servers: []netip.AddrPort{netip.MustParseAddrPort(addr)}})
	var together sync.WaitGroup
	for range 8 { // several sockets
		together.Go(func() { lookUpA(t, c, "a.test", "192.0.2.1") })
	}
	together.Wait()

	pc.Close()
	if e := lookupError(t, c, t.Context(), "a.test", dns.TypeA); e.Kind != Network {
		t.Error(e)
	}
	pc = start(addr, "192.0.2.2")
	defer pc.Close()
	for range 8 {
		lookUpA(t, c, "a.test", "192.0.2.2")
	}
}

// Sockets do not stay open for long: a client that was replaced at a reload holds
// none.
func TestIdleSocketsAreClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var closed atomic.Int64
		dial := func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := datagrams(func(q *dns.Msg) *dns.Msg {
				return reply(t, q, dns.RcodeSuccess, "a.test. 60 A 192.0.2.1", "")
			})(ctx, network, address)
			return &closing{conn.(datagramConn), &closed}, err
		}
		c := newClient(t, Config{Servers: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")}, Dial: dial})
		lookUpA(t, c, "a.test", "192.0.2.1")
		time.Sleep(idleFor - 1)
		if synctest.Wait(); closed.Load() != 0 {
			t.Error("closed early")
		}
		time.Sleep(time.Nanosecond)
		if synctest.Wait(); closed.Load() != 1 {
			t.Errorf("closed %d times", closed.Load())
		}
	})
}

// closing counts when it is closed.
type closing struct {
	datagramConn
	count *atomic.Int64
}

func (c *closing) Close() error {
	c.count.Add(1)
	return c.datagramConn.Close()
}
