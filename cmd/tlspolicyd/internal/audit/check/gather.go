package check

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"

	"tlspolicyd/cmd/tlspolicyd/internal/audit/smtpprobe"
	"tlspolicyd/cmd/tlspolicyd/internal/explain"
	"tlspolicyd/cmd/tlspolicyd/internal/resolverprobe"
	"tlspolicyd/internal/dane"
	"tlspolicyd/internal/dnsclient"
	"tlspolicyd/internal/mtasts"
)

const (
	// For the first lookup of all, and for the check of our own DNS after it has
	// failed: without any network both together end within DefaultTimeout.
	firstLookup   = 8 * time.Second
	controlLookup = 6 * time.Second

	maxAddresses = 64 // of mail hosts that are connected to, in one audit
	probesAtOnce = 32
	fetchMargin  = 2 * time.Second // of the audit's time are left when a fetch is given up
)

// Gather collects facts about a domain, given in A-labels. Failures are facts too.
func (a *Auditor) Gather(ctx context.Context, domain string) *Facts {
	began := time.Now()
	f := &Facts{Domain: domain, At: began, Trusted: a.Trusted, Roots: a.roots, NoRoots: a.noRoots, Servers: a.Servers}
	ctx, cancel := context.WithTimeout(ctx, a.Timeout)
	defer cancel()
	a.gather(ctx, f)
	f.Took = time.Since(began)
	return f
}

func (a *Auditor) gather(ctx context.Context, f *Facts) {
	if err := a.control.known(); err != nil {
		f.MXErr, f.OurDNS = err, err
		return
	}
	missing, err := a.first(ctx, f.Domain)
	if err != nil {
		f.MXErr = err
		a.checkOurDNS(ctx, f)
		return
	}
	if missing && a.isolated(ctx) {
		a.control.found(errIsolated)
		f.MXErr, f.OurDNS = errIsolated, errIsolated
		return
	}
	var work sync.WaitGroup
	work.Go(func() {
		f.TLSRPT = lookupTLSRPT(ctx, a.Resolver, f.Domain)
		if unanswered(f.TLSRPT.Err) {
			a.control.begin(ctx, a.Resolver) // now: mail hosts may take all the time there is
		}
	})
	fetcher := *a.Fetcher
	if limit := max(a.Timeout-fetchMargin, time.Second); fetcher.Timeout == 0 || fetcher.Timeout > limit {
		fetcher.Timeout = limit
	}
	x := explain.Explainer{
		// No settings and no overrides: other senders do not have them.
		Resolver: a.Resolver, Fetcher: &fetcher,
		OnDANE: func(res dane.Result) { work.Go(func() { a.hosts(ctx, f, res) }) },
	}
	f.Explanation = x.Explain(ctx, f.Domain)
	if f.lookupFailed() {
		a.control.begin(ctx, a.Resolver)
	}
	a.policy(ctx, f, fetcher)
	work.Wait()
	f.matchTLSA()
	if f.lookupFailed() || unanswered(f.TLSRPT.Err) {
		a.checkOurDNS(ctx, f)
	}
}

// checkOurDNS finds out, after a failed lookup, whether our own DNS works.
func (a *Auditor) checkOurDNS(ctx context.Context, f *Facts) {
	known, err := a.control.ask(ctx, a.Resolver)
	f.OurDNS, f.NoTimeForDNS = err, !known
}

// lookupFailed reports whether a lookup of the explanation is without an answer.
func (f *Facts) lookupFailed() bool {
	for _, l := range f.Explanation.DNS {
		if unanswered(l.Err) {
			return true
		}
	}
	return false
}

// unanswered reports whether a lookup failed, other than by being canceled.
func unanswered(err error) bool {
	e, ok := errors.AsType[*dnsclient.Error](err)
	return ok && e.Kind != dnsclient.Canceled
}

