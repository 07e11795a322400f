package admin

import (
	"errors"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// guard lets through to h what a monitoring system or a browser has reason to
// send to listen.http: a request without a body, to a name that is this host's.
// A web page can have its own name point here once a browser has loaded it (DNS
// rebinding), and would then read the answers; an address cannot be redirected.
func guard(h http.Handler, names []string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		if r.ContentLength != 0 {
			// net/http would otherwise read the body before it closes.
			_ = control.SetReadDeadline(time.Now())
			w.Header().Set("Connection", "close")
			http.Error(w, "no request here has a body", http.StatusRequestEntityTooLarge)
			return
		}
		if !ownName(r.Host, names) {
			http.Error(w, "unknown host name in the request: add it to listen.http_hosts", http.StatusMisdirectedRequest)
			return
		}
		_ = control.SetReadDeadline(time.Time{}) // the request is complete; the answer has its own time
		h.ServeHTTP(w, r)
	})
}

// ownName reports whether a Host header names this host: an address, localhost,
// or one of names (lower case, no final dot). HTTP/1.0 may leave it out.
func ownName(host string, names []string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return true
	}
	return host == "" || host == "localhost" || slices.Contains(names, host)
}

// NewestFirst returns a listener that holds a limited number of connections: each
// one above closes the oldest, so that no number of them keeps others out.
func NewestFirst(l net.Listener, limit int) net.Listener {
	return &newestFirst{Listener: l, limit: limit}
}

type newestFirst struct {
	net.Listener
	limit int

	mu   sync.Mutex
	open []*limitedConn // the oldest first
}

type limitedConn struct {
	net.Conn
	owner *newestFirst
}

// Accept waits for the next connection.
func (l *newestFirst) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	conn := &limitedConn{c, l}
	l.mu.Lock()
	l.open = append(l.open, conn)
	var oldest *limitedConn
	if len(l.open) > l.limit {
		oldest = l.open[0]
		l.open = slices.Delete(l.open, 0, 1)
	}
	l.mu.Unlock()
	if oldest != nil {
		_ = oldest.Conn.Close() // net/http closes it again
	}
	return conn, nil
}

// Close closes the connection and makes room for another one.
func (c *limitedConn) Close() error {
	c.owner.mu.Lock()
	c.owner.open = slices.DeleteFunc(c.owner.open, func(o *limitedConn) bool { return o == c })
	c.owner.mu.Unlock()
	if err := c.Conn.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
