package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tlspolicyd/internal/dnsclient"
	"tlspolicyd/testing/lab"
)

// recorder takes deadlines, as a connection does.
type recorder struct{ *httptest.ResponseRecorder }

func (recorder) SetWriteDeadline(time.Time) error { return nil }

// However many requests there are, they look up no more at a time than one.
func TestRequestsShareTheWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{log: slog.New(slog.DiscardHandler), lookups: make(chan struct{}, workers)}
		names := make([]string, 3*workers)
		for i := range names {
			names[i] = fmt.Sprintf("d%d.test", i)
		}
		var running, done atomic.Int32
		release := make(chan struct{})
		var requests sync.WaitGroup
		for range 3 {
			requests.Go(func() {
				r := httptest.NewRequestWithContext(t.Context(), "POST", "/v1/warm", nil)
				s.each(recorder{httptest.NewRecorder()}, r, names, func(_ context.Context, name string) Progress {
					running.Add(1)
					<-release
					done.Add(1)
					return Progress{Name: name}
				})
			})
		}
		synctest.Wait()
		if n := running.Load(); n != workers {
			t.Errorf("%d at a time, want %d", n, workers)
		}
		close(release)
		requests.Wait()
		if n := int(done.Load()); n != 3*len(names) {
			t.Errorf("%d done of %d", n, 3*len(names))
		}
	})
}

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

// On a busy host a command may connect and then get no processor for a while:
// it is answered all the same. At the public address nobody is waited for.
func TestACommandThatIsSlowToAskIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := lab.New()
		defer w.Close()
		resolver, err := dnsclient.New(dnsclient.Config{Servers: []netip.AddrPort{w.DNSAddr()}, Dial: w.Dial})
		if err != nil {
			t.Fatal(err)
		}
		s := New(Options{
			Metrics: NewMetrics(Build{}), Resolver: func() Resolver { return resolver },
			Answers: func(context.Context) error { return nil },
		})
		control, public := make(pipes), make(pipes)
		var serving sync.WaitGroup
		serving.Go(func() { _ = s.ServeControl(control) }) // ends with Shutdown
		serving.Go(func() { _ = s.ServePublic(public) })
		for _, tt := range []struct {
			l    pipes
			want string
		}{{control, "HTTP/1.0 200 OK"}, {public, ""}} {
			ours, theirs := net.Pipe()
			tt.l <- theirs
			time.Sleep(30 * time.Second)                                 // in the bubble
			_, _ = io.WriteString(ours, "GET /healthz HTTP/1.0\r\n\r\n") // what comes back counts
			reply, _ := io.ReadAll(ours)
			ours.Close()
			if line, _, _ := strings.Cut(string(reply), "\r\n"); line != tt.want {
				t.Errorf("got %q, want %q", line, tt.want)
			}
		}
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		serving.Wait()
	})
}

// Idle connections to the public address are closed before the next scrape.
func TestIdlePublicConnectionsEndSoon(t *testing.T) {
	d := start(t)
	if got := d.server.public.IdleTimeout; got <= 0 || got > 5*time.Second {
		t.Errorf("they stay for %v", got)
	}
}

// Whoever stops the server does not wait longer than they said.
func TestStopDoesNotWaitForWorkWithoutEnd(t *testing.T) {
	d := start(t)
	release := make(chan struct{})
	defer close(release)
	d.server.work.Go(func() { <-release })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.server.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
