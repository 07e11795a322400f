package socketmap

import (
	"context"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"
)

// §1: four times as many clients as the limit, each of which connects and asks
// once more when its connection was closed, as Postfix does, all get their answers.
func TestMoreClientsThanTheLimitAreAllAnswered(t *testing.T) {
	for _, network := range []string{"unix", "tcp"} {
		t.Run(network, func(t *testing.T) {
			slow := handlerFunc(func(context.Context, string, string) string {
				runtime.Gosched() // not every lookup is answered from the cache
				return "NOTFOUND "
			})
			l, address := listen(t, network)
			s := &Server{Handler: slow, MaxConnections: 50}
			start(t, s, l)
			var clients sync.WaitGroup
			for range 200 {
				clients.Go(func() {
					c, err := NewClient(address)
					if err != nil {
						t.Error(err)
						return
					}
					defer c.Close()
					for range 50 {
						if _, err := c.Lookup(t.Context(), "m", "k"); err != nil {
							t.Errorf("%v; %+v", err, s.Stats())
							return
						}
					}
				})
			}
			clients.Wait()
		})
	}
}

// §1: a request that has arrived is answered, even if the connection was about to
// be closed.
func TestARequestThatArrivesLastIsAnswered(t *testing.T) {
	for name, prepare := range map[string]func(*conn){
		"at the idle time": func(c *conn) {
			c.read.set = func(time.Time) error { return c.nc.SetReadDeadline(time.Unix(1, 0)) }
		},
		"while the server stops": func(c *conn) { c.srv.stopping.Store(true) },
		"when the rest of it is late": func(c *conn) {
			c.w = copy(c.buf, "5:m k")
			c.read.set = func(time.Time) error { return c.nc.SetReadDeadline(time.Unix(1, 0)) }
		},
	} {
		t.Run(name, func(t *testing.T) {
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
			c := s.add(&client{conns: make(map[*conn]struct{})}, nc)
			c.fresh.Store(false)
			prepare(c)
			p.send("5:m key,"[c.w:])
			if err := c.serve(); err == nil {
				t.Error("the connection was not closed afterwards")
			}
			p.want("OK m|key")
		})
	}
}

// §1: a new connection is not closed for room before its client had time to ask.
func TestANewConnectionHasTimeForItsRequest(t *testing.T) {
	l, _ := listen(t, "unix")
	g := newGate()
	s := &Server{Handler: g, MaxConnections: 1}
	start(t, s, l)
	var all []net.Conn
	for range 3 {
		all = append(all, dial(t, l))
	}
	st := s.Stats()
	for ; st.Waiting+int(st.Evicted) < 2; st = s.Stats() {
		runtime.Gosched()
	}
	if st.Evicted != 0 || st.Connections != 1 {
		t.Errorf("%+v, want one served and two waiting", st)
	}
	for _, nc := range all {
		nc.(*peer).ask("k")
	}
}
