// Package smtpprobe connects to a mail host as a sending server does: to one
// address, where it waits for the greeting, sends EHLO and STARTTLS (RFC 3207) and
// keeps the certificates. It judges nothing: certificates are not verified. No
// message is sent.
//
// Every read is bounded in bytes and by the context, whatever the other side
// does.
package smtpprobe

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"
)

// DefaultConnectTimeout bounds the TCP connection.
const DefaultConnectTimeout = 6 * time.Second

// Prober makes probes. Its zero value is ready, and greets as "localhost". It is
// safe for concurrent use.
type Prober struct {
	// Name is the host name in EHLO.
	Name string
	// Dial makes TCP connections to "address:port"; nil: net.Dialer.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// ConnectTimeout bounds the connection alone; 0: DefaultConnectTimeout. The
	// rest of the dialogue is bounded by the caller's context.
	ConnectTimeout time.Duration
}

// Stage is how far a probe came: the step that failed, or Done.
type Stage string

const (
	Connect  Stage = "connect"  // no TCP connection
	Greeting Stage = "greeting" // no greeting, or one that rejects the session
	EHLO     Stage = "ehlo"     // EHLO was not answered, or refused
	Offer    Stage = "offer"    // STARTTLS is not offered
	STARTTLS Stage = "starttls" // STARTTLS was offered and then refused
	TLS      Stage = "tls"      // no TLS session
	Done     Stage = "done"     // a TLS session
)

// Cause says why a probe ended before Done. It is decided once, here.
type Cause string

const (
	NoCause Cause = ""
	// Silence: no answer to the connection attempt in time. A firewall may drop the
	// packets, on either side or between.
	Silence Cause = "silence"
	// Local: this host could not or may not open the connection (no route, no
	// such address family, forbidden by a firewall of its own).
	Local Cause = "local"
	// Unfinished: the caller's context ended before there was a connection. It says
	// nothing about the other side.
	Unfinished Cause = "unfinished"
	// Refused: the other side refused the connection (RST).
	Refused Cause = "refused"
	// Slow: connected, and the context ended in the middle of the dialogue.
	Slow Cause = "slow"
	// Rejected: a reply of class 4 or 5.
	Rejected Cause = "rejected"
	// NoSMTP: what came is not SMTP, or too much of it.
	NoSMTP Cause = "no-smtp"
	// Broken: the connection ended, or TLS failed.
	Broken Cause = "broken"
)

// Result is the outcome at one address. Texts are printable ASCII of bounded
// length.
type Result struct {
	Addr  netip.AddrPort
	Stage Stage
	Cause Cause
	// Reason describes Cause; empty when Done.
	Reason string

	TLSVersion  uint16 // tls.VersionTLS13; 0: no session
	CipherSuite string
	Chain       []*x509.Certificate // as presented, the host's own first; not verified
	Took        time.Duration
}

// Reached reports whether the other side answered at all, if only to refuse.
func (r Result) Reached() bool {
	return r.Cause != Silence && r.Cause != Local && r.Cause != Unfinished
}

// Probe probes one address of a host. The host name is used for SNI (7672 §8.1)
// only.
func (p *Prober) Probe(ctx context.Context, host string, addr netip.AddrPort) Result {
	began := time.Now()
	d := dialogue{prober: p, ctx: ctx, host: host, result: Result{Addr: addr, Stage: Connect}}
	d.run()
	d.result.Took = time.Since(began)
	return d.result
}

// dialogue is one probe under way.
type dialogue struct {
	prober *Prober
	ctx    context.Context
	host   string
	conn   net.Conn
	lines  *bufio.Reader
	result Result
}

func (d *dialogue) run() {
	conn, err := d.connect()
	if err != nil {
		d.notConnected(err)
		return
	}
	defer conn.Close()
	// All that follows ends with the context.
	stop := context.AfterFunc(d.ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	d.conn, d.lines = conn, bufio.NewReaderSize(conn, maxLine)
	if d.greeting() && d.ehlo() && d.starttls() && d.handshake() {
		d.result.Stage = Done
	}
}

func (d *dialogue) connect() (net.Conn, error) {
	timeout := d.prober.ConnectTimeout
	if timeout == 0 {
		timeout = DefaultConnectTimeout
	}
	ctx, cancel := context.WithTimeout(d.ctx, timeout)
	defer cancel()
	if d.prober.Dial != nil {
		return d.prober.Dial(ctx, "tcp", d.result.Addr.String())
	}
	var dialer net.Dialer
	return dialer.DialContext(ctx, "tcp", d.result.Addr.String())
}

// notConnected says why there is no connection, as far as the error shows.
func (d *dialogue) notConnected(err error) {
	cause := Local // errors of the kernel without an answer of the other side
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET):
		cause = Refused
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled), errors.Is(err, syscall.ETIMEDOUT), isTimeout(err):
		if d.timeIsUp() {
			d.fail(Unfinished, "not done in time: connecting")
			return
		}
		d.fail(Silence, "no answer to the connection attempt")
		return
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		err = op.Err
	}
	d.fail(cause, oneLine(err.Error()))
}

