package socketmap

import (
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// fromConn is an in-memory connection that seems to come from an address.
type fromConn struct {
	net.Conn
	from net.Addr
}

func (c fromConn) RemoteAddr() net.Addr { return c.from }

// dialFrom puts a connection from a TCP address into the listen queue.
func (l *pipeListener) dialFrom(t testing.TB, addr string) *peer {
	near, far := net.Pipe()
	l.queue <- fromConn{far, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(addr + ":1234"))}
	return newPeer(t, near)
}

const flooder, other = "192.0.2.1", "192.0.2.2"

// §1: a client with all connections in flight, and as many again that wait, does
// not shut out another one.
func TestAnotherClientIsServedBeyondTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		l := newPipeListener()
		s := &Server{Handler: g, MaxConnections: 64} // 8 more for others, 2 of them for each
		start(t, s, l)
		flood := func(n int) (all []*peer) {
			for range n {
				p := l.dialFrom(t, flooder)
				all = append(all, p)
				synctest.Wait()
			}
			return all
		}
		inFlight := flood(64)
		for _, p := range inFlight {
			p.send(frame("m hold"))
			<-g.entered
		}
		flood(30)
		a, b := l.dialFrom(t, other), l.dialFrom(t, other)
		a.ask("k")
		time.Sleep(time.Second)
		b.ask("k")
		time.Sleep(time.Second)
		l.dialFrom(t, other).ask("k")
		a.wantClosed() // two are its share while the other one has most; the longest idle one is closed
		l.dialFrom(t, "192.0.2.3").ask("k")
		synctest.Wait()
		if st := s.Stats(); st.Connections != 67 || st.Waiting != 30 || st.Evicted != 1 || st.Refused != 0 {
			t.Errorf("%+v", st)
		}
		close(g.released)
		for _, p := range inFlight {
			p.want("OK m|hold")
		}
	})
}

// §1: the client with the most connections is closed first, however long another's
// are idle.
func TestTheClientWithTheMostConnectionsLosesAnIdleOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		s := &Server{Handler: mirror, MaxConnections: 3}
		start(t, s, l)
		small := l.dialFrom(t, other)
		small.ask("k")
		one, two := l.dialFrom(t, flooder), l.dialFrom(t, flooder)
		one.ask("k")
		two.ask("k")
		for range 10 {
			time.Sleep(time.Second)
			l.dialFrom(t, flooder).ask("k")
		}
		one.wantClosed()
		two.wantClosed()
		small.ask("k")
	})
}

// More than may wait: the client that has the most is refused, the others wait.
func TestTooManyOfOneClientAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		var log journal
		l := newPipeListener()
		s := &Server{Handler: g, MaxConnections: 1, MaxWaiting: 64, Log: log.logger()}
		start(t, s, l)
		hold := func(addr string) *peer {
			p := l.dialFrom(t, addr)
			p.send(frame("m hold"))
			<-g.entered
			return p
		}
		first, second := hold(flooder), hold(other)
		var waiting []*peer
		for range 60 {
			waiting = append(waiting, l.dialFrom(t, flooder))
			synctest.Wait()
		}
		late := []*peer{l.dialFrom(t, other), l.dialFrom(t, other), l.dialFrom(t, other), l.dialFrom(t, other)}
		synctest.Wait()
		if st := s.Stats(); st.Waiting != 64 || st.Refused != 0 {
			t.Fatalf("%+v, want 64 to wait", st)
		}
		l.dialFrom(t, flooder).wantClosed()
		late = append(late, l.dialFrom(t, other))
		waiting[59].wantClosed()
		synctest.Wait()
		if st := s.Stats(); st.Waiting != 64 || st.Refused != 2 || st.Evicted != 0 {
			t.Errorf("%+v, want two of the flood refused", st)
		}
		if got := log.grep("connection refused"); len(got) != 1 || !strings.Contains(got[0], "client="+flooder) {
			t.Errorf("log %q, want one line that names the client", got)
		}
		s.SetLimits(200, 64) // a pipe cannot show that it has unread bytes
		for _, p := range append(late, waiting[:59]...) {
			p.ask("k")
		}
		close(g.released)
		first.want("OK m|hold")
		second.want("OK m|hold")
	})
}

func TestClientsAreIdentified(t *testing.T) {
	from := func(addr string) string {
		return peerOf(fromConn{from: net.TCPAddrFromAddrPort(netip.MustParseAddrPort(addr))}).String()
	}
	for addr, want := range map[string]string{
		"192.0.2.1:1":           "192.0.2.1",
		"[::ffff:192.0.2.1]:2":  "192.0.2.1",
		"[2001:db8:1:2:3::4]:1": "2001:db8:1:2::/64",
		"[fe80::1%eth0]:1":      "fe80::/64",
	} {
		if got := from(addr); got != want {
			t.Errorf("%s: %s, want %s", addr, got, want)
		}
	}
	if got := peerOf(fromConn{from: &net.UnixAddr{Name: "pipe"}}).String(); got != "unknown" {
		t.Errorf("of a pipe: %s", got)
	}
	if runtime.GOOS != "linux" {
		return
	}
	l, _ := listen(t, "unix")
	defer l.Close()
	dial(t, l)
	nc, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if got := peerOf(nc); got.uid != os.Getuid() {
		t.Errorf("of a Unix socket: %s, want user %d", got, os.Getuid())
	}
}
