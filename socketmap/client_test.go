package socketmap

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// pipeClient is a client whose connections arrive at the listener.
func pipeClient(t *testing.T, l *pipeListener) *Client {
	t.Helper()
	c, err := NewClient("unix:/pipe")
	if err != nil {
		t.Fatal(err)
	}
	c.dial = func(context.Context) (net.Conn, error) {
		near, far := net.Pipe()
		l.queue <- far
		return near, nil
	}
	t.Cleanup(c.Close)
	return c
}

// script is a server that treats each connection as the test says: it reads a
// request and sends the given bytes, then waits for the client to hang up, or
// hangs up itself if the step is closed.
type step struct {
	send   string
	closed bool
}

func script(t *testing.T, l *pipeListener, steps ...step) (connections func() int) {
	t.Helper()
	var mu sync.Mutex
	count := 0
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			st := steps[min(count, len(steps)-1)]
			count++
			mu.Unlock()
			wg.Go(func() {
				defer nc.Close()
				p := newPeer(t, nc)
				for {
					if _, err := p.receive(); err != nil {
						return
					}
					if _, err := p.Write([]byte(st.send)); err != nil || st.closed {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return func() int {
		mu.Lock()
		defer mu.Unlock()
		return count
	}
}

func TestClientRetriesExactlyOnceWhenTheServerHasClosed(t *testing.T) { // §1, as Postfix
	for situation, tc := range map[string]struct {
		steps       []step
		connections int
		ok          bool
	}{
		"answered at once":       {[]step{{frame("OK v"), false}}, 1, true},
		"closed once":            {[]step{{"", true}, {frame("OK v"), false}}, 2, true},
		"closed within a reply":  {[]step{{"4:OK", true}, {frame("OK v"), false}}, 2, true},
		"closed always":          {[]step{{"", true}}, 2, false},
		"malformed reply":        {[]step{{"OK v\n", false}}, 1, false},
		"reply with more behind": {[]step{{frame("OK v", "OK w"), false}}, 1, false},
		"reply over 100,000":     {[]step{{"100001:", false}}, 1, false},
		"no answer for 100 s":    {[]step{{"4:OK", false}}, 1, false},
		"unknown status":         {[]step{{frame("MAYBE v"), false}}, 1, false},
	} {
		t.Run(situation, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newPipeListener()
				connections := script(t, l, tc.steps...)
				c := pipeClient(t, l)
				begun := time.Now()
				reply, err := c.Lookup(t.Context(), "m", "k")
				if (err == nil) != tc.ok || tc.ok && reply != (Reply{OK, "v"}) {
					t.Errorf("reply %v, error %v", reply, err)
				}
				if n := connections(); n != tc.connections {
					t.Errorf("%d connections, want %d", n, tc.connections)
				}
				took, want := time.Since(begun), time.Duration(0)
				if situation == "no answer for 100 s" {
					want = 100 * time.Second
				}
				if took != want {
					t.Errorf("it took %v, want %v", took, want)
				}
			})
		})
	}
}

func TestClientDoesNotRetryToConnect(t *testing.T) {
	address := "unix:" + filepath.Join(socketDir(t), "absent")
	c, err := NewClient(address)
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Lookup(t.Context(), "m", "k")
	if err == nil || !strings.Contains(err.Error(), "at "+address+": cannot connect") || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Lookup: %v", err)
	}
	dials := 0
	c.dial = func(context.Context) (net.Conn, error) { dials++; return nil, syscall.ECONNRESET }
	if _, err := c.Lookup(t.Context(), "m", "k"); !errors.Is(err, syscall.ECONNRESET) || dials != 1 {
		t.Errorf("Lookup: %v after %d dials", err, dials)
	}
}

func TestClientKeepsItsConnectionAsPostfixDoes(t *testing.T) { // §1: 10 s idle, 100 s of age
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		connections := script(t, l, step{frame("NOTFOUND "), false})
		c := pipeClient(t, l)
		lookups := func(n int, every time.Duration, want int) {
			t.Helper()
			for range n {
				if _, err := c.Lookup(t.Context(), "m", "k"); err != nil {
					t.Fatal(err)
				}
				time.Sleep(every)
			}
			if got := connections(); got != want {
				t.Errorf("%d connections, want %d", got, want)
			}
		}
		lookups(20, 5*time.Second, 1) // 0 to 95 s
		lookups(1, 10*time.Second, 2) // too old
		lookups(1, 9*time.Second, 3)  // idle for too long
		lookups(1, 0, 3)
	})
}

func TestClientEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		connections := script(t, l, step{"", false}, step{frame("OK v"), false})
		c := pipeClient(t, l)
		ctx, cancel := context.WithCancel(t.Context())
		first := make(chan error)
		go func() {
			_, err := c.Lookup(ctx, "m", "k")
			first <- err
		}()
		synctest.Wait()
		waiting, giveUp := context.WithTimeout(t.Context(), time.Second)
		defer giveUp()
		if _, err := c.Lookup(waiting, "m", "k"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("while another asks: %v", err)
		}
		cancel()
		if err := <-first; !errors.Is(err, context.Canceled) {
			t.Errorf("canceled: %v", err)
		}
		if reply, err := c.Lookup(t.Context(), "m", "k"); err != nil || reply.Value != "v" || connections() != 2 {
			t.Errorf("afterwards: %v, %v on connection %d", reply, err, connections())
		}
	})
}

func TestClientRefusesWhatCannotBeARequest(t *testing.T) {
	c, err := NewClient("unix:/absent")
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ name, key, err string }{
		{"two words", "k", "no spaces"},
		{"m", strings.Repeat("k", MaxRequest-1), "longer than 16384 bytes"},
	} {
		if _, err := c.Lookup(t.Context(), tc.name, tc.key); err == nil || !strings.Contains(err.Error(), tc.err) {
			t.Errorf("%.20q %.20q: %v, want %q", tc.name, tc.key, err, tc.err)
		}
	}
	if _, err := NewClient("nonsense"); err == nil {
		t.Error("NewClient took a bad address")
	}
}

func TestClientAndServer(t *testing.T) { // §1: keys to 10,000 bytes and replies to 100,000
	for _, network := range []string{"unix", "tcp"} {
		t.Run(network, func(t *testing.T) {
			l, address := listen(t, network)
			start(t, &Server{Handler: handlerFunc(func(_ context.Context, name, key string) string {
				switch name {
				case "long":
					return "OK " + strings.Repeat("v", MaxReply-3)
				case "any":
					return key
				}
				return "OK " + name + "|" + key
			})}, l)
			c, err := NewClient(address)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			var wg sync.WaitGroup
			ask := func(name, key string, want Reply) {
				if got, err := c.Lookup(t.Context(), name, key); err != nil || got != want {
					t.Errorf("%s %.20q: %.80q, %v", name, key, got, err)
				}
			}
			for i := range 10 {
				wg.Go(func() {
					key := fmt.Sprintf("%d.test", i)
					ask("postfix", key, Reply{OK, "postfix|" + key})
					ask("postfix", strings.Repeat("k", 10000), Reply{OK, "postfix|" + strings.Repeat("k", 10000)})
					ask("long", key, Reply{OK, strings.Repeat("v", MaxReply-3)})
					ask("any", "NOTFOUND ", Reply{NotFound, ""})
					ask("any", "NOTFOUND", Reply{NotFound, ""})
					ask("any", "TEMP MX lookup of a.test: SERVFAIL", Reply{Temp, "MX lookup of a.test: SERVFAIL"})
					ask("any", "TIMEOUT x", Reply{Timeout, "x"})
					ask("any", "PERM  x ", Reply{Perm, " x "})
				})
			}
			wg.Wait()
		})
	}
}

func FuzzReply(f *testing.F) {
	f.Add([]byte("OK secure match=.a.test servername=hostname"))
	f.Add([]byte("NOTFOUND "))
	f.Add([]byte("NOTFOUND"))
	f.Add([]byte("TEMP "))
	f.Add([]byte("ok v"))
	f.Add([]byte(" OK"))
	f.Fuzz(func(t *testing.T, payload []byte) {
		reply, err := parseReply(payload)
		if err != nil {
			if len(err.Error()) > 200 || strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' }) {
				t.Fatalf("error %q", err)
			}
			return
		}
		if s := reply.String(); s != string(payload) && s != string(payload)+" " {
			t.Fatalf("%q parsed to %+v", payload, reply)
		}
	})
}
