package socketmap

import (
	"cmp"
	"log/slog"
	"net"
	"slices"
	"syscall"
)

// The connection limit. Connections do not report to anybody while they work:
// each keeps its state in an atomic of its own, and only when the house is full
// somebody goes and looks at all of them.
//
// Nobody waits in the listen queue for long, as behind whom he would wait there
// cannot be told. A connection is accepted, and is served or waits with those of
// the same peer. The peer with the fewest connections comes first, the one with
// the most gives room first.

// crowd is the connections of one peer.
type crowd struct {
	peer    peerID
	conns   map[*conn]struct{} // served
	waiting []net.Conn         // for room, in the order in which they came
}

// Beyond the limit, one connection in eight more is there for peers with few
// connections while another peer has most of them; each may have a quarter of
// that.
func (s *Server) limit() int      { return or(s.MaxConnections, DefaultMaxConnections) }
func (s *Server) reserve() int    { return max(s.limit()/8, 1) }
func (s *Server) guestsEach() int { return max(s.reserve()/4, 1) }

// maxWaiting bounds the connections that wait.
func (s *Server) maxWaiting() int { return max(s.limit(), 64) }

// admit serves an accepted connection, or has it wait.
func (s *Server) admit(nc net.Conn) {
	s.accepted.Add(1)
	p := peerOf(nc)
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.crowds[p]
	if w == nil {
		w = &crowd{peer: p, conns: make(map[*conn]struct{})}
		s.crowds[p] = w
	}
	w.waiting = append(w.waiting, nc)
	s.waiters.Add(1)
	s.settle()
	if int(s.waiters.Load()) > s.maxWaiting() {
		s.refuse()
	}
}

// settle serves those that wait, as far as there is room. s.mu is held.
//
// Those that wait are counted before it looks: a connection that becomes idle
// unseen by that look then sees them, and wakes us.
func (s *Server) settle() {
	for s.waiters.Load() > 0 {
		w := s.next()
		if !s.stopping.Load() && !s.makeRoom(w) {
			// Where there is no room for the smallest, there is none for others.
			s.tellFull.say(s.Log, slog.LevelWarn, "connection limit reached and no connection is idle: new ones wait",
				slog.Int("limit", s.limit()))
			return
		}
		nc := w.waiting[0]
		w.waiting = slices.Delete(w.waiting, 0, 1)
		s.waiters.Add(-1)
		if s.ctx.Err() != nil {
			nc.Close()
			s.disband(w)
			continue
		}
		c := s.enter(w, nc)
		s.running++
		go c.run()
	}
}

// next returns the smallest crowd that waits. s.mu is held.
func (s *Server) next() *crowd {
	var first *crowd
	for _, w := range s.crowds {
		if len(w.waiting) > 0 && (first == nil || len(w.conns) < len(first.conns)) {
			first = w
		}
	}
	return first
}

// enter takes a connection onto the books. s.mu is held.
func (s *Server) enter(w *crowd, nc net.Conn) *conn {
	c := newConn(s, nc)
	c.crowd = w
	w.conns[c] = struct{}{}
	s.conns[c] = struct{}{}
	return c
}

// leave takes it off the books. s.mu is held.
func (s *Server) leave(c *conn) {
	delete(s.conns, c)
	delete(c.crowd.conns, c)
	s.disband(c.crowd)
}

func (s *Server) disband(w *crowd) {
	if len(w.conns)+len(w.waiting) == 0 && s.crowds[w.peer] == w {
		delete(s.crowds, w.peer)
	}
}

// makeRoom reports whether one of a crowd may be served, having closed a
// connection for it where that was called for. s.mu is held.
func (s *Server) makeRoom(w *crowd) bool {
	for len(s.conns) >= s.limit() {
		if s.isGuest(w) {
			return true
		}
		if !s.evict(len(w.conns)) {
			return false
		}
	}
	return true
}

// isGuest reports whether one more of a crowd is let in beyond the limit.
func (s *Server) isGuest(w *crowd) bool {
	if len(w.conns) >= s.guestsEach() || len(s.conns) >= s.limit()+s.reserve() {
		return false
	}
	for _, other := range s.crowds {
		if len(other.conns) > len(w.conns) {
			return true
		}
	}
	return false
}

// wake lets those that wait in.
func (s *Server) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
}

// SetMaxConnections changes MaxConnections while the server works. A lower
// limit closes no connection by itself: those above it go as they become idle
// and others want in.
func (s *Server) SetMaxConnections(n int) {
	s.init()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.MaxConnections = n
	s.settle()
}

// spare is a connection without a complete request, as it was seen.
type spare struct {
	c     *conn
	state int64
	since int64
}

// evict closes a connection without a complete request, idle or half-sent: the
// one that has been so longest, among those of the peer with the most
// connections; peers with less than so many are spared. Of a large house it
// closes some more (one in 64 of the limit), as each look takes long there and
// a flood calls for one after the other. It returns false when there is none.
// s.mu is held.
func (s *Server) evict(spared int) bool {
	// A few failures mean that requests are pouring in: each connection that
	// would not go is busy now, or about to be, and wakes us when it is idle.
	const tries = 8
	var tried []*conn
	for range tries {
		found := s.longestSpare(spared, max(s.limit()/64, 1), tried)
		if len(found) == 0 {
			return false
		}
		closed := false
		for _, f := range found {
			if !f.c.closeIf(f.state) {
				tried = append(tried, f.c)
				continue
			}
			s.leave(f.c)
			s.evicted.Add(1)
			closed = true
		}
		if closed {
			return true
		}
	}
	return false
}

// longestSpare returns as many as n connections that may be closed for room, the
// longest spare first: of the peer with the most, or of several that have as
// many. s.mu is held.
func (s *Server) longestSpare(spared, n int, but []*conn) []spare {
	var found []spare
	most := spared
	for c := range s.conns {
		size := len(c.crowd.conns)
		if size < most || slices.Contains(but, c) {
			continue
		}
		state := c.state.Load()
		since, ok := spareSince(state)
		if !ok {
			continue
		}
		if size > most {
			found, most = found[:0], size
		}
		if len(found) == n && since >= found[n-1].since {
			continue
		}
		at, _ := slices.BinarySearchFunc(found, since, func(f spare, t int64) int { return cmp.Compare(f.since, t) })
		found = slices.Insert(found, at, spare{c, state, since})
		found = found[:min(len(found), n)]
	}
	return found
}

// refuse closes a connection that waits, the last one of the peer that has the
// most: more have come than may wait. s.mu is held.
func (s *Server) refuse() {
	var largest *crowd
	for _, w := range s.crowds {
		if len(w.waiting) > 0 && (largest == nil || len(w.conns)+len(w.waiting) > len(largest.conns)+len(largest.waiting)) {
			largest = w
		}
	}
	last := len(largest.waiting) - 1
	largest.waiting[last].Close()
	largest.waiting = slices.Delete(largest.waiting, last, last+1)
	s.waiters.Add(-1)
	s.refused.Add(1)
	s.tellRefused.say(s.Log, slog.LevelWarn, "connection refused: too many of this client wait",
		slog.String("client", largest.peer.String()), slog.Int("limit", s.limit()))
	s.disband(largest)
}

// forget takes a connection that has ended off the books.
func (s *Server) forget(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leave(c)
	s.done()
	s.settle()
}

// hasUnread reports whether bytes wait to be read in the connection's socket.
// Where that cannot be told it reports false.
func hasUnread(nc net.Conn) bool {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return false
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	unread := false
	_ = rc.Control(func(fd uintptr) {
		var b [1]byte
		n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		unread = err == nil && n > 0
	})
	return unread
}
