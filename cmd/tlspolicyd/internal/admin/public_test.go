package admin

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tlspolicyd/internal/dnsclient"
	"tlspolicyd/testing/lab"
)

// pipes is a listener whose connections are in memory.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	if c, open := <-p; open {
		return c, nil
	}
	return nil, net.ErrClosed
}

func (p pipes) Close() error   { close(p); return nil }
func (p pipes) Addr() net.Addr { return &net.UnixAddr{Net: "unix"} }

// dial returns a connection to the server behind p, on which text was sent.
func (p pipes) dial(t *testing.T, text string) net.Conn {
	t.Helper()
	ours, theirs := net.Pipe()
	p <- theirs
	if _, err := io.WriteString(ours, text); err != nil {
		t.Fatal(err)
	}
	return ours
}

// statusOf returns the status of the answer that a connection gets, or 0 where it
// is closed without one.
func statusOf(c net.Conn) (status int) {
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0
	}
	resp.Body.Close()
	return resp.StatusCode
}

// bubble runs test in a synctest bubble, where time passes when all is at rest,
// with the server behind two listeners.
func bubble(t *testing.T, names []string, test func(t *testing.T, control, public pipes)) {
	synctest.Test(t, func(t *testing.T) {
		w := lab.New()
		defer w.Close()
		resolver, err := dnsclient.New(dnsclient.Config{Servers: []netip.AddrPort{w.DNSAddr()}, Dial: w.Dial})
		if err != nil {
			t.Fatal(err)
		}
		s := New(Options{
			Metrics: NewMetrics(Build{}), Resolver: func() Resolver { return resolver }, HTTPNames: names,
			Answers: func(context.Context) error { return nil },
		})
		control, public := make(pipes), make(pipes)
		var serving sync.WaitGroup
		serving.Go(func() { _ = s.ServeControl(control) }) // ends with Shutdown
		serving.Go(func() { _ = s.ServePublic(public) })
		test(t, control, public)
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		serving.Wait()
	})
}

// On a busy host a command may connect and then get no processor for a while:
// it is answered all the same. The public address does not wait.
func TestACommandThatIsSlowToAskIsAnswered(t *testing.T) {
	bubble(t, nil, func(t *testing.T, control, public pipes) {
		for _, tt := range []struct {
			l    pipes
			want int
		}{{control, 200}, {public, 0}} {
			c := tt.l.dial(t, "")
			time.Sleep(30 * time.Second)                              // in the bubble
			_, _ = io.WriteString(c, "GET /healthz HTTP/1.0\r\n\r\n") // what comes back counts
			if got := statusOf(c); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
			c.Close()
		}
	})
}

// A client has 5 s to send a request to listen.http, and 5 s for the next one.
func TestAPublicRequestThatIsNotSentIn5sIsDropped(t *testing.T) {
	bubble(t, nil, func(t *testing.T, _, public pipes) {
		for _, text := range []string{
			"", "GET /healthz HTTP/1.1\r\nHost: loc",
			"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
		} {
			began := time.Now()
			c := public.dial(t, text)
			_, _ = io.Copy(io.Discard, c) // until it is closed
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("%q: open for %v", text, took)
			}
			c.Close()
		}
	})
}

// A body is refused before it is read: it would hold the connection.
func TestPublicRequestsHaveNoBody(t *testing.T) {
	for _, header := range []string{"Content-Length: 10", "Transfer-Encoding: chunked"} {
		bubble(t, nil, func(t *testing.T, _, public pipes) {
			began := time.Now()
			var slow []net.Conn
			for range maxClients {
				slow = append(slow, public.dial(t, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n"+header+"\r\n\r\n"))
			}
			c := public.dial(t, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
			if got := statusOf(c); got != http.StatusOK {
				t.Errorf("%s: another client gets %d", header, got)
			}
			c.Close()
			for _, c := range slow[1:] { // the first one was closed at the limit
				if got := statusOf(c); got != http.StatusRequestEntityTooLarge {
					t.Fatalf("%s: got %d", header, got)
				}
				_, _ = io.Copy(io.Discard, c) // until it is closed
				c.Close()
			}
			if took := time.Since(began); took > 0 {
				t.Errorf("%s: took %v", header, took)
			}
		})
	}
}

// At the limit the oldest connection is closed.
func TestTheOldestPublicConnectionIsClosedAtTheLimit(t *testing.T) {
	bubble(t, nil, func(t *testing.T, _, public pipes) {
		began := time.Now()
		var idle []net.Conn
		for range maxClients {
			idle = append(idle, public.dial(t, ""))
		}
		for i := range 3 {
			c := public.dial(t, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
			if got := statusOf(c); got != http.StatusOK {
				t.Errorf("client %d: got %d", i, got)
			}
			c.Close()
			synctest.Wait()
		}
		// The first had to go; the others had room as each client went.
		if got := statusOf(idle[0]); got != 0 {
			t.Errorf("the oldest: got %d", got)
		}
		last := idle[len(idle)-1]
		fmt.Fprint(last, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
		if got := statusOf(last); got != http.StatusOK {
			t.Errorf("the newest: got %d", got)
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("took %v", took)
		}
		for _, c := range idle {
			c.Close()
		}
	})
}

// A web page that has its own name point here reads nothing (DNS rebinding).
func TestAForeignHostNameIsRefused(t *testing.T) {
	bubble(t, []string{"mail.example.test"}, func(t *testing.T, control, public pipes) {
		for host, want := range map[string]int{
			"localhost": 200, "LOCALHOST:9461": 200, "127.0.0.1:9461": 200, "[::1]:9461": 200, "[::1]": 200,
			"192.0.2.1": 200, "mail.example.test": 200, "Mail.Example.Test.:9461": 200,
			"attacker.test": 421, "attacker.test:9461": 421, "mail.example.test.attacker.test": 421,
			"localhost.attacker.test": 421, "127.0.0.1.attacker.test": 421, "mail": 421, "[attacker.test]": 421,
		} {
			for _, path := range []string{"/", "/metrics", "/healthz", "/readyz", "/nothing"} {
				if want == 200 && path != "/healthz" {
					continue // the parts behind the others are not there
				}
				c := public.dial(t, "GET "+path+" HTTP/1.1\r\nHost: "+host+"\r\n\r\n")
				resp, err := http.ReadResponse(bufio.NewReader(c), nil)
				if err != nil {
					t.Fatal(err)
				}
				body, _ := io.ReadAll(resp.Body)
				if resp.StatusCode != want || want == 421 && !strings.Contains(string(body), "listen.http_hosts") {
					t.Errorf("%s at %q: got %d, want %d: %s", path, host, resp.StatusCode, want, body)
				}
				c.Close()
			}
		}
		c := control.dial(t, "GET /healthz HTTP/1.1\r\nHost: anything\r\n\r\n")
		if got := statusOf(c); got != 200 {
			t.Errorf("the control socket answers %d", got)
		}
		c.Close()
	})
}
