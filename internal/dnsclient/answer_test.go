package dnsclient

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/miekg/dns"
)

// part is what a server says to one question.
type part struct {
	rcode     int
	answer    string
	authority string
	insecure  bool
}

const soa = "test. 3600 SOA ns.test. admin.test. 1 2 3 4 300"

func TestAnswerIsReadToTheEndOfTheChain(t *testing.T) {
	for _, test := range []struct {
		name  string
		qtype uint16
		parts map[string]part // by question name
		want  Answer
	}{
		{
			"records in any case, the smallest TTL, others ignored", dns.TypeMX,
			map[string]part{"q.test.": {answer: "Q.test. 300 MX 10 a.test.; q.TEST. 60 MX 20 b.test.; x.test. 1 MX 5 c.test.; q.test. 2 TXT x; q.test. 3 CH MX 1 d.test."}},
			Answer{Authentic: true, Final: "q.test.", TTL: time.Minute, Records: records(t, "q.test. 300 MX 10 a.test.; q.test. 60 MX 20 b.test.")},
		},
		{
			"duplicates count once (2181 §5)", dns.TypeTXT,
			map[string]part{"q.test.": {answer: `q.test. 60 TXT "v=STSv1"; q.test. 30 TXT "v=STSv1"; q.test. 60 TXT "V=STSv1"`}},
			Answer{Authentic: true, Final: "q.test.", TTL: 30 * time.Second, Records: records(t, `q.test. 30 TXT "v=STSv1"; q.test. 60 TXT "V=STSv1"`)},
		},
		{
			"NODATA: the SOA's minimum (2308 §5)", dns.TypeMX,
			map[string]part{"q.test.": {authority: soa}},
			Answer{Authentic: true, Final: "q.test.", TTL: 300 * time.Second},
		},
		{
			"NXDOMAIN: the SOA's own TTL when that is smaller (2308 §5)", dns.TypeMX,
			map[string]part{"q.test.": {rcode: dns.RcodeNameError, authority: "test. 20 SOA ns.test. admin.test. 1 2 3 4 300"}},
			Answer{Rcode: dns.RcodeNameError, Authentic: true, Final: "q.test.", TTL: 20 * time.Second},
		},
		{
			"negative without SOA has no TTL", dns.TypeMX,
			map[string]part{"q.test.": {rcode: dns.RcodeNameError}},
			Answer{Rcode: dns.RcodeNameError, Authentic: true, Final: "q.test."},
		},
		{
			"the SOA of another zone says nothing", dns.TypeMX,
			map[string]part{"q.test.": {authority: "invalid. 60 SOA ns.test. admin.test. 1 2 3 4 300"}},
			Answer{Authentic: true, Final: "q.test."},
		},
		{
			"a TTL with the top bit counts as 0 (2181 §8)", dns.TypeA,
			map[string]part{"q.test.": {answer: "q.test. 60 A 192.0.2.1; q.test. 2147483648 A 192.0.2.2"}},
			Answer{Authentic: true, Final: "q.test.", Records: records(t, "q.test. 60 A 192.0.2.1; q.test. 2147483648 A 192.0.2.2")},
		},
		{
			"a negative TTL with the top bit counts as 0", dns.TypeA,
			map[string]part{"q.test.": {authority: "test. 60 SOA ns.test. admin.test. 1 2 3 4 4294967295"}},
			Answer{Authentic: true, Final: "q.test."},
		},
		{
			"aliases out of order, with their TTL", dns.TypeA,
			map[string]part{"q.test.": {answer: "c.test. 60 A 192.0.2.1; B.test. 50 CNAME C.test.; q.test. 40 CNAME b.test."}},
			Answer{
				Authentic: true, Final: "c.test.", TTL: 40 * time.Second, Records: records(t, "c.test. 60 A 192.0.2.1"),
				Chain: []CNAME{{"q.test.", "b.test."}, {"b.test.", "c.test."}},
			},
		},
		{
			"NXDOMAIN at the end of an alias (6604)", dns.TypeA,
			map[string]part{"q.test.": {rcode: dns.RcodeNameError, answer: "q.test. 40 CNAME b.test.", authority: soa}},
			Answer{Rcode: dns.RcodeNameError, Authentic: true, Final: "b.test.", TTL: 40 * time.Second, Chain: []CNAME{{"q.test.", "b.test."}}},
		},
		{
			"NXDOMAIN at the end of an alias, without SOA", dns.TypeA,
			map[string]part{"q.test.": {rcode: dns.RcodeNameError, answer: "q.test. 40 CNAME b.test."}},
			Answer{Rcode: dns.RcodeNameError, Authentic: true, Final: "b.test.", Chain: []CNAME{{"q.test.", "b.test."}}},
		},
		{
			"NODATA at the end of an alias", dns.TypeA,
			map[string]part{"q.test.": {answer: "q.test. 40 CNAME b.test.", authority: soa}},
			Answer{Authentic: true, Final: "b.test.", TTL: 40 * time.Second, Chain: []CNAME{{"q.test.", "b.test."}}},
		},
		{
			"the alias itself is asked for", dns.TypeCNAME,
			map[string]part{"q.test.": {answer: "q.test. 40 CNAME b.test.; b.test. 30 CNAME c.test."}},
			Answer{Authentic: true, Final: "q.test.", TTL: 40 * time.Second, Records: records(t, "q.test. 40 CNAME b.test.")},
		},
		{
			"the end of the chain is left to us", dns.TypeA,
			map[string]part{
				"q.test.": {answer: "q.test. 40 CNAME b.test."},
				"b.test.": {answer: "b.test. 30 A 192.0.2.1"},
			},
			Answer{Authentic: true, Final: "b.test.", TTL: 30 * time.Second, Chain: []CNAME{{"q.test.", "b.test."}}, Records: records(t, "b.test. 30 A 192.0.2.1")},
		},
		{
			"secure alias, insecure target in a second message", dns.TypeA,
			map[string]part{
				"q.test.": {answer: "q.test. 40 CNAME b.test."},
				"b.test.": {answer: "b.test. 30 A 192.0.2.1", insecure: true},
			},
			Answer{Final: "b.test.", TTL: 30 * time.Second, Chain: []CNAME{{"q.test.", "b.test."}}, Records: records(t, "b.test. 30 A 192.0.2.1")},
		},
		{
			"insecure alias, secure target in a second message", dns.TypeA,
			map[string]part{
				"q.test.": {answer: "q.test. 40 CNAME b.test.", insecure: true},
				"b.test.": {authority: soa},
			},
			Answer{Final: "b.test.", TTL: 40 * time.Second, Chain: []CNAME{{"q.test.", "b.test."}}},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			a, err := client(t, scripted(t, test.parts)).Lookup(t.Context(), "Q.test", test.qtype)
			if err != nil {
				t.Fatal(err)
			}
			test.want.Name, test.want.Type = "q.test.", test.qtype
			diff := cmp.Diff(test.want, a, cmpopts.IgnoreFields(Answer{}, "Server"), cmpopts.EquateEmpty(),
				cmp.Comparer(func(a, b dns.RR) bool { return dns.IsDuplicate(a, b) && a.Header().Ttl == b.Header().Ttl }))
			if diff != "" {
				t.Error(diff)
			}
			if a.Negative() != (len(test.want.Records) == 0) {
				t.Error("Negative does not fit the records")
			}
		})
	}
}

