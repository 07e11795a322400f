package lab_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"tlspolicyd/testing/lab"
)

func TestAuthenticData(t *testing.T) {
	const (
		plain = iota
		withDO
		withAD
	)
	for _, tt := range []struct {
		what       string
		name       string
		bits       int
		onlyWithAD bool
		want       bool
	}{
		{"secure name, DO", "a.secure.test", withDO, false, true},
		{"secure name, AD bit", "a.secure.test", withAD, false, true},
		{"secure name, neither", "a.secure.test", plain, false, false},
		{"AD only when asked, DO alone", "a.secure.test", withDO, true, false},
		{"AD only when asked, AD bit", "a.secure.test", withAD, true, true},
		{"insecure name", "a.insecure.test", withDO, false, false},
		{"secure island below", "a.island.insecure.test", withDO, false, true},
		{"secure denial", "none.secure.test", withDO, false, true},
		{"insecure denial", "none.insecure.test", withDO, false, false},
		{"alias to a secure name", "good.secure.test", withDO, false, true},
		{"alias to an insecure name", "bad.secure.test", withDO, false, false},
		{"insecure alias to a secure name", "alias.insecure.test", withDO, false, false},
		{"alias to an insecure denial", "dangling.secure.test", withDO, false, false},
	} {
		t.Run(tt.what, func(t *testing.T) {
			w := newWorld(t)
			w.Zone(`
				a.secure.test.            A     192.0.2.1
				a.insecure.test.          A     192.0.2.2
				a.island.insecure.test.   A     192.0.2.3
				good.secure.test.         CNAME a.secure.test.
				bad.secure.test.          CNAME a.insecure.test.
				dangling.secure.test.     CNAME none.insecure.test.
				alias.insecure.test.      CNAME a.secure.test.
			`)
			w.Insecure("insecure.test")
			w.Secure("island.insecure.test")
			w.ADOnlyWhenAsked(tt.onlyWithAD)
			m := new(dns.Msg).SetQuestion(tt.name+".", dns.TypeA)
			if tt.bits == withDO {
				m.SetEdns0(1232, true)
			}
			m.AuthenticatedData = tt.bits == withAD
			r, err := exchange(t, w, "udp", m)
			if err != nil {
				t.Fatal(err)
			}
			if r.AuthenticatedData != tt.want {
				t.Errorf("AD %v, want %v:\n%v", r.AuthenticatedData, tt.want, r)
			}
			// EDNS only in answer to EDNS, signatures only in answer to DO.
			if got := r.IsEdns0() != nil; got != (tt.bits == withDO) {
				t.Errorf("EDNS %v", got)
			}
			signed := false
			for _, rr := range append(r.Answer, r.Ns...) {
				signed = signed || rr.Header().Rrtype == dns.TypeRRSIG
			}
			if signed && tt.bits != withDO || tt.want && tt.bits == withDO && !signed {
				t.Errorf("signed: %v", signed)
			}
		})
	}
}

// shape is what a client sees of an answer.
func shape(m *dns.Msg, err error) string {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "time-out"
	case err != nil:
		return "unreadable"
	}
	s := dns.RcodeToString[m.Rcode]
	if m.Truncated {
		s += " TC"
	}
	if len(m.Question) == 1 && m.Question[0].Name != "a.test." {
		s += " other question"
	}
	return fmt.Sprint(s, " ", len(data(m.Answer)), "/", len(data(m.Ns)))
}

