package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unicode/utf8"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"
	"go.uber.org/goleak"

	"tlspolicyd/socketmap"
)

func TestMain(m *testing.M) {
	testscript.Main(leakChecked{m}, map[string]func(){programName: main})
}

// leakChecked are the tests, and afterwards a look whether goroutines are left.
type leakChecked struct{ *testing.M }

func (m leakChecked) Run() int {
	code := m.M.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return code
}

// The program's stdout, stderr and exit status are the users' interface:
// testdata/*.txtar say what they are.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			env.Values[daemonKey{}] = new([]*daemonProcess)
			// As under systemd, so that nothing depends on who runs the test.
			env.Setenv("RUNTIME_DIRECTORY", filepath.Join(env.WorkDir, "run"))
			env.Setenv("STATE_DIRECTORY", filepath.Join(env.WorkDir, "state"))
			env.Setenv("GID", strconv.Itoa(os.Getgid()))
			env.Setenv("GORACE", "atexit_sleep_ms=0") // else each run of the program takes a second longer
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":  cmdExits,
			"daemon": cmdDaemon,
			"await":  cmdAwait,
			"signal": cmdSignal,
			"ended":  cmdEnded,
			"server": cmdServer,
			"mode":   cmdMode,
			"expand": cmdExpand,
		},
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
	})
}

// exits STATUS PROGRAM [ARG...] runs a program that must end with that status.
func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits STATUS PROGRAM [ARG...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		ee, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v", err)
		}
		got = ee.ExitCode()
	}
	if got != want {
		ts.Fatalf("%s ended with status %d, want %d", strings.Join(args[1:], " "), got, want)
	}
}

type daemonKey struct{}

// ended is what a script hears instead of the daemon once that has ended.
const ended = "ENDED=1"

// tellEnded puts that word behind everything told at a notification socket.
func tellEnded(name string) error {
	c, err := net.Dial("unixgram", name)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Write([]byte(ended))
	return err
}

// daemonProcess is a daemon of a script.
type daemonProcess struct {
	cmd    *exec.Cmd
	notify *net.UnixConn // what it tells its service manager
	ended  chan struct{} // closed when Wait has returned
	err    error         // of Wait
}

// currentDaemon returns the one that was started last.
func currentDaemon(ts *testscript.TestScript) *daemonProcess {
	all := *ts.Value(daemonKey{}).(*[]*daemonProcess)
	if len(all) == 0 {
		ts.Fatalf("no daemon was started")
	}
	return all[len(all)-1]
}

// daemon [-stderr=closed|stalled] [-activate=PATH] [ARG...] starts tlspolicyd
// as a service manager does and waits until it is ready. Its log goes to
// daemon.log, or to a pipe whose reader has gone or does not read.
func cmdDaemon(ts *testscript.TestScript, _ bool, args []string) {
	all := ts.Value(daemonKey{}).(*[]*daemonProcess)
	d := &daemonProcess{ended: make(chan struct{})}
	stderr, err := os.Create(ts.MkAbs("daemon.log"))
	ts.Check(err)
	program := []string{programName}
	var files []*os.File
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		if kind, ok := strings.CutPrefix(args[0], "-stderr="); ok {
			stderr.Close()
			stderr = unreadPipe(ts, kind == "stalled")
		}
		if path, ok := strings.CutPrefix(args[0], "-activate="); ok {
			l, err := net.Listen("unix", ts.MkAbs(path))
			ts.Check(err)
			f, err := l.(*net.UnixListener).File()
			ts.Check(err)
			files = append(files, f)
			// LISTEN_PID must be the number of the process itself.
			program = []string{"sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 exec ` + programName + ` "$@"`, "sh"}
		}
		args = args[1:]
	}
	notify := ts.MkAbs(fmt.Sprintf("notify%d.sock", len(*all)))
	d.notify, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: notify})
	ts.Check(err)
	path, err := lookPath(ts, program[0])
	ts.Check(err)
	d.cmd = exec.Command(path, append(program[1:], args...)...)
	d.cmd.Dir = ts.MkAbs(".")
	d.cmd.Env = []string{"NOTIFY_SOCKET=" + notify}
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "RUNTIME_DIRECTORY", "STATE_DIRECTORY", "WATCHDOG_USEC", "GOCOVERDIR"} {
		if v := ts.Getenv(name); v != "" {
			d.cmd.Env = append(d.cmd.Env, name+"="+v)
		}
	}
	d.cmd.Stderr = stderr
	d.cmd.ExtraFiles = files
	ts.Check(d.cmd.Start())
	stderr.Close()
	for _, f := range files {
		f.Close()
	}
	*all = append(*all, d)
	go func() {
		defer close(d.ended)
		d.err = d.cmd.Wait()
		// Whoever awaits something learns that nothing more will come.
		if err := tellEnded(notify); err != nil && d.err == nil {
			d.err = err
		}
	}()
	ts.Defer(func() {
		_ = d.cmd.Process.Kill() // gone already when all went well
		d.notify.Close()         // nobody is to wait for room in it
		<-d.ended
	})
	cmdAwait(ts, false, []string{"READY=1"})
}

