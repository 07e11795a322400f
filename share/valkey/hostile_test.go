package valkey

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tlspolicyd/share"
	"tlspolicyd/share/sharetest"
)

// nonsense is a server that answers every command with the same bytes.
func nonsense(t *testing.T, answer func(c net.Conn)) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	conns.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			conns.Go(func() {
				defer c.Close()
				for r := bufio.NewReader(c); ; {
					if _, err := readReply(r); err != nil { // a command has the form of a reply
						return
					}
					answer(c)
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for _, c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		conns.Wait()
	})
	return socket
}

// An engine that speaks nonsense is none. It costs neither memory nor the process,
// and the log says so once a minute for each reason, without the password.
func TestNonsense(t *testing.T) {
	endless := func(begin, again string) func(net.Conn) {
		return func(c net.Conn) {
			_, err := io.WriteString(c, begin)
			for chunk := strings.Repeat(again, 1000); err == nil; {
				_, err = io.WriteString(c, chunk)
			}
		}
	}
	text := func(s string) func(net.Conn) { return func(c net.Conn) { _, _ = io.WriteString(c, s) } }
	for name, answer := range map[string]func(net.Conn){
		"negative length":    text("$-5\r\n"),
		"100 TB announced":   text("$99999999999999\r\n"),
		"512 MB":             endless("$536870912\r\n", "x"),
		"endless line":       endless("+", "x"),
		"a billion elements": endless("*1000000000\r\n", ":1\r\n"),
		"deep nesting":       endless("", "*1\r\n"),
		"wide and deep":      endless("*4000\r\n", "*4000\r\n"),
		"two replies":        text("_\r\n+OK\r\n+OK\r\n"),
		"another protocol":   text("HTTP/1.1 400 Bad Request\r\n\r\n"),
		"RESP3":              text(">3\r\n+message\r\n+a\r\n+b\r\n"),
		"no number":          text(":x\r\n"),
		"bare line feeds":    text("+OK\n"),
		"integers only":      text(":1\r\n"),
		"empty array":        text("*0\r\n"),
		"array of nil":       text("*2\r\n$-1\r\n$-1\r\n"),
		"no time":            text("*2\r\n*2\r\n$1\r\n0\r\n$1\r\n0\r\n*0\r\n"),
		"too few fields":     text("*2\r\n*2\r\n$2\r\n10\r\n$1\r\n0\r\n*1\r\n$1\r\n1\r\n"),
		"the password":       text("-ERR unknown command 'AUTH', with args beginning with: 's3cret'\r\n"),
		"closes in between":  func(c net.Conn) { _, _ = io.WriteString(c, "$10\r\nabc"); _ = c.Close() },
		"closes":             func(c net.Conn) { _ = c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			var log lockedBuffer
			c := join(t, Engine{Network: "unix", Hosts: []string{nonsense(t, answer)}}, "a.test",
				Settings{Login: Login{Password: "s3cret"}}, slog.New(slog.NewTextHandler(&log, nil)))
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for range 10 {
				if p, err := c.Ask(t.Context(), "example.test"); err == nil {
					t.Fatalf("believed: %+v", p)
				}
				if lease, _, _ := c.Claim(t.Context(), "example.test"); lease.Token != "" {
					t.Fatal("a lease was granted")
				}
			}
			if err := c.Each(t.Context(), func(string, share.Policy) error { return nil }); err == nil {
				t.Error("nothing is wrong with a list")
			}
			c.Offer("example.test", share.Policy{File: []byte(sharetest.File)}, share.Lease{})
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				c.Watch(ctx, func(string, share.Policy) { t.Error("a change is believed") })
			}()
			for deadline := time.Now().Add(time.Minute); !strings.Contains(log.String(), "cannot be followed") && time.Now().Before(deadline); {
				time.Sleep(time.Millisecond)
			}
			cancel()
			<-ended
			runtime.ReadMemStats(&after)
			if used := after.TotalAlloc - before.TotalAlloc; used > 256<<20 {
				t.Errorf("%d MiB were allocated", used>>20)
			}
			if s := c.Stats(); s.Up || s.Errors == 0 {
				t.Errorf("%+v", s)
			}
			if text := log.String(); strings.Contains(text, "s3cret") || strings.Count(text, "shared cache cannot be used") > 2 ||
				!strings.Contains(text, "shared cache cannot be used") {
				t.Errorf("log:\n%s", text)
			}
		})
	}
}

