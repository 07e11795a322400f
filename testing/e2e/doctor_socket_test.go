//go:build e2e

package e2e

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// lp is an ordinary user of every Debian.
const lp = 7

// socketFaults are about the way from Postfix to the daemon.
func socketFaults(h *doctorHost) []hostFault {
	dir := h.queue() + "/run/tlspolicyd"
	socket := dir + "/socketmap.sock"
	restart := func(t *testing.T, h *doctorHost, _ []string) { h.restart(t) }
	return []hostFault{
		{
			name: "socket with mode 0600", want: []string{"fail socket-denied"}, repair: byItsLines,
			cause: func(t *testing.T, _ *doctorHost) { chmod(t, socket, 0o600, 0o666) },
		},
		{
			name: "directory with mode 0700", want: []string{"fail socket-denied"}, repair: byItsLines,
			cause: func(t *testing.T, _ *doctorHost) { chmod(t, dir, 0o700, 0o755) },
		},
		{
			name: "a file in its place", want: []string{"fail socket-not-a-socket"},
			cause: func(t *testing.T, _ *doctorHost) {
				move(t, socket, socket+".kept")
				if err := write(socket, ""); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { os.Remove(socket + ".old") })
			},
			repair: func(t *testing.T, h *doctorHost, lines []string) {
				byItsLines(t, h, lines)
				h.restart(t)
			},
		},
		{
			name: "daemon stopped", want: []string{"fail socket-missing", "fail daemon-down"},
			cause:  func(t *testing.T, h *doctorHost) { h.stop(t, syscall.SIGTERM) },
			repair: restart,
		},
		{
			name: "daemon killed", want: []string{"fail socket-no-answer", "fail daemon-down"},
			cause:  func(t *testing.T, h *doctorHost) { h.stop(t, syscall.SIGKILL) },
			repair: restart,
		},
		{
			name: "another program at our socket", want: []string{"fail socket-other-program"},
			cause: func(t *testing.T, h *doctorHost) {
				h.stop(t, syscall.SIGTERM)
				t.Cleanup(serveNothing(t, socket))
			},
			repair: func(t *testing.T, h *doctorHost, _ []string) {
				if err := os.Remove(socket); err != nil {
					t.Fatal(err)
				}
				h.restart(t)
			},
		},
		{
			name: "answers late", want: []string{"warn socket-slow"},
			cause: func(t *testing.T, _ *doctorHost) {
				move(t, socket, socket+".kept")
				t.Cleanup(relaySlowly(t, socket, daemonDir+"/socketmap.sock"))
			},
			repair: func(t *testing.T, _ *doctorHost, _ []string) { move(t, socket+".kept", socket) },
		},
		{
			name: "ordinary user and a closed directory", want: []string{"unknown socket-inconclusive"},
			broken: doctorRun{user: lp},
			cause:  func(t *testing.T, _ *doctorHost) { chmod(t, dir, 0o700, 0o755) },
			repair: byRoot(dir, 0o755),
		},
	}
}

// collectorFaults are about the way from the daemon to the TLSRPT collector.
func collectorFaults() []hostFault {
	const config = daemonDir + "/no-tlsrpt.toml"
	dir := filepath.Dir(reportPath)
	flags := doctorRun{flags: []string{"--config", config}}
	return []hostFault{
		{
			name: "no TLSRPT collector", want: []string{"warn tlsrpt-socket-missing"},
			cause:  func(t *testing.T, _ *doctorHost) { move(t, reportPath, reportPath+".away") },
			repair: func(t *testing.T, _ *doctorHost, _ []string) { move(t, reportPath+".away", reportPath) },
		},
		{
			name: "Postfix reports, and the daemon does not", want: []string{"warn tlsrpt-socket-unused"},
			broken: flags, repaired: flags,
			cause: func(t *testing.T, _ *doctorHost) {
				text, err := os.ReadFile(daemonDir + "/tlspolicyd.toml")
				line := fmt.Sprintf("socket = %q\n", reportPath)
				without := strings.Replace(string(text), line, "", 1)
				if err == nil {
					err = write(config, without)
				}
				if err != nil || without == string(text) {
					t.Fatal(err, line)
				}
			},
			repair: func(t *testing.T, _ *doctorHost, lines []string) {
				text, err := os.ReadFile(config)
				if err == nil {
					err = write(config, strings.Replace(string(text), "[tlsrpt]\n", "[tlsrpt]\n"+strings.Join(lines, "\n")+"\n", 1))
				}
				if err != nil {
					t.Fatal(err)
				}
			},
		},
		{
			name: "ordinary user and a closed directory of the collector", want: []string{"unknown tlsrpt-socket-inconclusive"},
			broken: doctorRun{user: lp},
			cause:  func(t *testing.T, _ *doctorHost) { chmod(t, dir, 0o700, 0o755) },
			repair: byRoot(dir, 0o755),
		},
	}
}

// byRoot opens what was closed; doctor is run as root then.
func byRoot(path string, mode os.FileMode) func(*testing.T, *doctorHost, []string) {
	return func(t *testing.T, _ *doctorHost, _ []string) {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
}

// stop ends the daemon until the end of the test.
func (h *doctorHost) stop(t *testing.T, sig syscall.Signal) {
	t.Helper()
	d := h.w.daemon
	if err := d.proc.stop(sig); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		select {
		case <-d.proc.done:
			if err := d.start(); err != nil {
				t.Error(err)
			}
		default: // started by the test
		}
	})
}

// restart starts the daemon afresh.
func (h *doctorHost) restart(t *testing.T) {
	t.Helper()
	if err := h.w.daemon.proc.stop(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := h.w.daemon.start(); err != nil {
		t.Fatal(err)
	}
}

func move(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func chmod(t *testing.T, path string, mode, before os.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Chmod(path, before); err != nil {
			t.Error(err)
		}
	})
}

// serveNothing is another socketmap server: it has no policy for any domain, by any
// map.
func serveNothing(t *testing.T, path string) (stop func()) {
	return serve(t, path, func(conn net.Conn) {
		buf := make([]byte, 4096)
		for {
			if _, err := conn.Read(buf); err != nil {
				return
			}
			if _, err := io.WriteString(conn, "9:NOTFOUND ,"); err != nil {
				return
			}
		}
	})
}

// relaySlowly passes requests on to a daemon, and holds each reply back for
// longer than doctor accepts.
func relaySlowly(t *testing.T, path, daemon string) (stop func()) {
	return serve(t, path, func(conn net.Conn) {
		behind, err := net.Dial("unix", daemon)
		if err != nil {
			return
		}
		defer behind.Close()
		go func() { _, _ = io.Copy(behind, conn) }()
		buf := make([]byte, 4096)
		for {
			n, err := behind.Read(buf)
			if err != nil {
				return
			}
			time.Sleep(1100 * time.Millisecond)
			if _, err := conn.Write(buf[:n]); err != nil {
				return
			}
		}
	})
}

// serve has a function talk to every client that connects to a path.
func serve(t *testing.T, path string, talk func(net.Conn)) (stop func()) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err == nil {
		err = os.Chmod(path, 0o666)
	}
	if err != nil {
		t.Fatal(fmt.Errorf("listen at %s: %w", path, err))
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // the daemon may be back there
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				talk(conn)
			}()
		}
	}()
	return func() { l.Close() }
}
