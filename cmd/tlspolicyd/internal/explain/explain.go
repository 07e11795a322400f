// Package explain resolves a next hop afresh, past every cache, and shows every
// question, answer and decision on the way to the reply.
package explain

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"tlspolicyd/internal/dane"
	"tlspolicyd/internal/dnsclient"
	"tlspolicyd/internal/mtasts"
	"tlspolicyd/policymap/policy"
)

// daneTimeout is how long an evaluation of DANE may take.
const daneTimeout = 14 * time.Second

// Explainer resolves next hops afresh, past every cache, and shows its work.
type Explainer struct {
	Resolver  dnsclient.Resolver
	Servers   []netip.AddrPort // behind it, for a Report
	ADTrusted bool             // their AD bits count (RFC 7672 §2.1.3), for a Report
	Fetcher   *mtasts.Fetcher  // used with a Resolver that takes notes
	Settings  policy.Settings
	Overrides policy.Overrides

	// OnDANE, when not nil, is called as soon as the mail hosts are known, while
	// the policy may still be on its way.
	OnDANE func(dane.Result)
}

// Explanation is everything that was asked and answered for one key, the row of
// the decision table, and the replies.
type Explanation struct {
	Key      string
	NextHop  policy.NextHop
	LookedUp bool   // false: the form of the key or an override decided
	Override string // the operator's line that applied

	DNS      []dnsclient.Recorded // every question, in order
	DANE     dane.Result
	Record   mtasts.RecordResult
	Exchange *mtasts.Exchange // nil: no fetch, for want of a TXT record
	Policy   *mtasts.Policy   // nil: none
	FetchErr error            // why there is none

	STS      policy.STSState
	Decision policy.Decision
	Postfix  string // the reply for the map "postfix"
	TLSRPT   string // the reply for the map "postfix-tlsrpt"
	Took     time.Duration
}

// Report resolves one key and returns what to show of it.
func (x *Explainer) Report(ctx context.Context, key string) Report {
	return newReport(x.Explain(ctx, key), x.Servers, x.ADTrusted, time.Now())
}

// Explain resolves one key. It waits for the policy host as long as a fetch
// may take, and it looks at MTA-STS even where DANE decides alone.
func (x *Explainer) Explain(ctx context.Context, key string) Explanation {
	began := time.Now()
	out := Explanation{Key: key}
	hop, ok := policy.ParseNextHop(key)
	out.NextHop = hop
	if done := x.withoutLookup(&out, key, hop, ok); done {
		return out
	}
	out.LookedUp = true

	recorder := dnsclient.NewRecorder(x.Resolver)
	var work sync.WaitGroup
	work.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, daneTimeout)
		defer cancel()
		out.DANE = dane.Lookup(ctx, recorder, dane.Target{Domain: hop.Domain, Literal: hop.Literal, Port: hop.Port})
		if x.OnDANE != nil {
			x.OnDANE(out.DANE)
		}
	})
	work.Go(func() { x.explainSTS(ctx, recorder, hop.Domain, &out) })
	work.Wait()

	out.DNS = recorder.Lookups()
	v := policy.Afresh(hop, out.DANE, out.Policy, time.Now())
	out.STS, out.Decision = v.STS.State, v.Decide(x.Settings)
	r := policy.Render(out.Decision, hop.Domain, out.Policy, "")
	out.Postfix, out.TLSRPT = string(r.Postfix), string(r.TLSRPT)
	out.Took = time.Since(began)
	return out
}

func (x *Explainer) explainSTS(ctx context.Context, r dnsclient.Resolver, domain string, out *Explanation) {
	out.Record = mtasts.LookupRecord(ctx, r, domain)
	if !out.Record.Found {
		return
	}
	fetcher := *x.Fetcher
	fetcher.Resolver = r
	got, err := fetcher.Fetch(ctx, domain)
	if err != nil {
		out.FetchErr = err
		if fe, ok := err.(*mtasts.FetchError); ok {
			out.Exchange = fe.Exchange
		}
		return
	}
	out.Exchange, out.Policy = got.Exchange, &got.Policy
}

// withoutLookup answers keys for which nothing is looked up.
func (x *Explainer) withoutLookup(out *Explanation, key string, hop policy.NextHop, parsed bool) bool {
	if line, ok := x.Overrides.For(key, hop); ok {
		out.Override = line.Policy
		out.Decision = line.Decision()
	} else if !parsed {
		out.Decision = policy.Decision{Level: policy.NoPolicy, Row: policy.RowNotLookedUp, Why: policy.WhyNotLookedUp(key)}
	} else {
		return false
	}
	r := policy.Render(out.Decision, hop.Domain, nil, out.Override)
	out.Postfix, out.TLSRPT = string(r.Postfix), string(r.TLSRPT)
	return true
}
