package lab

import (
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// window is how many bytes a connection takes before a write waits for the
// reader, as a socket's buffer does.
const window = 64 << 10

// conn is one end of an in-memory connection with buffers and deadlines.
type conn struct {
	in, out       *stream
	local, remote net.Addr
	read          *atomic.Int64 // bytes read from this end; nil: not counted
}

// newPipe returns the two ends of a connection.
func newPipe(client, server net.Addr) (*conn, *conn) {
	up, down := newStream(), newStream()
	return &conn{in: down, out: up, local: client, remote: server},
		&conn{in: up, out: down, local: server, remote: client}
}

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.in.read(b)
	if c.read != nil {
		c.read.Add(int64(n))
	}
	return n, err
}

func (c *conn) Write(b []byte) (int, error) { return c.out.write(b) }
func (c *conn) LocalAddr() net.Addr         { return c.local }
func (c *conn) RemoteAddr() net.Addr        { return c.remote }

// Close ends both directions: the peer still reads what was written before.
func (c *conn) Close() error {
	c.in.closeReader()
	c.out.closeWriter()
	return nil
}

func (c *conn) SetDeadline(t time.Time) error {
	c.in.setDeadline(&c.in.readBy, t)
	c.out.setDeadline(&c.out.writeBy, t)
	return nil
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.in.setDeadline(&c.in.readBy, t)
	return nil
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.out.setDeadline(&c.out.writeBy, t)
	return nil
}

// stream is one direction of a connection. Waiting is on a sync.Cond alone,
// which testing/synctest counts as durably blocked.
type stream struct {
	mu              sync.Mutex
	changed         sync.Cond
	buf             []byte
	noReader        bool // the reading end is closed
	noWriter        bool // the writing end is closed: what is left is read, then EOF
	readBy, writeBy deadline
}

// deadline is over when a timer said so; setting a new one makes older timers
// count for nothing.
type deadline struct {
	timer *time.Timer
	over  bool
	set   int
}

func newStream() *stream {
	s := &stream{}
	s.changed.L = &s.mu
	return s
}

func (s *stream) read(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.noReader:
			return 0, net.ErrClosed
		case s.readBy.over:
			return 0, os.ErrDeadlineExceeded
		case len(s.buf) > 0:
			n := copy(b, s.buf)
			s.buf = s.buf[n:]
			s.changed.Broadcast()
			return n, nil
		case s.noWriter:
			return 0, io.EOF
		case len(b) == 0:
			return 0, nil
		}
		s.changed.Wait()
	}
}

func (s *stream) write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	written := 0
	for {
		switch {
		case s.noWriter:
			return written, net.ErrClosed
		case s.writeBy.over:
			return written, os.ErrDeadlineExceeded
		case s.noReader:
			return written, syscall.EPIPE
		}
		if n := min(window-len(s.buf), len(b)-written); n > 0 {
			s.buf = append(s.buf, b[written:written+n]...)
			written += n
			s.changed.Broadcast()
		}
		if written == len(b) {
			return written, nil
		}
		s.changed.Wait()
	}
}

func (s *stream) closeReader() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noReader = true
	s.buf = nil
	s.readBy.clear()
	s.changed.Broadcast()
}

func (s *stream) closeWriter() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noWriter = true
	s.writeBy.clear()
	s.changed.Broadcast()
}

func (s *stream) setDeadline(d *deadline, t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d.clear()
	if t.IsZero() || s.noReader && s.noWriter {
		return
	}
	wait := time.Until(t)
	if wait <= 0 {
		d.over = true
		s.changed.Broadcast()
		return
	}
	mine := d.set
	d.timer = time.AfterFunc(wait, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if d.set == mine {
			d.over = true
			s.changed.Broadcast()
		}
	})
}

func (d *deadline) clear() {
	d.set++
	d.over = false
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
}
