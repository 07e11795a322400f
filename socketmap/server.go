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

// Server answers socketmap requests on any number of listeners. Only Handler
// must be set, and no field may be changed after the first call of Serve (but see
// SetLimits).
//
// The requests of one connection are answered one after the other, in order;
// replies to requests that arrived together are written together. A netstring
// without a space is answered with PERM. Bytes that are not a netstring end their
// connection, after the requests before them are answered.
type Server struct {
	Handler Handler

	// MaxConnections is how many connections are served at a time, over all
	// listeners. At the limit, the connection that has been without a complete
	// request longest, idle or half-sent, of the client that has the most
	// connections (a user on a Unix socket, an address on TCP) is closed to admit
	// another. If there is none, new connections wait; the client with the fewest
	// is served first, if need be above the limit: up to an eighth of it is for
	// clients that have fewer connections than another.
	//
	// A connection with a request, read or unread, is never closed for room, nor
	// is a new one in its first 2 s: that would use up the only retry Postfix
	// makes. 0: DefaultMaxConnections.
	MaxConnections int

	// MaxWaiting is how many connections may wait. Above it, the newest one of the
	// client that has the most is refused. 0: MaxConnections, at least 1024.
	MaxWaiting int

	// RequestTimeout is how long the rest of a request may take after its first
	// part. 0: DefaultRequestTimeout.
	RequestTimeout time.Duration

	// WriteTimeout is how long a client may leave its replies unread; up to a
	// quarter more (see deadline). 0: DefaultWriteTimeout.
	WriteTimeout time.Duration

	// IdleTimeout is how long a connection may be idle before it is closed; up to
	// a quarter more. 0: DefaultIdleTimeout.
	IdleTimeout time.Duration

	// Log gets the problems that the operator should know of, each kind at most
	// once a minute, with the number of suppressed lines. A log handler that
	// blocks costs lines, never answers. nil: nothing is logged.
	Log *slog.Logger

	once   sync.Once
	epoch  time.Time       // conn.state and deadlines count from here
	ctx    context.Context // of handlers; ends when the server is closed
	cancel context.CancelFunc

	// Read by every connection after every batch of replies, written rarely.
	stopping atomic.Bool
	waiting  atomic.Int32 // accepted connections that wait for room

	mu        sync.Mutex // never taken between a request and its reply
	listeners map[*net.Listener]struct{}
	conns     map[*conn]struct{}
	clients   map[peerID]*client // with those that wait
	running   int                // accept loops and goroutines of connections
	stopped   chan struct{}      // closed when stopping begins
	drained   chan struct{}      // closed when stopping and nothing runs any more
	wakeTimer *time.Timer        // nil: never needed yet

	accepted, evicted, refused, malformed, panics atomic.Uint64

	malformedLog, panicLog, replyLog, acceptLog, limitLog, refusedLog sparseLog
}

// Stats are figures for metrics. Counters begin at the start of the server.
type Stats struct {
	Connections int    // open now
	Idle        int    // of these, without a request in flight
	Waiting     int    // accepted, waiting for room; not counted as open
	Accepted    uint64 // connections accepted
	Evicted     uint64 // connections without a complete request closed to make room
	Refused     uint64 // connections closed because too many waited
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
		s.clients = make(map[peerID]*client)
		s.stopped = make(chan struct{})
		s.drained = make(chan struct{})
	})
}

// Serve accepts connections on l until the server is stopped, and then returns
// ErrServerClosed, or until the caller closes l, and then returns that error. After
// any other failure to accept, such as a lack of file descriptors, it logs the
// error and tries again. Serve closes l. It may be called several times at once,
// with different listeners.
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

// acceptFailed logs a failed accept and pauses. If the reason may be a lack of file
// descriptors or memory, it first closes idle connections.
func (s *Server) acceptFailed(err error, pause time.Duration) {
	for _, shortage := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM} {
		if errors.Is(err, shortage) {
			s.CloseIdle()
		}
	}
	s.acceptLog.log(s.Log, slog.LevelError, "cannot accept connections", slog.Any("error", err))
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

// done counts an accept loop or a connection as ended. s.mu is held.
func (s *Server) done() {
	s.running--
	if s.running == 0 && s.stopping.Load() {
		close(s.drained)
	}
}

// Shutdown stops accepting, closes idle connections at once, waits until requests
// in flight are answered and the answers written, and then returns nil. A new
// connection has 2 s to send its first request: its client may be at the only retry
// Postfix makes. When ctx ends first, Shutdown calls Close and returns the error of
// ctx.
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
		// One that becomes idle after this reads s.stopping itself.
		if !c.extendFirstRequest() {
			if idle := c.state.Load(); idle > 0 {
				c.closeIf(idle)
			}
		}
	}
	s.serveWaiting() // each may send one request
	if s.wakeTimer != nil {
		s.wakeTimer.Stop()
	}
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
		Waiting:     int(s.waiting.Load()),
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
