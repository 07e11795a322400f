package socketmap

import (
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

func TestAtTheLimitTheLongestIdleConnectionIsClosed(t *testing.T) { // §1
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		s := &Server{Handler: mirror, MaxConnections: 3}
		start(t, s, l)
		a, b, c := l.dial(t), l.dial(t), l.dial(t)
		for _, p := range []*peer{a, c, b, a} { // c is idle longest in the end
			time.Sleep(time.Second)
			p.ask("k")
		}
		synctest.Wait()
		if st := s.Stats(); st.Connections != 3 || st.Idle != 3 || st.Evicted != 0 {
			t.Fatalf("at the limit: %+v, want all three left alone", st)
		}
		d := l.dial(t)
		d.ask("k")
		c.wantClosed()
		a.ask("k")
		b.ask("k")
		d.ask("k")
		synctest.Wait()
		if st := s.Stats(); st.Connections != 3 || st.Evicted != 1 || st.Accepted != 4 {
			t.Errorf("afterwards: %+v", st)
		}
	})
}

func TestAConnectionWithARequestInFlightIsNeverClosedForRoom(t *testing.T) { // §1
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		var log journal
		l := newPipeListener()
		s := &Server{Handler: g, MaxConnections: 2, Log: log.logger()}
		start(t, s, l)
		working, half := l.dial(t), l.dial(t)
		working.send(frame("m hold"))
		<-g.entered
		half.send("5:m a")
		synctest.Wait()

		third := l.dial(t)
		third.send(frame("m hold"))
		<-g.entered
		half.wantClosed() // a half-sent request is none in flight

		late := l.dial(t)
		synctest.Wait()
		if st := s.Stats(); st.Connections != 2 || st.Waiting != 1 || st.Evicted != 1 || st.Malformed != 0 {
			t.Fatalf("with all in flight: %+v; want the last one to wait", st)
		}
		if got := log.grep("connection limit reached"); len(got) != 1 {
			t.Errorf("log %q, want one line", got)
		}
		close(g.released)
		working.want("OK m|hold")
		third.want("OK m|hold")
		late.ask("k")
	})
}

func TestConnectionsWaitForRoom(t *testing.T) { // §1
	for _, network := range []string{"unix", "tcp"} {
		t.Run(network, func(t *testing.T) {
			g := newGate()
			l, _ := listen(t, network)
			s := &Server{Handler: g, MaxConnections: 1}
			start(t, s, l)
			first := dial(t, l)
			first.send(frame("m hold"))
			<-g.entered
			var late []*peer
			for range 5 {
				p := dial(t, l)
				p.send(frame("m k"))
				late = append(late, p)
			}
			for s.Stats().Waiting < len(late) {
				runtime.Gosched()
			}
			if st := s.Stats(); st.Connections != 1 || st.Evicted+st.Refused != 0 {
				t.Errorf("%+v with a request in flight, want the others to wait", st)
			}
			close(g.released)
			first.want("OK m|hold")
			first.wantClosed()
			for _, p := range late {
				p.want("OK m|k")
			}
		})
	}
}

func TestIdleConnectionThatGotARequestDuringAcceptIsKept(t *testing.T) { // §1
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		l := newPipeListener()
		s := &Server{Handler: g, MaxConnections: 1}
		start(t, s, l)
		first := l.dial(t)
		first.ask("k")
		synctest.Wait() // full, but there is an idle one: Serve is in Accept now
		first.send(frame("m hold"))
		<-g.entered
		second := l.dial(t)
		synctest.Wait()
		if st := s.Stats(); st.Connections != 1 || st.Evicted != 0 {
			t.Fatalf("%+v, want the first kept", st)
		}
		close(g.released)
		first.want("OK m|hold")
		second.ask("k")
		first.wantClosed()
	})
}

func TestRoomIsFoundWhenAConnectionEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		l := newPipeListener()
		s := &Server{Handler: g, MaxConnections: 1}
		start(t, s, l)
		first := l.dial(t)
		first.send("9:m")
		synctest.Wait()
		second := l.dial(t)
		synctest.Wait()
		first.Close()
		second.ask("k")
	})
}

func TestStopWhileWaitingForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		l := newPipeListener()
		s := &Server{Handler: g, MaxConnections: 1}
		start(t, s, l)
		p := l.dial(t)
		p.send(frame("m hold"))
		<-g.entered
		first, second := l.dial(t), l.dial(t)
		synctest.Wait()
		done := make(chan error, 1)
		go func() { done <- s.Shutdown(t.Context()) }()
		first.ask("k") // while the request is still in flight
		first.wantClosed()
		second.wantClosed()
		close(g.released)
		p.want("OK m|hold")
		p.wantClosed()
		if err := <-done; err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	})
}

func TestAnUnreadRequestCountsAsInFlight(t *testing.T) { // §1
	l, _ := listen(t, "unix")
	defer l.Close()
	p := dial(t, l)
	nc, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	s := &Server{Handler: mirror}
	s.init()
	defer s.cancel()
	c := s.add(&client{conns: make(map[*conn]struct{})}, nc) // idle, and never read

	if s.CloseIdle() {
		t.Fatal("a connection that had no time for its first request was closed")
	}
	c.fresh.Store(false)
	p.send(frame("m k"))
	if s.CloseIdle() {
		t.Fatal("a connection with an unread request was closed")
	}
	if _, err := nc.Read(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	if !s.CloseIdle() || s.Stats().Connections != 0 {
		t.Fatal("an idle connection was not closed")
	}
	p.wantClosed()
}

func TestTheLimitCanBeChangedWhileServing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		l := newPipeListener()
		s := &Server{Handler: g, MaxConnections: 1}
		start(t, s, l)
		first := l.dial(t)
		first.send(frame("m hold"))
		<-g.entered
		second := l.dial(t)
		synctest.Wait()
		s.SetLimits(3, 0) // second need not wait any more
		second.ask("k")
		third := l.dial(t)
		third.ask("k")
		synctest.Wait()

		s.SetLimits(2, 0)
		if st := s.Stats(); st.Connections != 3 {
			t.Fatalf("a lower limit closed something by itself: %+v", st)
		}
		fourth := l.dial(t)
		fourth.ask("k")
		second.wantClosed()
		third.wantClosed()
		synctest.Wait()
		if st := s.Stats(); st.Connections != 2 || st.Evicted != 2 {
			t.Errorf("afterwards: %+v", st)
		}
		close(g.released)
		first.want("OK m|hold")
	})
}