func scripted(t *testing.T, parts map[string]part) *server {
	return serve(t, func(_ string, q *dns.Msg) []*dns.Msg {
		p, ok := parts[strings.ToLower(q.Question[0].Name)]
		if !ok {
			p.rcode = dns.RcodeRefused
		}
		m := reply(t, q, p.rcode, p.answer, p.authority)
		m.AuthenticatedData = !p.insecure
		return []*dns.Msg{m}
	})
}

// chain is n aliases from q.test.
func chain(n int) string {
	var b strings.Builder
	from := "q.test."
	for i := range n {
		to := fmt.Sprintf("a%d.test.", i)
		fmt.Fprintf(&b, "%s 60 CNAME %s;", from, to)
		from = to
	}
	fmt.Fprintf(&b, "%s 60 A 192.0.2.1", from)
	return b.String()
}

func TestHostileAnswersAreMalformed(t *testing.T) {
	for _, test := range []struct {
		name  string
		parts map[string]part
		want  string
	}{
		{"alias to itself", map[string]part{"q.test.": {answer: "q.test. 60 CNAME Q.test."}}, "alias loop at q.test."},
		{"alias loop", map[string]part{"q.test.": {answer: "q.test. 60 CNAME b.test.; b.test. 60 CNAME q.test."}}, "alias loop at q.test."},
		{
			"alias loop over messages",
			map[string]part{"q.test.": {answer: "q.test. 60 CNAME b.test."}, "b.test.": {answer: "b.test. 60 CNAME q.test."}},
			"alias loop at q.test.",
		},
		{"endless aliases", map[string]part{"q.test.": {answer: chain(maxLinks + 1)}}, "more than 16 aliases"},
		{"NXDOMAIN and data", map[string]part{"q.test.": {rcode: dns.RcodeNameError, answer: "q.test. 60 A 192.0.2.1"}}, "NXDOMAIN beside records"},
		{"a record with empty RDATA", map[string]part{"q.test.": {answer: "q.test. 60 A 192.0.2.1; q.test. 60 A"}}, "A record without data"},
		{"an alias to nowhere", map[string]part{"q.test.": {answer: "q.test. 60 CNAME"}}, "CNAME record without data"},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := lookupError(t, client(t, scripted(t, test.parts)), t.Context(), "q.test", dns.TypeA)
			if e.Kind != Malformed || e.Name != "q.test" || !strings.Contains(e.Error(), test.want) {
				t.Errorf("got %v want %q", e, test.want)
			}
		})
	}
	a, err := client(t, scripted(t, map[string]part{"q.test.": {answer: chain(maxLinks)}})).Lookup(t.Context(), "q.test", dns.TypeA)
	if err != nil || len(a.Chain) != maxLinks || len(a.Records) != 1 {
		t.Errorf("a chain of %d: %+v, %v", maxLinks, a, err)
	}
}

