package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"tlspolicyd/socketmap"
	"tlspolicyd/testing/lab"
	"tlspolicyd/testing/lab/daemon"
	"tlspolicyd/testing/load"
)

// roles are what this program is when it is started by itself.
var roles = map[string]func(args []string) error{
	"as-echo":  echo,
	"as-lab":   labRole,
	"as-other": other,
}

// child is this program in a role.
type child struct {
	cmd   *exec.Cmd
	stdin io.Closer
	first string // the line it began with
}

// startChild starts a role and waits for its first line.
func startChild(role string, args ...string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &child{cmd: exec.Command(self, append([]string{role}, args...)...)}
	c.cmd.Stderr = os.Stderr
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	c.first, err = bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", role, err), c.stop())
	}
	c.first = strings.TrimSpace(c.first)
	return c, nil
}

func (c *child) stop() error {
	c.stdin.Close() // each role ends then
	return c.cmd.Wait()
}

// untilStdinEnds is how a role waits to be stopped; the end of its parent stops
// it as well.
func untilStdinEnds() { _, _ = io.Copy(io.Discard, os.Stdin) }

// echo is the role of the ceiling: a Unix socket, a TCP address, and the payload.
func echo(args []string) error {
	unix, err := net.Listen("unix", args[0])
	if err != nil {
		return err
	}
	tcp, err := net.Listen("tcp", args[1])
	if err != nil {
		return err
	}
	go load.Echo(unix, []byte(args[2]))
	go load.Echo(tcp, []byte(args[2]))
	fmt.Println("ready")
	untilStdinEnds()
	return nil
}

// host is a daemon with a directory of its own.
type host struct {
	*daemon.Daemon
	dir  string
	tcp  string // its TCP address
	unix string // its socket's path
}

// nowhere is a resolver that nobody is behind: what is in the cache needs none.
const nowhere = "[dns]\nservers = [\"127.0.0.1:9\"]\n"

// startHost runs the daemon on the database in dir and waits until it answers.
// network is the configuration of its resolver and what belongs to that, listen
// lines about its sockets; without any it serves 20,000 connections.
func startHost(ctx context.Context, s settings, dir, network string, listen ...string) (*host, error) {
	tcp, err := freePort()
	if err != nil {
		return nil, err
	}
	if len(listen) == 0 {
		listen = []string{"max_connections = 20000"}
	}
	h := &host{dir: dir, tcp: tcp, unix: filepath.Join(dir, "socketmap.sock")}
	config := fmt.Sprintf(`[listen]
socketmap = ["unix:%[1]s", "tcp:%[2]s"]
admin     = "unix:%[3]s/admin.sock"
%[5]s

[cache]
path = "%[3]s/policies.db"
max_entries = 2000000

%[4]s`, h.unix, h.tcp, dir, network, strings.Join(listen, "\n"))
	if h.Daemon, err = daemon.Start(s.daemon, dir, config); err != nil {
		return nil, err
	}
	client, err := socketmap.NewClient("unix:" + h.unix)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	if err := h.Ready(ctx, client); err != nil {
		return nil, errors.Join(err, h.Stop())
	}
	return h, nil
}

// address is where to connect to over a network.
func (h *host) address(network string) string {
	if network == "unix" {
		return h.unix
	}
	return h.tcp
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// cpu is the processor time that a process has used, all threads together.
func cpu(pid int) time.Duration {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	total := 0
	for _, path := range tasks {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // the thread has ended
		}
		first, _, _ := strings.Cut(string(text), " ")
		n, _ := strconv.Atoi(first)
		total += n
	}
	return time.Duration(total)
}

// memory is what of a process is resident, in bytes: all of it, the part that
// is its own, and the part that is pages of files.
type memory struct{ all, own, files int }

func memoryOf(pid int) (m memory, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return m, err
	}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		kib, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
		switch name {
		case "VmRSS":
			m.all = kib << 10
		case "RssAnon":
			m.own = kib << 10
		case "RssFile":
			m.files = kib << 10
		}
	}
	return m, nil
}

// bounded returns an error if the process's own memory is so large that it is a
// defect: twice the aim.
func (m memory) bounded() error {
	if m.own > 250<<20 {
		return fmt.Errorf("resident: %v, which is far too much", m)
	}
	return nil
}

func (m memory) String() string {
	return fmt.Sprintf("%d MB (%d MB its own, %d MB pages of files)", m.all>>20, m.own>>20, m.files>>20)
}

// tempDir is a directory with a path short enough for a socket.
func tempDir() (dir string, remove func(), err error) {
	dir, err = os.MkdirTemp("", "bench-")
	return dir, func() { os.RemoveAll(dir) }, err
}

// labConfig is what a daemon needs to live in a lab of another process.
func labConfig(dir string, c *child) string {
	dns, proxy, _ := strings.Cut(c.first, " ")
	return fmt.Sprintf(`[dns]
servers = ["%s"]

[fetch]
ca_file        = "%s/ca.pem"
allow_networks = ["%s"]
proxy          = "http://%s"
`, dns, dir, lab.Network, proxy)
}
