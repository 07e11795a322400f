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

// Sizes of a connection's buffers, in bytes. Ten thousand idle connections must
// not cost much, so what each of them keeps matters.
const (
	firstReadBuffer = 512            // holds any request for a real next hop
	keptReadBuffer  = 4096           // what a client that pipelines makes a connection keep
	fullReadBuffer  = MaxRequest + 7 // the longest request with its "16384:" and ","
	writeBuffer     = 4096           // replies collected before a write
	largeReply      = writeBuffer - 7
)

// maxStack is how much of a panicking handler's stack is logged, in bytes.
const maxStack = 4 << 10

// Values of conn.state other than the time since when it is idle, and other
// than halfSent.
const (
	busy = int64(0)  // a request is in flight
	gone = int64(-1) // closed for room or by Shutdown
)

// halfSent is the state of a connection that has had part of a request, and
// waits for the rest, since then. It is no request in flight: Postfix writes a
// request in one piece.
func halfSent(since time.Duration) int64 { return gone - int64(since) }

// spareSince returns since when a connection in this state is without a
// complete request, and whether it is.
func spareSince(state int64) (since int64, ok bool) {
	if state < gone {
		return gone - state, true
	}
	return state, state > 0
}

// errHalfSent is the end of a connection whose client did not finish a request.
var errHalfSent = errors.New("half-sent request")

// errGone is the end of a connection that was closed while idle.
var errGone = errors.New("closed while idle")

// conn is one connection. Everything but state belongs to its goroutine.
type conn struct {
	srv   *Server
	nc    net.Conn
	crowd *crowd // of its peer; for limit.go

	// state is busy, gone, or since when the connection is idle or its request
	// half-sent, in nanoseconds since the server's epoch. Whoever changes it
	// from these owns what happens next: the connection's goroutine answers,
	// anybody else closes it. So no request that has been read is ever dropped
	// for room.
	state atomic.Int64

	// fresh is true until the first request begins to arrive.
	fresh atomic.Bool

	buf        []byte // bytes read; r to w are still to be parsed
	r, w       int
	out        []byte             // replies still to be written, at most writeBuffer bytes
	raw        syscall.RawConn    // nil: not a socket
	try        func(uintptr) bool // tryRead; it leaves the result in got and gotErr
	spare      int64              // the state it begins with
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
	if sc, ok := nc.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			c.raw, c.try = raw, c.tryRead
		}
	}
	return c
}

// run serves the connection until it ends.
func (c *conn) run() {
	defer c.srv.forget(c)
	defer c.nc.Close()
	err := c.serve()
	if errors.Is(err, ErrMalformed) || errors.Is(err, errHalfSent) {
		c.srv.malformed.Add(1)
		c.srv.tellMalformed.say(c.srv.Log, slog.LevelWarn, "closed a connection",
			slog.Any("reason", err), slog.String("remote", c.nc.RemoteAddr().String()))
	}
}

