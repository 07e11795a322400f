//go:build linux

package soak

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// docs/behaviour.md §1: one client that takes all connections there are, and
// goes on asking for more, does not shut out another one, over Unix sockets
// (another user) and TCP (another address). What the flood holds is never given
// up by itself soon: requests in flight about names whose servers are silent end
// after 15 s, half-sent ones after 10 s. That client must be answered although
// none of that ends. On a slow machine some of it may end meanwhile: such a lookup
// proves nothing, and is one of those that there may not be too many of.
func TestAFloodDoesNotShutOutOthers(t *testing.T) {
	limit := scale(64, 2048)
	for _, network := range []string{"unix", "tcp"} {
		for _, kind := range []flooding{idleFlood, halfFlood, coldFlood, stormFlood} {
			t.Run(network+"/"+kind.name, func(t *testing.T) {
				if network == "unix" && os.Getuid() != 0 {
					t.Skip("NOT TESTED: a client that is another user takes root")
				}
				w := newWorld(t)
				s := newSite(t, w, fmt.Sprintf("listen.max_connections = %d", limit))
				if err := os.Chmod(s.dir, 0o711); err != nil { // the other user comes in
					t.Fatal(err)
				}
				d := s.start(t)
				known := w.insist()
				c := d.client()
				d.want(c, known)
				c.Close()

				f := d.flood(w, network, kind, kind.many(limit))
				d.await("the flood to be in", f.isIn)
				began, longest, asks := time.Now(), time.Duration(0), scale(20, 50)
				for n, unclear := 0, 0; n < asks && !t.Failed(); {
					l := known
					if n%4 == 0 {
						l = w.insist()
					}
					timedOut := f.timedOut()
					asked := time.Now()
					if got := d.askAnew(network, l.key); got != l.want {
						t.Errorf("lookup %d, %s: got %q, want %q", n, l.key, got, l.want)
					}
					longest = max(longest, time.Since(asked))
					if f.timedOut() == timedOut {
						n++
						continue
					}
					if unclear++; unclear > asks {
						t.Errorf("lookup %d: the other client waits until requests in flight, or half-sent ones, have timed out", n)
					}
				}
				t.Logf("%d connections at a time of one client, limit %d: another one waits %v at most, %d lookups in %v; memory %d MB, %d files",
					kind.many(limit), limit, longest.Round(10*time.Microsecond), asks, time.Since(began).Round(time.Millisecond),
					d.memory()>>20, d.files())
				f.stop()
				d.kill()
			})
		}
	}
}

// flooding is what each connection of a flood does.
type flooding struct {
	name  string
	holds bool // what it holds ends by a time-out only
	send  func(w *world) string
}

var (
	idleFlood  = flooding{"idle", false, func(*world) string { return "" }}
	halfFlood  = flooding{"half a request", true, func(*world) string { return "30:postfix exam" }}
	coldFlood  = flooding{"in flight on silent DNS", true, func(w *world) string { return frame("postfix " + w.silent()) }}
	stormFlood = flooding{name: "connect and close"}
)

// many is how many connections the flood has at a time. Those that only connect
// and close keep a processor busy each; the lab needs one too.
func (k flooding) many(limit int) int {
	if k.send == nil {
		return 4
	}
	return 3 * limit
}

func frame(request string) string { return strconv.Itoa(len(request)) + ":" + request + "," }

// flood is a client that keeps many connections.
type flood struct {
	d        *daemon
	kind     flooding
	cancel   context.CancelFunc
	done     sync.WaitGroup
	opened   atomic.Int64
	answered atomic.Int64
	want     int64
}

// flood keeps n connections busy, each opened again as soon as it ends.
func (d *daemon) flood(w *world, network string, kind flooding, n int) *flood {
	ctx, cancel := context.WithCancel(context.Background())
	f := &flood{d: d, kind: kind, cancel: cancel, want: int64(n)}
	dials := newStranger(ctx, d, network, &f.done)
	for range n {
		f.done.Go(func() {
			for ctx.Err() == nil {
				c, err := dials.dial(ctx)
				if err != nil { // the queue is full, or this is over
					pause(2 * time.Millisecond)
					continue
				}
				f.opened.Add(1)
				if kind.send != nil {
					f.hold(ctx, c, kind.send(w))
				}
				c.Close()
			}
		})
	}
	d.t.Cleanup(f.stop)
	return f
}

