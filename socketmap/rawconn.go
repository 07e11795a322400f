package socketmap

import (
	"net"
	"syscall"
)

// rawConn returns the socket under a connection, nil if there is none.
func rawConn(nc net.Conn) syscall.RawConn {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

// readNow reads from a non-blocking socket; EAGAIN means that nothing has arrived.
func readNow(fd uintptr, b []byte) (n int, err error) {
	for {
		if n, err = syscall.Read(int(fd), b); err != syscall.EINTR {
			return n, err
		}
	}
}

// hasUnread reports whether bytes have arrived on the connection's socket that
// have not been read. Of a connection that is not a socket it reports false.
func (c *conn) hasUnread() bool {
	if c.raw == nil {
		return false
	}
	unread := false
	_ = c.raw.Control(func(fd uintptr) {
		var b [1]byte
		n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		unread = err == nil && n > 0
	})
	return unread
}
