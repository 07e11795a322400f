// Package lab is a small internet in one process, for tests and for the demo:
// a validating recursive resolver with AD bits, TTLs and faults, MTA-STS policy
// hosts with certificates of a private CA and faults, and SMTP hosts with
// STARTTLS.
//
// Nothing listens on a real socket until ListenDNS or ListenProxy asks for it.
// World.Dial is the network: its connections live in memory and block on
// nothing but condition variables, so a whole exchange, TLS included, runs
// inside a testing/synctest bubble in no time. (net.Pipe would not do: it holds
// back a write until the other side reads, and a TLS client that refuses a
// certificate writes its alert while the server still writes.)
//
// Mistakes in a scenario (a record that does not parse, an unknown type) panic:
// the package is for tests and the demo only.
package lab

import (
	"crypto/ecdsa"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Network is the prefix that the addresses of policy and SMTP hosts are taken
// from. It is private address space, so a fetcher has to allow it.
const Network = "10.20.0.0/16"

// World is one small internet. It is safe for concurrent use.
type World struct {
	done chan struct{} // closed by Close
	wg   sync.WaitGroup
	ca   *authority

	mu       sync.Mutex // never held while anything blocks
	closed   bool
	closers  map[io.Closer]struct{} // connections and real listeners, for Close
	services map[endpoint]service
	silent   map[netip.Addr]bool // connection attempts are never answered
	noRoute  map[netip.Addr]bool // connection attempts fail on this side
	lastAddr netip.Addr
	lastPort uint16
	keys     map[string]*ecdsa.PrivateKey // of SMTP hosts

	zone       zone
	faults     map[question]Fault
	delay      time.Duration
	delays     map[string]time.Duration
	latency    func(Query) time.Duration
	delayHTTP  time.Duration
	down       bool
	adOnlyByAD bool
	queries    []Query
	counts     map[question]int
	received   map[uint16]*atomic.Int64 // bytes read by clients, by port
}

// New returns a world with one resolver, at DNSAddr, and no names.
func New() *World {
	w := &World{
		done:     make(chan struct{}),
		ca:       newAuthority(time.Now()),
		closers:  map[io.Closer]struct{}{},
		services: map[endpoint]service{},
		silent:   map[netip.Addr]bool{},
		noRoute:  map[netip.Addr]bool{},
		lastAddr: netip.MustParsePrefix(Network).Addr(),
		lastPort: 32767,
		keys:     map[string]*ecdsa.PrivateKey{},
		zone:     newZone(),
		faults:   map[question]Fault{},
		delays:   map[string]time.Duration{},
		counts:   map[question]int{},
		received: map[uint16]*atomic.Int64{},
	}
	w.AddResolver(w.DNSAddr(), 0)
	return w
}

// Close ends every connection and listener and returns when no goroutine of
// the world is left.
func (w *World) Close() {
	w.mu.Lock()
	if !w.closed {
		w.closed = true
		close(w.done)
	}
	open := w.closers
	w.closers = map[io.Closer]struct{}{}
	w.mu.Unlock()
	for c := range open {
		c.Close()
	}
	w.wg.Wait()
}

// Now is the time in the world: the test's own clock.
func (w *World) Now() time.Time { return time.Now() }

// spawn runs fn in a goroutine that Close waits for, or not at all once the
// world is closed.
func (w *World) spawn(fn func()) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return false
	}
	w.wg.Go(fn)
	return true
}

// hold registers c to be closed by Close; drop takes it out again.
func (w *World) hold(c io.Closer) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return false
	}
	w.closers[c] = struct{}{}
	return true
}

func (w *World) drop(c io.Closer) {
	w.mu.Lock()
	delete(w.closers, c)
	w.mu.Unlock()
	c.Close()
}

// sleep waits for d and reports whether the world is still there.
func (w *World) sleep(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-w.done:
		return false
	}
}

// newAddr hands out the next free address of Network. w.mu is held.
func (w *World) newAddr() netip.Addr {
	w.lastAddr = w.lastAddr.Next()
	if !netip.MustParsePrefix(Network).Contains(w.lastAddr) {
		panic("lab: no address left in " + Network)
	}
	return w.lastAddr
}

// serve runs s for one connection in a goroutine of the world.
func (w *World) serve(s service, c net.Conn, network string) bool {
	if !w.hold(c) {
		c.Close()
		return false
	}
	if !w.spawn(func() {
		defer w.drop(c)
		s.serve(c, network)
	}) {
		w.drop(c)
		return false
	}
	return true
}
