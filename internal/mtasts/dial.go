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
	"tlspolicyd/internal/dnsclient"
	"tlspolicyd/internal/printable"
)

const (
	httpsPort     = 443
	maxCandidates = 8                      // addresses considered of one family, and connections tried for one fetch
	attemptDelay  = 250 * time.Millisecond // between the starts of two connections (8305 §5)
)

// lookUp returns the policy host's addresses in the order in which they are to
// be tried: the families in turn, IPv6 first (8305 §4). Those that are not
// public are left out. What is connected to is the address itself, so a second
// DNS answer can change nothing.
func (f *Fetcher) lookUp(ctx context.Context, host string, x *Exchange) ([]netip.Addr, *FetchError) {
	x.Lookups = dnsclient.LookupAddresses(ctx, f.Resolver, host)
	x.DNS = time.Since(x.start)
	var v6, v4 []netip.Addr
	for _, l := range x.Lookups {
		for _, rr := range l.Answer.Records[:min(len(l.Answer.Records), maxCandidates)] {
			var a netip.Addr
			switch rr := rr.(type) {
			case *dns.AAAA:
				a, _ = netip.AddrFromSlice(rr.AAAA)
			case *dns.A:
				a, _ = netip.AddrFromSlice(rr.A)
			}
			a = a.Unmap() // miekg/dns keeps A in 16 bytes; see NotPublic for a mapped AAAA
			known := slices.ContainsFunc(x.Addresses, func(r AddressReport) bool { return r.Addr == a })
			if !a.IsValid() || known {
				continue
			}
			why := NotPublic(a, f.AllowNetworks)
			x.Addresses = append(x.Addresses, AddressReport{Addr: a, Refused: why})
			switch {
			case why != "":
			case a.Is4():
				v4 = append(v4, a)
			default:
				v6 = append(v6, a)
			}
		}
	}
	var order []netip.Addr
	for i := range maxCandidates {
		order = append(order, v6[min(i, len(v6)):min(i+1, len(v6))]...)
		order = append(order, v4[min(i, len(v4)):min(i+1, len(v4))]...)
	}
	if len(order) > 0 {
		return order[:min(len(order), maxCandidates)], nil
	}
	if over(ctx) {
		return nil, interrupted(ctx, x, "looking up its addresses")
	}
	return nil, noAddress(x)
}

// attempt is the outcome of trying one address.
type attempt struct {
	addr netip.AddrPort
	conn net.Conn
	err  error
}

// connect returns the first connection that is made. The next address is tried
// when one has failed, or has not answered for a while.
func (f *Fetcher) connect(ctx context.Context, addrs []netip.Addr, x *Exchange) (net.Conn, *FetchError) {
	start := time.Now()
	raceCtx, cancel := context.WithCancel(ctx)
	defer cancel() // ends every attempt that has not won
	results := make(chan attempt)
	var failed error
	for running := 0; len(addrs) > 0 || running > 0; {
		var next <-chan time.Time
		if len(addrs) > 0 {
			addr := netip.AddrPortFrom(addrs[0], httpsPort)
			addrs = addrs[1:]
			running++
			go f.attempt(raceCtx, addr, results)
		}
		if len(addrs) > 0 {
			next = time.After(attemptDelay)
		}
		select {
		case r := <-results:
			running--
			defect.Raise(r.err)
			if r.err == nil {
				x.Connected, x.Connect = r.addr, time.Since(start)
				return r.conn, nil
			}
			if failed == nil || dnsclient.LocalFault(r.err) {
				failed = r.err
			}
			x.failedAt(r.addr.Addr(), dialReason(r.err))
		case <-next:
		case <-ctx.Done():
			return nil, interrupted(ctx, x, "connecting")
		}
	}
	if over(ctx) {
		return nil, interrupted(ctx, x, "connecting")
	}
	return nil, connectError(x, failed)
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

// failedAt records why an address failed.
func (x *Exchange) failedAt(addr netip.Addr, reason string) {
	for i := range x.Addresses {
		if x.Addresses[i].Addr == addr {
			x.Addresses[i].Failed = reason
		}
	}
}

// dialReason drops what net.OpError says of the addresses, which the report
// names anyway.
func dialReason(err error) string {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		err = op.Err
	}
	return printable.Line(err.Error(), maxReason)
}

// noAddress says why there is no address to connect to.
func noAddress(x *Exchange) *FetchError {
	if n := len(x.Addresses); n > 0 {
		a := x.Addresses[0]
		return &FetchError{Stage: StageAddress, Reason: fmt.Sprintf("address %s is not public: %s", a.Addr, a.Refused) + others(n-1)}
	}
	missing := false
	for _, l := range x.Lookups {
		if l.Err != nil {
			return &FetchError{Stage: StageDNS, Reason: printable.Line(l.Err.Error(), maxReason), Err: l.Err}
		}
		missing = missing || l.Answer.Rcode == dns.RcodeNameError
	}
	if missing {
		return &FetchError{Stage: StageDNS, Reason: "does not exist (NXDOMAIN)"}
	}
	return &FetchError{Stage: StageDNS, Reason: "has no address"}
}

// connectError reports the first attempt that failed, and how many more did.
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