// hold sends and waits until the daemon closes or answers.
func (f *flood) hold(ctx context.Context, c net.Conn, text string) {
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	if _, err := io.WriteString(c, text); err != nil {
		return
	}
	if n, _ := c.Read(make([]byte, 100)); n > 0 {
		f.answered.Add(1)
	}
}

// timedOut is how much of what the flood holds has ended by a time-out.
func (f *flood) timedOut() int64 {
	if !f.kind.holds {
		return 0
	}
	return f.answered.Load() + f.d.metric("tlspolicyd_connections_malformed_total")
}

// isIn reports whether the flood has taken what it can get.
func (f *flood) isIn() bool {
	switch {
	case f.kind.holds:
		busy := f.d.metric(`tlspolicyd_connections{state="busy"}`)
		return busy >= f.want/3
	case f.kind.send == nil:
		return f.opened.Load() >= 1000
	}
	return f.opened.Load() >= f.want
}

func (f *flood) stop() {
	f.cancel()
	f.done.Wait()
}

// stranger dials as another client: over a Unix socket as another user, over
// TCP from another address.
type stranger struct {
	d     *daemon
	tcp   string
	calls chan chan dialed // nil: TCP
}

type dialed struct {
	c   net.Conn
	err error
}

const strangerID = 65534

func newStranger(ctx context.Context, d *daemon, network string, running *sync.WaitGroup) *stranger {
	s := &stranger{d: d}
	if network == "tcp" {
		s.tcp = d.tcp()
		return s
	}
	s.calls = make(chan chan dialed)
	for range 4 {
		running.Go(func() { s.dialAsOther(ctx) })
	}
	return s
}

// dialAsOther dials as another user, on a thread of its own: credentials belong
// to threads in Linux. It stays locked and so ends with the goroutine.
func (s *stranger) dialAsOther(ctx context.Context) {
	runtime.LockOSThread()
	_, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, strangerID, strangerID, strangerID)
	for {
		select {
		case reply := <-s.calls:
			if errno != 0 {
				reply <- dialed{err: errno}
				continue
			}
			c, err := net.Dial("unix", filepath.Join(s.d.dir, "s"))
			reply <- dialed{c, err}
		case <-ctx.Done():
			return
		}
	}
}

func (s *stranger) dial(ctx context.Context) (net.Conn, error) {
	if s.calls == nil {
		from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
		return from.DialContext(ctx, "tcp", s.tcp)
	}
	reply := make(chan dialed, 1)
	select {
	case s.calls <- reply:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	got := <-reply
	return got.c, got.err
}

// askAnew asks over a connection of its own, as a new smtp(8) process does.
func (d *daemon) askAnew(network, key string) string {
	c, err := d.dial(network)
	for errors.Is(err, unix.EAGAIN) { // the listen queue of a Unix socket is full
		pause(time.Millisecond)
		c, err = d.dial(network)
	}
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(100 * time.Second)); err != nil { // Postfix's patience
		return err.Error()
	}
	if _, err := io.WriteString(c, frame("postfix "+key)); err != nil {
		return err.Error()
	}
	return receive(c)
}

// receive returns the one reply that comes, or the error in its place.
func receive(c net.Conn) string {
	buf := make([]byte, 1000)
	n, err := c.Read(buf)
	if err != nil {
		return err.Error()
	}
	_, reply, _ := strings.Cut(string(buf[:n]), ":")
	return strings.TrimSuffix(reply, ",")
}

// metric returns a metric as the control socket has it.
func (d *daemon) metric(name string) int64 {
	d.t.Helper()
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(d.dir, "admin"))
		},
	}}
	resp, err := client.Get("http://daemon/metrics")
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			f, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				d.t.Fatal(err)
			}
			return int64(f)
		}
	}
	d.t.Fatalf("no metric %s", name)
	return 0
}