// unreadPipe returns the end for writing of a pipe whose other end is closed,
// or of one that is full and that nobody reads.
func unreadPipe(ts *testscript.TestScript, stalled bool) *os.File {
	r, w, err := os.Pipe()
	ts.Check(err)
	if !stalled {
		r.Close()
		return w
	}
	ts.Defer(func() { r.Close() })
	ts.Check(fill(w))
	return w
}

// fill writes to a pipe until not one more byte fits.
func fill(pipe *os.File) error {
	conn, err := pipe.SyscallConn()
	if err != nil {
		return err
	}
	for _, size := range []int{4096, 1} {
		if err := conn.Write(func(fd uintptr) bool {
			for err = nil; err == nil; {
				_, err = syscall.Write(int(fd), make([]byte, size))
			}
			return true
		}); err != nil {
			return err
		}
		if !errors.Is(err, syscall.EAGAIN) {
			return err
		}
	}
	return nil
}

// lookPath finds a program in the PATH of the script.
func lookPath(ts *testscript.TestScript, name string) (string, error) {
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		if path := filepath.Join(dir, name); exec.Command(path).Err == nil {
			if _, err := os.Stat(path); err == nil {
				return path, nil
			}
		}
	}
	return "", fmt.Errorf("no %s in PATH", name)
}

// await STATE waits until the daemon has told its service manager that state.
func cmdAwait(ts *testscript.TestScript, _ bool, args []string) {
	d := currentDaemon(ts)
	buf := make([]byte, 4096)
	for {
		n, err := d.notify.Read(buf)
		ts.Check(err)
		if string(buf[:n]) == ended {
			<-d.ended
			ts.Fatalf("ended (%v) before it told %s: %s", d.err, args[0], ts.ReadFile("daemon.log"))
		}
		if strings.Contains("\n"+string(buf[:n])+"\n", "\n"+args[0]+"\n") {
			return
		}
	}
}

// signal NAME sends a signal to the daemon.
func cmdSignal(ts *testscript.TestScript, _ bool, args []string) {
	d := currentDaemon(ts)
	sig, ok := map[string]syscall.Signal{"TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "HUP": syscall.SIGHUP}[args[0]]
	if !ok {
		ts.Fatalf("signal %s", args[0])
	}
	ts.Check(d.cmd.Process.Signal(sig))
}

// ended waits for the end of the daemon, which must be with status 0.
func cmdEnded(ts *testscript.TestScript, _ bool, _ []string) {
	d := currentDaemon(ts)
	<-d.ended
	if d.err != nil {
		ts.Fatalf("daemon: %v: %s", d.err, ts.ReadFile("daemon.log"))
	}
}

// server PATH KEY=REPLY... runs a socketmap server with fixed replies.
func cmdServer(ts *testscript.TestScript, _ bool, args []string) {
	replies := make(fixedReplies)
	for _, a := range args[1:] {
		key, reply, _ := strings.Cut(a, "=")
		replies[key] = reply
	}
	l, err := net.Listen("unix", ts.MkAbs(args[0]))
	ts.Check(err)
	s := &socketmap.Server{Handler: replies}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	ts.Defer(func() {
		s.Close()
		if err := <-done; !errors.Is(err, socketmap.ErrServerClosed) {
			ts.Fatalf("server: %v", err)
		}
	})
}

// fixedReplies answers "MAP KEY", else PERM.
type fixedReplies map[string]string

func (f fixedReplies) Lookup(_ context.Context, name, key []byte) []byte {
	if reply, ok := f[string(name)+" "+string(key)]; ok {
		return []byte(reply)
	}
	return fmt.Appendf(nil, "PERM unexpected %s %s", name, key)
}

// mode MODE FILE... checks type and permissions, written as ls(1) does.
func cmdMode(ts *testscript.TestScript, _ bool, args []string) {
	for _, name := range args[1:] {
		info, err := os.Lstat(ts.MkAbs(name))
		ts.Check(err)
		if got := info.Mode().String(); got != args[0] {
			ts.Fatalf("%s has mode %s, want %s", name, got, args[0])
		}
	}
}

// expand FILE... puts the values of the script's variables into files.
func cmdExpand(ts *testscript.TestScript, _ bool, args []string) {
	for _, name := range args {
		text := os.Expand(ts.ReadFile(name), ts.Getenv)
		ts.Check(os.WriteFile(ts.MkAbs(name), []byte(text), 0o600))
	}
}

// Every --help fits a terminal of 80 columns.
func TestHelpFits80Columns(t *testing.T) {
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		args := append(strings.Fields(c.CommandPath())[1:], "--help")
		var out, errs bytes.Buffer
		if status := run(t.Context(), args, nil, &out, &errs); status != exitDone {
			t.Errorf("%v: status %d: %s", args, status, errs.String())
		}
		for line := range strings.Lines(out.String()) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 80 {
				t.Errorf("%v: %d columns: %s", args, n, line)
			}
		}
		for _, sub := range c.Commands() {
			if sub.IsAvailableCommand() {
				walk(sub)
			}
		}
	}
	walk(newRoot(new(options)))
}
