package policymap

import (
	"strings"
	"testing"
	"time"

	"tlspolicyd/policymap/policy"
	"tlspolicyd/testing/lab"
)

// Two mail hosts, both signed. Evidence is kept for each of them (§4, §5): these
// scenarios go from the wire to the reply.
const twoHosts = `
two.test.          60 IN MX 10 mx1.two.test.
two.test.          60 IN MX 20 mx2.two.test.
mx1.two.test.      60 IN A 192.0.2.11
mx2.two.test.      60 IN A 192.0.2.12
`

const (
	tlsa1     = "_25._tcp.mx1.two.test. 60 IN TLSA " + tlsa + "\n"
	tlsa2     = "_25._tcp.mx2.two.test. 60 IN TLSA " + tlsa + "\n"
	unusable1 = "_25._tcp.mx1.two.test. 60 IN TLSA " + tlsa0 + "\n"
	unusable2 = "_25._tcp.mx2.two.test. 60 IN TLSA " + tlsa0 + "\n"

	twoPolicy = "version: STSv1\nmode: enforce\nmx: *.two.test\nmax_age: 604800\n"
	twoSecure = "OK secure match=.two.test servername=hostname"
)

// noTLSA1 takes the TLSA records of mx1 out of the zone.
func (h *host) noTLSA1() { h.Replace("_25._tcp.mx1.two.test", "TLSA") }

func TestTwoHosts(t *testing.T) {
	const mx1, mx2 = "_25._tcp.mx1.two.test", "_25._tcp.mx2.two.test"
	fail := func(names ...string) func(*host) {
		return func(h *host) {
			for _, n := range names {
				h.Fault(n, "TLSA", lab.ServFail)
			}
		}
	}
	for _, tt := range []struct {
		name     string
		zone     string
		insecure []string
		before   string // the answer before anything fails; "": nothing was known
		then     func(*host)
		open     string // without a policy
		enforce  string // with one in force
		strict   string // without one, policy.postfix_level = "encrypt"; "": as open
	}{
		{name: "1: unusable at both", zone: unusable1 + unusable2, open: "OK dane", enforce: twoSecure},
		{name: "1: unusable at one, none at the other", zone: unusable1, open: "OK dane", enforce: twoSecure},
		{name: "1: unusable at one, usable at the other", zone: unusable1 + tlsa2, open: "OK dane", enforce: "OK dane"},
		{
			name: "1: unusable at one, the other fails", zone: unusable1, then: fail(mx2),
			open: "OK dane", enforce: "OK secure match=mx1.two.test servername=hostname",
		},
		{
			name: "2a: Full, then one is proved to have none and the other fails", zone: tlsa1 + tlsa2, before: "OK dane-only",
			then: func(h *host) { h.noTLSA1(); fail(mx2)(h) }, open: "OK dane", enforce: "OK dane",
		},
		{
			name: "2b: Full, then MX and mx1 insecure and mx2 fails", zone: tlsa1 + tlsa2, before: "OK dane-only",
			then: func(h *host) { h.Insecure("two.test"); h.Secure("mx2.two.test"); fail(mx2)(h) }, open: "OK dane", enforce: twoSecure,
		},
		{
			name: "2c: none, then one has TLSA and the other fails", before: "NOTFOUND ",
			then: func(h *host) { h.Zone(tlsa1); fail(mx2)(h) }, open: "OK dane", enforce: "OK dane",
		},
		{
			name: "3: Partial, then the addresses of the host with TLSA fail", zone: tlsa1, before: "OK dane",
			then: func(h *host) {
				h.Fault("mx1.two.test", "A", lab.ServFail)
				h.Fault("mx1.two.test", "AAAA", lab.ServFail)
			},
			open: "OK dane", enforce: "OK dane",
		},
		{
			name: "Full, then one fails", zone: tlsa1 + tlsa2, before: "OK dane-only", then: fail(mx2),
			open: "OK dane-only", enforce: "OK dane-only",
		},
		{
			name: "5a: insecure MX, TLSA of every host fails", insecure: []string{"two.test"},
			then: func(h *host) { h.Secure("mx1.two.test"); h.Secure("mx2.two.test"); fail(mx1, mx2)(h) },
			open: "OK dane", enforce: twoSecure, strict: "NOTFOUND ",
		},
		{
			name: "5b: one is proved to have none, the other fails", then: fail(mx2),
			open: "OK dane", enforce: "OK secure match=mx1.two.test servername=hostname", strict: "NOTFOUND ",
		},
		{
			name: "7: usable at one, the other fails", zone: tlsa1, then: fail(mx2),
			open: "OK dane", enforce: "OK dane", strict: "OK dane",
		},
		{name: "secure MX, TLSA of every host fails", then: fail(mx1, mx2), open: "TEMP …", enforce: "TEMP …"},
	} {
		for _, mode := range []string{"open", "enforce", "strict"} {
			t.Run(tt.name+"/"+mode, func(t *testing.T) {
				inBubble(t, twoHosts+tt.zone, func(t *testing.T, h *host) {
					h.Insecure(tt.insecure...)
					want := tt.open
					switch mode {
					case "enforce":
						h.PolicyHost("two.test", twoPolicy)
						want = tt.enforce
					case "strict":
						h.config.Settings = policy.Settings{StrictDefault: true}
						h.Reconfigure(h.config)
						if tt.strict != "" {
							want = tt.strict
						}
					}
					if tt.before != "" {
						if mode == "enforce" && tt.before == "NOTFOUND " {
							h.want("two.test", twoSecure)
						} else {
							h.want("two.test", tt.before)
						}
						h.after(10 * time.Minute)
					}
					if tt.then != nil {
						tt.then(h)
					}
					h.want("two.test", want)
					h.after(20 * time.Second)
					h.want("two.test", want)

					// What was told survives a crash with no DNS at all (§6).
					if strings.HasPrefix(want, "TEMP") {
						return
					}
					h.crash()
					h.Down(true)
					h.want("two.test", want)
					h.after(6 * time.Hour)
					h.want("two.test", want)
				})
			})
		}
	}
}