func TestDNSFaults(t *testing.T) {
	for _, tt := range []struct {
		fault    lab.Fault
		udp, tcp string
	}{
		{0, "NOERROR 1/0", "NOERROR 1/0"},
		{lab.ServFail, "SERVFAIL 0/0", "SERVFAIL 0/0"},
		{lab.Bogus, "SERVFAIL 0/0", "SERVFAIL 0/0"},
		{lab.Refused, "REFUSED 0/0", "REFUSED 0/0"},
		{lab.FormErr, "FORMERR 0/0", "FORMERR 0/0"},
		{lab.NXDomain, "NXDOMAIN 0/1", "NXDOMAIN 0/1"},
		{lab.Drop, "time-out", "time-out"},
		{lab.WrongQuestion, "NOERROR other question 1/0", "NOERROR other question 1/0"},
		{lab.Garbage, "unreadable", "unreadable"},
		{lab.Truncate, "NOERROR TC 0/0", "NOERROR 1/0"},
		{lab.TruncateAll, "NOERROR TC 0/0", "NOERROR TC 0/0"},
		{lab.CNAMELoop, "NOERROR 2/0", "NOERROR 2/0"},
		{lab.EndlessCNAMEs, "NOERROR 1/0", "NOERROR 1/0"},
		{lab.NoSOA, "NOERROR 1/0", "NOERROR 1/0"},
		{lab.ServFailOnce, "SERVFAIL 0/0", "NOERROR 1/0"},
		{lab.DropOnce, "time-out", "NOERROR 1/0"},
		{lab.Refused.Times(2), "REFUSED 0/0", "REFUSED 0/0"},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := lab.New()
			defer w.Close()
			w.Zone(`a.test. A 192.0.2.1`)
			w.Fault("a.test", "A", tt.fault)
			if got := shape(exchange(t, w, "udp", query("a.test", dns.TypeA))); got != tt.udp {
				t.Errorf("fault %d over UDP: %s, want %s", tt.fault, got, tt.udp)
			}
			if got := shape(exchange(t, w, "tcp", query("a.test", dns.TypeA))); got != tt.tcp {
				t.Errorf("fault %d over TCP: %s, want %s", tt.fault, got, tt.tcp)
			}
			if tt.fault != lab.Refused.Times(2) {
				w.Fault("a.test", "A", 0)
			}
			if got := shape(exchange(t, w, "udp", query("a.test", dns.TypeA))); got != "NOERROR 1/0" {
				t.Errorf("fault %d stayed: %s", tt.fault, got)
			}
		})
	}
}

func TestBogusSaysSo(t *testing.T) {
	w := newWorld(t)
	w.Fault("a.test", "", lab.Bogus)
	opt := ask(t, w, "a.test", dns.TypeA).IsEdns0()
	if ede, ok := opt.Option[0].(*dns.EDNS0_EDE); !ok || ede.InfoCode != dns.ExtendedErrorCodeDNSBogus {
		t.Errorf("%v", opt)
	}
}

func TestNegativeAnswerWithoutSOA(t *testing.T) {
	w := newWorld(t)
	if m := ask(t, w, "none.test", dns.TypeA); len(m.Ns) == 0 {
		t.Errorf("no SOA without a fault: %v", m)
	}
	w.Fault("none.test", "A", lab.NoSOA)
	if m := ask(t, w, "none.test", dns.TypeA); len(m.Ns) != 0 || m.Rcode != dns.RcodeNameError {
		t.Errorf("%v", m)
	}
}

func TestNegativeTTL(t *testing.T) {
	w := newWorld(t)
	w.NegativeTTL(45 * time.Second)
	if soa := ask(t, w, "none.test", dns.TypeA).Ns[0].(*dns.SOA); soa.Minttl != 45 || soa.Hdr.Ttl != 45 {
		t.Errorf("%v", soa)
	}
}

func TestFaultOfTheNearestMatchWins(t *testing.T) {
	w := newWorld(t)
	w.Fault("*", "", lab.ServFail)
	w.Fault("*", "MX", lab.Refused)
	w.Fault("a.test", "ANY", lab.NXDomain)
	w.Fault("a.test", "A", lab.FormErr)
	for _, tt := range []struct {
		name  string
		qtype uint16
		rcode int
	}{
		{"b.test", dns.TypeA, dns.RcodeServerFailure},
		{"b.test", dns.TypeMX, dns.RcodeRefused},
		{"a.test", dns.TypeMX, dns.RcodeNameError},
		{"a.test", dns.TypeA, dns.RcodeFormatError},
	} {
		if m := ask(t, w, tt.name, tt.qtype); m.Rcode != tt.rcode {
			t.Errorf("%s %s: %v", tt.name, dns.TypeToString[tt.qtype], m.MsgHdr)
		}
	}
}

