//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// engineKind is Valkey or Redis as a Debian release has it.
type engineKind struct {
	name, server, cli string
	root              func(*fleet) string
	tls               bool // with client certificates
}

func valkey8() engineKind {
	return engineKind{
		name: "Valkey 8 (Debian 13), TLS", server: "/usr/bin/valkey-server", cli: "/usr/bin/valkey-cli",
		root: func(f *fleet) string { return f.trixie }, tls: true,
	}
}

func redis7() engineKind {
	return engineKind{
		name: "Redis 7 (Debian 12)", server: "/usr/bin/redis-server", cli: "/usr/bin/redis-cli",
		root: func(f *fleet) string { return f.bookworm },
	}
}

const (
	engineDir     = fleetDir + "/engine"
	engineUser    = "tlspolicyd"
	enginePrefix  = "tlspolicyd"
	adminPassword = "administrator"
	userPassword  = "outbound"
)

// engine is one running server of a kind.
type engine struct {
	engineKind
	fleet *fleet
	home  string
	port  int
	proc  *process
}

// newEngine starts a server with the users of contrib/fleet and more lines in its
// configuration.
func (f *fleet) newEngine(kind engineKind, port int, extra string) (*engine, error) {
	e := &engine{engineKind: kind, fleet: f, home: fmt.Sprintf("%s/%d", engineDir, port), port: port}
	acl, err := os.ReadFile("contrib/fleet/users.acl")
	if err != nil {
		return nil, err
	}
	users := strings.ReplaceAll(string(acl), "PASSWORD", userPassword)
	if strings.Contains(extra, "cluster-enabled") {
		users = strings.TrimSuffix(users, "\n") + " +cluster|slots\n" // docs/fleet.md
	}
	users = strings.Replace(users, "user default off", "user default on >"+adminPassword+" ~* &* +@all", 1)
	config := fmt.Sprintf("bind %s\ndir %s\nsave \"\"\nappendonly no\naclfile %s\nmasterauth %s\n",
		fleetEngine, e.home, e.home+"/users.acl", adminPassword) + extra
	if !kind.tls {
		config += fmt.Sprintf("port %d\n", port)
	} else {
		config += fmt.Sprintf("port 0\ntls-port %d\ntls-cert-file %s\ntls-key-file %s\ntls-ca-cert-file %s\n",
			port, e.home+"/cert.pem", e.home+"/cert.pem", workDir+"/ca.pem")
		pair, err := f.ca.certificate(fleetEngine)
		if err := errors.Join(err, write(e.home+"/cert.pem", pair.pem)); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(write(e.home+"/server.conf", config), write(e.home+"/users.acl", users)); err != nil {
		return nil, err
	}
	return e, e.start()
}

func (e *engine) start() (err error) {
	e.proc, err = startIn("engine", e.root(e.fleet), 0, e.server, e.home+"/server.conf")
	if err != nil {
		return err
	}
	return waitFor(func() error {
		reply, err := e.command("PING")
		if err == nil && reply != "PONG" {
			err = errors.New(e.name + " answers " + reply)
		}
		return err
	})
}

func (e *engine) stop() error { return e.proc.stop(syscall.SIGKILL) }

// moveTo starts the server on another port.
func (e *engine) moveTo(port int) error {
	text, err := os.ReadFile(e.home + "/server.conf")
	if err != nil {
		return err
	}
	moved := strings.Replace(string(text), fmt.Sprintf("port %d\n", e.port), fmt.Sprintf("port %d\n", port), 1)
	if err := errors.Join(e.stop(), write(e.home+"/server.conf", moved)); err != nil {
		return err
	}
	e.port = port
	return e.start()
}

// permit gives the fleet's user again what contrib/fleet gives it.
func (e *engine) permit() error { return commands("ACL LOAD")(e) }

// command runs a command as the administrator and returns the reply as text.
func (e *engine) command(args ...string) (string, error) {
	stdout, _, err := command(e.root(e.fleet), append(e.argv(), args...)...)
	return strings.TrimSpace(stdout), err
}

// argv is the program for commands and how it logs in.
func (e *engine) argv() []string {
	argv := []string{e.cli, "-h", fleetEngine, "-p", fmt.Sprint(e.port), "--user", "default", "-a", adminPassword, "--no-auth-warning"}
	if e.tls {
		pair := e.home + "/cert.pem"
		argv = append(argv, "--tls", "--cacert", workDir+"/ca.pem", "--cert", pair, "--key", pair)
	}
	return argv
}

// shared writes the secrets of the fleet and returns its [share] section, for
// engines at these addresses.
func (f *fleet) shared(kind engineKind, extra string, ports ...int) (string, error) {
	var hosts []string
	for _, p := range ports {
		hosts = append(hosts, at(p))
	}
	scheme := "redis"
	if kind.tls {
		scheme = "rediss"
		extra += fmt.Sprintf("ca_file = %q\ncert_file = %q\ncert_key_file = %q\n",
			workDir+"/ca.pem", fleetDir+"/client.pem", fleetDir+"/client.pem")
	}
	client, err := f.ca.certificate("mail.fleet.test")
	err = errors.Join(err, secret(fleetDir+"/client.pem", client.pem),
		secret(fleetDir+"/password", userPassword+"\n"), secret(fleetDir+"/key", fleetKey+"\n"))
	return fmt.Sprintf("[share]\nurl = %q\nusername = %q\npassword_file = %q\nkey_file = %q\n",
		scheme+"://"+strings.Join(hosts, ","), engineUser, fleetDir+"/password", fleetDir+"/key") + extra, err
}

const fleetKey = "Zm9yIHRoZSBmbGVldCBvZiB0aGUgdGVzdCBvbmx5Lg=="

// secret writes a file that only the daemon's user can read.
func secret(path, text string) error {
	return errors.Join(write(path, text), os.Chown(path, nobody, nobody), os.Chmod(path, 0o600))
}

// at is the address of a port of the engine's host.
func at(port int) string { return net.JoinHostPort(fleetEngine, strconv.Itoa(port)) }

// key is that of a domain's entry.
func key(domain string) string { return enginePrefix + ":1:{" + domain + "}" }

// slowProxy takes the engine's port and passes bytes on, each way half of the
// delay later, which is none at first.
type slowProxy struct {
	delay    atomic.Int64 // nanoseconds
	listener net.Listener
	group    sync.WaitGroup
	quit     chan struct{}
}

func newSlowProxy(from, to int) (*slowProxy, error) {
	p := &slowProxy{quit: make(chan struct{})}
	err := inNamespace("engine", func() (err error) {
		p.listener, err = net.Listen("tcp", at(from))
		return err
	})
	if err != nil {
		return nil, err
	}
	p.group.Go(func() {
		for {
			conn, err := p.listener.Accept()
			if err != nil {
				return
			}
			other, err := net.Dial("tcp", at(to))
			if err != nil {
				conn.Close()
				continue
			}
			go func() { // so that both copies end
				<-p.quit
				conn.Close()
				other.Close()
			}()
			p.group.Go(func() { p.pass(conn, other) })
			p.group.Go(func() { p.pass(other, conn) })
		}
	})
	return p, nil
}

func (p *slowProxy) pass(from, to net.Conn) {
	type piece struct {
		due   time.Time
		bytes []byte
	}
	pieces := make(chan piece, 4096)
	p.group.Go(func() {
		defer to.Close()
		for next := range pieces {
			select {
			case <-time.After(time.Until(next.due)):
			case <-p.quit:
			}
			_, _ = to.Write(next.bytes)
		}
	})
	defer close(pieces)
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			pieces <- piece{time.Now().Add(time.Duration(p.delay.Load() / 2)), append([]byte(nil), buf[:n]...)}
		}
		if err != nil {
			return
		}
	}
}

