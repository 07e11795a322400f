package valkey

import (
	"context"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tlspolicyd/share"
	"tlspolicyd/share/sharetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is a real Valkey or Redis on a Unix socket.
type server struct {
	t       *testing.T
	socket  string
	args    []string
	bare    bool // args are all
	process *exec.Cmd
}

// program finds the server to test with, $TLSPOLICYD_TEST_ENGINE first. Where there
// is none the test is left out, which "make unit" prints, unless that variable is
// set, as CI has it.
func program(t *testing.T) string {
	t.Helper()
	wanted := os.Getenv("TLSPOLICYD_TEST_ENGINE")
	for _, name := range []string{wanted, "valkey-server", "redis-server"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	const needs = "needs valkey-server or redis-server: 'apt-get install redis-server'"
	if wanted != "" {
		t.Fatal(needs)
	}
	t.Skip("NOT TESTED: " + needs)
	return ""
}

func startServer(t *testing.T, args ...string) *server {
	t.Helper()
	s := &server{t: t, socket: filepath.Join(t.TempDir(), "s"), args: args}
	s.start()
	t.Cleanup(s.stop)
	return s
}

func (s *server) start() {
	s.t.Helper()
	args := append([]string{"--port", "0", "--unixsocket", s.socket, "--save", "", "--appendonly", "no", "--dir", filepath.Dir(s.socket)}, s.args...)
	if s.bare {
		args = s.args
	}
	s.process = exec.Command(program(s.t), args...)
	s.process.Stdout, s.process.Stderr = io.Discard, io.Discard
	if err := s.process.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.until(func() bool { return s.command("PING") == nil })
}

func (s *server) stop() {
	_ = s.process.Process.Kill()
	_ = s.process.Wait()
}

// command sends a command as an administrator.
func (s *server) command(args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	c, err := dial(ctx, "unix", s.socket, 0, &Login{}, false)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.must(ctx, args...)
}

func (s *server) until(done func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatal("it did not come to that within a minute")
		}
	}
}

// client joins the fleet on the server.
func (s *server) client(host string, set Settings) *Client {
	return join(s.t, Engine{Network: "unix", Hosts: []string{s.socket}}, host, set, slog.New(slog.DiscardHandler))
}

func join(t *testing.T, e Engine, host string, set Settings, log *slog.Logger) *Client {
	if set.Timeout == 0 {
		set.Timeout = 5 * time.Second // of a machine that has much else to do
	}
	if set.Lease == 0 {
		set.Lease = time.Minute
	}
	c := New(Options{Engine: e, Prefix: "p", Host: host, Log: log}, set)
	t.Cleanup(c.Close)
	return c
}

func TestContract(t *testing.T) {
	sharetest.Run(t, func(t *testing.T) func(string, share.Keys) share.Fleet {
		s := startServer(t)
		return func(host string, keys share.Keys) share.Fleet { return s.client(host, Settings{Keys: keys}) }
	})
}
