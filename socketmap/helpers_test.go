package socketmap

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// handlerFunc is a Handler of strings.
type handlerFunc func(ctx context.Context, name, key string) string

func (f handlerFunc) Lookup(ctx context.Context, name, key []byte) []byte {
	return []byte(f(ctx, string(name), string(key)))
}

// mirror answers with what it was asked.
var mirror = handlerFunc(func(_ context.Context, name, key string) string {
	return "OK " + name + "|" + key
})

// gate is a handler that holds every key that begins with "hold" until it is
// released, and answers the others at once.
type gate struct {
	entered  chan string
	released chan struct{}
}

func newGate() *gate { return &gate{make(chan string, 100), make(chan struct{})} }

func (g *gate) Lookup(ctx context.Context, name, key []byte) []byte {
	if strings.HasPrefix(string(key), "hold") {
		g.entered <- string(key)
		select {
		case <-g.released:
		case <-ctx.Done():
			return []byte("TEMP stopped")
		}
	}
	return mirror.Lookup(ctx, name, key)
}

// start serves on the listeners until the test ends, and then sees to it that
// every Serve has returned ErrServerClosed and every connection is gone.
func start(t testing.TB, s *Server, listeners ...net.Listener) {
	t.Helper()
	var wg sync.WaitGroup
	for _, l := range listeners {
		wg.Go(func() {
			if err := s.Serve(l); !errors.Is(err, ErrServerClosed) {
				t.Errorf("Serve: %v, want ErrServerClosed", err)
			}
		})
	}
	t.Cleanup(func() {
		s.Close()
		wg.Wait()
		if err := s.Shutdown(context.Background()); err != nil {
			t.Errorf("Shutdown after Close: %v", err)
		}
	})
}

// socketDir is a directory with a path short enough for a socket.
func socketDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "socketmap")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// listen opens a real listener, and returns with it the address for ParseAddress.
func listen(t testing.TB, network string) (net.Listener, string) {
	t.Helper()
	address := "tcp:127.0.0.1:0"
	if network == "unix" {
		address = "unix:" + filepath.Join(socketDir(t), "s")
	}
	l, err := Listen(t.Context(), address, ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return l, network + ":" + l.Addr().String()
}

// pipeListener hands out in-memory connections, for tests of time.
type pipeListener struct {
	queue  chan net.Conn
	faults chan error // returned by Accept, one each
	closed chan struct{}
	once   sync.Once
}

func newPipeListener() *pipeListener {
	return &pipeListener{queue: make(chan net.Conn, 100), faults: make(chan error, 100), closed: make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case err := <-l.faults:
		return nil, err
	case nc := <-l.queue:
		return nc, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

// dial puts a connection into the listen queue.
func (l *pipeListener) dial(t testing.TB) *peer {
	near, far := net.Pipe()
	l.queue <- far
	return newPeer(t, near)
}

// peer is a client that sends and expects bytes. It has its own idea of
// netstrings, so that a mistake in the package's does not hide.
type peer struct {
	net.Conn
	t testing.TB
	r *bufio.Reader
}

func newPeer(t testing.TB, nc net.Conn) *peer {
	t.Cleanup(func() { nc.Close() })
	return &peer{Conn: nc, t: t, r: bufio.NewReader(nc)}
}

// dial connects to a real listener. The deadline only turns a hang into a failure.
func dial(t testing.TB, l net.Listener) *peer {
	t.Helper()
	nc, err := net.Dial(l.Addr().Network(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return newPeer(t, nc)
}

func frame(payloads ...string) string {
	var b strings.Builder
	for _, p := range payloads {
		fmt.Fprintf(&b, "%d:%s,", len(p), p)
	}
	return b.String()
}

// send writes bytes as they are.
func (p *peer) send(raw string) {
	p.t.Helper()
	if _, err := io.WriteString(p, raw); err != nil {
		p.t.Fatalf("send %.40q: %v", raw, err)
	}
}

func (p *peer) receive() (string, error) {
	head, err := p.r.ReadString(':')
	if err != nil {
		return head, err
	}
	n, err := strconv.Atoi(strings.TrimSuffix(head, ":"))
	if err != nil {
		return head, err
	}
	body := make([]byte, n+1)
	if _, err := io.ReadFull(p.r, body); err != nil {
		return string(body), err
	}
	if body[n] != ',' {
		return string(body), errors.New("no comma")
	}
	return string(body[:n]), nil
}

// want receives replies and compares them.
func (p *peer) want(payloads ...string) {
	p.t.Helper()
	for _, want := range payloads {
		got, err := p.receive()
		if err != nil {
			p.t.Fatalf("reply: %v after %.40q, want %.40q", err, got, want)
		}
		if got != want {
			p.t.Fatalf("reply %.80q, want %.80q", got, want)
		}
	}
}

// ask sends a request for a key and expects mirror's answer.
func (p *peer) ask(key string) {
	p.t.Helper()
	p.send(frame("m " + key))
	p.want("OK m|" + key)
}

// wantClosed expects the end of the connection and nothing before it.
func (p *peer) wantClosed() {
	p.t.Helper()
	b, err := p.r.ReadByte()
	if err == nil {
		p.t.Fatalf("got byte %q, want the connection closed", b)
	}
	if !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		p.t.Fatalf("got %v, want the connection closed", err)
	}
}

// journal is a log that keeps its lines.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, string(b))
	return len(b), nil
}

func (j *journal) logger() *slog.Logger { return slog.New(slog.NewTextHandler(j, nil)) }

// grep returns the lines that contain s.
func (j *journal) grep(s string) []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	var found []string
	for _, line := range j.lines {
		if strings.Contains(line, s) {
			found = append(found, line)
		}
	}
	return found
}
