package dane

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"tlspolicyd/internal/dnsclient"
	"tlspolicyd/internal/lab"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world runs a test inside a bubble, with a small internet and a resolver on
// it. In zones DIGEST stands for a SHA2-256 digest.
func world(t *testing.T, zone string, test func(t *testing.T, w *lab.World, r dnsclient.Resolver)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := lab.New()
		defer w.Close()
		w.Zone(strings.ReplaceAll(zone, "DIGEST", strings.Repeat("ab", 32)))
		r, err := dnsclient.New(dnsclient.Config{Servers: []netip.AddrPort{w.DNSAddr()}, Dial: w.Dial})
		if err != nil {
			t.Fatal(err)
		}
		test(t, w, r)
	})
}

// outcomeOf puts a result into words: the state, what else holds, and one line
// for each host.
func outcomeOf(r Result) string {
	s := r.State.String()
	for _, flag := range []struct {
		word  string
		holds bool
	}{
		{" +nullmx", r.NullMX},
		{" +nodomain", r.NoDomain},
		{" +mxunknown", r.MXUnknown},
		{" +mxinsecure", !r.MXSecure && !r.MXUnknown},
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
		want: "full +tlsa\nmx1.test: usable TLSA\n",
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

// BEHAVIOUR §4: secure original but insecure target: TLSA at the original name,
// and a usable record there counts towards Full (7672 §2.2.2).
func TestSecureAliasOfInsecureTarget(t *testing.T) {
	const zone = `example.test. MX 10 alias.test.
		alias.test. CNAME mx1.test.
		mx1.test. A 192.0.2.1
		_25._tcp.mx1.test. TLSA 3 1 1 DIGEST
	`
	for name, test := range map[string]struct{ zone, want string }{
		"with TLSA at the original name": {
			zone + "_25._tcp.alias.test. TLSA 3 1 1 DIGEST",
			"full +tlsa\nalias.test: usable TLSA\n",
		},
		"without": {zone, "none +none\nalias.test: no TLSA\n"},
	} {
		t.Run(name, func(t *testing.T) {
			world(t, test.zone, func(t *testing.T, w *lab.World, r dnsclient.Resolver) {
				w.Insecure("mx1.test")
				got := Lookup(t.Context(), secureAliases{r, w}, Target{Domain: "example.test", Port: 25})
				if diff := cmp.Diff(test.want, outcomeOf(got)); diff != "" {
					t.Error(diff)
				}
				if got.Hosts[0].Secure {
					t.Error("the addresses pass for secure")
				}
				if n := w.Count("_25._tcp.mx1.test", "TLSA"); n != 0 {
					t.Errorf("%d TLSA questions at the insecure name", n)
				}
			})
		})
	}
}

// secureAliases makes the alias itself secure, whatever its target is.
type secureAliases struct {
	dnsclient.Resolver
	w *lab.World
}

func (s secureAliases) Lookup(ctx context.Context, name string, qtype uint16) (dnsclient.Answer, error) {
	if qtype == dns.TypeCNAME {
		s.w.Secure("mx1.test")
		defer s.w.Insecure("mx1.test")
	}
	return s.Resolver.Lookup(ctx, name, qtype)
}

// BEHAVIOUR §4: no TLSA query where addresses are insecure or absent.
func TestNoTLSAQueryWithoutSecureAddress(t *testing.T) {
	world(t, `example.test. MX 10 mx1.test.
		example.test. MX 20 nothing.test.`+hosts, func(t *testing.T, w *lab.World, r dnsclient.Resolver) {
		w.Insecure("mx1.test")
		got := Lookup(t.Context(), r, Target{Domain: "example.test", Port: 25})
		if got.State != None || w.Count("*", "TLSA") != 0 || w.Count("*", "CNAME") != 0 {
			t.Errorf("%s%v", outcomeOf(got), w.Queries())
		}
	})
}

// BEHAVIOUR §4: without a trusted path nothing is secure (7672 §2.1.3).
func TestUntrustedResolverKnowsNoDANE(t *testing.T) {
	world(t, `example.test. MX 10 mx1.test.
		_25._tcp.mx1.test. TLSA 3 1 1 DIGEST`+hosts, func(t *testing.T, w *lab.World, _ dnsclient.Resolver) {
		remote := netip.MustParseAddrPort("192.0.2.53:53")
		w.AddResolver(remote, 0)
		for trusted, want := range map[bool]State{false: None, true: Full} {
			r, err := dnsclient.New(dnsclient.Config{Servers: []netip.AddrPort{remote}, Dial: w.Dial, TrustAD: trusted})
			if err != nil {
				t.Fatal(err)
			}
			if got := Lookup(t.Context(), r, Target{Domain: "example.test", Port: 25}); got.State != want {
				t.Errorf("trusted %v: %s", trusted, outcomeOf(got))
			}
		}
	})
}

// A secure A and an insecure AAAA: a forged AAAA could lead past DANE.
func TestBothAddressFamiliesHaveToBeSecure(t *testing.T) {
	world(t, `example.test. MX 10 mx1.test.
		mx1.test. AAAA 2001:db8::1
		_25._tcp.mx1.test. TLSA 3 1 1 DIGEST`+hosts, func(t *testing.T, _ *lab.World, r dnsclient.Resolver) {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
			got := Lookup(t.Context(), stripAD{r, qtype}, Target{Domain: "example.test", Port: 25})
			if got.State != None || got.Hosts[0].Verdict != Insecure || len(got.Hosts[0].Addresses) != 2 {
				t.Errorf("%s insecure: %s", dns.TypeToString[qtype], outcomeOf(got))
			}
		}
	})
}

// stripAD takes the AD bit off answers of one type.
type stripAD struct {
	dnsclient.Resolver
	qtype uint16
}

func (s stripAD) Lookup(ctx context.Context, name string, qtype uint16) (dnsclient.Answer, error) {
	a, err := s.Resolver.Lookup(ctx, name, qtype)
	a.Authentic = a.Authentic && qtype != s.qtype
	return a, err
}

// manyHosts is a domain with n hosts in order of preference, all with TLSA.
func manyHosts(n int) string {
	var zone strings.Builder
	for i := range n {
		fmt.Fprintf(&zone, "example.test. MX %d mx%d.test.\nmx%d.test. A 192.0.2.1\n_25._tcp.mx%d.test. TLSA 3 1 1 DIGEST\n", i, i, i, i)
	}
	return zone.String()
}

// Bad input of the issue: 1,000 MX records and more.
func TestHostileMXSetIsBounded(t *testing.T) {
	world(t, manyHosts(maxHosts+2), func(t *testing.T, w *lab.World, r dnsclient.Resolver) {
		// All looked at are usable, but Full would speak for all.
		got := Lookup(t.Context(), r, Target{Domain: "example.test", Port: 25})
		if got.State != Partial || got.Omitted != 2 || len(got.Hosts) != maxHosts || got.Hosts[maxHosts-1].Name != "mx31.test" {
			t.Error(outcomeOf(got))
		}

		w.Fault("example.test", "MX", lab.Huge)
		w.ResetQueries()
		got = Lookup(t.Context(), r, Target{Domain: "example.test", Port: 25})
		if got.State != None || got.Omitted < 1000 || len(got.Hosts) != maxHosts {
			t.Errorf("%s, %d left out", got.State, got.Omitted)
		}
		if n := len(w.Queries()); n != 2+2*maxHosts { // MX over UDP and TCP, A and AAAA each
			t.Errorf("%d questions", n)
		}
	})
}

func TestHugeAddressAndTLSASets(t *testing.T) {
	world(t, `example.test. MX 10 mx1.test.`+hosts, func(t *testing.T, w *lab.World, r dnsclient.Resolver) {
		w.Fault("mx1.test", "A", lab.Huge)
		w.Fault("_25._tcp.mx1.test", "TLSA", lab.Huge)
		got := Lookup(t.Context(), r, Target{Domain: "example.test", Port: 25})
		if got.State != Full || len(got.Hosts[0].Addresses) != maxAddresses {
			t.Errorf("%s, %d addresses", got.State, len(got.Hosts[0].Addresses))
		}
	})
}

func TestAliasLoopOfAHostFailsThatHost(t *testing.T) {
	for _, fault := range []lab.Fault{lab.CNAMELoop, lab.EndlessCNAMEs} {
		world(t, `example.test. MX 10 mx1.test.`, func(t *testing.T, w *lab.World, r dnsclient.Resolver) {
			w.Fault("mx1.test", "", fault)
			got := Lookup(t.Context(), r, Target{Domain: "example.test", Port: 25})
			if want := "unknown\nmx1.test: lookup failed\n"; outcomeOf(got) != want {
				t.Error(outcomeOf(got))
			}
		})
	}
}

func TestCanceledLookupKnowsNothing(t *testing.T) {
	world(t, `example.test. MX 10 mx1.test.`+hosts, func(t *testing.T, _ *lab.World, r dnsclient.Resolver) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		got := Lookup(ctx, r, Target{Domain: "example.test", Port: 25})
		if got.State != Unknown || !errors.Is(got.Err, context.Canceled) {
			t.Errorf("%s, %v", outcomeOf(got), got.Err)
		}
	})
}

