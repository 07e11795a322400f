package load

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func echoServer(t *testing.T, payload string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		Echo(l, []byte(payload))
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	return l
}

func clientsOf(l net.Listener, keys ...string) Clients {
	return Clients{Network: "tcp", Address: l.Addr().String(), Connections: 3, Requests: Requests("postfix", keys)}
}

func TestEveryRequestIsAskedOnce(t *testing.T) {
	long := strings.Repeat("x", 3000) // longer than the buffer for replies
	c := clientsOf(echoServer(t, long), "a.test", "b.test", "c.test", "d.test")
	c.Once = true
	r, err := c.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r.Asked != 4 || r.Times.Count() != 4 || r.Failed != 0 {
		t.Errorf("asked %d, timed %d, failed %d; want 4, 4 and 0", r.Asked, r.Times.Count(), r.Failed)
	}
	for i, reply := range r.Replies {
		if reply != "OK "+long || r.Took[i] <= 0 {
			t.Errorf("request %d: %.20q after %v", i, reply, r.Took[i])
		}
	}
}

func TestAskingGoesOnUntilTheTimeIsOver(t *testing.T) {
	c := clientsOf(echoServer(t, "v"), "a.test", "b.test")
	c.For = 20 * time.Millisecond
	r, err := c.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r.Elapsed < c.For || r.Asked == 0 || r.Rate() <= 0 {
		t.Errorf("%d in %v", r.Asked, r.Elapsed)
	}
}

// hangUp answers each first request with these bytes and hangs up.
func hangUp(t *testing.T, answer string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			go func() { // one that has nothing to ask must not be waited for
				defer nc.Close()
				_, _ = nc.Read(make([]byte, 512))
				_, _ = nc.Write([]byte(answer))
			}()
		}
	}()
	return l
}

func TestWhatIsNoReplyEndsTheRun(t *testing.T) {
	for _, answer := range []string{"", "4:OK", "x:y,", "4:OK v,4:OK v,"} {
		c := clientsOf(hangUp(t, answer), "a.test")
		c.Once = true
		if r, err := c.Run(t.Context()); err == nil {
			t.Errorf("%q passes for a reply: %+v", answer, r.Replies)
		}
	}
}

func TestFailuresAreCounted(t *testing.T) {
	c := clientsOf(hangUp(t, "7:TEMP no,"), "a.test")
	c.Once = true
	if r, err := c.Run(t.Context()); err != nil || r.Failed != 1 {
		t.Errorf("%d failed, %v; want 1", r.Failed, err)
	}
}

func TestEndOfTheContextEndsTheRun(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // never answers
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	c := clientsOf(l, "a.test")
	c.For = time.Hour
	if _, err := c.Run(ctx); !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}