func (p *slowProxy) stop() {
	p.listener.Close()
	close(p.quit)
	p.group.Wait()
}

// babbler takes the engine's port and answers every connection with the same bytes.
func babbler(port int, with string) (io.Closer, error) {
	var listener net.Listener
	err := inNamespace("engine", func() (err error) {
		listener, err = net.Listen("tcp", at(port))
		return err
	})
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.WriteString(conn, with)
				_, _ = io.Copy(io.Discard, conn)
			}()
		}
	}()
	return listener, nil
}

// newSentinels starts three Sentinels that watch the master at a port.
func (f *fleet) newSentinels(kind engineKind, master int) (ports []int, err error) {
	for i := range 3 {
		port := 26379 + i
		dir := fmt.Sprintf("%s/%d", engineDir, port)
		config := fmt.Sprintf("port %d\nbind %s\ndir %s\nsentinel monitor fleet %s %d 2\n"+
			"sentinel auth-user fleet default\nsentinel auth-pass fleet %s\n"+
			"sentinel down-after-milliseconds fleet 1000\nsentinel failover-timeout fleet 5000\n",
			port, fleetEngine, dir, fleetEngine, master, adminPassword)
		if err := write(filepath.Join(dir, "sentinel.conf"), config); err != nil {
			return nil, err
		}
		if _, err := startIn("engine", kind.root(f), 0, kind.server, dir+"/sentinel.conf", "--sentinel"); err != nil {
			return nil, err
		}
		ports = append(ports, port)
		if err := listening(at(port)); err != nil {
			return nil, err
		}
	}
	return ports, nil
}

// newCluster starts three nodes and makes a cluster of them.
func (f *fleet) newCluster(kind engineKind) (nodes []*engine, err error) {
	argv := []string{kind.cli, "--user", "default", "-a", adminPassword, "--no-auth-warning", "--cluster-yes", "--cluster", "create"}
	for i := range 3 {
		node, err := f.newEngine(kind, 7001+i, "cluster-enabled yes\ncluster-node-timeout 2000\n")
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, node)
		argv = append(argv, at(node.port))
	}
	if _, _, err := command(kind.root(f), argv...); err != nil {
		return nil, err
	}
	return nodes, waitFor(func() error {
		for _, n := range nodes {
			info, err := n.command("CLUSTER", "INFO")
			if err != nil || !strings.Contains(info, "cluster_state:ok") {
				return fmt.Errorf("node %d is not ready: %s, %v", n.port, info, err)
			}
		}
		return nil
	})
}