func TestAliasTargetThatFailsFailsTheLookup(t *testing.T) {
	e := lookupError(t, client(t, scripted(t, map[string]part{
		"q.test.": {answer: "q.test. 60 CNAME b.test."},
		"b.test.": {rcode: dns.RcodeServerFailure},
	})), t.Context(), "q.test", dns.TypeA)
	if e.Kind != ServFail || e.Reason() != "A lookup of q.test: SERVFAIL" {
		t.Error(e)
	}
}

func TestMessageCutShortIsMalformed(t *testing.T) {
	q := query(dns.Question{Name: "a.test.", Qtype: dns.TypeMX, Qclass: dns.ClassINET}, true)
	m := reply(t, q, dns.RcodeSuccess, "a.test. 60 MX 1 b.test.; a.test. 60 MX 2 c.test.", "")
	p, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parse(p, q); err != nil {
		t.Fatal(err)
	}
	for n := range len(p) {
		if _, err := parse(p[:n], q); err == nil {
			t.Errorf("the first %d of %d bytes pass for an answer", n, len(p))
		}
	}
}

// FuzzAnswer feeds bytes from the network to everything that reads them.
func FuzzAnswer(f *testing.F) {
	q := query(dns.Question{Name: "q.test.", Qtype: dns.TypeMX, Qclass: dns.ClassINET}, true)
	q.Id = 1
	for _, answer := range []string{"", "q.test. 60 MX 1 b.test.", chain(3), "q.test. 60 MX"} {
		m := reply(f, q, dns.RcodeSuccess, answer, soa)
		p, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		m, err := parse(p, q)
		if err != nil || m.Truncated {
			return
		}
		m.lame()
		m.extended()
		w := newWalk("q.test", dns.TypeMX)
		done, err := w.add(m, true)
		a := w.answer
		if len(a.Chain) > maxLinks || a.TTL < 0 || a.TTL > math.MaxInt32*time.Second {
			t.Errorf("%+v", a)
		}
		if err != nil || !done {
			return
		}
		for _, rr := range a.Records {
			mx, ok := rr.(*dns.MX)
			if !ok || mx.Mx == "" || dns.CanonicalName(mx.Hdr.Name) != a.Final {
				t.Errorf("%v in the answer for %s", rr, a.Final)
			}
		}
	})
}
