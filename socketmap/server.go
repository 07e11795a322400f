package socketmap

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// ErrServerClosed is what Serve returns after Shutdown or Close.
var ErrServerClosed = errors.New("socketmap: server closed")

// What the zero values of a Server's fields mean.
const (
	DefaultMaxConnections = 4096
	DefaultRequestTimeout = 10 * time.Second
	DefaultWriteTimeout   = 10 * time.Second
	DefaultIdleTimeout    = 5 * time.Minute // Postfix itself closes after 10 s idle
)

// Bounds of the pause after a failed accept.
const (
	minAcceptPause = 5 * time.Millisecond
	maxAcceptPause = time.Second
)

// stopGrace is how long a connection that is new when the server stops may take
// to send its request. A client that connects does so in order to ask.
const stopGrace = 2 * time.Second

// Server answers socketmap requests on any number of listeners. Only Handler
// must be set, and no field may be changed once Serve has been called (but see
// SetMaxConnections).
//
// The requests of one connection are answered one after the other, in order;
// replies to requests that arrived together leave together. A request whose
// framing is right but that has no space is answered with PERM. Bytes that are
// no netstring end their connection, after what came before them is answered.
type Server struct {
	Handler Handler

	// MaxConnections is how many connections are served at a time, over all
	// listeners. At the limit one without a complete request, idle or half-sent,
	// is closed to admit another: of the peer that has the most connections (a
	// user on a Unix socket, an address on TCP) the one that has been so longest.
	// Where there is none, new ones wait, of the peer with the fewest first; and
	// a peer with few is served beyond the limit, by an eighth of it, while
	// another has most. A connection with a request in flight is never closed
	// for room, as that would use up the only retry Postfix makes. As many as
	// the limit may wait; beyond that the peer with the most is refused.
	// 0: DefaultMaxConnections.
	MaxConnections int

	// RequestTimeout is how long the rest of a request may take, counted from
	// when its first part was seen. 0: DefaultRequestTimeout.
	RequestTimeout time.Duration

	// WriteTimeout is how long a client may refuse to take its replies. It is
	// kept to within a quarter (see deadline). 0: DefaultWriteTimeout.
	WriteTimeout time.Duration

	// IdleTimeout is how long a connection may be idle before it is closed.
	// It is kept to within a quarter. 0: DefaultIdleTimeout.
	IdleTimeout time.Duration

	// Log is told what the operator should know: each kind of trouble once a
	// minute at most, with a count of what was left out. A handler that blocks
	// costs lines, never answers. nil: nothing is logged.
	Log *slog.Logger

	once   sync.Once
	epoch  time.Time       // conn.state and deadlines count from here
	ctx    context.Context // handlers'; ends when the server is stopped for good
	cancel context.CancelFunc

	// Read by every connection after every batch of replies, written rarely.
	stopping atomic.Bool
	waiters  atomic.Int32 // accepted connections that wait for room

	mu        sync.Mutex // never taken between a request and its reply
	listeners map[*net.Listener]struct{}
	conns     map[*conn]struct{}
	crowds    map[peerID]*crowd // the same, and those that wait
	running   int               // accept loops, and goroutines of connections, those just closed included
	stopped   chan struct{}     // closed when stopping begins
	drained   chan struct{}     // closed when stopping and nothing runs any more

	accepted, evicted, refused, malformed, panics atomic.Uint64

	tellMalformed, tellPanic, tellReply, tellAccept, tellFull, tellRefused sparseLog
}

// Stats are counts for metrics. Counters run from the start of the server.
type Stats struct {
	Connections int    // open now
	Idle        int    // of these, without a request in flight
	Waiting     int    // accepted, not among those open: there is no room
	Accepted    uint64 // connections accepted
	Evicted     uint64 // connections without a complete request closed to make room
	Refused     uint64 // connections closed because too many of the same peer wait
	Malformed   uint64 // connections closed for a malformed or half-sent request
	Panics      uint64 // of the handler
}

