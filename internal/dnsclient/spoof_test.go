package dnsclient

import (
	"context"
	"math/bits"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// An attacker who cannot see a query must guess its id and its source port to forge
// the answer (RFC 5452 §4). Held loosely: it must not fail by chance, and it must
// see a counter, a fixed value, or a generator that repeats.
func TestIDsAndPortsCannotBeGuessed(t *testing.T) {
	const n = 1000
	s := answering(t, "a.test. 60 A 192.0.2.1")
	c := remote(t, s)
	for range n {
		if _, err := c.Lookup(t.Context(), "a.test", dns.TypeA); err != nil {
			t.Fatal(err)
		}
	}
	ids, steps, ports := map[uint16]int{}, map[uint16]int{}, map[uint16]int{}
	var ones [16]int
	var last uint16
	for _, q := range s.seen() {
		id := q.msg.Id
		ids[id]++
		steps[id-last]++
		ports[q.from.Port()]++
		for bit := range ones {
			ones[bit] += int(id >> bit & 1)
		}
		last = id
	}
	// Of 1,000 random values 992.4 differ on average; the variance is 7.5.
	if len(ids) < 960 || len(steps) < 960 {
		t.Errorf("%d different ids, %d different steps between them, of %d", len(ids), len(steps), n)
	}
	for bit, n1 := range ones { // 500 ± 8 standard deviations
		if n1 < 370 || n1 > 630 {
			t.Errorf("bit %d of the id is set %d times of %d", bit, n1, n)
		}
	}
	// The kernel chooses among 28,232 ports by default (ip_local_port_range); a
	// small range of ours would show.
	if len(ports) < 200 {
		t.Errorf("%d source ports for %d queries", len(ports), n)
	}
	spread := 0
	for port := range ports {
		spread |= int(port)
	}
	if bits.OnesCount(uint(spread)) < 12 {
		t.Errorf("source ports differ in %b only", spread)
	}
}

// An answer with the right id and question counts only from where the query
// went (RFC 5452 §9.2), not from another address or another port of the same one.
func TestAnswerFromElsewhereIsNone(t *testing.T) {
	stray := map[string]net.PacketConn{}
	for _, from := range []string{"127.0.0.1:0", "127.0.0.2:0"} {
		pc, err := net.ListenPacket("udp", from)
		if err != nil {
			t.Fatal(err)
		}
		defer pc.Close()
		stray[from] = pc
	}
	var s *server
	s = serve(t, func(_ string, q *dns.Msg) []*dns.Msg {
		forged, err := reply(t, q, dns.RcodeSuccess, "a.test. 60 A 203.0.113.66", "").Pack()
		if err != nil {
			t.Error(err)
		}
		to := net.UDPAddrFromAddrPort(s.seen()[len(s.seen())-1].from)
		for from, pc := range stray {
			// A connected socket may answer by ICMP; the write itself succeeds.
			if _, err := pc.WriteTo(forged, to); err != nil {
				t.Errorf("%s: %v", from, err)
			}
		}
		return []*dns.Msg{reply(t, q, dns.RcodeSuccess, "a.test. 60 A 192.0.2.1", "")}
	})
	for range 20 {
		a, err := client(t, s).Lookup(t.Context(), "a.test", dns.TypeA)
		if err != nil {
			t.Fatal(err)
		}
		if got := a.Records[0].(*dns.A).A.String(); got != "192.0.2.1" {
			t.Fatalf("a forged answer was taken: %s", got)
		}
	}
}

// Only the configured servers are asked, whatever an answer points to.
func TestOnlyConfiguredServersAreAsked(t *testing.T) {
	s := serve(t, func(network string, q *dns.Msg) []*dns.Msg {
		m := reply(t, q, dns.RcodeSuccess, "", "a.test. 60 NS ns.a.test.")
		m.Extra = records(t, "ns.a.test. 60 A 127.0.0.9")
		m.RecursionAvailable = strings.HasPrefix(q.Question[0].Name, "b.")
		m.Answer = records(t, map[string]string{"c.test.": "c.test. 60 CNAME b.test."}[q.Question[0].Name])
		m.Truncated = network == "udp" && strings.HasPrefix(q.Question[0].Name, "t.")
		return []*dns.Msg{m}
	})
	dialed := map[string]bool{}
	c := newClient(t, Config{Servers: []netip.AddrPort{s.addr}, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		dialed[address] = true
		return new(net.Dialer).DialContext(ctx, network, address)
	}})
	for _, name := range []string{"a.test", "b.test", "c.test", "t.test"} {
		_, _ = c.Lookup(t.Context(), name, dns.TypeMX) // a referral is an error; what matters is who is asked
	}
	if len(dialed) != 1 || !dialed[s.addr.String()] || len(s.seen()) < 5 {
		t.Errorf("dialed %v, configured %s, %d questions", dialed, s.addr, len(s.seen()))
	}
}
