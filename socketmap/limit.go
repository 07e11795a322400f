package socketmap

import (
	"cmp"
	"context"
	"log/slog"
	"net"
	"slices"
	"time"
)

// The connection limit. Each connection keeps its state in an atomic of its own;
// only at the limit are all of them examined. Connections do not wait in the
// listen queue, where their clients cannot be identified: each is accepted, and
// is served or waits with those of the same client.

// client holds the connections of one client.
type client struct {
	id      peerID
	ctx     context.Context    // of its lookups, see ClientNameName
	conns   map[*conn]struct{} // served
	waiting []net.Conn         // oldest first
}

// firstRequestGrace is how long a new connection has to send its request before
// it may be closed for room or because the server stops: its client may be at the
// only retry Postfix makes.
const firstRequestGrace = 2 * time.Second

// minWaiting is the least number of connections that may wait by default.
const minWaiting = 1024

func (s *Server) limit() int { return or(s.MaxConnections, DefaultMaxConnections) }

// extra is how many connections above the limit are for clients that have fewer
// connections than another, and extraPerClient how many of these one client may
// have.
func (s *Server) extra() int          { return max(s.limit()/8, 1) }
func (s *Server) extraPerClient() int { return max(s.extra()/4, 1) }

func (s *Server) maxWaiting() int { return or(s.MaxWaiting, max(s.limit(), minWaiting)) }

// admit serves an accepted connection or makes it wait.
func (s *Server) admit(nc net.Conn) {
	s.accepted.Add(1)
	id := peerOf(nc)
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.clients[id]
	if p == nil {
		p = &client{id: id, conns: make(map[*conn]struct{}), ctx: context.WithValue(s.ctx, clientKey{}, id.String())}
		s.clients[id] = p
	}
	p.waiting = append(p.waiting, nc)
	s.waiting.Add(1)
	s.serveWaiting()
	if int(s.waiting.Load()) > s.maxWaiting() {
		s.refuse()
	}
}

// serveWaiting serves waiting connections while there is room. s.mu is held.
//
// A connection that becomes idle after it was examined here reads s.waiting
// afterwards, and calls this again.
func (s *Server) serveWaiting() {
	for s.waiting.Load() > 0 {
		p := s.nextClient()
		if !s.stopping.Load() && !s.makeRoom(p) {
			// No room for the client with the fewest connections: none for others.
			s.limitLog.log(s.Log, slog.LevelWarn, "connection limit reached and no connection is idle: new connections wait",
				slog.Int("limit", s.limit()))
			return
		}
		nc := p.waiting[0]
		p.waiting = slices.Delete(p.waiting, 0, 1)
		s.waiting.Add(-1)
		if s.ctx.Err() != nil {
			nc.Close()
			s.removeIfEmpty(p)
			continue
		}
		c := s.add(p, nc)
		s.running++
		go c.run()
	}
}

// nextClient returns the client with the fewest connections among those that
// wait. s.mu is held.
func (s *Server) nextClient() *client {
	var first *client
	for _, p := range s.clients {
		if len(p.waiting) > 0 && (first == nil || len(p.conns) < len(first.conns)) {
			first = p
		}
	}
	return first
}

// add counts a connection as served. s.mu is held.
func (s *Server) add(p *client, nc net.Conn) *conn {
	c := newConn(s, nc)
	c.client = p
	p.conns[c] = struct{}{}
	s.conns[c] = struct{}{}
	return c
}

// remove is the reverse of add. s.mu is held.
func (s *Server) remove(c *conn) {
	delete(s.conns, c)
	delete(c.client.conns, c)
	s.removeIfEmpty(c.client)
}

func (s *Server) removeIfEmpty(p *client) {
	if len(p.conns)+len(p.waiting) == 0 && s.clients[p.id] == p {
		delete(s.clients, p.id)
	}
}

// makeRoom reports whether one more connection of a client may be served. It
// closes other connections for it if it must. s.mu is held.
func (s *Server) makeRoom(p *client) bool {
	for len(s.conns) >= s.limit() {
		if s.mayExceedLimit(p) {
			return true
		}
		if !s.evict(len(p.conns)) {
			return false
		}
	}
	return true
}

// mayExceedLimit reports whether one more connection of a client may be served
// above the limit. s.mu is held.
func (s *Server) mayExceedLimit(p *client) bool {
	if len(p.conns) >= s.extraPerClient() || len(s.conns) >= s.limit()+s.extra() {
		return false
	}
	for _, other := range s.clients {
		if len(other.conns) > len(p.conns) {
			return true
		}
	}
	return false
}

