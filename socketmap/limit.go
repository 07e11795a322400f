package socketmap

import (
	"log/slog"
	"net"
	"slices"
	"syscall"
)

// The connection limit. Connections do not report to anybody while they work:
// each keeps its state in an atomic of its own, and only an accept loop that
// finds the house full goes and looks at all of them.

// awaitRoom returns when another connection may be accepted: there is room, or
// a connection is idle and could make some. Until then the next connection
// waits in the listen queue. It returns false when the server is stopped.
func (s *Server) awaitRoom() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.await(func() bool {
		if s.hasRoom() {
			return true
		}
		for c := range s.conns {
			if c.state.Load() > 0 {
				return true
			}
		}
		return false
	})
}

// admit serves an accepted connection. If every connection that was idle before
// the accept has got a request meanwhile, it waits for the first one to finish;
// or for the server to stop, as it gets its one answer even then.
func (s *Server) admit(nc net.Conn) {
	s.accepted.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.await(s.makeRoom) && s.ctx.Err() != nil {
		nc.Close()
		return
	}
	c := newConn(s, nc)
	s.conns[c] = struct{}{}
	s.running++
	go c.run()
}

// await blocks until ok is true, and returns false if the server is stopped
// before. s.mu is held by the caller and while ok runs.
//
// The waiter is counted before it looks: a connection that becomes idle unseen
// by that look then sees the waiter, and wakes it.
func (s *Server) await(ok func() bool) bool {
	s.waiters.Add(1)
	defer s.waiters.Add(-1)
	for !s.stopping.Load() {
		if ok() {
			return true
		}
		s.tellFull.say(s.Log, slog.LevelWarn, "connection limit reached and no connection is idle: new ones wait",
			slog.Int("limit", or(s.MaxConnections, DefaultMaxConnections)))
		s.room.Wait()
	}
	return false
}

// wake lets waiters look again.
func (s *Server) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.room.Broadcast()
}

func (s *Server) hasRoom() bool {
	return len(s.conns) < or(s.MaxConnections, DefaultMaxConnections)
}

// makeRoom closes idle connections until there is room. It returns false when
// there are not enough of them. s.mu is held.
func (s *Server) makeRoom() bool {
	for !s.hasRoom() {
		if !s.evict() {
			return false
		}
	}
	return true
}

// SetMaxConnections changes MaxConnections while the server works. A lower
// limit closes no connection by itself: those above it go as they become idle
// and others want in.
func (s *Server) SetMaxConnections(n int) {
	s.init()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.MaxConnections = n
	s.room.Broadcast()
}

// evict closes the connection that has been idle longest. It returns false when
// there is none. s.mu is held.
func (s *Server) evict() bool {
	// A few failures mean that requests are pouring in: each connection that
	// would not go is busy now, or about to be, and wakes us when it is idle.
	const tries = 8
	var tried []*conn
	for range tries {
		var oldest *conn
		var since int64
		for c := range s.conns {
			if at := c.state.Load(); at > 0 && (oldest == nil || at < since) && !slices.Contains(tried, c) {
				oldest, since = c, at
			}
		}
		if oldest == nil {
			return false
		}
		if oldest.closeIfIdle(since) {
			delete(s.conns, oldest)
			s.evicted.Add(1)
			return true
		}
		tried = append(tried, oldest)
	}
	return false
}

// forget takes a connection that has ended off the books.
func (s *Server) forget(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	s.done()
	s.room.Broadcast()
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