// init makes the zero Server usable, whichever method comes first.
func (s *Server) init() {
	s.once.Do(func() {
		s.epoch = time.Now()
		s.ctx, s.cancel = context.WithCancel(context.Background())
		s.listeners = make(map[*net.Listener]struct{})
		s.conns = make(map[*conn]struct{})
		s.crowds = make(map[peerID]*crowd)
		s.stopped = make(chan struct{})
		s.drained = make(chan struct{})
	})
}

// Serve accepts connections on l until the server is stopped, and then returns
// ErrServerClosed, or until l is closed by somebody else, and then returns that
// error. Any other failure to accept is logged and tried again after a pause,
// so running out of file descriptors does not end it. Serve closes l. It may be
// called several times at once, with different listeners.
func (s *Server) Serve(l net.Listener) error {
	defer l.Close()
	if s.Handler == nil {
		return errors.New("socketmap: Server without Handler")
	}
	s.init()
	if !s.track(&l) {
		return ErrServerClosed
	}
	defer s.untrack(&l)

	var pause time.Duration
	for !s.stopping.Load() {
		nc, err := l.Accept()
		if err == nil {
			pause = 0
			s.admit(nc)
			continue
		}
		if s.stopping.Load() {
			break
		}
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		pause = min(max(2*pause, minAcceptPause), maxAcceptPause)
		s.acceptFailed(err, pause)
	}
	return ErrServerClosed
}

// acceptFailed pauses after a failed accept, having freed a file descriptor if
// the want of one may have been the reason.
func (s *Server) acceptFailed(err error, pause time.Duration) {
	for _, shortage := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM} {
		if errors.Is(err, shortage) {
			s.mu.Lock()
			s.evict(0)
			s.mu.Unlock()
		}
	}
	s.tellAccept.say(s.Log, slog.LevelError, "cannot accept connections", slog.Any("error", err))
	select {
	case <-time.After(pause):
	case <-s.stopped:
	}
}

// track notes a listener, unless the server has been stopped.
func (s *Server) track(l *net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping.Load() {
		return false
	}
	s.listeners[l] = struct{}{}
	s.running++
	return true
}

func (s *Server) untrack(l *net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, l)
	s.done()
}

// done counts one thing less that runs. s.mu is held.
func (s *Server) done() {
	s.running--
	if s.running == 0 && s.stopping.Load() {
		close(s.drained)
	}
}

// Shutdown stops accepting, closes idle connections at once, lets requests in
// flight be answered and the answers be written, and then returns nil. A
// connection that was accepted but has not asked yet gets a moment to do so: its
// client may be at the only retry Postfix makes. When ctx ends first Shutdown
// does as Close and returns the error of ctx.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stop()
	select {
	case <-s.drained:
		s.cancel()
		return nil
	case <-ctx.Done():
		s.Close()
		return ctx.Err()
	}
}

// Close stops accepting, closes every connection and ends the context of the
// handlers, but does not wait for them.
func (s *Server) Close() {
	s.stop()
	s.cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.nc.Close()
	}
}

// stop is the first half of Shutdown and Close.
func (s *Server) stop() {
	s.init()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping.Swap(true) {
		return
	}
	close(s.stopped)
	for l := range s.listeners {
		(*l).Close()
	}
	for c := range s.conns {
		// One that becomes idle after this look sees stopping by itself.
		if !c.lastChance() {
			if idle := c.state.Load(); idle > 0 {
				c.closeIf(idle)
			}
		}
	}
	s.settle() // who waits gets its one answer
	if s.running == 0 {
		close(s.drained)
	}
}

// Stats returns the counts of this moment.
func (s *Server) Stats() Stats {
	s.init()
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Stats{
		Connections: len(s.conns),
		Accepted:    s.accepted.Load(),
		Waiting:     int(s.waiters.Load()),
		Evicted:     s.evicted.Load(),
		Refused:     s.refused.Load(),
		Malformed:   s.malformed.Load(),
		Panics:      s.panics.Load(),
	}
	for c := range s.conns {
		if c.state.Load() > 0 {
			st.Idle++
		}
	}
	return st
}

// now is the time since the epoch, never 0.
func (s *Server) now() time.Duration { return time.Since(s.epoch) + 1 }

// or returns the setting, or its default when it is not set.
func or[T int | time.Duration](setting, fallback T) T {
	if setting > 0 {
		return setting
	}
	return fallback
}
