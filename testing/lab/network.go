package lab

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
)

// endpoint is where a service of the world is reached.
type endpoint struct {
	addr netip.AddrPort
	udp  bool
}

// service is what answers at an endpoint.
type service struct {
	// serve handles one connection and closes nothing: its caller does.
	serve func(c net.Conn, network string)
	// gate says what becomes of an attempt to connect; nil: it is accepted.
	// Called with World.mu held.
	gate func() gate
}

// gate is what becomes of an attempt to connect.
type gate uint8

const (
	open    gate = iota
	refused      // nothing listens
	silent       // never answered, as behind a firewall that drops packets
	noRoute      // this side has no way there
)

// Dial connects to a resolver, policy host or SMTP host of the world by IP
// address and port, and honours ctx. An address where nothing is gives
// "connection refused"; a host name is an error, because the world has no
// system resolver to be used by mistake.
//
// What comes back for "udp" is a stream too and no net.PacketConn, so that
// miekg/dns frames messages with a length as over TCP; the resolver still
// treats it as UDP and truncates.
func (w *World) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	addr, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: fmt.Errorf("lab: %q is no address and port", address)}
	}
	// ::ffff:10.20.0.1 reaches 10.20.0.1, as a real dual-stack socket does.
	addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
	udp := strings.HasPrefix(network, "udp")
	fail := func(err error) error {
		return &net.OpError{Op: "dial", Net: network, Addr: netAddr(addr, udp), Err: err}
	}
	if err := ctx.Err(); err != nil {
		return nil, fail(err)
	}

	w.mu.Lock()
	s, ok := w.services[endpoint{addr, udp}]
	state := open
	switch {
	case w.noRoute[addr.Addr()]:
		state = noRoute
	case w.silent[addr.Addr()]:
		state = silent
	case !ok || w.closed:
		state = refused
	case s.gate != nil:
		state = s.gate()
	}
	w.lastPort = max(32768, w.lastPort+1)
	local := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), w.lastPort)
	w.mu.Unlock()

	switch state {
	case refused:
		return nil, fail(os.NewSyscallError("connect", syscall.ECONNREFUSED))
	case noRoute:
		return nil, fail(os.NewSyscallError("connect", syscall.ENETUNREACH))
	case silent:
		select {
		case <-ctx.Done():
			return nil, fail(ctx.Err())
		case <-w.done:
			return nil, fail(net.ErrClosed)
		}
	}
	client, server := newPipe(netAddr(local, udp), netAddr(addr, udp))
	client.read = w.reads(addr.Port())
	if !w.serve(s, server, network) {
		return nil, fail(net.ErrClosed)
	}
	return client, nil
}

// Received returns how many bytes clients have read so far from services at a port.
func (w *World) Received(port uint16) int64 { return w.reads(port).Load() }

// reads is the count behind Received.
func (w *World) reads(port uint16) *atomic.Int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.received[port] == nil {
		w.received[port] = new(atomic.Int64)
	}
	return w.received[port]
}

// Silent makes attempts to connect to the addresses hang until the caller gives
// up, as behind a firewall that drops packets.
func (w *World) Silent(addrs ...netip.Addr) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range addrs {
		w.silent[a.Unmap()] = true
	}
}

// NoRoute makes attempts to connect to the addresses fail at once with "network
// is unreachable", as on a host without IPv6.
func (w *World) NoRoute(addrs ...netip.Addr) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range addrs {
		w.noRoute[a.Unmap()] = true
	}
}

func netAddr(a netip.AddrPort, udp bool) net.Addr {
	if udp {
		return net.UDPAddrFromAddrPort(a)
	}
	return net.TCPAddrFromAddrPort(a)
}
