//go:build linux

package soak

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tlspolicyd/socketmap"
	"tlspolicyd/testing/lab"
)

// site is where daemons run, one after the other: a directory with a
// configuration, a database and sockets.
type site struct {
	dir    string // short, for the sockets
	socket string // as socketmap.NewClient takes it
	config string

	// before, when set, is a shell script that runs in the daemon's place and
	// ends with exec "$@". flags are for clone(2).
	before string
	flags  uintptr
}

// newSite writes the configuration of a daemon in this world. more is TOML, in
// front of the tables. A policy host is waited for as long as can be set: on a
// busy machine the lab may need more than the usual 5 s, and then the answer to a
// first lookup is another one.
func newSite(t *testing.T, w *world, more string) *site {
	t.Helper()
	dir, err := os.MkdirTemp("", "soak")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &site{dir: dir, socket: "unix:" + filepath.Join(dir, "s"), config: filepath.Join(dir, "tlspolicyd.toml")}
	servers := "[]" // follow resolv.conf
	if w.dns.Port() != 53 {
		servers = fmt.Sprintf("[%q]", w.dns)
	}
	if !strings.Contains(more, "fetch.wait") {
		more += "\nfetch.wait = \"15s\""
	}
	text := fmt.Sprintf(`%[1]s
listen.socketmap = ["unix:%[2]s/s", "tcp:127.0.0.1:0"]
listen.admin = "unix:%[2]s/admin"
dns.servers = %[3]s
fetch.ca_file = %[4]q
fetch.allow_networks = [%[5]q]
fetch.proxy = "http://%[6]s"
cache.path = "%[2]s/db/policies.db"
`, more, dir, servers, w.ca, lab.Network, w.proxy)
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "db"), 0o700); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *site) database() string { return filepath.Join(s.dir, "db", "policies.db") }

// daemon is one process.
type daemon struct {
	*site
	t     *testing.T
	cmd   *exec.Cmd
	log   string        // file
	ended chan struct{} // closed when it has ended
	err   error         // valid then
	calls *interceptor  // nil: its system calls are its own
}

// start runs a daemon and waits until it is ready.
func (s *site) start(t *testing.T) *daemon {
	t.Helper()
	d := s.launch(t, false)
	d.ready()
	return d
}

// startIntercepted does, with some of its system calls in the hands of the test.
func (s *site) startIntercepted(t *testing.T) *daemon {
	t.Helper()
	d := s.launch(t, true)
	d.ready()
	return d
}

// launch runs a daemon and does not wait.
func (s *site) launch(t *testing.T, intercepted bool) *daemon {
	t.Helper()
	d := &daemon{site: s, t: t, log: filepath.Join(s.dir, "log"), ended: make(chan struct{})}
	out, err := os.OpenFile(d.log, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	args := []string{os.Getenv(daemonEnv), "serve", "--config", s.config}
	if s.before != "" {
		args = append([]string{"/bin/sh", "-ec", s.before, "sh"}, args...)
	}
	var handover *handover
	if intercepted {
		args = append([]string{os.Args[0], launchArg}, args...)
		handover = newHandover(t)
	}
	d.cmd = exec.Command(args[0], args[1:]...)
	d.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir, "GORACE=atexit_sleep_ms=0"}
	d.cmd.Stdout, d.cmd.Stderr = out, out
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: s.flags, Pdeathsig: syscall.SIGKILL}
	if handover != nil {
		d.cmd.ExtraFiles = []*os.File{handover.theirs}
	}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { defer close(d.ended); d.err = d.cmd.Wait() }()
	t.Cleanup(func() {
		d.kill()
		if d.calls != nil {
			<-d.calls.done
		}
	})
	if handover != nil {
		d.calls = handover.take(t)
	}
	return d
}

// ready waits until the daemon answers. It polls: as it is started here there
// is nothing else that tells.
func (d *daemon) ready() {
	d.t.Helper()
	c := d.client()
	defer c.Close()
	d.await("its socket to answer", func() bool {
		_, err := c.Lookup(context.Background(), "postfix", ".ready.test")
		return err == nil
	})
}

// patience is how long anything is waited for. It only turns a hang into a
// failure.
const patience = 2 * time.Minute

// await waits until ok, or for the end of the daemon, which is a failure.
func (d *daemon) await(what string, ok func() bool) {
	d.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-d.ended:
			d.t.Fatalf("the daemon ended (%v) before %s: %s", d.err, what, d.said())
		case <-limit.C:
			d.t.Fatalf("waited in vain for %s: %s", what, d.said())
		}
	}
}

