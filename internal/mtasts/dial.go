package mtasts

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/miekg/dns"

	"tlspolicyd/internal/defect"
	"tlspolicyd/internal/printable"
)

// Happy Eyeballs version 2 (8305 §8 for the figures).
const (
	resolutionDelay = 50 * time.Millisecond  // A waits this long for AAAA
	attemptDelay    = 250 * time.Millisecond // between the starts of two connections
	maxAttempts     = 8                      // connections tried for one fetch
	maxCandidates   = 8                      // addresses looked at in one answer
)

const httpsPort = 443

// connect finds the policy host's addresses and connects to the first that
// answers, IPv6 before IPv4, later addresses joining while earlier ones are
// still being tried. Only addresses that pass the check are tried, and what
// is connected to is the address itself, so a second DNS answer can change
// nothing. The TCP connection decides: a host that answers with a bad
// certificate is not tried at its next address.
func (f *Fetcher) connect(ctx context.Context, host string, x *Exchange) (net.Conn, *FetchError) {
	raceCtx, cancel := context.WithCancel(ctx)
	defer cancel() // ends every lookup and attempt that has not won
	lookups := f.lookUp(raceCtx, host)
	results := make(chan attempt)
	timer := time.NewTimer(attemptDelay)
	timer.Stop()

	var queue candidates
	waiting, running := 2, 0 // lookups and attempts
	ready := false           // the next address may be tried
	var failed error
	for {
		if ready {
			if a, ok := queue.next(); ok {
				ready = false
				running++
				timer.Reset(attemptDelay)
				go f.attempt(raceCtx, a, results)
			}
		}
		if waiting == 0 && running == 0 {
			if over(ctx) {
				return nil, interrupted(ctx, x, queue.doing())
			}
			return nil, noConnection(x, failed)
		}
		select {
		case l := <-lookups:
			waiting--
			defect.Raise(l.Err)
			f.admit(l, x, &queue)
			if x.DNS == 0 && (waiting == 0 || !queue.empty()) {
				x.DNS = time.Since(x.start)
			}
			switch {
			case waiting == 0 || l.Type == dns.TypeAAAA:
				ready = ready || running == 0
			case !queue.empty():
				timer.Reset(resolutionDelay)
			}
		case r := <-results:
			running--
			defect.Raise(r.err)
			if r.err == nil {
				x.Connected, x.Connect = r.addr, time.Since(x.start)-x.DNS
				return r.conn, nil
			}
			ready = true
			if failed == nil {
				failed = r.err
			}
			x.connectionFailed(r)
		case <-timer.C:
			ready = true
		case <-ctx.Done():
			return nil, interrupted(ctx, x, queue.doing())
		}
	}
}

// lookUp asks for AAAA and A side by side.
func (f *Fetcher) lookUp(ctx context.Context, host string) <-chan AddressLookup {
	out := make(chan AddressLookup, 2)
	for _, qtype := range []uint16{dns.TypeAAAA, dns.TypeA} {
		go func() {
			l := AddressLookup{Type: qtype}
			defer func() { out <- l }()
			defer defect.Catch(&l.Err)
			l.Answer, l.Err = f.Resolver.Lookup(ctx, host, qtype)
		}()
	}
	return out
}

// admit notes an answer, and queues those of its addresses that may be tried.
func (f *Fetcher) admit(l AddressLookup, x *Exchange, queue *candidates) {
	x.Lookups = append(x.Lookups, l)
	for _, rr := range l.Answer.Records[:min(len(l.Answer.Records), maxCandidates)] {
		var a netip.Addr
		switch rr := rr.(type) {
		case *dns.AAAA:
			a, _ = netip.AddrFromSlice(rr.AAAA)
		case *dns.A:
			a, _ = netip.AddrFromSlice(rr.A)
		}
		a = a.Unmap() // miekg/dns keeps A in 16 bytes; see refusal for a mapped AAAA
		known := slices.ContainsFunc(x.Addresses, func(r AddressReport) bool { return r.Addr == a })
		if !a.IsValid() || known {
			continue
		}
		why := refusal(a, f.AllowNetworks)
		x.Addresses = append(x.Addresses, AddressReport{Addr: a, Refused: why})
		if why == "" {
			queue.add(a)
		}
	}
}

