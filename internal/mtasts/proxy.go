package mtasts

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"tlspolicyd/internal/printable"
)

const maxProxyHeader = 16 << 10 // bytes of the answer to CONNECT

// proxyError: the proxy did not open the tunnel. It says nothing about the policy host.
type proxyError struct{ reason string }

func (e *proxyError) Error() string { return "proxy: " + e.reason }

// dialProxy asks the proxy for a tunnel to an address (9110 §9.3.6). The proxy
// gets the address that was checked, not the name, which it would look up itself
// and for which it could find another address.
func (f *Fetcher) dialProxy(ctx context.Context, addr string) (net.Conn, error) {
	if f.Proxy.Scheme != "http" {
		return nil, &proxyError{fmt.Sprintf("scheme %s: want http", quote(f.Proxy.Scheme))}
	}
	port := f.Proxy.Port()
	if port == "" {
		port = "80"
	}
	conn, err := f.dialTCP(ctx, net.JoinHostPort(f.Proxy.Hostname(), port))
	if err != nil {
		return nil, &proxyError{"connection: " + dialReason(err)}
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	err = openTunnel(conn, addr, f.Proxy.User)
	if !stop() && err == nil {
		err = ctx.Err() // the deadline is set or about to be: the tunnel is of no use
	}
	if err != nil {
		conn.Close()
		return nil, &proxyError{printable.Line(err.Error(), maxReason)}
	}
	return conn, nil
}

// openTunnel sends CONNECT and reads the answer to it.
func openTunnel(conn net.Conn, addr string, user *url.Userinfo) error {
	req := &http.Request{
		Method: http.MethodConnect,
		URL:    &url.URL{Opaque: addr},
		Host:   addr,
		Header: http.Header{"User-Agent": {userAgent}},
	}
	if user != nil { // 7617 §2
		password, _ := user.Password()
		req.Header.Set("Proxy-Authorization",
			"Basic "+base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password)))
	}
	if err := req.Write(conn); err != nil {
		return err
	}
	r := bufio.NewReader(io.LimitReader(conn, maxProxyHeader))
	resp, err := http.ReadResponse(r, req)
	if err != nil {
		return fmt.Errorf("answer to CONNECT: %w", err)
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("answer to CONNECT: %s", statusLine(resp.StatusCode))
	}
	if r.Buffered() > 0 { // in TLS the client speaks first
		return errors.New("answer to CONNECT: data before the handshake")
	}
	return nil
}
