package socketmap

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

func TestShutdownClosesIdleAndFinishesWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		l := newPipeListener()
		s := &Server{Handler: g}
		start(t, s, l)
		idle, fresh, working := l.dial(t), l.dial(t), l.dial(t)
		idle.ask("a.test")
		working.send(frame("m hold", "m next", "m hold"))
		<-g.entered
		synctest.Wait()

		done := make(chan error, 1)
		go func() { done <- s.Shutdown(t.Context()) }()
		idle.wantClosed()
		fresh.wantClosed() // in a moment, see below
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatalf("Shutdown returned %v with a request in flight", err)
		default:
		}
		close(g.released)
		working.want("OK m|hold", "OK m|next", "OK m|hold")
		working.wantClosed()
		if err := <-done; err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("listener is open after Shutdown: %v", err)
		}
	})
}

func TestShutdownLetsAHalfSentRequestArrive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		s := &Server{Handler: mirror}
		start(t, s, l)
		p := l.dial(t)
		p.send("5:m a")
		synctest.Wait()
		done := make(chan error, 1)
		go func() { done <- s.Shutdown(t.Context()) }()
		synctest.Wait()
		p.send("bc,")
		p.want("OK m|abc")
		p.wantClosed()
		if err := <-done; err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	})
}

// A client whose connection is closed comes back once, and if that one is closed
// too, its lookup has failed. So a connection that has not asked yet, wherever
// it is between the listen queue and its first byte, may still do so.
func TestShutdownAnswersTheFirstRequestOfANewConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		s := &Server{Handler: mirror}
		start(t, s, l)
		p := l.dial(t)
		synctest.Wait() // accepted, and waiting for its request
		done := make(chan error, 1)
		go func() { done <- s.Shutdown(t.Context()) }()
		synctest.Wait()
		time.Sleep(firstRequestGrace - time.Millisecond)
		p.ask("k")
		p.wantClosed() // and not a second one
		if err := <-done; err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	})
}

// heldListener hands its connection over only when the server has stopped: the
// accept was under way.
type heldListener struct {
	*pipeListener
	s *Server
}

func (l heldListener) Accept() (net.Conn, error) {
	nc := <-l.queue
	<-l.s.stopped
	return nc, nil
}

func TestShutdownAnswersWhatWasJustBeingAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{Handler: mirror}
		l := heldListener{newPipeListener(), s}
		start(t, s, l)
		p := l.dial(t)
		synctest.Wait()
		done := make(chan error, 1)
		go func() { done <- s.Shutdown(t.Context()) }()
		p.ask("k")
		p.wantClosed()
		if err := <-done; err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	})
}

// At the limit, one connection waits in the hands of Serve.
func TestShutdownAnswersWhatWaitedForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		l := newPipeListener()
		s := &Server{Handler: g, MaxConnections: 1}
		start(t, s, l)
		first := l.dial(t)
		synctest.Wait() // while first is idle, another one may come
		first.send(frame("m hold"))
		<-g.entered
		late := l.dial(t)
		synctest.Wait()
		done := make(chan error, 1)
		go func() { done <- s.Shutdown(t.Context()) }()
		synctest.Wait()
		close(g.released)
		first.want("OK m|hold")
		late.ask("k")
		late.wantClosed()
		if err := <-done; err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	})
}

func TestShutdownForcesWhenItsTimeIsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		l := newPipeListener()
		s := &Server{Handler: g}
		start(t, s, l)
		p := l.dial(t)
		p.send(frame("m hold"))
		<-g.entered
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Shutdown: %v, want DeadlineExceeded", err)
		}
		p.wantClosed() // and the handler has ended, or the bubble would not
	})
}

func TestServeAfterShutdown(t *testing.T) {
	l, _ := listen(t, "tcp")
	s := &Server{Handler: mirror}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(l); !errors.Is(err, ErrServerClosed) {
		t.Errorf("Serve: %v, want ErrServerClosed", err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("listener left open: %v", err)
	}
}

func TestShutdownUnderLoadLosesNoReply(t *testing.T) {
	// Clients that behave as Postfix does, a server that stops, and another one
	// on the same listen queue, as under socket activation.
	l, address := listen(t, "unix")
	file, err := l.(*unixListener).Listener.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	first, second := &Server{Handler: mirror}, &Server{Handler: mirror}
	kept, err := net.FileListener(file)
	if err != nil {
		t.Fatal(err)
	}
	again, err := net.FileListener(file)
	if err != nil {
		t.Fatal(err)
	}
	start(t, first, kept)

	const clients = 10
	failed := make(chan error, clients)
	progress := make(chan struct{}) // a hundred lookups of one client
	ctx, stop := context.WithCancel(t.Context())
	for range clients {
		c, err := NewClient(address)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			defer c.Close()
			var err error
			for n := 1; ctx.Err() == nil; n++ {
				if err == nil {
					_, err = c.Lookup(context.Background(), "m", "k")
				}
				if n%100 == 0 {
					select {
					case progress <- struct{}{}:
					case <-ctx.Done():
					}
				}
			}
			failed <- err
		}()
	}
	await := func(hundreds int) {
		for range hundreds {
			<-progress
		}
	}
	await(clients)
	if err := first.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	start(t, second, again)
	await(5 * clients)
	stop()
	for range clients {
		if err := <-failed; err != nil {
			t.Errorf("lookup failed across the restart: %v", err)
		}
	}
	l.Close()
}
