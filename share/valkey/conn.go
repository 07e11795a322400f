package valkey

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	bufferSize = 4096 // bytes for reading; a connection costs little more
	maxConns   = 12   // to each server, at a time
)

// errBusy means that a command was not sent, and says nothing about the server.
var errBusy = errors.New("all connections to the engine are in use")

// Login is what a connection shows to the engine. A change applies to new
// connections.
type Login struct {
	Username, Password string
	TLS                *tls.Config // nil: without TLS; ServerName is filled in
}

// conn is a connection on which one command at a time is sent.
type conn struct {
	net.Conn
	r     *bufio.Reader
	spent bool // an error left it between two replies
	used  bool // a command was answered on it before

	password string // that no error must show
}

// dial connects and logs in. A Sentinel often has no users: there the password is
// given only where it is asked for.
func dial(ctx context.Context, network, address string, database int, login *Login, sentinel bool) (*conn, error) {
	raw, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if login.TLS != nil {
		cfg := login.TLS.Clone()
		if cfg.ServerName == "" {
			cfg.ServerName, _, _ = net.SplitHostPort(address)
		}
		secure := tls.Client(raw, cfg)
		if err := secure.HandshakeContext(ctx); err != nil {
			_ = raw.Close() // there is an error already
			return nil, err
		}
		raw = secure
	}
	c := &conn{Conn: raw, r: bufio.NewReaderSize(raw, bufferSize), password: login.Password}
	if err := c.logIn(ctx, database, login, sentinel); err != nil {
		_ = c.Close() // there is an error already
		return nil, err
	}
	return c, nil
}

func (c *conn) logIn(ctx context.Context, database int, login *Login, sentinel bool) error {
	auth := []string{"AUTH", login.Password}
	if login.Username != "" {
		auth = []string{"AUTH", login.Username, login.Password}
	}
	if sentinel {
		refused, ok := errors.AsType[serverError](c.must(ctx, "PING"))
		if !ok || refused.code() != "NOAUTH" {
			return nil // what else is wrong shows at the first command
		}
	}
	if login.Password != "" {
		err := c.must(ctx, auth...)
		if refused, ok := errors.AsType[serverError](err); ok { // its text may repeat a part of the password
			code := refused.code()
			if strings.Trim(code, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
				code = "ERR"
			}
			err = serverError{text: code + " in reply to AUTH"}
		}
		if err != nil {
			return err
		}
	}
	if database != 0 && !sentinel {
		return c.must(ctx, "SELECT", strconv.Itoa(database))
	}
	return nil
}

// must sends a command whose reply is of interest only where it is an error.
func (c *conn) must(ctx context.Context, args ...string) error {
	v, err := c.do(ctx, args...)
	if err != nil {
		return err
	}
	return v.err()
}

// do sends a command and reads its reply. Where it fails, the connection is spent.
func (c *conn) do(ctx context.Context, args ...string) (reply, error) {
	deadline, _ := ctx.Deadline()
	err := c.SetDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) }) // one that is closed fails by itself
	if err == nil {
		_, err = c.Write(appendCommand(nil, args...))
	}
	var v reply
	if err == nil {
		v, err = readReply(c.r)
	}
	// A server that says more than it was asked for would have the next command
	// take the wrong reply.
	if err == nil && c.r.Buffered() > 0 {
		err = errProtocol
	}
	c.spent = err != nil
	if !stop() {
		c.spent = true // its deadline may be changed later
	}
	if v.kind == '-' && c.password != "" { // some servers repeat a command that they do not know
		v.text = bytes.ReplaceAll(v.text, []byte(c.password), []byte("..."))
	}
	c.used = c.used || err == nil
	return v, err
}

// pool keeps the connections to one server.
type pool struct {
	dial   func(context.Context) (*conn, error)
	places chan struct{}

	mu   sync.Mutex
	idle []*conn
}

func newPool(dial func(context.Context) (*conn, error)) *pool {
	return &pool{dial: dial, places: make(chan struct{}, maxConns)}
}

// do sends a command on a connection of its own. One that was idle may have been
// closed meanwhile, by a restart of the server: then all that are idle are given
// up, and the command, of which each may be repeated, is sent once more.
func (p *pool) do(ctx context.Context, args ...string) (reply, error) {
	select {
	case p.places <- struct{}{}:
		defer func() { <-p.places }()
	case <-ctx.Done():
		return reply{}, fmt.Errorf("%w: %w", errBusy, ctx.Err())
	}
	c, err := p.take(ctx)
	if err != nil {
		return reply{}, err
	}
	idle := c.used
	v, err := c.do(ctx, args...)
	if p.put(c); err == nil || !idle || ctx.Err() != nil || timedOut(err) || errors.Is(err, errProtocol) {
		return v, err
	}
	p.close()
	if c, err = p.take(ctx); err != nil {
		return reply{}, err
	}
	v, err = c.do(ctx, args...)
	p.put(c)
	return v, err
}

// timedOut reports whether our own deadline is over; one of the kernel means that a
// connection is dead.
func timedOut(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

func (p *pool) take(ctx context.Context) (*conn, error) {
	p.mu.Lock()
	if n := len(p.idle); n > 0 {
		c := p.idle[n-1]
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		return c, nil
	}
	p.mu.Unlock()
	return p.dial(ctx)
}

func (p *pool) put(c *conn) {
	if c.spent {
		_ = c.Close() // nothing was left unsaid
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle = append(p.idle, c)
}

// close closes the idle connections.
func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.idle {
		_ = c.Close() // nothing was left unsaid
	}
	p.idle = nil
}