// wake serves waiting connections if there is room now.
func (s *Server) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.serveWaiting()
}

// SetLimits changes MaxConnections and MaxWaiting while the server works. A lower
// limit closes no connection by itself: connections above it are closed when they
// are idle and new ones arrive.
func (s *Server) SetLimits(maxConnections, maxWaiting int) {
	s.init()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.MaxConnections, s.MaxWaiting = maxConnections, maxWaiting
	s.serveWaiting()
}

// CloseIdle closes some of the connections that have been idle longest, of the
// client that has the most, to free file descriptors. It reports whether it
// closed any.
func (s *Server) CloseIdle() bool {
	s.init()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.evict(0)
}

// candidate is a connection that may be closed for room.
type candidate struct {
	c     *conn
	state int64 // when it was examined
	since int64
}

// evict closes connections without a complete request, idle or half-sent, that
// have been so longest: those of the client that has the most connections, at
// least atLeast. It closes one in 64 of the limit, because examining all
// connections takes long when there are many, and a flood makes it necessary for
// each new one. It reports whether it closed any. s.mu is held.
func (s *Server) evict(atLeast int) bool {
	// A candidate that cannot be closed has just got a request and calls wake
	// when it is idle again. Several failures mean that requests are pouring in.
	const tries = 8
	var tried []*conn
	for range tries {
		found := s.candidates(atLeast, max(s.limit()/64, 1), tried)
		if len(found) == 0 {
			return false
		}
		closed := false
		for _, f := range found {
			if !f.c.closeIf(f.state) {
				tried = append(tried, f.c)
				continue
			}
			s.remove(f.c)
			s.evicted.Add(1)
			closed = true
		}
		if closed {
			return true
		}
	}
	return false
}

// candidates returns at most n connections to close for room, longest idle or
// half-sent first: of the client with the most connections, or of several with
// the same number. Those in but, and new ones that still have time for their first
// request, are left out; when the latter is over, waiting connections are served.
// s.mu is held.
func (s *Server) candidates(atLeast, n int, but []*conn) []candidate {
	var found []candidate
	most, now, soonest := atLeast, s.now(), firstRequestGrace+1
	for c := range s.conns {
		size := len(c.client.conns)
		if size < atLeast || slices.Contains(but, c) {
			continue
		}
		state := c.state.Load()
		since, ok := closableSince(state)
		if !ok {
			continue
		}
		if left := time.Duration(since) + firstRequestGrace - now; c.fresh.Load() && left > 0 {
			soonest = min(soonest, left)
			continue
		}
		if size > most {
			found, most = found[:0], size
		}
		if size < most || len(found) == n && since >= found[n-1].since {
			continue
		}
		at, _ := slices.BinarySearchFunc(found, since, func(f candidate, t int64) int { return cmp.Compare(f.since, t) })
		found = slices.Insert(found, at, candidate{c, state, since})
		found = found[:min(len(found), n)]
	}
	if len(found) == 0 && soonest <= firstRequestGrace && s.waiting.Load() > 0 {
		s.wakeIn(soonest)
	}
	return found
}

// wakeIn calls wake after d. s.mu is held.
func (s *Server) wakeIn(d time.Duration) {
	if s.wakeTimer == nil {
		s.wakeTimer = time.AfterFunc(d, s.wake)
	} else {
		s.wakeTimer.Reset(d)
	}
}

// refuse closes the newest waiting connection of the client that has the most:
// more connections wait than may. s.mu is held.
func (s *Server) refuse() {
	var largest *client
	for _, p := range s.clients {
		if len(p.waiting) > 0 && (largest == nil || len(p.conns)+len(p.waiting) > len(largest.conns)+len(largest.waiting)) {
			largest = p
		}
	}
	last := len(largest.waiting) - 1
	largest.waiting[last].Close()
	largest.waiting = slices.Delete(largest.waiting, last, last+1)
	s.waiting.Add(-1)
	s.refused.Add(1)
	s.refusedLog.log(s.Log, slog.LevelWarn, "connection refused: too many connections of this client wait",
		slog.String("client", largest.id.String()), slog.Int("limit", s.maxWaiting()))
	s.removeIfEmpty(largest)
}

// ended removes a connection whose goroutine ends.
func (s *Server) ended(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(c)
	s.done()
	s.serveWaiting()
}
