package check

import (
	"context"
	"net/netip"
	"sync"

	"tlspolicyd/internal/smtpprobe"
)

// probes makes each probe once: a hundred domains at one provider are no reason
// to connect to its hosts a hundred times.
type probes struct {
	mu   sync.Mutex
	made map[probeKey]*madeProbe
}

type probeKey struct {
	host string // it is in SNI, so another name may get another certificate
	addr netip.AddrPort
}

type madeProbe struct {
	done   chan struct{}
	result smtpprobe.Result // once done
}

// maxProbes bounds what is kept: certificates are large, and lists of domains
// may be long.
const maxProbes = 1024

// keep remembers a probe under way, and forgets one that is done where there are
// too many. p.mu is held.
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

func (p *probes) probe(ctx context.Context, prober *smtpprobe.Prober, host string, addr netip.AddrPort) smtpprobe.Result {
	key := probeKey{host, addr}
	p.mu.Lock()
	made, ok := p.made[key]
	if !ok {
		made = &madeProbe{done: make(chan struct{})}
		p.keep(key, made)
	}
	p.mu.Unlock()
	if !ok {
		made.result = prober.Probe(ctx, host, addr)
		close(made.done)
		return made.result
	}
	select {
	case <-made.done:
		return made.result
	case <-ctx.Done():
		return smtpprobe.Result{Addr: addr, Stage: smtpprobe.Greeting, Cause: smtpprobe.Slow, Reason: "not done in time"}
	}
}
