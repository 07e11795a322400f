package socketmap

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// countingListener counts the writes of the connections it hands out.
type countingListener struct {
	net.Listener
	writes atomic.Int64
}

type countingConn struct {
	net.Conn
	writes *atomic.Int64
}

func (l *countingListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	return &countingConn{nc, &l.writes}, err
}

func (c *countingConn) Write(b []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(b)
}

func TestPipelinedRequestsAreAnsweredInOrderInFewWrites(t *testing.T) { // §1
	for _, network := range []string{"unix", "tcp"} {
		t.Run(network, func(t *testing.T) {
			plain, _ := listen(t, network)
			l := &countingListener{Listener: plain}
			start(t, &Server{Handler: mirror}, l)
			p := dial(t, l)
			var requests, replies []string
			for i := range 1000 {
				requests = append(requests, fmt.Sprintf("postfix %d.test", i))
				replies = append(replies, fmt.Sprintf("OK postfix|%d.test", i))
			}
			p.send(frame(requests...))
			p.want(replies...)
			p.ask("after.test")
			// 1,000 requests are 21 kB: a read takes 512 or 4,096 of them at a
			// time, and a kernel that hands over less would add some.
			if n := l.writes.Load(); n > 100 {
				t.Errorf("%d writes for 1,001 replies", n)
			}
		})
	}
}

func TestSeveralListenersAtOnce(t *testing.T) {
	unix, _ := listen(t, "unix")
	tcp, _ := listen(t, "tcp")
	start(t, &Server{Handler: mirror}, unix, tcp)
	a, b := dial(t, unix), dial(t, tcp)
	a.ask("a.test")
	b.ask("b.test")
	a.ask("c.test")
}

func TestRequestsOfAllSizes(t *testing.T) { // §1: Postfix sends keys up to 10,000 bytes; the limit is 16 KiB
	l, _ := listen(t, "unix")
	start(t, &Server{Handler: mirror}, l)
	p := dial(t, l)
	for _, n := range []int{0, 1, firstReadBuffer - 8, firstReadBuffer, keptReadBuffer, 10000, MaxRequest - 2, 3} {
		p.ask(strings.Repeat("k", n))
	}
}

func TestRequestWithoutSpaceIsMisuse(t *testing.T) {
	l, _ := listen(t, "unix")
	start(t, &Server{Handler: mirror}, l)
	p := dial(t, l)
	p.send("0:,7:postfix,")
	p.want(`PERM request is not "NAME KEY"`, `PERM request is not "NAME KEY"`)
	p.ask("still.test")
}

func TestMalformedRequestClosesThatConnectionOnly(t *testing.T) { // §1
	for _, network := range []string{"unix", "tcp"} {
		l, _ := listen(t, network)
		s := &Server{Handler: mirror}
		start(t, s, l)
		other := dial(t, l)
		other.ask("before.test")
		for situation, in := range malformed {
			t.Run(network+"/"+situation, func(t *testing.T) {
				p := dial(t, l)
				p.send(frame("m asked.first.test") + in)
				p.want("OK m|asked.first.test")
				p.wantClosed()
				other.ask("meanwhile.test")
			})
		}
		if got := s.Stats().Malformed; got != uint64(len(malformed)) {
			t.Errorf("%s: %d malformed counted, want %d", network, got, len(malformed))
		}
	}
}

func TestMalformedRequestsAreToldOnceAMinute(t *testing.T) { // §1
	synctest.Test(t, func(t *testing.T) {
		var log journal
		l := newPipeListener()
		start(t, &Server{Handler: mirror, Log: log.logger()}, l)
		flood := func(n int) {
			for range n {
				p := l.dial(t)
				p.send("GET / HTTP/1.1\r\n")
				p.wantClosed()
			}
			synctest.Wait()
		}
		flood(50)
		if got := log.grep("closed a connection"); len(got) != 1 || !strings.Contains(got[0], `\"GET /`) {
			t.Fatalf("after a flood: %q, want one line with the reason", got)
		}
		time.Sleep(logInterval - time.Nanosecond)
		flood(1)
		if got := log.grep("closed a connection"); len(got) != 1 {
			t.Fatalf("within the minute: %q", got)
		}
		time.Sleep(time.Nanosecond)
		flood(1)
		if got := log.grep("closed a connection"); len(got) != 2 || !strings.Contains(got[1], "suppressed=50") {
			t.Fatalf("after the minute: %q, want a second line that counts 50", got)
		}
	})
}

func TestStalledLogDelaysNoLookup(t *testing.T) { // §6: logs cannot stop a lookup
	log := new(journal)
	l, _ := listen(t, "unix")
	s := &Server{Handler: handlerFunc(func(_ context.Context, _, key string) string {
		if key == "panic" {
			panic("of a test")
		}
		return "OK " + strings.Repeat("x", MaxReply)
	}), Log: log.logger()}
	start(t, s, l)
	log.mu.Lock() // every write to the log blocks from here
	for range 20 {
		p := dial(t, l)
		p.send(frame("m panic", "m long"))
		p.want("TEMP internal error", "TEMP reply of 100003 bytes is longer than Postfix takes")
		p.send("x")
		p.wantClosed()
	}
	log.mu.Unlock()
}

