package socketmap

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
)

// Sizes of a connection's buffers in bytes, small because thousands of connections
// may be idle.
const (
	firstReadBuffer = 512            // holds any request for a real next hop
	keptReadBuffer  = 4096           // kept for a client that pipelines
	fullReadBuffer  = MaxRequest + 7 // the longest request with "16384:" and ","
	writeBuffer     = 4096           // replies collected before a write
	largeReply      = writeBuffer - 7
)

// maxStack bounds the logged stack of a handler that panicked, in bytes.
const maxStack = 4 << 10

// Values of conn.state. A positive value is an idle connection, and since when;
// a value below closed is a half-sent request, see halfSent.
const (
	busy   = int64(0)  // a request is in flight
	closed = int64(-1) // closed for room or by Shutdown
)

// halfSent is the state of a connection that has received part of a request and
// has waited for the rest since then. That is not a request in flight: Postfix
// writes a request in one piece.
func halfSent(since time.Duration) int64 { return closed - int64(since) }

// closableSince returns since when a connection in this state has no complete
// request. ok is false if it has one or is closed.
func closableSince(state int64) (since int64, ok bool) {
	if state < closed {
		return closed - state, true
	}
	return state, state > 0
}

var (
	// errHalfSent ends a connection whose client did not finish a request.
	errHalfSent = errors.New("half-sent request")

	// errClosed ends a connection that was closed for room or by Shutdown.
	errClosed = errors.New("closed while idle")
)

// conn is one connection. Everything but state and fresh belongs to its goroutine.
type conn struct {
	srv    *Server
	nc     net.Conn
	client *client // for limit.go

	// state is busy, closed, or since when the connection is idle or its request
	// half-sent, in nanoseconds since the server's epoch. The goroutine that
	// changes it from these decides what happens next: the connection's own
	// answers, another one closes it. So no request that has been read is ever
	// dropped for room.
	state atomic.Int64

	// fresh is true until the first bytes of the first request.
	fresh atomic.Bool

	buf        []byte // bytes read; r to w are not parsed yet
	r, w       int
	out        []byte             // replies not written yet, at most writeBuffer bytes
	raw        syscall.RawConn    // nil: not a socket
	try        func(uintptr) bool // tryRead, which sets got and gotErr
	from       int64              // state before tryRead
	got        int
	gotErr     error
	half       time.Duration // when the half-sent request must be complete; 0: there is none
	read, sent deadline
}

func newConn(s *Server, nc net.Conn) *conn {
	c := &conn{srv: s, nc: nc, buf: make([]byte, firstReadBuffer)}
	c.read.set, c.sent.set = nc.SetReadDeadline, nc.SetWriteDeadline
	c.state.Store(int64(s.now()))
	c.fresh.Store(true)
	if c.raw = rawConn(nc); c.raw != nil {
		c.try = c.tryRead
	}
	return c
}

// run serves the connection until it ends.
func (c *conn) run() {
	defer c.srv.ended(c)
	defer c.nc.Close()
	err := c.serve()
	if errors.Is(err, ErrMalformed) || errors.Is(err, errHalfSent) {
		c.srv.malformed.Add(1)
		c.srv.malformedLog.log(c.srv.Log, slog.LevelWarn, "closed a connection",
			slog.Any("reason", err), slog.String("remote", c.nc.RemoteAddr().String()))
	}
}

// serve answers request after request. Replies are held back while another
// complete request has been read, and always written before waiting.
func (c *conn) serve() error {
	for {
		payload, size, err := cutNetstring(c.buf[c.r:c.w], MaxRequest)
		switch {
		case err != nil:
			_ = c.flush() // earlier requests are answered; the connection ends in any case
			return err
		case size > 0:
			c.r += size
			c.half = 0
			if err := c.reply(c.answer(payload)); err != nil {
				return err
			}
			continue
		}
		if err := c.flush(); err != nil {
			return err
		}
		if c.r == c.w {
			err = c.await()
		} else {
			err = c.fill()
		}
		if err != nil {
			return err
		}
	}
}

// await waits for the first bytes of the next request.
func (c *conn) await() error {
	c.r, c.w = 0, 0
	if len(c.buf) > keptReadBuffer {
		c.buf = make([]byte, firstReadBuffer)
	}
	idle := c.srv.now()
	if err := c.read.extend(idle, or(c.srv.IdleTimeout, DefaultIdleTimeout)); err != nil {
		return err
	}
	c.setClosable(int64(idle))
	var n int
	var err error
	if c.srv.stopping.Load() && !c.extendFirstRequest() {
		n, err = c.readLast(int64(idle), errClosed)
	} else {
		n, err = c.readClosable(int64(idle))
	}
	if n > 0 && c.fresh.Load() {
		c.fresh.Store(false)
	}
	return c.received(n, err)
}

// setClosable allows other goroutines to close the connection for room.
func (c *conn) setClosable(state int64) {
	c.state.Store(state)
	if c.srv.waiting.Load() > 0 {
		c.srv.wake()
	}
}

// readClosable reads while the connection may be closed for room, and makes it
// busy. From a socket it takes bytes only once the connection is busy: bytes taken
// before would be lost if it were closed then.
func (c *conn) readClosable(state int64) (int, error) {
	if c.raw == nil {
		n, err := c.nc.Read(c.buf[c.w:])
		if !c.state.CompareAndSwap(state, busy) {
			return 0, errClosed
		}
		return n, err
	}
	c.from = state
	if err := c.raw.Read(c.try); err != nil {
		return c.readLast(state, err)
	}
	return c.got, c.gotErr
}