// lockedBuffer is a log that may be read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// After three failures no lookup waits, and none asks; the engine is tried in the
// background.
func TestSilentEngine(t *testing.T) {
	var asked atomic.Int32
	var silent atomic.Bool
	silent.Store(true)
	socket := nonsense(t, func(c net.Conn) {
		if asked.Add(1); !silent.Load() {
			_, _ = io.WriteString(c, "*2\r\n*2\r\n$2\r\n10\r\n$1\r\n0\r\n*7\r\n"+strings.Repeat("$-1\r\n", 7))
		}
	})
	var log lockedBuffer
	c := join(t, Engine{Network: "unix", Hosts: []string{socket}}, "a.test", Settings{Timeout: 20 * time.Millisecond}, slog.New(slog.NewTextHandler(&log, nil)))
	for range failures {
		if _, err := c.Ask(t.Context(), "example.test"); !errors.Is(err, context.DeadlineExceeded) && !timedOut(err) {
			t.Fatal(err)
		}
	}
	for range 1000 {
		if _, err := c.Ask(t.Context(), "example.test"); !errors.Is(err, share.ErrDown) {
			t.Fatal(err)
		}
	}
	c.Offer("example.test", share.Policy{File: []byte(sharetest.File)}, share.Lease{})
	if s := c.Stats(); s.Up || s.Dropped != 1 || s.Errors != 1000+failures {
		t.Errorf("%+v", s)
	}
	silent.Store(false)
	for deadline := time.Now().Add(time.Minute); !c.Stats().Up && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if _, err := c.Ask(t.Context(), "example.test"); !errors.Is(err, share.ErrNone) {
		t.Error(err)
	}
	if text := log.String(); strings.Count(text, "cannot be used") != 1 || !strings.Contains(text, "reason=") || !strings.Contains(text, "used again") {
		t.Errorf("log:\n%s", text)
	}
}

// A caller that gives up says nothing about the engine.
func TestCallerThatGivesUp(t *testing.T) {
	c := join(t, Engine{Network: "unix", Hosts: []string{nonsense(t, func(net.Conn) {})}}, "a.test", Settings{}, slog.New(slog.DiscardHandler))
	for range 2 * failures {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Millisecond, cancel)
		if _, err := c.Ask(ctx, "example.test"); err == nil {
			t.Fatal("no error")
		}
		ctx, cancel = context.WithTimeout(t.Context(), time.Millisecond)
		if _, _, err := c.Claim(ctx, "example.test"); err == nil {
			t.Fatal("no error")
		}
		cancel()
	}
	if !c.Stats().Up {
		t.Error("the engine counts as down")
	}
}

// What a server says of the password, even a part of it, is shown nowhere.
func TestServerThatRepeatsAPartOfThePassword(t *testing.T) {
	for _, reply := range []string{"-ERR unknown command 'AUTH', with args beginning with: 's3cre'\r\n", "-s3cre\r\n"} {
		t.Run(reply, func(t *testing.T) { repeatsAPartOfThePassword(t, reply) })
	}
}

func repeatsAPartOfThePassword(t *testing.T, reply string) {
	t.Helper()
	socket := nonsense(t, func(c net.Conn) {
		_, _ = io.WriteString(c, reply)
	})
	var log lockedBuffer
	c := join(t, Engine{Network: "unix", Hosts: []string{socket}}, "a.test", Settings{Login: Login{Password: "s3cret-of-the-fleet"}}, slog.New(slog.NewTextHandler(&log, nil)))
	_, err := c.Ask(t.Context(), "example.test")
	if err == nil || !strings.Contains(err.Error(), "ERR in reply to AUTH") || strings.Contains(err.Error(), "s3cre") {
		t.Error(err)
	}
	if text := log.String(); !strings.Contains(text, "AUTH") || strings.Contains(text, "s3cre") {
		t.Errorf("log:\n%s", text)
	}
}

