package dnsclient

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/miekg/dns"
)

const (
	// ednsSize is the UDP answer size we announce: it passes every path
	// without fragments.
	ednsSize = 1232
	// udpBuffer is larger, for servers that do not care what was announced.
	// What fills it has been cut off and is asked for again over TCP.
	udpBuffer = 4096
	// maxLarge is how many bytes of answers larger than that are read at a time,
	// by all lookups together. What is made of them may be much larger.
	maxLarge = 1 << 20
)

var errTruncatedTCP = errors.New("truncated over TCP")

// try asks one server once and returns a message that is an answer: NOERROR or
// NXDOMAIN for the question asked. It takes at most the configured time-out.
func (c *Client) try(ctx context.Context, server netip.AddrPort, q dns.Question) (*message, *Error) {
	until := time.Now().Add(c.timeout)
	m, err := c.exchange(ctx, until, server, query(q, true))
	if err == nil && (m.Rcode == dns.RcodeFormatError || m.Rcode == dns.RcodeNotImplemented) {
		// A server from before EDNS (RFC 6891 §7): once more without. The AD
		// bit of the query still asks for the AD bit (RFC 6840 §5.7).
		m, err = c.exchange(ctx, until, server, query(q, false))
	}
	if err != nil {
		return nil, c.failure(ctx, server, q, err)
	}
	var kind Kind
	switch {
	case m.Rcode == dns.RcodeServerFailure:
		kind, err = ServFail, nil
	case m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError:
		kind, err = Refused, nil
	case m.lame():
		kind, err = Malformed, errLame
	default:
		return m, nil
	}
	e := newError(q, kind, server)
	e.Rcode, e.Extended, e.Err = m.Rcode, m.extended(), err
	return nil, e
}

// failure turns what went wrong on the way into an Error.
func (c *Client) failure(ctx context.Context, server netip.AddrPort, q dns.Question, err error) *Error {
	e := newError(q, Network, server)
	var bad *malformedError
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		e.Kind, e.Err = Canceled, ctx.Err()
	case errors.As(err, &bad):
		e.Kind, e.Err = Malformed, bad.err
	case ctx.Err() != nil || isTimeout(err):
		e.Kind = Timeout
		if ctx.Err() == nil {
			e.Wait = c.timeout
		}
		var noise *mismatchError
		if errors.As(err, &noise) {
			e.Err = noise
		}
	default:
		e.Err = err
	}
	return e
}

func newError(q dns.Question, k Kind, server netip.AddrPort) *Error {
	return &Error{Name: trimDot(q.Name), Type: q.Qtype, Kind: k, Server: server}
}

// query builds the message: RD, AD and DO, since some stub resolvers return AD
// only when it was asked for (RFC 6840 §5.7).
func query(q dns.Question, edns bool) *dns.Msg {
	m := new(dns.Msg)
	m.Id = dns.Id() // from crypto/rand
	m.RecursionDesired = true
	m.AuthenticatedData = true
	m.Question = []dns.Question{q}
	if edns {
		m.SetEdns0(ednsSize, true)
	}
	return m
}

// exchange sends one query over UDP, and over TCP when the answer does not fit. It
// ends with ctx, and at a time.
func (c *Client) exchange(ctx context.Context, until time.Time, server netip.AddrPort, m *dns.Msg) (*message, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	packed, err := m.Pack()
	if err != nil {
		return nil, &malformedError{err}
	}
	reply, err := c.overUDP(ctx, until, server, m, packed)
	if err == nil && reply.Truncated {
		reply, err = c.overTCP(ctx, until, server, m, packed)
		if err == nil && reply.Truncated {
			err = &malformedError{errTruncatedTCP}
		}
	}
	return reply, err
}

func (c *Client) overUDP(ctx context.Context, until time.Time, server netip.AddrPort, m *dns.Msg, packed []byte) (*message, error) {
	keep := server.Addr().IsLoopback()
	if s := c.sockets.take(server); s != nil {
		reply, clean, err := s.ask(ctx, until, packed, m)
		if clean {
			c.sockets.put(server, s)
			return reply, nil
		}
		s.conn.Close()
		var bad *malformedError
		if err == nil || ctx.Err() != nil || isTimeout(err) || errors.As(err, &bad) {
			return reply, err
		}
		// An old socket may report what happened long ago, such as a resolver that
		// was being restarted: once more with a new one.
		c.sockets.drop(server)
	}
	conn, err := c.connect(ctx, until, "udp", server)
	if err != nil {
		return nil, err
	}
	s := &socket{conn: &dns.Conn{Conn: conn}}
	reply, clean, err := s.ask(ctx, until, packed, m)
	if clean && keep {
		c.sockets.put(server, s)
	} else {
		conn.Close()
	}
	return reply, err
}

func (c *Client) connect(ctx context.Context, until time.Time, network string, server netip.AddrPort) (net.Conn, error) {
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	return c.dial(ctx, network, server.String())
}

// limit has the work on a connection end at a time, and with ctx. stop ends that and
// reports whether ctx had not ended before.
func limit(ctx context.Context, until time.Time, conn net.Conn) (stop func() bool) {
	_ = conn.SetDeadline(until)
	return context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
}

func (c *Client) overTCP(ctx context.Context, until time.Time, server netip.AddrPort, m *dns.Msg, packed []byte) (*message, error) {
	conn, err := c.connect(ctx, until, "tcp", server)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer limit(ctx, until, conn)()
	if _, err := (&dns.Conn{Conn: conn}).Write(packed); err != nil {
		return nil, err
	}
	var length [2]byte // RFC 1035 §4.2.2
	if _, err := io.ReadFull(conn, length[:]); err != nil {
		return nil, err
	}
	size := int(binary.BigEndian.Uint16(length[:]))
	if size > udpBuffer {
		wait, cancel := context.WithDeadline(ctx, until)
		defer cancel()
		if err := c.large.Acquire(wait, int64(size)); err != nil {
			return nil, err
		}
		defer c.large.Release(int64(size))
	}
	p := make([]byte, size)
	if _, err := io.ReadFull(conn, p); err != nil {
		return nil, err
	}
	reply, err := parse(p, m)
	if errors.Is(err, errMismatch) {
		return nil, &malformedError{err} // only the server can write to a stream
	}
	return reply, err
}

// malformedError is an answer that cannot be right.
type malformedError struct{ err error }

func (e *malformedError) Error() string { return e.err.Error() }

// mismatchError ends a wait during which only foreign datagrams came.
type mismatchError struct {
	ignored int
	err     error
}

func (e *mismatchError) Error() string {
	return fmt.Sprintf("%d datagrams ignored that did not match the question", e.ignored)
}

func (e *mismatchError) Unwrap() error { return e.err }

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}