// matchTLSA compares what each address presented with the TLSA records of the
// host.
func (f *Facts) matchTLSA() {
	for _, h := range f.Hosts {
		for i := range h.Addresses {
			if a := &h.Addresses[i]; h.Verdict.HasUsable() && a.Probe != nil && a.Probe.Stage == smtpprobe.Done {
				a.Match = dane.MatchChain(h.TLSA, a.Probe.Chain, []string{h.Name, h.Base, f.Domain}, f.At)
			}
		}
	}
}

// policy adds what the explanation does not fetch: a policy that no record
// announces.
func (a *Auditor) policy(ctx context.Context, f *Facts, fetcher mtasts.Fetcher) {
	e := &f.Explanation
	f.Announced, f.Exchange, f.Policy = e.Record.Found, e.Exchange, e.Policy
	f.FetchErr, _ = errors.AsType[*mtasts.FetchError](e.FetchErr)
	if f.noMail() || f.Announced || e.Record.Failed {
		return
	}
	got, err := fetcher.Fetch(ctx, f.Domain)
	if failed, ok := errors.AsType[*mtasts.FetchError](err); ok {
		f.FetchErr, f.Exchange = failed, failed.Exchange
	} else {
		f.Exchange, f.Policy = got.Exchange, &got.Policy
	}
}

// first asks for the MX records. Where that lookup fails nothing else is tried.
func (a *Auditor) first(ctx context.Context, domain string) (missing bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, firstLookup)
	defer cancel()
	answer, err := a.Resolver.Lookup(ctx, domain, dns.TypeMX)
	return err == nil && answer.Rcode == dns.RcodeNameError, err
}

// errIsolated: the resolver sees only a part of the network.
var errIsolated = errors.New("SOA of the root: NXDOMAIN")

// isolated reports whether the resolver denies even the root, as resolvers do
// that are cut off on purpose. Their NXDOMAIN for a domain means nothing.
func (a *Auditor) isolated(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, controlLookup)
	defer cancel()
	return resolverprobe.Signed(ctx, a.Resolver, resolverprobe.Root).Denied()
}

// hosts connects to the mail hosts.
func (a *Auditor) hosts(ctx context.Context, f *Facts, res dane.Result) {
	f.Hosts = make([]Host, len(res.Hosts))
	var g errgroup.Group
	g.SetLimit(probesAtOnce)
	tried := 0
	for i, h := range res.Hosts {
		f.Hosts[i].Host = h
		host := &f.Hosts[i]
		if h.Verdict == dane.Insecure {
			g.Go(func() error {
				host.UnsignedTLSA = a.unsignedTLSA(ctx, h.Name)
				return nil
			})
		}
		host.Addresses = addresses(h)
		for j := range host.Addresses {
			at := &host.Addresses[j]
			at.NotPublic = mtasts.NotPublic(at.Addr, a.Fetcher.AllowNetworks)
			switch {
			case at.NotPublic != "":
				continue
			case a.Family == 4 && at.Addr.Is6(), a.Family == 6 && at.Addr.Is4():
				at.Left = true
				continue
			case tried == maxAddresses:
				at.Left = true
				f.Omitted++
				continue
			}
			tried++
			g.Go(func() error {
				got := a.probes.probe(ctx, &a.Prober, h.Name, netip.AddrPortFrom(at.Addr, 25))
				at.Probe = &got
				return nil
			})
		}
	}
	_ = g.Wait() // failures are in the facts
}

func addresses(h dane.Host) (list []Address) {
	seen := map[netip.Addr]bool{}
	for _, text := range h.Addresses {
		if addr, err := netip.ParseAddr(text); err == nil && !seen[addr.Unmap()] {
			seen[addr.Unmap()] = true
			list = append(list, Address{Addr: addr.Unmap()})
		}
	}
	return list
}

// unsignedTLSA counts the TLSA records of a host whose zone has no signatures.
// Senders do not look them up (7672 §2.2.2); the operator should know.
func (a *Auditor) unsignedTLSA(ctx context.Context, host string) int {
	answer, err := a.Resolver.Lookup(ctx, "_25._tcp."+host, dns.TypeTLSA)
	if err != nil {
		return 0
	}
	return len(answer.Records)
}