func TestReplyIsNeverLongerThanPostfixReads(t *testing.T) { // §1
	longest := "OK " + strings.Repeat("v", MaxReply-3)
	l, _ := listen(t, "unix")
	var log journal
	start(t, &Server{Log: log.logger(), Handler: handlerFunc(func(_ context.Context, _, key string) string {
		switch key {
		case "longest":
			return longest
		case "longer":
			return longest + "v"
		case "buffer":
			return longest[:largeReply]
		case "buffer+1":
			return longest[:largeReply+1]
		}
		return "OK " + key
	})}, l)
	p := dial(t, l)
	go p.send(frame("m a", "m longest", "m b", "m buffer", "m buffer+1", "m buffer", "m c", "m longer", "m d"))
	p.want("OK a", longest, "OK b", longest[:largeReply], longest[:largeReply+1], longest[:largeReply], "OK c",
		"TEMP reply of 100001 bytes is longer than Postfix takes", "OK d")
}

func TestPanicCostsOneAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log journal
		l := newPipeListener()
		s := &Server{Log: log.logger(), Handler: handlerFunc(func(_ context.Context, _, key string) string {
			if key == "bad" {
				panic("index\nout of range")
			}
			return "OK " + key
		})}
		start(t, s, l)
		p := l.dial(t)
		p.send(frame("m good", "m bad", "m good"))
		p.want("OK good", "TEMP internal error", "OK good")
		synctest.Wait()
		if got := log.grep("lookup panicked"); len(got) != 1 || !strings.Contains(got[0], "TestPanicCostsOneAnswer") {
			t.Errorf("log %q, want one line with the stack", got)
		}
		if n := s.Stats().Panics; n != 1 {
			t.Errorf("%d panics counted, want 1", n)
		}
	})
}

func TestLookupOutlivesItsClient(t *testing.T) { // Handler: what was learned for one serves the next
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		done := make(chan error, 1)
		l := newPipeListener()
		s := &Server{Handler: handlerFunc(func(ctx context.Context, name, key string) string {
			reply := g.Lookup(ctx, []byte(name), []byte(key))
			done <- ctx.Err()
			return string(reply)
		})}
		start(t, s, l)
		p := l.dial(t)
		p.send(frame("m hold"))
		<-g.entered
		p.Close()
		synctest.Wait()
		close(g.released)
		if err := <-done; err != nil {
			t.Errorf("context of the lookup ended with its client: %v", err)
		}
	})
}

func TestAcceptErrorsDoNotEndServe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log journal
		l := newPipeListener()
		s := &Server{Handler: mirror, Log: log.logger()}
		start(t, s, l)
		idle := l.dial(t)
		idle.ask("a.test")
		synctest.Wait()
		for range 20 {
			l.faults <- &net.OpError{Op: "accept", Err: syscall.EMFILE}
		}
		l.dial(t) // wakes the accept that waits already
		begun := time.Now()
		idle.wantClosed() // its file descriptor is needed
		if took := time.Since(begun); took > maxAcceptPause {
			t.Errorf("idle connection closed after %v, want it closed at once", took)
		}
		time.Sleep(30 * time.Second)
		l.dial(t).ask("b.test")
		if got := log.grep("cannot accept"); len(got) != 1 || !strings.Contains(got[0], "too many open files") {
			t.Errorf("log %q, want one line", got)
		}
		l.faults <- errors.New("of another kind")
		l.dial(t).ask("c.test")
	})
}

func TestStopDoesNotWaitForThePauseAfterAFailedAccept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		s := &Server{Handler: mirror}
		for range 20 {
			l.faults <- errors.New("of any kind")
		}
		done := make(chan error, 1)
		go func() { done <- s.Serve(l) }()
		time.Sleep(3*time.Second + time.Millisecond) // pauses are a second long by now
		begun := time.Now()
		s.Close()
		if err := <-done; !errors.Is(err, ErrServerClosed) {
			t.Errorf("Serve: %v", err)
		}
		if took := time.Since(begun); took != 0 {
			t.Errorf("Serve returned after %v", took)
		}
	})
}

func TestServeReturnsWhenItsListenerIsClosed(t *testing.T) {
	l, _ := listen(t, "unix")
	s := &Server{Handler: mirror}
	done := make(chan error)
	go func() { done <- s.Serve(l) }()
	dial(t, l).ask("a.test")
	l.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) || errors.Is(err, ErrServerClosed) {
		t.Errorf("Serve: %v, want net.ErrClosed", err)
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestServeWithoutHandler(t *testing.T) {
	l, _ := listen(t, "unix")
	if err := new(Server).Serve(l); err == nil || !strings.Contains(err.Error(), "Handler") {
		t.Errorf("Serve: %v", err)
	}
}
