package lab

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"net/textproto"
	"slices"
	"strings"
	"time"
)

// SMTP is how an SMTP host behaves. The zero value is a good one on port 25.
type SMTP struct {
	Port       uint16 // instead of 25
	Cert       Cert   // another certificate
	TLSMax     uint16 // the highest TLS version it speaks
	NoSTARTTLS bool   // neither offers nor takes STARTTLS (3207)
	Refuse     bool   // connection refused

	FullChain bool          // its certificate is issued by an intermediate, which it sends
	HalfChain bool          // the same, but it forgets to send the intermediate
	Greeting  string        // instead of "220 NAME ESMTP"; may have several lines
	EHLO      string        // the whole reply to EHLO before TLS, instead of the right one
	STARTTLS  string        // the reply to STARTTLS instead of 220, after which no TLS follows
	Garbage   bool          // bytes that are no TLS after the reply to STARTTLS
	Stall     SMTPStall     // where it stops for good, the connection staying open
	Endless   bool          // lines of a greeting that never ends
	LongLine  bool          // a greeting in one line of 64 KiB
	Drip      time.Duration // the greeting comes one byte at a time, this far apart
}

// SMTPStall is where an SMTP host stops for good.
type SMTPStall uint8

const (
	NoSMTPStall    SMTPStall = iota
	BeforeGreeting           // connects, never greets
	BeforeEHLO               // greets, never answers EHLO
	BeforeTLS                // takes STARTTLS, never answers the handshake
)

// SMTPHost is a mail host that takes every message and keeps the envelope.
type SMTPHost struct {
	w    *World
	name string
	addr netip.Addr

	// Guarded by w.mu.
	how   SMTP
	mail  []Mail
	conns int
}

// Mail is the envelope of a message that an SMTP host took.
type Mail struct {
	From string
	To   []string
	Size int    // bytes of the message
	TLS  uint16 // tls.VersionTLS13, or 0 in the clear
	SNI  string
}

// SMTPHost puts a mail host into the world: an A record in Network, a
// certificate of the world's CA, and the key that TLSA publishes.
func (w *World) SMTPHost(name string, how SMTP) *SMTPHost {
	if how.Port == 0 {
		how.Port = 25
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	s := &SMTPHost{w: w, name: strings.TrimSuffix(canonical(name), "."), addr: w.newAddr(), how: how}
	w.zone.add(addressRecord(s.name, s.addr))
	if !how.Refuse {
		w.services[endpoint{netip.AddrPortFrom(s.addr, how.Port), false}] = service{serve: s.serve}
	}
	return s
}

// Addr is the host's address.
func (s *SMTPHost) Addr() netip.Addr { return s.addr }

// AddAddr gives the host another address, with its A or AAAA record.
func (s *SMTPHost) AddAddr(addr netip.Addr) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.w.zone.add(addressRecord(s.name, addr))
	if !s.how.Refuse {
		s.w.services[endpoint{netip.AddrPortFrom(addr, s.how.Port), false}] = service{serve: s.serve}
	}
}

// Set changes how the host behaves from the next connection on. Port and Refuse
// stay as they were.
func (s *SMTPHost) Set(how SMTP) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	how.Port, how.Refuse = s.how.Port, s.how.Refuse
	s.how = how
}

// Connections returns how many connections reached the host.
func (s *SMTPHost) Connections() int {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	return s.conns
}

// Mail returns the envelopes of the messages taken, in order.
func (s *SMTPHost) Mail() []Mail {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	return slices.Clone(s.mail)
}

// Listen serves the host on a real address too ("127.0.0.1:0"), until
// World.Close.
func (s *SMTPHost) Listen(address string) (netip.AddrPort, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if !s.w.hold(l) {
		l.Close()
		return netip.AddrPort{}, net.ErrClosed
	}
	s.w.accept(l, service{serve: s.serve})
	return l.Addr().(*net.TCPAddr).AddrPort(), nil
}

// TLSA publishes the TLSA record "3 1 1" (7672 §3.1.1) of a host's key for a
// port, in the place of others there, and returns it as text. The key is made
// when first needed and is the one that SMTPHost uses.
func (w *World) TLSA(host string, port int) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	spki, err := x509.MarshalPKIXPublicKey(&w.hostKey(host).PublicKey)
	if err != nil {
		panic("lab: public key: " + err.Error())
	}
	name := canonical(fmt.Sprintf("_%d._tcp.%s", port, host))
	text := fmt.Sprintf("%s %d IN TLSA 3 1 1 %x", name, defaultTTL, sha256.Sum256(spki))
	w.zone.replace(question{name, typeCode("TLSA")}, parseRecords(text))
	return text
}

// NewKey gives a host a new key. The TLSA record stays as it is, until TLSA is
// called again.
func (w *World) NewKey(host string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.keys, canonical(host))
}

// hostKey returns the key of an SMTP host. w.mu is held.
func (w *World) hostKey(host string) *ecdsa.PrivateKey {
	host = canonical(host)
	if w.keys[host] == nil {
		w.keys[host] = newKey()
	}
	return w.keys[host]
}

