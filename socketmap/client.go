package socketmap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"
)

// What Postfix's client does (socketmap_table(5)).
const (
	clientTimeout = 100 * time.Second // to connect, and to send a request and get its reply
	clientMaxIdle = 10 * time.Second  // a connection idle for longer is not used again
	clientMaxAge  = 100 * time.Second // nor is one older than this
)

// Status is the first word of a reply; the package comment says what Postfix does
// with each.
type Status string

// The statuses of socketmap_table(5).
const (
	OK       Status = "OK"
	NotFound Status = "NOTFOUND"
	Temp     Status = "TEMP"
	Timeout  Status = "TIMEOUT"
	Perm     Status = "PERM"
)

// Reply is a server's answer.
type Reply struct {
	Status Status
	Value  string // the value or the reason, unchanged
}

// String returns the reply payload as it was received.
func (r Reply) String() string { return string(r.Status) + " " + r.Value }

// Client queries a socketmap server as Postfix does: it sends one request at a
// time, keeps the connection for the next one, and when the server has closed the
// connection it connects and asks once more. It is safe for concurrent use; calls
// wait for each other.
type Client struct {
	address string
	dial    func(context.Context) (net.Conn, error)

	busy   chan struct{} // holds a token while a call uses the fields below
	nc     net.Conn      // nil: not connected
	buf    []byte        // for replies
	opened time.Time
	used   time.Time
}

// NewClient returns a client for the server at an address of the form that
// ParseAddress accepts. It connects at the first lookup.
func NewClient(address string) (*Client, error) {
	network, addr, err := ParseAddress(address)
	if err != nil {
		return nil, err
	}
	dialer := &net.Dialer{Timeout: clientTimeout}
	return NewClientFunc(address, func(ctx context.Context) (net.Conn, error) {
		return dialer.DialContext(ctx, network, addr)
	}), nil
}

// NewClientFunc returns a client that connects by calling dial. address appears in
// errors only.
func NewClientFunc(address string, dial func(context.Context) (net.Conn, error)) *Client {
	return &Client{address: address, dial: dial, busy: make(chan struct{}, 1)}
}

// Lookup asks for key in the map called name. It waits at most 100 s for the
// connection and as long for the reply, or until ctx ends. TEMP, TIMEOUT and PERM
// are replies and not errors; an error means that no reply arrived, or one that
// Postfix would not understand.
func (c *Client) Lookup(ctx context.Context, name, key string) (Reply, error) {
	if strings.ContainsRune(name, ' ') {
		return Reply{}, fmt.Errorf("socketmap name %.100q: no spaces allowed", name)
	}
	if len(name)+len(" ")+len(key) > MaxRequest {
		return Reply{}, fmt.Errorf("socketmap request is longer than %d bytes", MaxRequest)
	}
	request := AppendNetstring(nil, []byte(name+" "+key))

	select {
	case c.busy <- struct{}{}:
		defer func() { <-c.busy }()
	case <-ctx.Done():
		return Reply{}, ctx.Err()
	}
	payload, err := c.exchange(ctx, request)
	if closedByServer(err) && ctx.Err() == nil {
		payload, err = c.exchange(ctx, request)
	}
	if err != nil {
		return Reply{}, fmt.Errorf("socketmap lookup at %s: %w", c.address, err)
	}
	return parseReply(payload)
}

// Close closes the connection after a lookup in progress. The client may be used
// again.
func (c *Client) Close() {
	c.busy <- struct{}{}
	defer func() { <-c.busy }()
	c.drop()
}

// exchange sends a request and returns the payload of the reply, which is valid
// until the next exchange. The connection is kept only after a complete reply.
func (c *Client) exchange(ctx context.Context, request []byte) (payload []byte, err error) {
	if err := c.connect(ctx); err != nil {
		return nil, fmt.Errorf("%w: %w", errConnect, err)
	}
	defer func() {
		if err != nil {
			c.drop()
		}
	}()
	end := time.Now().Add(clientTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(end) {
		end = d
	}
	if err := c.nc.SetDeadline(end); err != nil {
		return nil, err
	}
	nc := c.nc
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
	defer func() {
		if !stop() { // the deadline may change at any time from now on
			c.drop()
			if err != nil {
				err = ctx.Err()
			}
		}
	}()
	if _, err := c.nc.Write(request); err != nil {
		return nil, err
	}
	return c.receive()
}

// receive reads one reply.
func (c *Client) receive() ([]byte, error) {
	if c.buf == nil {
		c.buf = make([]byte, 4096)
	}
	for n := 0; ; {
		if n == len(c.buf) {
			// cutNetstring bounds this: a longer reply is an error before it is read
			c.buf = append(c.buf, make([]byte, len(c.buf))...)
		}
		m, err := c.nc.Read(c.buf[n:])
		n += m
		payload, size, malformed := cutNetstring(c.buf[:n], MaxReply)
		switch {
		case malformed != nil:
			return nil, malformed
		case size == n && n > 0:
			c.used = time.Now()
			return payload, nil
		case size > 0:
			return nil, fmt.Errorf("%w: %d bytes after the reply", ErrMalformed, n-size)
		case err != nil:
			return nil, err
		}
	}
}

// connect opens a connection unless there is one that Postfix would still use.
func (c *Client) connect(ctx context.Context) error {
	if c.nc != nil && time.Since(c.used) < clientMaxIdle && time.Since(c.opened) < clientMaxAge {
		return nil
	}
	c.drop()
	nc, err := c.dial(ctx)
	if err != nil {
		return err
	}
	c.nc, c.opened, c.used = nc, time.Now(), time.Now()
	return nil
}

func (c *Client) drop() {
	if c.nc != nil {
		c.nc.Close()
		c.nc = nil
	}
}

// errConnect marks a failure to connect, after which Postfix does not try again.
var errConnect = errors.New("cannot connect")

// closedByServer reports whether the error means that the server has closed the
// connection, the only failure after which Postfix tries again.
func closedByServer(err error) bool {
	if errors.Is(err, errConnect) {
		return false
	}
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// parseReply splits a reply payload at its first space. As in Postfix, the space
// may be missing.
func parseReply(payload []byte) (Reply, error) {
	status, value, _ := bytes.Cut(payload, []byte{' '})
	switch s := Status(status); s {
	case OK, NotFound, Temp, Timeout, Perm:
		return Reply{Status: s, Value: string(value)}, nil
	}
	return Reply{}, fmt.Errorf("socketmap reply begins with %q: want OK, NOTFOUND, TEMP, TIMEOUT or PERM", head(status))
}