// kill ends the daemon as SIGKILL does, and waits for it.
func (d *daemon) kill() {
	_ = d.cmd.Process.Kill() // it may have ended
	<-d.ended
}

// stop ends the daemon in order, which must succeed.
func (d *daemon) stop() {
	d.t.Helper()
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		d.t.Errorf("stop: %v: %s", err, d.said())
	}
	select {
	case <-d.ended:
	case <-time.After(patience):
		d.t.Fatalf("does not stop: %s", d.said())
	}
	if d.err != nil {
		d.t.Errorf("ended with %v: %s", d.err, d.said())
	}
}

// wantAlive fails the test if the daemon has ended by itself.
func (d *daemon) wantAlive() {
	d.t.Helper()
	select {
	case <-d.ended:
		d.t.Fatalf("the daemon ended by itself: %v: %s", d.err, d.said())
	default:
	}
}

// said returns the end of the log.
func (d *daemon) said() []byte {
	const most = 4000
	b, err := os.ReadFile(d.log)
	if err != nil {
		return []byte(err.Error())
	}
	return b[max(0, len(b)-most):]
}

// logged reports whether the log has a line with this in it.
func (d *daemon) logged(part string) bool {
	b, err := os.ReadFile(d.log)
	if err != nil {
		d.t.Fatal(err)
	}
	return bytes.Contains(b, []byte(part))
}

// tcp returns the address of the TCP socket, from the log.
func (d *daemon) tcp() string {
	d.t.Helper()
	b, err := os.ReadFile(d.log)
	if err != nil {
		d.t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(b), " tcp:")
	if !found {
		d.t.Fatalf("no TCP socket in the log: %s", d.said())
	}
	return rest[:strings.IndexAny(rest, "] \"")]
}

func (d *daemon) client() *socketmap.Client {
	c, err := socketmap.NewClient(d.socket)
	if err != nil {
		d.t.Fatal(err)
	}
	return c
}

// dial connects, for bytes as they are.
func (d *daemon) dial(network string) (net.Conn, error) {
	if network == "unix" {
		return net.Dial("unix", filepath.Join(d.dir, "s"))
	}
	return net.Dial("tcp", d.tcp())
}

// want asks and compares.
func (d *daemon) want(c *socketmap.Client, l lookup) {
	d.t.Helper()
	if got := ask(c, l.key); got != l.want {
		d.t.Errorf("%s: got %q, want %q", l.key, got, l.want)
	}
}

// ask returns the reply, or the error in its place.
func ask(c *socketmap.Client, key string) string {
	reply, err := c.Lookup(context.Background(), "postfix", key)
	if err != nil {
		return err.Error()
	}
	return reply.String()
}

// proc reads a file of the daemon's in /proc.
func (d *daemon) proc(name string) string {
	d.t.Helper()
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(d.cmd.Process.Pid), name))
	if err != nil {
		d.t.Fatalf("%v: %s", err, d.said())
	}
	return string(b)
}

// memory is the daemon's resident memory in bytes.
func (d *daemon) memory() int64 {
	d.t.Helper()
	_, rest, _ := strings.Cut(d.proc("status"), "VmRSS:")
	kB, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	if err != nil {
		d.t.Fatal(err)
	}
	return kB << 10
}

// cpu is the processor time that the daemon has used.
func (d *daemon) cpu() time.Duration {
	d.t.Helper()
	stat := d.proc("stat")
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			d.t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond // USER_HZ is 100 everywhere
}

// wantIdle fails the test if the daemon, which has nothing to do but what its
// trouble makes it try again, keeps a processor busy. That is a share of the time
// that passes, whatever a piece of work costs on this machine.
func (d *daemon) wantIdle() {
	d.t.Helper()
	cpu, began := d.cpu(), time.Now()
	pause(scale(time.Second, 10*time.Second))
	used, took := d.cpu()-cpu, time.Since(began).Round(time.Millisecond)
	if used > took/2 {
		d.t.Errorf("used %v of processor time in %v: it spins", used, took)
	}
	d.t.Logf("used %v of processor time in %v, with nothing to do", used, took)
}

// files is the number of the daemon's open file descriptors.
func (d *daemon) files() int {
	d.t.Helper()
	all, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(d.cmd.Process.Pid), "fd"))
	if err != nil {
		d.t.Fatal(err)
	}
	return len(all)
}
