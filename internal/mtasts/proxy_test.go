package mtasts

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tlspolicyd/testing/lab"
)

// Over real sockets, through net.Dialer: the proxy is on loopback, which is
// the operator's choice and no concern of the address check.
func TestFetchThroughProxyOnARealSocket(t *testing.T) {
	w := lab.New()
	defer w.Close()
	proxy, err := w.ListenProxy("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := w.PolicyHost(domain, goodFile)
	f := newFetcher(t, w)
	f.Dial = nil
	f.Proxy = &url.URL{Scheme: "http", Host: proxy.String(), User: url.UserPassword("user", "secret")}
	x := fetched(t, f, domain).Exchange
	if x.Connected != netip.AddrPortFrom(h.Addr(), 443) {
		t.Errorf("connected to %v", x.Connected)
	}
	if want := "http://" + proxy.String(); x.Proxy != want {
		t.Errorf("proxy %q, want %q", x.Proxy, want)
	}
}

// The proxy is told the address that was checked, never the name.
func TestFetchThroughProxyConnectsToTheCheckedAddress(t *testing.T) {
	inWorld(t, func(t *testing.T, w *lab.World, f *Fetcher) {
		h := w.PolicyHost(domain, goodFile)
		var mu sync.Mutex
		var seen []*http.Request
		f.Proxy = &url.URL{Scheme: "http", Host: "proxy.test", User: url.UserPassword("user", "se:cret")}
		f.Dial = proxyDial(t, "proxy.test:80", func(conn net.Conn) {
			req, err := http.ReadRequest(bufio.NewReader(conn))
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			seen = append(seen, req)
			mu.Unlock()
			up, err := w.Dial(context.Background(), "tcp", req.Host)
			if err != nil {
				t.Error(err)
				return
			}
			io.WriteString(conn, "HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n")
			go func() {
				defer up.Close()
				io.Copy(up, conn)
			}()
			io.Copy(conn, up)
		})
		fetched(t, f, domain)
		mu.Lock()
		defer mu.Unlock()
		if len(seen) != 1 {
			t.Fatalf("%d requests", len(seen))
		}
		addr := h.Addr().String() + ":443"
		if req := seen[0]; req.Method != "CONNECT" || req.RequestURI != addr || req.Host != addr {
			t.Errorf("%s %s, host %s", req.Method, req.RequestURI, req.Host)
		}
		header := http.Header{"User-Agent": {"tlspolicyd"}, "Proxy-Authorization": {"Basic dXNlcjpzZTpjcmV0"}}
		if diff := cmp.Diff(header, seen[0].Header); diff != "" {
			t.Errorf("header (-want +got):\n%s", diff)
		}
	})
}

// The address rule holds behind a proxy too.
func TestFetchThroughProxyRefusesPrivateAddresses(t *testing.T) {
	inWorld(t, func(t *testing.T, w *lab.World, f *Fetcher) {
		w.Zone(host + ". A 127.0.0.1")
		var d dialed
		f.Dial = d.through(w.Dial)
		f.Proxy = &url.URL{Scheme: "http", Host: "203.0.113.9:3128"}
		failed(t, f, domain, StageAddress)
		if got := d.list(); len(got) != 0 {
			t.Errorf("connected to %v", got)
		}
	})
}

func TestFetchProxyFails(t *testing.T) {
	for _, tc := range []struct {
		name, scheme, answer, reason string
	}{
		{"not allowed", "http", "HTTP/1.1 403 Forbidden\r\n\r\n", "proxy: answer to CONNECT: HTTP status 403 Forbidden"},
		{"password missing", "http", "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n", "HTTP status 407"},
		{"redirect", "http", "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\n\r\n", "HTTP status 302"},
		{"no HTTP", "http", "\x1b[2J SSH-2.0\r\n\r\n", `proxy: answer to CONNECT: malformed HTTP`},
		{"closes", "http", "", "proxy: answer to CONNECT: unexpected EOF"},
		{"endless header", "http", "HTTP/1.1 200 OK\r\n" + strings.Repeat("X: "+strings.Repeat("x", 1000)+"\r\n", 1000), "proxy: answer to CONNECT: unexpected EOF"},
		{"data before the handshake", "http", "HTTP/1.1 200 OK\r\n\r\nhello", "proxy: answer to CONNECT: data before the handshake"},
		{"another kind of proxy", "socks5", "", `proxy: scheme "socks5": want http`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *lab.World, f *Fetcher) {
				w.PolicyHost(domain, goodFile)
				f.Proxy = &url.URL{Scheme: tc.scheme, Host: "proxy.test:3128"}
				f.Dial = proxyDial(t, "proxy.test:3128", func(conn net.Conn) {
					http.ReadRequest(bufio.NewReader(conn))
					if n, _ := io.WriteString(conn, tc.answer); n > 2*maxProxyHeader {
						t.Errorf("%d bytes of header were read", n)
					}
				})
				if failure := failed(t, f, domain, StageProxy); !strings.Contains(failure.Reason, tc.reason) {
					t.Errorf("reason %q, want %q", failure.Reason, tc.reason)
				}
			})
		})
	}
}

func TestFetchProxyUnreachable(t *testing.T) {
	inWorld(t, func(t *testing.T, w *lab.World, f *Fetcher) {
		w.PolicyHost(domain, goodFile)
		f.Proxy = &url.URL{Scheme: "http", Host: "203.0.113.9:3128"} // where nothing listens
		if failure := failed(t, f, domain, StageProxy); failure.Reason != "proxy: connection: connect: connection refused" {
			t.Errorf("reason %q", failure.Reason)
		}
	})
}

// A proxy that never answers CONNECT is given up with the fetch.
func TestFetchProxyStalls(t *testing.T) {
	inWorld(t, func(t *testing.T, w *lab.World, f *Fetcher) {
		w.PolicyHost(domain, goodFile)
		f.Proxy = &url.URL{Scheme: "http", Host: "proxy.test:3128"}
		f.Dial = proxyDial(t, "proxy.test:3128", func(conn net.Conn) { io.Copy(io.Discard, conn) })
		start := time.Now()
		failure := failed(t, f, domain, StageTimeout)
		if failure.Reason != "gave up after 1m0s: connecting" || time.Since(start) != time.Minute {
			t.Errorf("reason %q after %v of the bubble's time", failure.Reason, time.Since(start))
		}
	})
}

// proxyDial returns a Dial hook that reaches one address only, where serve
// answers over a pipe.
func proxyDial(t *testing.T, want string, serve func(net.Conn)) dialFunc {
	return func(_ context.Context, network, addr string) (net.Conn, error) {
		if network != "tcp" || addr != want {
			t.Errorf("dialed %s %s, want %s", network, addr, want)
		}
		client, server := net.Pipe()
		go func() {
			defer server.Close()
			serve(server)
		}()
		return client, nil
	}
}
