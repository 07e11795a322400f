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

func (p *probes) probe(ctx context.Context, prober *smtpprobe.Prober, host string, addr netip.AddrPort) smtpprobe.Result {
	key := probeKey{host, addr}
	p.mu.Lock()
	made, ok := p.made[key]
	if !ok {
		made = &madeProbe{done: make(chan struct{})}
		if p.made == nil {
			p.made = map[probeKey]*madeProbe{}
		}
		p.made[key] = made
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
