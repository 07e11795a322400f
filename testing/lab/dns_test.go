package lab_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"tlspolicyd/testing/lab"
)

// newWorld returns a world that ends with the test.
func newWorld(t *testing.T) *lab.World {
	t.Helper()
	w := lab.New()
	t.Cleanup(w.Close)
	return w
}

// query returns a question with DO, as the project's resolver sends it.
func query(name string, qtype uint16) *dns.Msg {
	return new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype).SetEdns0(1232, true)
}

// exchange sends one message and waits a minute for the answer, which silence
// makes pass in a bubble only.
func exchange(t *testing.T, w *lab.World, network string, m *dns.Msg) (*dns.Msg, error) {
	t.Helper()
	nc, err := w.Dial(context.Background(), network, w.DNSAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	c := &dns.Conn{Conn: nc}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if err := c.WriteMsg(m); err != nil {
		t.Fatal(err)
	}
	return c.ReadMsg()
}

func ask(t *testing.T, w *lab.World, name string, qtype uint16) *dns.Msg {
	t.Helper()
	m, err := exchange(t, w, "udp", query(name, qtype))
	if err != nil {
		t.Fatalf("%s %s: %v", name, dns.TypeToString[qtype], err)
	}
	return m
}

// data returns the records but for signatures, in short form.
func data(rrs []dns.RR) []string {
	var out []string
	for _, rr := range rrs {
		if rr.Header().Rrtype != dns.TypeRRSIG {
			out = append(out, dns.Field(rr, 1)+" "+rr.Header().Name)
		}
	}
	return out
}

func TestAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := lab.New()
		defer w.Close()
		w.Zone(`
			a.test.         600 A 192.0.2.1
			a.test.         600 A 192.0.2.2
			b.test              A 192.0.2.3
			alias.test.         CNAME a.test.
			dangling.test.      CNAME nowhere.test.
			deep.ent.test.      A 192.0.2.4
			*.wild.test.        A 192.0.2.5
			circle.test.        CNAME circle.test.
			soa.test.        60 SOA ns.test. root.test. 1 2 3 4 30
		`)
		for _, tt := range []struct {
			name   string
			qtype  uint16
			rcode  int
			answer []string
			ttl    uint32 // of the first answer, or of the SOA
		}{
			{"a.test", dns.TypeA, dns.RcodeSuccess, []string{"192.0.2.1 a.test.", "192.0.2.2 a.test."}, 600},
			{"b.test", dns.TypeA, dns.RcodeSuccess, []string{"192.0.2.3 b.test."}, 300},
			{"A.Test", dns.TypeA, dns.RcodeSuccess, []string{"192.0.2.1 A.Test.", "192.0.2.2 A.Test."}, 600},
			{"a.test", dns.TypeMX, dns.RcodeSuccess, nil, 300},
			{"alias.test", dns.TypeA, dns.RcodeSuccess, []string{"a.test. alias.test.", "192.0.2.1 a.test.", "192.0.2.2 a.test."}, 300},
			{"alias.test", dns.TypeCNAME, dns.RcodeSuccess, []string{"a.test. alias.test."}, 300},
			{"alias.test", dns.TypeMX, dns.RcodeSuccess, []string{"a.test. alias.test."}, 300},
			{"dangling.test", dns.TypeA, dns.RcodeNameError, []string{"nowhere.test. dangling.test."}, 300},
			{"ent.test", dns.TypeA, dns.RcodeSuccess, nil, 300},
			{"none.test", dns.TypeA, dns.RcodeNameError, nil, 300},
			{"x.y.wild.test", dns.TypeA, dns.RcodeSuccess, []string{"192.0.2.5 x.y.wild.test."}, 300},
			{"circle.test", dns.TypeA, dns.RcodeServerFailure, nil, 0},
			{"none.soa.test", dns.TypeA, dns.RcodeNameError, nil, 60},
		} {
			m := ask(t, w, tt.name, tt.qtype)
			if m.Rcode != tt.rcode || !m.RecursionAvailable || !m.Response {
				t.Errorf("%s: %v", tt.name, m.MsgHdr)
			}
			if d := cmp.Diff(tt.answer, data(m.Answer)); d != "" {
				t.Errorf("%s %s: %s", tt.name, dns.TypeToString[tt.qtype], d)
			}
			first := append(m.Answer, m.Ns...)
			if tt.ttl != 0 && first[0].Header().Ttl != tt.ttl {
				t.Errorf("%s %s: TTL %d, want %d", tt.name, dns.TypeToString[tt.qtype], first[0].Header().Ttl, tt.ttl)
			}
		}
	})
}
