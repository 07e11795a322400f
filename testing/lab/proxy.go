package lab

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"

	"github.com/miekg/dns"
)

// ListenProxy serves an HTTP proxy on a real address ("127.0.0.1:0") until
// Close. CONNECT (RFC 9110 §9.3.6) leads to the hosts of the world, by address
// or by name, so that a daemon with fetch.proxy reaches policy hosts on port
// 443 without root and without a network.
func (w *World) ListenProxy(address string) (netip.AddrPort, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if !w.hold(l) {
		l.Close()
		return netip.AddrPort{}, net.ErrClosed
	}
	w.accept(l, service{serve: w.proxy})
	return l.Addr().(*net.TCPAddr).AddrPort(), nil
}

// proxy handles one connection: one CONNECT, then bytes both ways.
func (w *World) proxy(c net.Conn, _ string) {
	br := bufio.NewReader(c)
	req, err := http.ReadRequest(br)
	if err != nil {
		return
	}
	if req.Method != http.MethodConnect {
		io.WriteString(c, "HTTP/1.1 405 Method Not Allowed\r\nAllow: CONNECT\r\nContent-Length: 0\r\n\r\n")
		return
	}
	up, err := w.Dial(context.Background(), "tcp", w.address(req.Host))
	if err != nil {
		io.WriteString(c, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
		return
	}
	defer up.Close()
	if _, err := io.WriteString(c, "HTTP/1.1 200 Connection Established\r\n\r\n"); err != nil {
		return
	}
	back := make(chan struct{})
	if !w.spawn(func() {
		defer close(back)
		io.Copy(c, up)
		c.Close() // the host has hung up: end the other direction too
	}) {
		return
	}
	io.Copy(up, br)
	up.Close()
	<-back
}

// address replaces a host name with the first address it has in the world.
func (w *World) address(hostport string) string {
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		return hostport
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	var m dns.Msg
	w.resolve(&m, canonical(host), dns.TypeA)
	for _, rr := range m.Answer {
		if a, ok := rr.(*dns.A); ok {
			return net.JoinHostPort(a.A.String(), port)
		}
	}
	return hostport
}
