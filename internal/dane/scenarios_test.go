package dane

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tlspolicyd/internal/dnsclient"
	"tlspolicyd/testing/lab"
)

// outcomeOf puts a result into words: the state, what else holds, and one line
// for each host.
func outcomeOf(r Result) string {
	s := r.State.String()
	for _, flag := range []struct {
		word  string
		holds bool
	}{
		{" +nullmx", r.MX.Null},
		{" +nulltoo", r.MX.NullToo},
		{" +nodomain", r.MX.NoDomain},
		{" +mxunknown", r.MX.Answer == MXFailed},
		{" +mxinsecure", r.MX.Answer == MXInsecure},
		{" +tlsa", r.SomeTLSA},
		{" +none", r.SomeNone},
	} {
		if flag.holds {
			s += flag.word
		}
	}
	s += "\n"
	for _, h := range r.Hosts {
		s += h.Name + ": " + h.Verdict.String()
		if h.Base != "" && h.Base != h.Name {
			s += " at " + h.Base
		}
		if h.Implicit {
			s += ", implicit"
		}
		s += "\n"
	}
	return s
}

type scenario struct {
	name     string
	target   Target // port 25 and example.test unless given
	zone     string
	insecure string // names, and all below them
	faults   string // "name TYPE" each, SERVFAIL; separated by ";"
	want     string
	ttl      time.Duration // 300 s unless given
	err      string        // reason of Result.Err
}

const hosts = `
	mx1.test. A 192.0.2.1
	mx2.test. A 192.0.2.2
`

