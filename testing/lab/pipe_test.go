package lab

import (
	"net"
	"testing"

	"golang.org/x/net/nettest"
)

// The in-memory connection keeps every promise that net.Conn makes:
// deadlines, concurrent use, errors after Close.
func TestPipeIsAConn(t *testing.T) {
	nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
		a, b := newPipe(&net.TCPAddr{}, &net.TCPAddr{})
		return a, b, func() { a.Close(); b.Close() }, nil
	})
}
