package dnsclient

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	maxIdle = 128              // sockets that are kept for one resolver
	idleFor = 10 * time.Second // at most, even where they are used all the time
)

// sockets keeps connected datagram sockets to resolvers on loopback, which spares
// half of the work of a question. An attacker may know a source port that is
// used again, but on loopback only root can forge an answer. To any other resolver
// each question leaves from a new port (RFC 5452 §4.5).
type sockets struct {
	mu     sync.Mutex
	idle   map[netip.AddrPort][]*socket
	ending bool // a timer runs that closes them
}

// take returns an idle socket, or nil.
func (s *sockets) take(server netip.AddrPort) *socket {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.idle[server]
	if len(list) == 0 {
		return nil
	}
	last := len(list) - 1
	s.idle[server] = list[:last]
	return list[last]
}

// put keeps a socket on which nothing is to come any more.
func (s *sockets) put(server netip.AddrPort, one *socket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.idle[server]) == maxIdle {
		one.conn.Close()
		return
	}
	if s.idle == nil {
		s.idle = map[netip.AddrPort][]*socket{}
	}
	s.idle[server] = append(s.idle[server], one)
	if !s.ending {
		s.ending = true
		time.AfterFunc(idleFor, func() { s.drop(netip.AddrPort{}) })
	}
}

// drop closes the idle sockets to a server; without one, all.
func (s *sockets) drop(server netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ending = s.ending && server.IsValid()
	for to, list := range s.idle {
		if server.IsValid() && to != server {
			continue
		}
		for _, one := range list {
			one.conn.Close()
		}
		delete(s.idle, to)
	}
}

// socket is a datagram socket that asks one question at a time.
type socket struct {
	conn *dns.Conn
	buf  []byte
}

// ask sends a query and waits for the answer. Without clean the socket must not
// be used again: something may still come, or an error is pending.
func (s *socket) ask(ctx context.Context, until time.Time, packed []byte, query *dns.Msg) (reply *message, clean bool, err error) {
	stop := limit(ctx, until, s.conn.Conn)
	ignored := 0
	if _, err = s.conn.Write(packed); err == nil {
		reply, ignored, err = s.read(query)
	}
	return reply, stop() && err == nil && ignored == 0, err
}

// read returns the first datagram that answers the query. Others are ignored, because
// any host can send them: a guess that misses must not end the lookup (RFC 5452
// §9.1).
func (s *socket) read(query *dns.Msg) (reply *message, ignored int, err error) {
	for ; ; ignored++ {
		p, full, err := s.datagram()
		if err != nil {
			if ignored > 0 && isTimeout(err) {
				err = &mismatchError{ignored, err}
			}
			return nil, ignored, err
		}
		reply, err := parse(p, query)
		switch {
		case errors.Is(err, errMismatch):
			continue
		case full: // cut off
			return &message{Msg: dns.Msg{MsgHdr: dns.MsgHdr{Truncated: true}}}, ignored, nil
		}
		return reply, ignored, err
	}
}

// datagram reads one datagram, and reports whether it filled the buffer. A
// connection that is not a net.PacketConn has a length before each (Config.Dial).
func (s *socket) datagram() (p []byte, full bool, err error) {
	if _, ok := s.conn.Conn.(net.PacketConn); !ok {
		p, err := s.conn.ReadMsgHeader(nil)
		if errors.Is(err, dns.ErrShortRead) {
			return nil, false, nil // less than a header
		}
		return p, false, err
	}
	if s.buf == nil {
		s.buf = make([]byte, udpBuffer)
	}
	n, err := s.conn.Conn.Read(s.buf)
	return s.buf[:n], n == len(s.buf), err
}
