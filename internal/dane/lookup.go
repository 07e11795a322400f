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
	maxHosts      = 32 // MX hosts that are evaluated; a hostile domain lists a thousand
	hostsAtOnce   = 8
	failedHostTTL = 5 * time.Minute // a failing host is looked up again soon
)

// Lookup evaluates the target. Hosts are looked up side by side. It never
// fails: failures are part of the Result. A panic in one of them is raised here.
func Lookup(ctx context.Context, r dnsclient.Resolver, t Target) Result {
	var res Result
	if t.Literal {
		res.MX.Answer = MXNotAsked
		res.Hosts = []Host{{Evidence: Evidence{Name: t.Domain}}}
	} else if answer, err := r.Lookup(ctx, t.Domain, dns.TypeMX); err != nil {
		res.MX.Err = err
	} else {
		res.MX, res.Hosts = readMX(t.Domain, answer)
	}

	var g errgroup.Group
	g.SetLimit(hostsAtOnce)
	for i := range res.Hosts {
		h := &res.Hosts[i]
		work := func() (err error) {
			defer defect.Catch(&err)
			evaluate(ctx, r, h, t.Port)
			return nil // failures are in the hosts
		}
		switch {
		case !lookable(h.Name):
			h.Verdict, h.TTL = NoAddress, res.MX.TTL
		case len(res.Hosts) == 1: // as with most domains
			defect.Raise(work())
		default:
			g.Go(work)
		}
	}
	defect.Raise(g.Wait())

	evidence := make([]Evidence, len(res.Hosts))
	for i := range res.Hosts {
		evidence[i] = res.Hosts[i].Evidence
	}
	res.Outcome = Derive(res.MX, evidence)
	return res
}

// readMX reads the MX answer: what it proves, and the hosts that are to be
// looked up, none of them for a null MX and a domain that does not exist.
func readMX(domain string, a dnsclient.Answer) (MX, []Host) {
	mx := MX{Answer: MXInsecure, TTL: a.TTL, Omitted: a.More, NoDomain: a.Rcode == dns.RcodeNameError}
	if a.Authentic {
		mx.Answer = MXSecure
	}
	if mx.NoDomain {
		return mx, nil
	}
	if a.Negative() {
		return mx, []Host{{Evidence: Evidence{Name: domain}, Implicit: true}} // 5321 §5.1
	}
	best := map[string]uint16{}
	for _, rr := range a.Records {
		rr, ok := rr.(*dns.MX)
		switch {
		case !ok:
			continue
		case rr.Mx == ".":
			mx.NullToo = true // beside other records it is no null MX (7505 §3), nor a host
			continue
		}
		name := strings.TrimSuffix(dns.CanonicalName(rr.Mx), ".")
		if p, known := best[name]; !known || rr.Preference < p {
			best[name] = rr.Preference
		}
	}
	if len(best) == 0 {
		mx.Null, mx.NullToo = true, false // 7505 §3
		return mx, nil
	}
	var hosts []Host
	for name, preference := range best {
		hosts = append(hosts, Host{Evidence: Evidence{Name: name, Preference: preference}})
	}
	slices.SortFunc(hosts, func(a, b Host) int {
		return cmp.Or(cmp.Compare(a.Preference, b.Preference), strings.Compare(a.Name, b.Name))
	})
	kept := min(len(hosts), maxHosts)
	mx.Omitted += len(hosts) - kept
	return mx, slices.Clone(hosts[:kept])
}

// lookable reports whether an MX target can be the name of a host: letters,
// digits, hyphens and underscores (which some hosts have, and Postfix accepts),
// and not an address.
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
