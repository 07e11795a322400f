package dane

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"

	"tlspolicyd/internal/defect"
	"tlspolicyd/internal/dnsclient"
)

const (
	maxHosts      = 32 // MX hosts that are looked at; a hostile domain lists a thousand
	hostsAtOnce   = 16
	failedHostTTL = 5 * time.Minute // with a failing host the outcome is looked at again soon
)

// Lookup evaluates the target. Hosts are looked up side by side. It never
// fails: failures are part of the Result. A panic in one of them is raised here.
func Lookup(ctx context.Context, r dnsclient.Resolver, t Target) Result {
	var res Result
	if t.Literal {
		res = Result{MXSecure: true, Hosts: []Host{{Name: t.Domain}}}
	} else {
		answer, err := r.Lookup(ctx, t.Domain, dns.TypeMX)
		if err != nil {
			return Result{State: Unknown, MXUnknown: true, Err: err} // 7672 §2.1.2
		}
		res = fromMX(t.Domain, answer)
		if len(res.Hosts) == 0 {
			return res
		}
	}

	var g errgroup.Group
	g.SetLimit(hostsAtOnce)
	for i := range res.Hosts {
		g.Go(func() (err error) {
			defer defect.Catch(&err)
			evaluate(ctx, r, &res.Hosts[i], t.Port)
			return nil // failures are in the hosts
		})
	}
	defect.Raise(g.Wait())

	o := classify(res.MXSecure, res.Hosts, res.Omitted)
	res.State, res.SomeTLSA, res.SomeNone, res.Err = o.state, o.someTLSA, o.someNone, o.err
	res.TTL = totalTTL(res, t.Literal)
	return res
}

// fromMX reads the MX answer: the hosts that are to be looked up, or State None
// without any.
func fromMX(domain string, a dnsclient.Answer) Result {
	res := Result{State: None, TTL: a.TTL, MXSecure: a.Authentic}
	if a.Rcode == dns.RcodeNameError {
		res.NoDomain = true
		return res
	}
	if a.Negative() {
		res.Hosts = []Host{{Name: domain, Implicit: true}} // 5321 §5.1
		return res
	}
	best := map[string]uint16{}
	for _, rr := range a.Records {
		mx, ok := rr.(*dns.MX)
		switch {
		case !ok:
			continue
		case mx.Mx == ".":
			res.NullToo = true // beside other records it is no null MX (7505 §3), nor a host
			continue
		}
		name := strings.TrimSuffix(dns.CanonicalName(mx.Mx), ".")
		if p, known := best[name]; !known || mx.Preference < p {
			best[name] = mx.Preference
		}
	}
	if len(best) == 0 {
		res.NullMX, res.NullToo = true, false // 7505 §3
		return res
	}
	for name, preference := range best {
		res.Hosts = append(res.Hosts, Host{Name: name, Preference: preference})
	}
	slices.SortFunc(res.Hosts, func(a, b Host) int {
		return cmp.Or(cmp.Compare(a.Preference, b.Preference), strings.Compare(a.Name, b.Name))
	})
	if len(res.Hosts) > maxHosts {
		res.Omitted = len(res.Hosts) - maxHosts
		res.Hosts = res.Hosts[:maxHosts:maxHosts]
	}
	return res
}

// totalTTL is the smallest TTL of the MX answer, which is in res, and of the
// hosts that took part. A literal has no MX answer.
func totalTTL(res Result, literal bool) time.Duration {
	ttl, first := res.TTL, literal
	for _, h := range res.Hosts {
		t := h.TTL
		switch {
		case h.Verdict == Failed:
			t = min(failedHostTTL, cmp.Or(t, failedHostTTL))
		case !lookable(h.Name):
			continue // nothing was asked
		}
		if first || t < ttl {
			ttl, first = t, false
		}
	}
	return ttl
}

// lookable reports whether an MX target can be the name of a host: letters,
// digits, hyphens and underscores (which some hosts have, and Postfix takes),
// and no address.
func lookable(name string) bool {
	if !dnsclient.Askable(name) {
		return false
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return false
	}
	return !strings.ContainsFunc(name, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.')
	})
}