// serve answers request after request. Replies are held back as long as a
// further request is already here in full, and always written before waiting.
func (c *conn) serve() error {
	for {
		payload, size, err := cutNetstring(c.buf[c.r:c.w], MaxRequest)
		switch {
		case err != nil:
			_ = c.flush() // what was asked before is answered; the connection ends in any case
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
	if err := c.read.keep(idle, or(c.srv.IdleTimeout, DefaultIdleTimeout)); err != nil {
		return err
	}
	c.offer(int64(idle))
	if c.srv.stopping.Load() && !c.lastChance() {
		return errGone
	}
	n, err := c.readSpare(int64(idle))
	if n > 0 && c.fresh.Load() {
		c.fresh.Store(false)
	}
	return c.took(n, err)
}

// offer makes the connection one that may be closed for room.
func (c *conn) offer(state int64) {
	c.state.Store(state)
	if c.srv.waiters.Load() > 0 {
		c.srv.wake()
	}
}

// readSpare reads on where the connection may be closed for room meanwhile, and
// makes it busy. From a socket bytes are taken only once the connection is ours:
// taken a moment before, they would be lost if it were closed in between.
func (c *conn) readSpare(state int64) (int, error) {
	if c.raw == nil {
		n, err := c.nc.Read(c.buf[c.w:])
		if !c.state.CompareAndSwap(state, busy) {
			return 0, errGone
		}
		return n, err
	}
	c.spare = state
	if err := c.raw.Read(c.try); err != nil {
		if !c.state.CompareAndSwap(state, busy) {
			return 0, errGone
		}
		return 0, err
	}
	return c.got, c.gotErr
}

// tryRead is called by the runtime when the socket may have something to read.
// It returns false to be called again. The runtime holds the connection open
// meanwhile, so whoever closes it waits for us: no lock may be taken here.
func (c *conn) tryRead(fd uintptr) bool {
	if !c.state.CompareAndSwap(c.spare, busy) {
		c.got, c.gotErr = 0, errGone
		return true
	}
	n, err := syscall.Read(int(fd), c.buf[c.w:])
	for err == syscall.EINTR {
		n, err = syscall.Read(int(fd), c.buf[c.w:])
	}
	if err == syscall.EAGAIN {
		c.state.Store(c.spare)
		if c.srv.waiters.Load() > 0 {
			go c.srv.wake() // it may have looked while we were busy with nothing
		}
		half := c.spare < gone // may be completed while the server stops
		if half || !c.srv.stopping.Load() || c.lastChance() {
			return false
		}
		n, err = 0, errGone
	}
	c.got, c.gotErr = max(n, 0), err
	if n == 0 && err == nil {
		c.gotErr = io.EOF
	}
	return true
}

// fill reads on where part of a request is here already.
func (c *conn) fill() error {
	now, limit := c.srv.now(), or(c.srv.RequestTimeout, DefaultRequestTimeout)
	if c.half == 0 {
		// Counted from here and not from the read: a slow answer to the
		// request before must not use up this one's time.
		c.half = now + limit
		if err := c.read.in(now, limit); err != nil {
			return err
		}
	}
	c.w = copy(c.buf, c.buf[c.r:c.w])
	c.r = 0
	c.grow()
	state := halfSent(c.half - limit)
	c.offer(state)
	n, err := c.readSpare(state)
	if n == 0 && errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("%w: incomplete after %v, begins with %q", errHalfSent, limit, head(c.buf[:c.w]))
	}
	return c.took(n, err)
}

// took notes n bytes read. A read that brought bytes is no failure yet: if the
// connection is broken, the next one says so.
func (c *conn) took(n int, err error) error {
	c.w += n
	if n > 0 {
		return nil
	}
	return err
}

// grow makes room in the read buffer when it is full. serve has refused what
// does not fit in the last step already.
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

// answer gives the reply payload to a request payload.
func (c *conn) answer(request []byte) []byte {
	name, key, ok := cutRequest(request)
	if !ok {
		return []byte(`PERM request is not "NAME KEY"`)
	}
	reply := c.lookup(name, key)
	if len(reply) > MaxReply {
		c.srv.tellReply.say(c.srv.Log, slog.LevelError, "reply is too long for Postfix", slog.Int("bytes", len(reply)))
		return fmt.Appendf(nil, "TEMP reply of %d bytes is longer than Postfix takes", len(reply))
	}
	return reply
}

// lookup asks the handler. A panic there costs this one answer.
func (c *conn) lookup(name, key []byte) (reply []byte) {
	defer func() {
		if p := recover(); p != nil {
			c.srv.panics.Add(1)
			stack := debug.Stack()
			c.srv.tellPanic.say(c.srv.Log, slog.LevelError, "lookup panicked",
				slog.String("panic", fmt.Sprintf("%.200q", fmt.Sprint(p))),
				slog.String("stack", string(stack[:min(len(stack), maxStack)])))
			reply = []byte("TEMP internal error")
		}
	}()
	return c.srv.Handler.Lookup(c.srv.ctx, name, key)
}

// reply puts a reply where the next flush finds it. One that is larger than the
// buffer goes out from the handler's slice, without a copy.
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

// flush writes the replies collected so far.
func (c *conn) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	err := c.write(c.out)
	c.out = c.out[:0]
	return err
}

func (c *conn) write(b []byte) error {
	if err := c.sent.keep(c.srv.now(), or(c.srv.WriteTimeout, DefaultWriteTimeout)); err != nil {
		return err
	}
	_, err := c.nc.Write(b)
	return err
}

// closeIf closes the connection if it is still in that state, idle or half-sent,
// and nothing waits unread in its socket. The caller is not the connection's own
// goroutine.
func (c *conn) closeIf(state int64) bool {
	if _, spare := spareSince(state); !spare || hasUnread(c.nc) || !c.state.CompareAndSwap(state, gone) {
		return false
	}
	c.nc.Close()
	return true
}

// lastChance gives a connection that has brought no request yet a moment to do
// so while the server stops: its client may have come here because another
// connection was closed under it, and does not come a third time. It reports
// whether there is such a moment. It may be called by any goroutine.
func (c *conn) lastChance() bool {
	return c.fresh.Load() && c.nc.SetReadDeadline(time.Now().Add(stopGrace)) == nil
}

// deadline is a read or a write deadline of a connection. Setting one costs a
// timer and a lock in the runtime, so it is set a quarter further ahead than
// asked for and then left alone until that quarter is used up: a busy
// connection sets it once in a while and not once a request.
type deadline struct {
	set func(time.Time) error
	at  time.Duration // since the server's epoch
}

// keep sees to it that the deadline is at least limit away.
func (d *deadline) keep(now, limit time.Duration) error {
	if d.at-now >= limit && d.at-now <= limit+limit/4 {
		return nil
	}
	return d.in(now, limit+limit/4)
}

// in sets the deadline to exactly limit from now.
func (d *deadline) in(now, limit time.Duration) error {
	d.at = now + limit
	return d.set(time.Now().Add(limit))
}
