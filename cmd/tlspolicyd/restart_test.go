package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"tlspolicyd/socketmap"
)

// A restart of a socket-activated unit loses nothing: clients that ask as
// Postfix does (one retry, on a new connection) go on while the daemon ends and
// starts again and again on a socket that somebody else keeps open, as systemd
// does. They ask for what is answered at once and for what takes a while to look
// up, on connections old and new.
func TestARestartUnderLoadLosesNoLookup(t *testing.T) {
	dir, err := os.MkdirTemp("", "restart") // a short path, for the socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: socket})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	kept, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	cfg := filepath.Join(dir, "tlspolicyd.toml")
	text := fmt.Sprintf("dns.servers = [%q]\nlisten.admin = \"\"\nlog.level = \"warn\"\noverride.\"known.test\" = \"encrypt\"\n", emptyDNS(t))
	if err := os.WriteFile(cfg, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	unit := &restartedUnit{dir: dir, config: cfg, socket: kept}

	const clients, restarts, between = 12, 6, 150
	ctx, stop := context.WithCancel(t.Context())
	var working sync.WaitGroup
	answered := make(chan struct{})
	for n := range clients {
		working.Go(func() {
			if err := askOn(ctx, "unix:"+socket, n, answered); err != nil {
				t.Errorf("client %d: %v", n, err)
				for ctx.Err() == nil { // the others go on
					select {
					case answered <- struct{}{}:
					case <-ctx.Done():
					}
				}
			}
		})
	}
	for range restarts {
		unit.start(t)
		for range between {
			<-answered
		}
		unit.stop(t)
	}
	unit.start(t)
	for range between {
		<-answered
	}
	stop()
	working.Wait()
	unit.stop(t)
	if t.Failed() {
		t.Logf("the daemon said: %s", unit.stderr.Bytes())
	}
}

// askOn asks until ctx ends. Every other client takes a new connection now and
// then, as new smtp(8) processes do.
func askOn(ctx context.Context, address string, n int, answered chan<- struct{}) error {
	c, err := socketmap.NewClient(address)
	if err != nil {
		return err
	}
	defer c.Close()
	for i := 0; ctx.Err() == nil; i++ {
		key, want := "known.test", socketmap.OK
		if i%3 == 0 {
			key, want = fmt.Sprintf("d%d-%d.test", n, i), socketmap.NotFound
		}
		if n%2 == 0 && i%5 == 0 {
			c.Close()
		}
		reply, err := c.Lookup(context.Background(), "postfix", key)
		if err != nil {
			return fmt.Errorf("lookup %d, %s: %w", i, key, err)
		}
		if reply.Status != want {
			return fmt.Errorf("lookup %d, %s: %s", i, key, reply)
		}
		select {
		case answered <- struct{}{}:
		case <-ctx.Done():
		}
	}
	return nil
}

// restartedUnit is a service with its socket, started one process after the
// other.
type restartedUnit struct {
	dir, config string
	socket      *os.File
	cmd         *exec.Cmd
	stderr      bytes.Buffer
}

func (u *restartedUnit) start(t *testing.T) {
	t.Helper()
	// LISTEN_PID must be the number of the process itself.
	u.cmd = exec.Command("sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 exec `+programName+` serve --config "$1"`, "sh", u.config)
	u.cmd.Env = append(os.Environ(), "RUNTIME_DIRECTORY="+u.dir, "STATE_DIRECTORY="+u.dir, "GORACE=atexit_sleep_ms=0")
	u.cmd.ExtraFiles = []*os.File{u.socket}
	u.cmd.Stderr = &u.stderr
	if err := u.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	cmd := u.cmd
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // gone already when all went well
}

func (u *restartedUnit) stop(t *testing.T) {
	t.Helper()
	if err := u.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := u.cmd.Wait(); err != nil {
		t.Errorf("the daemon ended with %v", err)
	}
}

// emptyDNS is a resolver in whose world no name exists, and who takes his time
// to say so. It returns its address.
func emptyDNS(t *testing.T) string {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ready := make(chan struct{})
	s := &dns.Server{PacketConn: pc, NotifyStartedFunc: func() { close(ready) }, Handler: dns.HandlerFunc(
		func(w dns.ResponseWriter, q *dns.Msg) {
			time.Sleep(20 * time.Millisecond) // so that lookups are in flight when the daemon is told to stop
			m := new(dns.Msg).SetRcode(q, dns.RcodeNameError)
			m.AuthenticatedData = true
			m.Ns = []dns.RR{&dns.SOA{
				Hdr: dns.RR_Header{Name: "test.", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: 300},
				Ns:  "ns.test.", Mbox: "root.test.", Minttl: 300,
			}}
			_ = w.WriteMsg(m) // a client that has gone does not mind
		})}
	done := make(chan error, 1)
	go func() { done <- s.ActivateAndServe() }()
	<-ready
	t.Cleanup(func() {
		if err := s.Shutdown(); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return pc.LocalAddr().String()
}