func TestFaultBehindAnAlias(t *testing.T) {
	w := newWorld(t)
	w.Zone("alias.test. CNAME a.test.\na.test. A 192.0.2.1")
	w.Fault("a.test", "A", lab.ServFail)
	if m := ask(t, w, "alias.test", dns.TypeA); m.Rcode != dns.RcodeServerFailure || len(m.Answer) != 0 {
		t.Errorf("%v", m)
	}
}

func TestMessageIDs(t *testing.T) {
	w := newWorld(t)
	w.Zone("a.test. A 192.0.2.1")
	for _, tt := range []struct {
		fault lab.Fault
		right []bool // of the answers that come
	}{
		{lab.WrongID, []bool{false}},
		{lab.SpoofFirst, []bool{false, true}},
	} {
		w.Fault("a.test", "", tt.fault)
		nc, err := w.Dial(t.Context(), "udp", w.DNSAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		c := &dns.Conn{Conn: nc}
		q := query("a.test", dns.TypeA)
		if err := c.WriteMsg(q); err != nil {
			t.Fatal(err)
		}
		var right []bool
		for range tt.right {
			m, err := c.ReadMsg()
			if err != nil {
				t.Fatal(err)
			}
			right = append(right, m.Id == q.Id)
		}
		if d := cmp.Diff(tt.right, right); d != "" {
			t.Errorf("fault %d: %s", tt.fault, d)
		}
		c.Close()
	}
}

func TestEndlessAliasesNeverRepeat(t *testing.T) {
	w := newWorld(t)
	w.Fault("a.test", "", lab.EndlessCNAMEs)
	seen := map[string]bool{}
	for name := "a.test."; len(seen) < 50; {
		if seen[name] {
			t.Fatalf("%s comes again", name)
		}
		seen[name] = true
		name = ask(t, w, name, dns.TypeA).Answer[0].(*dns.CNAME).Target
	}
}

func TestHugeAnswers(t *testing.T) {
	w := newWorld(t)
	w.Fault("a.test", "", lab.Huge)
	for qtype, most := range map[uint16]int{
		dns.TypeTXT: 1, dns.TypeMX: 1000, dns.TypeA: 1000, dns.TypeAAAA: 1000, dns.TypeTLSA: 1000,
	} {
		q := query("a.test", qtype)
		m, err := exchange(t, w, "tcp", q)
		if err != nil {
			t.Fatalf("%s: %v", dns.TypeToString[qtype], err)
		}
		if n := len(data(m.Answer)); n < most || m.Truncated {
			t.Errorf("%s: %d records, truncated %v", dns.TypeToString[qtype], n, m.Truncated)
		}
		if m := ask(t, w, "a.test", qtype); !m.Truncated {
			t.Errorf("%s over UDP is not truncated", dns.TypeToString[qtype])
		}
	}
}

// 512 bytes without EDNS, what the client says with it (RFC 6891 §6.2.3).
func TestUDPSize(t *testing.T) {
	w := newWorld(t)
	for i := range 40 {
		w.Zone(fmt.Sprintf("a.test. A 192.0.2.%d", i))
	}
	for size, truncated := range map[uint16]bool{0: true, 600: true, 1232: false} {
		q := new(dns.Msg).SetQuestion("a.test.", dns.TypeA)
		if size > 0 {
			q.SetEdns0(size, false)
		}
		m, err := exchange(t, w, "udp", q)
		if err != nil {
			t.Fatal(err)
		}
		if opt := m.IsEdns0(); opt != nil && opt.Do() {
			t.Errorf("DO in answer to none: %v", opt)
		}
		m.Compress = true // as it was sent
		if m.Truncated != truncated || m.Len() > max(512, int(size)) {
			t.Errorf("size %d: truncated %v, %d bytes", size, m.Truncated, m.Len())
		}
	}
}

func TestDelayAndSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := lab.New()
		defer w.Close()
		w.Zone("a.test. A 192.0.2.1\nslow.test. A 192.0.2.1")
		w.Delay(100 * time.Millisecond)
		w.Delay(700*time.Millisecond, "slow.test")
		for name, want := range map[string]time.Duration{"a.test": 100 * time.Millisecond, "slow.test": 700 * time.Millisecond} {
			begin := time.Now()
			ask(t, w, name, dns.TypeA)
			if took := time.Since(begin); took != want {
				t.Errorf("%s took %v", name, took)
			}
		}
		w.Down(true)
		if got := shape(exchange(t, w, "udp", query("a.test", dns.TypeA))); got != "time-out" {
			t.Errorf("down: %s", got)
		}
		w.Down(false)
		ask(t, w, "a.test", dns.TypeA)
	})
}

