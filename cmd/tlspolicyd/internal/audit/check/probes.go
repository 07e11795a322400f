package check

import (
	"context"
	"net/netip"
	"sync"

	"tlspolicyd/cmd/tlspolicyd/internal/audit/smtpprobe"
)

// probes makes each probe once for all domains: a hundred at one provider do not
// connect to its hosts a hundred times.
type probes struct {
	mu   sync.Mutex
	made map[probeKey]*madeProbe

	connected map[bool]bool       // by whether it was over IPv6
	refused   map[netip.Addr]bool // addresses that refused a connection
}

// Elsewhere is what became of the connections to port 25 of all domains that an
// Auditor has audited. It distinguishes a mail host that is down from a port that
// is blocked on the way out of this host.
type Elsewhere struct {
	IPv4, IPv6 bool // some mail host took a connection
	Refused    bool // addresses that are not the domain's refuse, too
}

// elsewhere is what is known so far.
func (p *probes) elsewhere(f *Facts) Elsewhere {
	own := map[netip.Addr]bool{}
	for _, h := range f.Hosts {
		for _, a := range h.Addresses {
			own[a.Addr] = true
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	e := Elsewhere{IPv4: p.connected[false], IPv6: p.connected[true]}
	for addr := range p.refused {
		e.Refused = e.Refused || !own[addr]
	}
	return e
}

// note keeps what a probe shows of the network.
func (p *probes) note(r smtpprobe.Result) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case r.Stage != smtpprobe.Connect:
		if p.connected == nil {
			p.connected = map[bool]bool{}
		}
		p.connected[r.Addr.Addr().Is6()] = true
	case r.Cause == smtpprobe.Refused && len(p.refused) < maxProbes:
		if p.refused == nil {
			p.refused = map[netip.Addr]bool{}
		}
		p.refused[r.Addr.Addr()] = true
	}
}

type probeKey struct {
	host string // it is in SNI, and selects the certificate
	addr netip.AddrPort
}

type madeProbe struct {
	done   chan struct{}
	result smtpprobe.Result // once done
}

// maxProbes bounds what is kept: certificates are large, and lists may be long.
const maxProbes = 1024

// keep adds a probe under way, and drops finished ones where there are too many.
// p.mu is held.
func (p *probes) keep(key probeKey, made *madeProbe) {
	if p.made == nil {
		p.made = map[probeKey]*madeProbe{}
	}
	for old, m := range p.made {
		if len(p.made) < maxProbes {
			break
		}
		select {
		case <-m.done:
			delete(p.made, old)
		default:
		}
	}
	p.made[key] = made
}

// probe makes a probe, or waits for the one of another domain. One that was cut
// short by the time of its domain is made again.
func (p *probes) probe(ctx context.Context, prober *smtpprobe.Prober, host string, addr netip.AddrPort) smtpprobe.Result {
	key := probeKey{host, addr}
	for {
		made, mine := p.join(key)
		if mine {
			made.result = prober.Probe(ctx, host, addr)
			p.finish(key, made)
			return made.result
		}
		select {
		case <-made.done:
		case <-ctx.Done():
		}
		select {
		case <-made.done:
			if made.result.Cause != smtpprobe.Unfinished {
				return made.result
			}
		default:
			return smtpprobe.Result{Addr: addr, Stage: smtpprobe.Connect, Cause: smtpprobe.Unfinished, Reason: "not done in time"}
		}
	}
}

// join returns the probe under a key, and whether it is the caller's to make.
func (p *probes) join(key probeKey) (made *madeProbe, mine bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if made, ok := p.made[key]; ok {
		return made, false
	}
	made = &madeProbe{done: make(chan struct{})}
	p.keep(key, made)
	return made, true
}

// finish hands a result to those that wait, and keeps it if it is complete.
func (p *probes) finish(key probeKey, made *madeProbe) {
	p.note(made.result)
	if made.result.Cause == smtpprobe.Unfinished {
		p.mu.Lock()
		delete(p.made, key)
		p.mu.Unlock()
	}
	close(made.done)
}