// Slots that no server has are one reason, for which there is one line.
func TestClusterWithoutMostSlots(t *testing.T) {
	socket := nonsense(t, func(c net.Conn) {
		_, _ = io.WriteString(c, "*1\r\n*3\r\n:0\r\n:0\r\n*2\r\n$9\r\n127.0.0.1\r\n:1\r\n")
	})
	var log lockedBuffer
	c := join(t, Engine{Network: "unix", Hosts: []string{socket}, Cluster: true}, "a.test", Settings{}, slog.New(slog.NewTextHandler(&log, nil)))
	for _, domain := range []string{"one.test", "two.test"} {
		if _, err := c.Ask(t.Context(), domain); !errors.Is(err, errNoSlot) {
			t.Error(err)
		}
	}
	if text := log.String(); strings.Count(text, "shared cache cannot be used") != 1 {
		t.Errorf("log:\n%s", text)
	}
}

// Deleting ends by itself where the engine does not answer.
func TestDeleteFromASilentEngine(t *testing.T) {
	t.Parallel()
	c := join(t, Engine{Network: "unix", Hosts: []string{nonsense(t, func(net.Conn) {})}}, "a.test", Settings{}, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if n, err := c.Delete(ctx, "one.test", "two.test"); n != 0 || err == nil || ctx.Err() != nil {
		t.Errorf("%d deleted, %v", n, err)
	}
}

// Each time that it opens, the breaker lets the engine rest before it tries.
func TestBreakerRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var probes atomic.Int64
		b := &breaker{}
		b.probe = func(context.Context) { probes.Add(1); b.succeeded() }
		for i := range int64(3) {
			for range failures {
				if closed := b.failed(); closed != nil {
					go b.run(t.Context(), closed)
				}
			}
			time.Sleep(shortestPause - time.Millisecond)
			if synctest.Wait(); probes.Load() != i {
				t.Errorf("%d probes before the pause is over, the %d. time", probes.Load()-i, i+1)
			}
			time.Sleep(time.Millisecond)
			if synctest.Wait(); probes.Load() != i+1 || !b.up() {
				t.Errorf("%d probes, up: %v", probes.Load(), b.up())
			}
		}
	})
}

func FuzzReply(f *testing.F) {
	for _, seed := range []string{"+OK\r\n", "-ERR x\r\n", ":12\r\n", "$3\r\nabc\r\n", "$-1\r\n", "*2\r\n*1\r\n:1\r\n$0\r\n\r\n", "*-1\r\n", "$-5\r\n", "*99999\r\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bufio.NewReaderSize(bytes.NewReader(data), bufferSize)
		v, err := readReply(r)
		if err != nil {
			return
		}
		read := len(data) - r.Buffered()
		// What was read means the same when it is written again.
		again, err := readReply(bufio.NewReader(bytes.NewReader(appendReply(nil, v))))
		if err != nil || fmt.Sprint(again) != fmt.Sprint(v) {
			t.Errorf("%q: %v, then %v, %v", data[:min(read, len(data))], v, again, err)
		}
		// Nothing in it can do harm further up.
		c := &Client{opt: Options{Prefix: "p"}}
		c.settings.Store(&Settings{})
		_, _ = c.open("example.test", v.at(0), v.at(1))
		_, _ = c.change(v)
		_, _ = c.domainOf(string(v.text))
		_ = microseconds(v)
	})
}

func appendReply(b []byte, v reply) []byte {
	switch v.kind {
	case '_':
		return append(b, "$-1\r\n"...)
	case ':':
		return fmt.Appendf(b, ":%d\r\n", v.n)
	case '$':
		return fmt.Appendf(b, "$%d\r\n%s\r\n", len(v.text), v.text)
	case '*':
		b = fmt.Appendf(b, "*%d\r\n", len(v.array))
		for _, e := range v.array {
			b = appendReply(b, e)
		}
		return b
	}
	return fmt.Appendf(b, "%c%s\r\n", v.kind, v.text)
}