// 3: what fails once is no change, and nothing got weaker.
func TestFailingAddressesAreNoChange(t *testing.T) {
	inBubble(t, twoHosts+tlsa1, func(t *testing.T, h *host) {
		h.want("two.test", "OK dane")
		h.after(10 * time.Minute)
		h.Fault("mx1.two.test", "A", lab.ServFail)
		h.Fault("mx1.two.test", "AAAA", lab.ServFail)
		for range 20 {
			h.want("two.test", "OK dane")
			h.after(time.Minute)
		}
		h.after(25 * time.Hour)
		h.Fault("mx1.two.test", "A", 0)
		h.Fault("mx1.two.test", "AAAA", 0)
		h.want("two.test", "OK dane")
		if c := h.seen.changed(); len(c) > 0 {
			t.Errorf("changes: %+v", c)
		}
	})
}

// What is cut down to the proved hosts is so for both maps: Postfix 3.10 goes by
// the patterns.
func TestProvedHostsInTheTLSRPTMap(t *testing.T) {
	inBubble(t, twoHosts, func(t *testing.T, h *host) {
		h.PolicyHost("two.test", twoPolicy)
		h.Fault("_25._tcp.mx2.two.test", "TLSA", lab.ServFail)
		got := string(h.Lookup(t.Context(), []byte("postfix-tlsrpt"), []byte("two.test")))
		want := "OK secure match=mx1.two.test servername=hostname policy_type=sts policy_domain=two.test mx_host_pattern=mx1.two.test" +
			" { policy_string = version: STSv1 } { policy_string = mode: enforce } { policy_string = mx: *.two.test } { policy_string = max_age: 604800 }"
		if got != want {
			t.Errorf("got  %q\nwant %q", got, want)
		}
		h.Fault("_25._tcp.mx2.two.test", "TLSA", 0)
		h.after(10 * time.Minute)
		h.want("two.test", twoSecure)
	})
}