func (s *session) tlsConfig() *tls.Config {
	w := s.host.w
	w.mu.Lock()
	key := w.hostKey(s.host.name)
	w.mu.Unlock()
	return serverConfig(s.how.TLSMax, func() *tls.Certificate {
		if s.how.FullChain || s.how.HalfChain {
			return w.ca.issueBelow(key, s.how.FullChain, s.host.name)
		}
		return w.ca.issue(key, s.how.Cert, s.host.name)
	})
}

// session is one SMTP connection.
type session struct {
	host *SMTPHost
	how  SMTP
	conn net.Conn // the TLS connection after STARTTLS
	text *textproto.Conn
	mail Mail
}

func (s *SMTPHost) serve(c net.Conn, _ string) {
	s.w.mu.Lock()
	s.conns++
	ses := &session{host: s, how: s.how, conn: c, text: textproto.NewConn(c)}
	s.w.mu.Unlock()
	if !ses.greet() {
		return
	}
	for {
		line, err := ses.text.ReadLine()
		if err != nil {
			return
		}
		verb, arg, _ := strings.Cut(line, " ")
		if ses.command(strings.ToUpper(verb), arg) != nil {
			return
		}
	}
}

// greet sends the greeting and reports whether the dialogue goes on.
func (s *session) greet() bool {
	switch {
	case s.how.Stall == BeforeGreeting:
		stall(s.conn)
		return false
	case s.how.Endless:
		for s.say("220-%s", strings.Repeat("x", 70)) == nil {
		}
		return false
	case s.how.LongLine:
		return s.say("220 %s", strings.Repeat("x", 64<<10)) == nil
	case s.how.Drip > 0:
		for _, b := range []byte("220 " + strings.Repeat("x", 1<<20)) {
			if !s.host.w.sleep(s.how.Drip) {
				return false
			}
			if _, err := s.conn.Write([]byte{b}); err != nil {
				return false
			}
		}
	case s.how.Greeting != "":
		return s.say("%s", s.how.Greeting) == nil
	}
	return s.say("220 %s ESMTP", s.host.name) == nil
}

func (s *session) say(format string, args ...any) error { return s.text.PrintfLine(format, args...) }

// command answers one command (5321 §4.1); an error ends the connection.
func (s *session) command(verb, arg string) error {
	switch verb {
	case "EHLO":
		s.reset()
		switch {
		case s.how.Stall == BeforeEHLO:
			stall(s.conn)
			return net.ErrClosed
		case s.how.EHLO != "" && s.mail.TLS == 0:
			return s.say("%s", s.how.EHLO)
		case s.mail.TLS != 0 || s.how.NoSTARTTLS:
			return s.say("250 %s", s.host.name)
		}
		return s.say("250-%s\r\n250 STARTTLS", s.host.name)
	case "HELO", "RSET":
		s.reset()
	case "STARTTLS":
		return s.startTLS()
	case "MAIL":
		s.mail.From = path(arg)
	case "RCPT":
		s.mail.To = append(s.mail.To, path(arg))
	case "DATA":
		return s.data()
	case "NOOP":
	case "QUIT":
		return s.quit()
	default:
		return s.say("502 5.5.1 not implemented")
	}
	return s.say("250 2.0.0 ok")
}

// quit says good-bye and reads on until the client has hung up, because a TLS
// client writes a last alert.
func (s *session) quit() error {
	if err := s.say("221 2.0.0 bye"); err != nil {
		return err
	}
	if tc, ok := s.conn.(*tls.Conn); ok {
		tc.CloseWrite()
		stall(tc)
	}
	return net.ErrClosed
}

// startTLS goes on over TLS, with all that was said before forgotten (3207 §4.2).
func (s *session) startTLS() error {
	if s.mail.TLS != 0 || s.how.NoSTARTTLS {
		return s.say("502 5.5.1 not implemented")
	}
	if s.how.STARTTLS != "" {
		return s.say("%s", s.how.STARTTLS)
	}
	if err := s.say("220 2.0.0 go ahead"); err != nil {
		return err
	}
	switch {
	case s.how.Stall == BeforeTLS:
		stall(s.conn)
		return net.ErrClosed
	case s.how.Garbage:
		return s.say("%s", strings.Repeat("no TLS ", 10))
	}
	tc := tls.Server(s.conn, s.tlsConfig())
	if err := tc.Handshake(); err != nil {
		return err
	}
	s.conn, s.text = tc, textproto.NewConn(tc)
	state := tc.ConnectionState()
	s.mail = Mail{TLS: state.Version, SNI: state.ServerName}
	return nil
}

func (s *session) data() error {
	if s.mail.From == "" || len(s.mail.To) == 0 {
		return s.say("503 5.5.1 MAIL and RCPT first")
	}
	if err := s.say("354 go ahead"); err != nil {
		return err
	}
	body, err := s.text.ReadDotBytes()
	if err != nil {
		return err
	}
	s.mail.Size = len(body)
	s.host.w.mu.Lock()
	s.host.mail = append(s.host.mail, s.mail)
	s.host.w.mu.Unlock()
	s.reset()
	return s.say("250 2.0.0 taken")
}

// reset forgets the envelope but not the connection.
func (s *session) reset() { s.mail = Mail{TLS: s.mail.TLS, SNI: s.mail.SNI} }

// path returns the address in "FROM:<a@example.test> SIZE=1", brackets
// included, so that the null sender is not empty.
func path(arg string) string {
	_, rest, _ := strings.Cut(arg, ":")
	addr, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
	return addr
}