func TestQueriesAreKept(t *testing.T) {
	w := newWorld(t)
	second := netip.MustParseAddrPort("192.0.2.53:53")
	w.AddResolver(second, lab.ServFail)
	ask(t, w, "A.test", dns.TypeMX)
	ask(t, w, "a.test", dns.TypeA)
	ask(t, w, "b.test", dns.TypeA)
	if w.Count("a.test", "MX") != 1 || w.Count("a.test", "") != 2 || w.Count("*", "A") != 2 || w.Count("*", "") != 3 {
		t.Errorf("%+v", w.Queries())
	}
	q := w.Queries()[0]
	if q.Name != "a.test" || q.Type != "MX" || q.Network != "udp" || !q.DO || q.AD || q.Server != w.DNSAddr() || q.At.IsZero() {
		t.Errorf("%+v", q)
	}
	w.ResetQueries()
	if w.Count("*", "") != 0 || len(w.Queries()) != 0 {
		t.Error("not forgotten")
	}
	nc, err := w.Dial(t.Context(), "tcp", second.String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	c := &dns.Conn{Conn: nc}
	if err := c.WriteMsg(query("a.test", dns.TypeA)); err != nil {
		t.Fatal(err)
	}
	if m, err := c.ReadMsg(); err != nil || m.Rcode != dns.RcodeServerFailure {
		t.Errorf("%v %v", m, err)
	}
	if q := w.Queries()[0]; q.Server != second || q.Network != "tcp" {
		t.Errorf("%+v", q)
	}
}

func TestReplace(t *testing.T) {
	w := newWorld(t)
	w.Zone("a.test. MX 10 mx.test.")
	w.Replace("a.test", "MX", "20 mx2.test.", "a.test. 60 MX 30 mx3.test.")
	var got []string
	for _, rr := range ask(t, w, "a.test", dns.TypeMX).Answer {
		if mx, ok := rr.(*dns.MX); ok {
			got = append(got, fmt.Sprint(mx.Hdr.Ttl, " ", mx.Preference, " ", mx.Mx))
		}
	}
	if d := cmp.Diff([]string{"300 20 mx2.test.", "60 30 mx3.test."}, got); d != "" {
		t.Error(d)
	}
	w.Replace("a.test", "MX")
	if m := ask(t, w, "a.test", dns.TypeMX); m.Rcode != dns.RcodeNameError {
		t.Errorf("a name without records is still there: %v", m)
	}
}

func TestMistakesPanic(t *testing.T) {
	w := newWorld(t)
	for what, mistake := range map[string]func(){
		"zone":   func() { w.Zone("a.test. A not-an-address") },
		"record": func() { w.Replace("a.test", "A", "not-an-address") },
		"type":   func() { w.Fault("a.test", "NOTYPE", lab.Drop) },
	} {
		t.Run(what, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			mistake()
		})
	}
}
