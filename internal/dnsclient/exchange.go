package dnsclient

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
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
)

var (
	errTruncatedTCP = errors.New("truncated over TCP")
	errCutShort     = errors.New("sections shorter than the header says")
	errMismatch     = errors.New("answer to another question")
	errLame         = errors.New("referral instead of an answer")
)

// try asks one server once and returns a message that is an answer: NOERROR or
// NXDOMAIN for the question asked. It takes at most the configured time-out.
func (c *Client) try(parent context.Context, server netip.AddrPort, q dns.Question) (*dns.Msg, *Error) {
	ctx, cancel := context.WithTimeout(parent, c.timeout)
	defer cancel()

	m, err := c.exchange(ctx, server, query(q, true))
	if err == nil && (m.Rcode == dns.RcodeFormatError || m.Rcode == dns.RcodeNotImplemented) {
		// A server from before EDNS (RFC 6891 §7): once more without. The AD
		// bit of the query still asks for the AD bit (RFC 6840 §5.7).
		m, err = c.exchange(ctx, server, query(q, false))
	}
	if err != nil {
		return nil, c.failure(parent, ctx, server, q, err)
	}
	e := newError(q, 0, server)
	e.Rcode, e.Extended = m.Rcode, extended(m)
	switch {
	case m.Rcode == dns.RcodeServerFailure:
		e.Kind = ServFail
	case m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError:
		e.Kind = Refused
	case lame(m):
		e.Kind, e.Err = Malformed, errLame
	default:
		return m, nil
	}
	return nil, e
}

// failure turns what went wrong on the way into an Error.
func (c *Client) failure(parent, ctx context.Context, server netip.AddrPort, q dns.Question, err error) *Error {
	e := newError(q, Network, server)
	var bad *malformedError
	switch {
	case errors.Is(parent.Err(), context.Canceled):
		e.Kind, e.Err = Canceled, parent.Err()
	case errors.As(err, &bad):
		e.Kind, e.Err = Malformed, bad.err
	case ctx.Err() != nil || isTimeout(err):
		e.Kind = Timeout
		if parent.Err() == nil {
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

// exchange sends one query over UDP, and over TCP when the answer does not fit.
func (c *Client) exchange(ctx context.Context, server netip.AddrPort, m *dns.Msg) (*dns.Msg, error) {
	reply, err := c.roundTrip(ctx, "udp", server, m)
	if err == nil && reply.Truncated {
		reply, err = c.roundTrip(ctx, "tcp", server, m)
		if err == nil && reply.Truncated {
			err = &malformedError{errTruncatedTCP}
		}
	}
	return reply, err
}

// roundTrip uses a connection of its own, so that every UDP query leaves from
// another source port (RFC 5452 §4.5).
func (c *Client) roundTrip(ctx context.Context, network string, server netip.AddrPort, m *dns.Msg) (*dns.Msg, error) {
	packed, err := m.Pack()
	if err != nil {
		return nil, &malformedError{err}
	}
	conn, err := c.dial(ctx, network, server.String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	framed := &dns.Conn{Conn: conn}
	if _, err := framed.Write(packed); err != nil {
		return nil, err
	}
	if network == "udp" {
		return readDatagrams(framed, m)
	}
	reply, err := read(framed, m)
	if errors.Is(err, errMismatch) {
		return nil, &malformedError{err} // nobody else can write to a stream
	}
	return reply, err
}

// readDatagrams returns the first datagram that answers the query. Others are
// ignored, as anybody can send them: a guess that misses must not end the
// lookup (RFC 5452 §9.1).
func readDatagrams(conn *dns.Conn, query *dns.Msg) (*dns.Msg, error) {
	for ignored := 0; ; ignored++ {
		reply, err := read(conn, query)
		switch {
		case errors.Is(err, errMismatch):
			continue
		case ignored > 0 && isTimeout(err):
			err = &mismatchError{ignored, err}
		}
		return reply, err
	}
}

// read takes one message from the connection, a datagram or a frame.
func read(conn *dns.Conn, query *dns.Msg) (*dns.Msg, error) {
	_, datagram := conn.Conn.(net.PacketConn)
	if !datagram {
		p, err := conn.ReadMsgHeader(nil)
		if errors.Is(err, dns.ErrShortRead) {
			return nil, errMismatch // less than a header
		} else if err != nil {
			return nil, err
		}
		return parse(p, query)
	}
	buf := make([]byte, udpBuffer)
	n, err := conn.Conn.Read(buf)
	if err != nil {
		return nil, err
	}
	reply, err := parse(buf[:n], query)
	if n == len(buf) && !errors.Is(err, errMismatch) {
		return &dns.Msg{MsgHdr: dns.MsgHdr{Truncated: true}}, nil
	}
	return reply, err
}

// parse reads a message that should answer the query. The error is errMismatch
// when it does not, and a malformedError when it does but cannot be read.
func parse(p []byte, query *dns.Msg) (*dns.Msg, error) {
	m := new(dns.Msg)
	err := m.Unpack(p) // on an error, what came before it is filled in
	if !matches(m, query) {
		return nil, errMismatch
	}
	if m.Truncated {
		return m, nil // nothing else of it is used
	}
	if err != nil {
		return nil, &malformedError{err}
	}
	// The DNS library takes a message that ends early for a complete one.
	for i, n := range []int{len(m.Answer), len(m.Ns), len(m.Extra)} {
		if int(binary.BigEndian.Uint16(p[6+2*i:])) != n {
			return nil, &malformedError{errCutShort}
		}
	}
	return m, nil
}

// matches reports whether m is a response to the query: id, QR, opcode and the
// one question, with the name in any case (RFC 5452 §9.1).
func matches(m, query *dns.Msg) bool {
	if m.Id != query.Id || !m.Response || m.Opcode != dns.OpcodeQuery {
		return false
	}
	if len(m.Question) == 0 {
		// Some servers send a bare header with an error. It says nothing about
		// the name; it only sends us to the next server.
		return m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError
	}
	got, want := m.Question[0], query.Question[0]
	return len(m.Question) == 1 && got.Qtype == want.Qtype && got.Qclass == want.Qclass &&
		dns.CanonicalName(got.Name) == dns.CanonicalName(want.Name)
}

// lame reports a referral from a server that does not recurse: without data,
// without a denial, and no recursion on offer.
func lame(m *dns.Msg) bool {
	if m.Rcode != dns.RcodeSuccess || m.RecursionAvailable || m.Authoritative || len(m.Answer) > 0 {
		return false
	}
	referral := false
	for _, rr := range m.Ns {
		switch rr.(type) {
		case *dns.SOA:
			return false
		case *dns.NS:
			referral = true
		}
	}
	return referral
}

// extended returns the registered name of the extended error (RFC 8914). Its
// free text is left out: it is the server's, not ours to pass on.
func extended(m *dns.Msg) string {
	opt := m.IsEdns0()
	if opt == nil {
		return ""
	}
	for _, o := range opt.Option {
		if ede, ok := o.(*dns.EDNS0_EDE); ok {
			return dns.ExtendedErrorCodeToString[ede.InfoCode]
		}
	}
	return ""
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