// Issue 2: a cold DANE chain costs the MX lookup and the slowest host, of which
// A and AAAA are one step.
func TestHostsAreLookedUpSideBySide(t *testing.T) {
	for n, steps := range map[int]time.Duration{
		1:               3,
		hostsAtOnce:     3,
		2 * hostsAtOnce: 5, // no more than so many at once
	} {
		world(t, manyHosts(n), func(t *testing.T, w *lab.World, r dnsclient.Resolver) {
			w.Delay(20 * time.Millisecond)
			start := time.Now()
			got := Lookup(t.Context(), r, Target{Domain: "example.test", Port: 25})
			if d := time.Since(start); d != steps*20*time.Millisecond || got.State != Full {
				t.Errorf("%d hosts took %v in the bubble: want %d steps of 20 ms; %s", n, d, steps, outcomeOf(got))
			}
		})
	}
}

// An address family that hangs counts as failed soon after the other answered.
func TestHangingAddressFamilyIsNotWaitedFor(t *testing.T) {
	world(t, `example.test. MX 10 mx1.test.
		_25._tcp.mx1.test. TLSA 3 1 1 DIGEST`+hosts, func(t *testing.T, w *lab.World, r dnsclient.Resolver) {
		w.Fault("mx1.test", "AAAA", lab.Drop)
		start := time.Now()
		got := Lookup(t.Context(), r, Target{Domain: "example.test", Port: 25})
		if d := time.Since(start); d != laggard || got.State != Full {
			t.Errorf("%s took %v", outcomeOf(got), d)
		}
	})
}