// candidates are the addresses not yet tried.
type candidates struct {
	v6, v4 []netip.Addr
	tried  int
	was6   bool // the family tried last
}

func (c *candidates) empty() bool { return len(c.v6)+len(c.v4) == 0 }

// doing names the step for a fetch that is ended here.
func (c *candidates) doing() string {
	if c.tried == 0 {
		return "looking up its addresses"
	}
	return "connecting"
}

func (c *candidates) add(a netip.Addr) {
	if a.Is4() {
		c.v4 = append(c.v4, a)
	} else {
		c.v6 = append(c.v6, a)
	}
}

// next takes the address to try next: the families in turn, IPv6 first
// (8305 §4).
func (c *candidates) next() (netip.AddrPort, bool) {
	if c.tried == maxAttempts || c.empty() {
		return netip.AddrPort{}, false
	}
	from := &c.v6
	if len(c.v6) == 0 || c.was6 && len(c.v4) > 0 {
		from = &c.v4
	}
	a := (*from)[0]
	*from = (*from)[1:]
	c.tried++
	c.was6 = a.Is6()
	return netip.AddrPortFrom(a, httpsPort), true
}

// attempt is the outcome of trying one address.
type attempt struct {
	addr netip.AddrPort
	conn net.Conn
	err  error
}

// attempt tries one address. A connection that comes too late is closed.
func (f *Fetcher) attempt(ctx context.Context, addr netip.AddrPort, results chan<- attempt) {
	conn, err := f.dialAddress(ctx, addr)
	select {
	case results <- attempt{addr, conn, err}:
	case <-ctx.Done():
		if err == nil {
			conn.Close()
		}
	}
}

func (f *Fetcher) dialAddress(ctx context.Context, addr netip.AddrPort) (conn net.Conn, err error) {
	defer defect.Catch(&err)
	if f.Proxy != nil {
		return f.dialProxy(ctx, addr.String())
	}
	return f.dialTCP(ctx, addr.String())
}

func (f *Fetcher) dialTCP(ctx context.Context, addr string) (net.Conn, error) {
	if f.Dial != nil {
		return f.Dial(ctx, "tcp", addr)
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", addr)
}

func (x *Exchange) connectionFailed(r attempt) {
	for i := range x.Addresses {
		if x.Addresses[i].Addr == r.addr.Addr() {
			x.Addresses[i].Failed = dialReason(r.err)
		}
	}
}

// dialReason drops what net.OpError says of the addresses, which is said already.
func dialReason(err error) string {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		err = op.Err
	}
	return printable.Line(err.Error(), maxReason)
}

// noConnection says why no address could be connected to. failed is the error
// of the first attempt, nil when there was none.
func noConnection(x *Exchange, failed error) *FetchError {
	if failed != nil {
		return connectError(x, failed)
	}
	refused, more := "", 0
	for _, a := range x.Addresses {
		if refused == "" {
			refused = fmt.Sprintf("address %s is not public: %s", a.Addr, a.Refused)
			continue
		}
		more++
	}
	if refused != "" {
		return &FetchError{Stage: StageAddress, Reason: refused + others(more)}
	}
	missing := 0
	for _, l := range x.Lookups {
		if l.Err != nil {
			return &FetchError{Stage: StageDNS, Reason: printable.Line(l.Err.Error(), maxReason), Err: l.Err}
		}
		if l.Answer.Rcode == dns.RcodeNameError {
			missing++
		}
	}
	if missing > 0 {
		return &FetchError{Stage: StageDNS, Reason: "does not exist (NXDOMAIN)"}
	}
	return &FetchError{Stage: StageDNS, Reason: "has no address"}
}

// connectError tells of the first attempt that failed, and how many more did.
func connectError(x *Exchange, failed error) *FetchError {
	if p, ok := errors.AsType[*proxyError](failed); ok {
		return &FetchError{Stage: StageProxy, Reason: p.Error(), Err: failed}
	}
	first, more := "", 0
	for _, a := range x.Addresses {
		switch {
		case a.Failed == "":
		case first == "":
			first = fmt.Sprintf("connection to %s: %s", netip.AddrPortFrom(a.Addr, httpsPort), a.Failed)
		default:
			more++
		}
	}
	return &FetchError{Stage: StageConnect, Reason: first + others(more), Err: failed}
}

func others(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(" (and %d more)", n)
}