// timeIsUp distinguishes the end of the caller's time from that of ConnectTimeout.
// A dialer may notice a deadline before the context does.
func (d *dialogue) timeIsUp() bool {
	end, ok := d.ctx.Deadline()
	return d.ctx.Err() != nil || ok && !time.Now().Before(end)
}

func isTimeout(err error) bool {
	t, ok := errors.AsType[net.Error](err)
	return ok && t.Timeout()
}

func (d *dialogue) fail(cause Cause, reason string) bool {
	d.result.Cause, d.result.Reason = cause, reason
	return false
}

// broken is for an error in the middle of the dialogue.
func (d *dialogue) broken(doing string, err error) bool {
	switch {
	case d.ctx.Err() != nil || isTimeout(err):
		return d.fail(Slow, "not done in time: "+doing)
	case errors.Is(err, errNoReply):
		return d.fail(NoSMTP, doing+": "+oneLine(err.Error()))
	}
	return d.fail(Broken, doing+": "+oneLine(err.Error()))
}

func (d *dialogue) greeting() bool {
	d.result.Stage = Greeting
	reply, err := readReply(d.lines)
	if err != nil {
		return d.broken("waiting for the greeting", err)
	}
	if reply.code != 220 {
		return d.fail(Rejected, reply.String())
	}
	return true
}

func (d *dialogue) ehlo() bool {
	d.result.Stage = EHLO
	name := d.prober.Name
	if name == "" {
		name = "localhost"
	}
	reply, err := d.command("EHLO " + name)
	if err != nil {
		return d.broken("waiting for the reply to EHLO", err)
	}
	if reply.code != 250 {
		return d.fail(Rejected, reply.String())
	}
	d.result.Stage = Offer
	for _, line := range reply.lines[1:] {
		if word, _, _ := strings.Cut(line, " "); strings.EqualFold(word, "STARTTLS") {
			return true
		}
	}
	d.command("QUIT") // whatever the answer
	return d.fail(NoCause, "STARTTLS is not offered")
}

func (d *dialogue) starttls() bool {
	d.result.Stage = STARTTLS
	reply, err := d.command("STARTTLS")
	if err != nil {
		return d.broken("waiting for the reply to STARTTLS", err)
	}
	if reply.code != 220 {
		return d.fail(Rejected, reply.String())
	}
	return true
}

func (d *dialogue) handshake() bool {
	d.result.Stage = TLS
	if d.lines.Buffered() > 0 {
		// In TLS the client speaks first (3207 §4). What is here already was injected,
		// or the server is out of step.
		return d.fail(NoSMTP, "TLS handshake: data before it")
	}
	session := tls.Client(d.conn, &tls.Config{
		ServerName:         d.host,
		InsecureSkipVerify: true, // the caller judges the chain
		MinVersion:         tls.VersionTLS10,
		CipherSuites:       cipherSuites(),
	})
	if err := session.HandshakeContext(d.ctx); err != nil {
		return d.broken("TLS handshake", err)
	}
	state := session.ConnectionState()
	d.result.TLSVersion = state.Version
	d.result.CipherSuite = tls.CipherSuiteName(state.CipherSuite)
	d.result.Chain = state.PeerCertificates
	d.conn, d.lines = session, bufio.NewReaderSize(session, maxLine)
	d.quit()
	return true
}

// quit ends the session properly, so that no server logs a lost connection.
func (d *dialogue) quit() {
	d.conn.SetDeadline(time.Now().Add(time.Second))
	fmt.Fprint(d.conn, "QUIT\r\n")
	readReply(d.lines)
	d.conn.Close()
}

func (d *dialogue) command(line string) (reply, error) {
	if _, err := fmt.Fprintf(d.conn, "%s\r\n", line); err != nil {
		return reply{}, err
	}
	return readReply(d.lines)
}

// cipherSuites are those that sending servers offer by default: crypto/tls's
// own and the older ones without forward secrecy, but neither RC4 nor 3DES. With
// fewer, a server that others reach would look broken.
func cipherSuites() []uint16 {
	var ids []uint16
	for _, s := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		if !strings.Contains(s.Name, "RC4") && !strings.Contains(s.Name, "3DES") {
			ids = append(ids, s.ID)
		}
	}
	return ids
}