// tryRead is called by the runtime when the socket may have something to read.
// It returns false to be called again. The runtime keeps the connection open
// meanwhile, and a goroutine that closes it waits: no lock may be taken here.
func (c *conn) tryRead(fd uintptr) bool {
	if !c.state.CompareAndSwap(c.from, busy) {
		c.got, c.gotErr = 0, errClosed
		return true
	}
	n, err := readNow(fd, c.buf[c.w:])
	if err == syscall.EAGAIN {
		c.state.Store(c.from)
		if c.srv.waiting.Load() > 0 {
			go c.srv.wake() // it may have examined this connection while it was busy
		}
		half := c.from < closed // may be completed while the server stops
		if half || !c.srv.stopping.Load() || c.extendFirstRequest() {
			return false
		}
		n, err = 0, errClosed
	}
	c.got, c.gotErr = max(n, 0), err
	if n == 0 && err == nil {
		c.gotErr = io.EOF
	}
	return true
}

// readLast makes the connection busy and reads what has already arrived, whatever
// the deadline: closing a connection with an unread request would use up the retry
// of its client. The error is that of a connection without unread bytes.
func (c *conn) readLast(state int64, err error) (n int, _ error) {
	if !c.state.CompareAndSwap(state, busy) {
		return 0, errClosed
	}
	if c.raw != nil {
		_ = c.raw.Control(func(fd uintptr) { n, _ = readNow(fd, c.buf[c.w:]) })
	}
	if n > 0 {
		return n, nil
	}
	return 0, err
}

// fill reads more of a request whose first part has been read.
func (c *conn) fill() error {
	now, limit := c.srv.now(), or(c.srv.RequestTimeout, DefaultRequestTimeout)
	if c.half == 0 {
		// Counted from now and not from the read: a slow answer to the previous
		// request must not use up the time of this one.
		c.half = now + limit
		if err := c.read.setIn(now, limit); err != nil {
			return err
		}
	}
	c.w = copy(c.buf, c.buf[c.r:c.w])
	c.r = 0
	c.grow()
	state := halfSent(c.half - limit)
	c.setClosable(state)
	n, err := c.readClosable(state)
	if n == 0 && errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("%w: incomplete after %v, begins with %q", errHalfSent, limit, head(c.buf[:c.w]))
	}
	return c.received(n, err)
}

// received counts n bytes as read. The error of a read that returned bytes is
// dropped: if the connection is broken, the next read returns it.
func (c *conn) received(n int, err error) error {
	c.w += n
	if n > 0 {
		return nil
	}
	return err
}

// grow enlarges the read buffer when it is full. serve refuses a request that
// does not fit in the last size.
func (c *conn) grow() {
	if c.w < len(c.buf) {
		return
	}
	size := keptReadBuffer
	if c.w >= keptReadBuffer {
		size = fullReadBuffer
	}
	larger := make([]byte, size)
	copy(larger, c.buf[:c.w])
	c.buf = larger
}

// answer returns the reply payload for a request payload.
func (c *conn) answer(request []byte) []byte {
	name, key, ok := cutRequest(request)
	if !ok {
		return []byte(`PERM request is not "NAME KEY"`)
	}
	reply := c.lookup(name, key)
	if len(reply) > MaxReply {
		c.srv.replyLog.log(c.srv.Log, slog.LevelError, "reply is too long for Postfix", slog.Int("bytes", len(reply)))
		return fmt.Appendf(nil, "TEMP reply of %d bytes is longer than Postfix takes", len(reply))
	}
	return reply
}

// lookup calls the handler. A panic there costs this one answer.
func (c *conn) lookup(name, key []byte) (reply []byte) {
	defer func() {
		if p := recover(); p != nil {
			c.srv.panics.Add(1)
			stack := debug.Stack()
			c.srv.panicLog.log(c.srv.Log, slog.LevelError, "lookup panicked",
				slog.String("panic", fmt.Sprintf("%.200q", fmt.Sprint(p))),
				slog.String("stack", string(stack[:min(len(stack), maxStack)])))
			reply = []byte("TEMP internal error")
		}
	}()
	ctx := c.srv.ctx
	if c.client != nil {
		ctx = c.client.ctx
	}
	return c.srv.Handler.Lookup(ctx, name, key)
}

// reply buffers a reply for the next flush. One that is larger than the buffer is
// written from the handler's slice, without a copy.
func (c *conn) reply(payload []byte) error {
	if len(c.out)+netstringSize(len(payload)) > writeBuffer {
		if err := c.flush(); err != nil {
			return err
		}
	}
	if len(payload) <= largeReply {
		c.out = AppendNetstring(c.out, payload)
		return nil
	}
	c.out = append(strconv.AppendInt(c.out, int64(len(payload)), 10), ':')
	if err := c.flush(); err != nil {
		return err
	}
	if err := c.write(payload); err != nil {
		return err
	}
	c.out = append(c.out, ',')
	return nil
}

// flush writes the buffered replies.
func (c *conn) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	err := c.write(c.out)
	c.out = c.out[:0]
	return err
}

func (c *conn) write(b []byte) error {
	if err := c.sent.extend(c.srv.now(), or(c.srv.WriteTimeout, DefaultWriteTimeout)); err != nil {
		return err
	}
	_, err := c.nc.Write(b)
	return err
}

// closeIf closes the connection if it is still in that state, idle or half-sent,
// and has no unread bytes. It is for other goroutines than the connection's own.
func (c *conn) closeIf(state int64) bool {
	if _, ok := closableSince(state); !ok || c.hasUnread() || !c.state.CompareAndSwap(state, closed) {
		return false
	}
	c.nc.Close()
	return true
}

// extendFirstRequest gives a connection that has had no request yet time to send
// one while the server stops, and reports whether it did. Any goroutine may call
// it.
func (c *conn) extendFirstRequest() bool {
	return c.fresh.Load() && c.nc.SetReadDeadline(time.Now().Add(firstRequestGrace)) == nil
}