var scenarios = []scenario{
	// MX (7672 §2.2.1)
	{
		name: "MX lookup fails (7672 §2.1.2)", faults: "example.test MX",
		want: "unknown +mxunknown\n", ttl: -1, err: "MX lookup of example.test: SERVFAIL",
	},
	{
		name: "NXDOMAIN", want: "none +nodomain\n",
	},
	{
		name: "null MX (7505)", zone: `example.test. 60 MX 0 .`,
		want: "none +nullmx\n", ttl: time.Minute,
	},
	{
		name: "a root MX among others is none (7505 §3)",
		zone: `example.test. MX 0 .
			example.test. MX 10 mx1.test.` + hosts + `_25._tcp.mx1.test. TLSA 3 1 1 DIGEST`,
		want: "full +nulltoo +tlsa\nmx1.test: usable TLSA\n",
	},
	{
		name: "no MX: the domain itself is the host (5321 §5.1)",
		zone: `example.test. A 192.0.2.1
			_25._tcp.example.test. TLSA 3 1 1 DIGEST`,
		want: "full +tlsa\nexample.test: usable TLSA, implicit\n",
	},
	{
		name: "no MX, no address",
		zone: `example.test. TXT "something else"`,
		want: "none\nexample.test: no address, implicit\n",
	},
	{
		name: "secure alias at the domain",
		zone: `example.test. 60 CNAME other.test.
			other.test. MX 10 mx1.test.` + hosts + `_25._tcp.mx1.test. TLSA 3 1 1 DIGEST`,
		want: "full +tlsa\nmx1.test: usable TLSA\n", ttl: time.Minute,
	},
	{
		name: "alias at the domain with one insecure link",
		zone: `example.test. CNAME other.test.
			other.test. MX 10 mx1.test.` + hosts + `_25._tcp.mx1.test. TLSA 3 1 1 DIGEST`,
		insecure: "other.test",
		want:     "insecure-mx +mxinsecure +tlsa\nmx1.test: usable TLSA\n",
	},
	{
		name: "insecure MX answer (7672 §2.2.1)",
		zone: `example.test. MX 10 mx1.test.
			example.test. MX 20 mx2.test.` + hosts + `_25._tcp.mx1.test. TLSA 3 1 1 DIGEST`,
		insecure: "example.test",
		want:     "insecure-mx +mxinsecure +tlsa +none\nmx1.test: usable TLSA\nmx2.test: no TLSA\n",
	},
	{
		name: "MX targets that are no host names",
		zone: `example.test. MX 10 192.0.2.9.
			192.0.2.9. A 192.0.2.9
			example.test. MX 15 not\032a\000host.test.
			example.test. MX 20 mx1.test.` + hosts + `_25._tcp.mx1.test. TLSA 3 1 1 DIGEST`,
		want: "full +tlsa\n192.0.2.9: no address\nnot\\ a\\000host.test: no address\nmx1.test: usable TLSA\n",
	},
	{
		name: "a host listed twice counts once, at its best preference",
		zone: `example.test. MX 30 MX1.test.
			example.test. MX 20 mx2.test.
			example.test. MX 10 mx1.test.` + hosts,
		want: "none +none\nmx1.test: no TLSA\nmx2.test: no TLSA\n",
	},

	// Hosts (7672 §2.2.2)
	{
		name: "every host has TLSA",
		zone: `example.test. MX 10 mx1.test.
			example.test. MX 5 mx2.test.` + hosts + `_25._tcp.mx1.test. 60 TLSA 3 1 1 DIGEST
			_25._tcp.mx2.test. TLSA 2 0 1 DIGEST`,
		want: "full +tlsa\nmx2.test: usable TLSA\nmx1.test: usable TLSA\n", ttl: time.Minute,
	},
	{
		name: "one host without TLSA",
		zone: `example.test. MX 10 mx1.test.
			example.test. MX 10 mx2.test.` + hosts + `_25._tcp.mx1.test. TLSA 3 1 1 DIGEST`,
		want: "partial +tlsa +none\nmx1.test: usable TLSA\nmx2.test: no TLSA\n",
	},
	{
		name: "one host in an insecure zone",
		zone: `example.test. MX 10 mx1.test.
			example.test. MX 10 mx2.test.` + hosts + `_25._tcp.mx1.test. TLSA 3 1 1 DIGEST
			_25._tcp.mx2.test. TLSA 3 1 1 DIGEST`,
		insecure: "mx2.test",
		want:     "partial +tlsa +none\nmx1.test: usable TLSA\nmx2.test: insecure\n",
	},
	{
		name:     "secure address, insecure TLSA answer",
		zone:     `example.test. MX 10 mx1.test.` + hosts + `_25._tcp.mx1.test. TLSA 3 1 1 DIGEST`,
		insecure: "_tcp.mx1.test",
		want:     "none +none\nmx1.test: no TLSA\n",
	},
	{
		name: "TLSA by alias",
		zone: `example.test. MX 10 mx1.test.` + hosts + `_25._tcp.mx1.test. CNAME ee.dane.test.
			ee.dane.test. 90 TLSA 3 1 1 DIGEST`,
		want: "full +tlsa\nmx1.test: usable TLSA\n", ttl: 90 * time.Second,
	},
	{
		name: "TLSA by an alias to an insecure zone",
		zone: `example.test. MX 10 mx1.test.` + hosts + `_25._tcp.mx1.test. CNAME ee.dane.test.
			ee.dane.test. TLSA 3 1 1 DIGEST`,
		insecure: "dane.test",
		want:     "none +none\nmx1.test: no TLSA\n",
	},
	{
		name: "TLSA records of which none is usable (7672 §3.1.3)",
		zone: `example.test. MX 10 mx1.test.` + hosts + `_25._tcp.mx1.test. TLSA 1 1 1 DIGEST
			_25._tcp.mx1.test. TLSA 3 1 2 DIGEST`,
		want: "partial +tlsa\nmx1.test: unusable TLSA\n",
	},
	{
		name: "one usable record among others",
		zone: `example.test. MX 10 mx1.test.` + hosts + `_25._tcp.mx1.test. TLSA 1 1 1 DIGEST
			_25._tcp.mx1.test. TLSA 3 1 1 DIGEST`,
		want: "full +tlsa\nmx1.test: usable TLSA\n",
	},
	{
		name: "TLSA at another port only", target: Target{Domain: "example.test", Port: 587},
		zone: `example.test. MX 10 mx1.test.` + hosts + `_25._tcp.mx1.test. TLSA 3 1 1 DIGEST`,
		want: "none +none\nmx1.test: no TLSA\n",
	},
	{
		name: "submission", target: Target{Domain: "example.test", Port: 587},
		zone: `example.test. MX 10 mx1.test.` + hosts + `_587._tcp.mx1.test. TLSA 3 1 1 DIGEST`,
		want: "full +tlsa\nmx1.test: usable TLSA\n",
	},
	{
		name: "a smart host: no MX lookup (7672 §2.2.4)", target: Target{Domain: "example.test", Literal: true, Port: 25},
		zone: `example.test. MX 10 mx1.test.
			example.test. 120 AAAA 2001:db8::1
			_25._tcp.example.test. TLSA 3 1 1 DIGEST`,
		want: "full +tlsa\nexample.test: usable TLSA\n", ttl: 2 * time.Minute,
	},
	{
		name: "a smart host in an insecure zone", target: Target{Domain: "example.test", Literal: true, Port: 25},
		zone:     `example.test. 400 A 192.0.2.1`,
		insecure: "example.test",
		want:     "none +none\nexample.test: insecure\n",
	},
	{
		name: "no MX host has an address",
		zone: `example.test. MX 10 mx1.test.
			_25._tcp.mx1.test. TLSA 3 1 1 DIGEST`,
		want: "none\nmx1.test: no address\n",
	},
	{
		name: "an IPv6-only host whose name is too long for a TLSA name",
		zone: "example.test. MX 10 " + longName + "\n" + longName + " AAAA 2001:db8::1",
		want: "none +none\n" + strings.TrimSuffix(longName, ".") + ": no TLSA\n",
	},

	// Aliased hosts (7672 §2.2.2, §2.2.3)
	{
		name: "secure alias: TLSA at the final name",
		zone: `example.test. MX 10 alias.test.
			alias.test. CNAME mx1.test.` + hosts + `_25._tcp.mx1.test. TLSA 3 1 1 DIGEST
			_25._tcp.alias.test. TLSA 1 1 1 DIGEST`,
		want: "full +tlsa\nalias.test: usable TLSA at mx1.test\n",
	},
	{
		name: "secure alias: TLSA at the original name only",
		zone: `example.test. MX 10 alias.test.
			alias.test. CNAME mx1.test.` + hosts + `_25._tcp.alias.test. TLSA 3 1 1 DIGEST`,
		want: "full +tlsa\nalias.test: usable TLSA\n",
	},
	{
		name: "secure alias: an insecure TLSA answer at the final name does not decide",
		zone: `example.test. MX 10 alias.test.
			alias.test. CNAME mx1.test.` + hosts + `_25._tcp.mx1.test. TLSA 3 1 1 DIGEST
			_25._tcp.alias.test. TLSA 3 1 1 DIGEST`,
		insecure: "_tcp.mx1.test",
		want:     "full +tlsa\nalias.test: usable TLSA\n",
	},
	{
		name: "secure alias: unusable records at the final name decide",
		zone: `example.test. MX 10 alias.test.
			alias.test. CNAME mx1.test.` + hosts + `_25._tcp.mx1.test. TLSA 1 1 1 DIGEST
			_25._tcp.alias.test. TLSA 3 1 1 DIGEST`,
		want: "partial +tlsa\nalias.test: unusable TLSA at mx1.test\n",
	},
	{
		name: "secure alias: a TLSA lookup that fails at the final name is no absence",
		zone: `example.test. MX 10 alias.test.
			alias.test. CNAME mx1.test.` + hosts + `_25._tcp.alias.test. TLSA 3 1 1 DIGEST`,
		faults: "_25._tcp.mx1.test TLSA",
		want:   "unknown\nalias.test: lookup failed at mx1.test\n", err: "TLSA lookup of _25._tcp.mx1.test: SERVFAIL",
	},
	{
		name: "secure alias, no TLSA at either name",
		zone: `example.test. MX 10 alias.test.
			alias.test. CNAME mx1.test.` + hosts,
		want: "none +none\nalias.test: no TLSA\n",
	},
	{
		name: "insecure alias: nothing counts",
		zone: `example.test. MX 10 alias.test.
			alias.test. CNAME mx1.test.` + hosts + `_25._tcp.mx1.test. TLSA 3 1 1 DIGEST
			_25._tcp.alias.test. TLSA 3 1 1 DIGEST`,
		insecure: "alias.test",
		want:     "none +none\nalias.test: insecure\n",
	},
	{
		name: "insecure target: whether the alias is secure cannot be found out",
		zone: `example.test. MX 10 alias.test.
			alias.test. CNAME mx1.test.` + hosts,
		insecure: "mx1.test", faults: "alias.test CNAME",
		want: "unknown\nalias.test: lookup failed\n", err: "CNAME lookup of alias.test: SERVFAIL",
	},

	// Failures
	{
		name:   "a broken AAAA does not matter (BEHAVIOUR §4)",
		zone:   `example.test. MX 10 mx1.test.` + hosts + `_25._tcp.mx1.test. TLSA 3 1 1 DIGEST`,
		faults: "mx1.test AAAA",
		want:   "full +tlsa\nmx1.test: usable TLSA\n",
	},
	{
		name: "a broken A does not matter where AAAA answers",
		zone: `example.test. MX 10 mx.test.
			mx.test. AAAA 2001:db8::1
			_25._tcp.mx.test. TLSA 3 1 1 DIGEST`,
		faults: "mx.test A",
		want:   "full +tlsa\nmx.test: usable TLSA\n",
	},
	{
		name: "a broken AAAA where there is no A: nothing is known",
		zone: `example.test. MX 10 mx.test.
			mx.test. TXT "no address"`,
		faults: "mx.test AAAA",
		want:   "unknown\nmx.test: lookup failed\n", err: "AAAA lookup of mx.test: SERVFAIL",
	},
	{
		name:   "a broken AAAA of a name that does not exist (8020)",
		zone:   `example.test. MX 10 mx.test.`,
		faults: "mx.test AAAA",
		want:   "none\nmx.test: no address\n",
	},
	{
		name: "TLSA of one of two hosts fails, the other has TLSA",
		zone: `example.test. 900 MX 10 mx1.test.
			example.test. 900 MX 20 mx2.test.
			mx1.test. 900 A 192.0.2.1
			mx2.test. 900 A 192.0.2.2
			_25._tcp.mx1.test. 900 TLSA 3 1 1 DIGEST
			. 900 SOA ns.test. admin.test. 1 2 3 4 900`,
		faults: "_25._tcp.mx2.test TLSA",
		want:   "unknown +tlsa\nmx1.test: usable TLSA\nmx2.test: lookup failed\n", err: "TLSA lookup of _25._tcp.mx2.test: SERVFAIL",
	},
	{
		name: "TLSA of one of two hosts fails, the other has none",
		zone: `example.test. MX 10 mx1.test.
			example.test. MX 20 mx2.test.` + hosts,
		faults: "_25._tcp.mx1.test TLSA",
		want:   "unknown +none\nmx1.test: lookup failed\nmx2.test: no TLSA\n", err: "TLSA lookup of _25._tcp.mx1.test: SERVFAIL",
	},
	{
		name: "a host without known addresses is set aside",
		zone: `example.test. 900 MX 10 mx1.test.
			example.test. 900 MX 20 mx2.test.
			mx2.test. 900 A 192.0.2.2
			. 900 SOA ns.test. admin.test. 1 2 3 4 900`,
		faults: "mx1.test A; mx1.test AAAA",
		want:   "none +none\nmx1.test: lookup failed\nmx2.test: no TLSA\n", err: "A lookup of mx1.test: SERVFAIL",
	},
	{
		name: "Partial whatever the failing host has",
		zone: `example.test. MX 10 mx1.test.
			example.test. MX 20 mx2.test.
			example.test. MX 30 mx3.test.` + hosts + `_25._tcp.mx1.test. TLSA 3 1 1 DIGEST`,
		faults: "mx3.test A; mx3.test AAAA",
		want:   "partial +tlsa +none\nmx1.test: usable TLSA\nmx2.test: no TLSA\nmx3.test: lookup failed\n", err: "A lookup of mx3.test: SERVFAIL",
	},
	{
		name: "the addresses of all hosts fail",
		zone: `example.test. MX 10 mx1.test.`, faults: "mx1.test A; mx1.test AAAA",
		want: "unknown\nmx1.test: lookup failed\n", err: "A lookup of mx1.test: SERVFAIL",
	},
}

// longName is as long as names get, so that no TLSA name fits below it.
var longName = strings.Repeat(strings.Repeat("a", 62)+".", 3) + strings.Repeat("b", 58) + ".test."

// BEHAVIOUR §4, corner by corner.
func TestScenarios(t *testing.T) {
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			world(t, s.zone, func(t *testing.T, w *lab.World, r dnsclient.Resolver) {
				w.Insecure(strings.Fields(s.insecure)...)
				for fault := range strings.SplitSeq(s.faults, ";") {
					if name, qtype, ok := strings.Cut(strings.TrimSpace(fault), " "); ok {
						w.Fault(name, qtype, lab.ServFail)
					}
				}
				if s.target.Domain == "" {
					s.target = Target{Domain: "example.test", Port: 25}
				}
				got := Lookup(t.Context(), r, s.target)
				if diff := cmp.Diff(s.want, outcomeOf(got)); diff != "" {
					t.Error(diff)
				}
				want := s.ttl
				switch s.ttl {
				case 0:
					want = 300 * time.Second
				case -1:
					want = 0
				}
				if got.TTL != want {
					t.Errorf("TTL %v want %v", got.TTL, want)
				}
				var e *dnsclient.Error
				if errors.As(got.Err, &e); e == nil && s.err != "" || e != nil && e.Reason() != s.err {
					t.Errorf("error %v want %q", got.Err, s.err)
				}
			})
		})
	}
}
