//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
)

const daemonDir = workDir + "/daemon"

// daemon is tlspolicyd, run as an unprivileged user.
type daemon struct {
	binary string
	proc   *process
}

// newDaemon configures a daemon that listens in each directory.
func newDaemon(built string, socketDirs []string) (*daemon, error) {
	// The user nobody may not reach the folder that it was built in.
	program, err := os.ReadFile(built)
	if err != nil {
		return nil, err
	}
	binary := workDir + "/tlspolicyd"
	if err := os.WriteFile(binary, program, 0o755); err != nil {
		return nil, err
	}
	var sockets []string
	for _, dir := range append(socketDirs, daemonDir) {
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.Chown(dir, nobody, nobody)); err != nil {
			return nil, err
		}
		sockets = append(sockets, fmt.Sprintf("%q", "unix:"+dir+"/socketmap.sock"))
	}
	config := `
[listen]
socketmap = [` + strings.Join(sockets, ", ") + `]
admin = "unix:` + daemonDir + `/admin.sock"
[dns]
servers = ["` + resolverAddr + `"]
[fetch]
ca_file = "` + workDir + `/ca.pem"
allow_networks = ["127.0.0.0/8"]
[cache]
path = "` + daemonDir + `/policies.db"
[tlsrpt]
socket = "` + reportPath + `"
[log]
level = "debug"
`
	return &daemon{binary: binary}, write(daemonDir+"/tlspolicyd.toml", config)
}

func (d *daemon) start() (err error) {
	d.proc, err = start("", nobody, d.binary, "serve", "--config", daemonDir+"/tlspolicyd.toml")
	if err != nil {
		return err
	}
	return waitFor(func() error {
		select {
		case <-d.proc.done:
			return errors.New("tlspolicyd ended")
		default:
		}
		conn, err := net.Dial("unix", daemonDir+"/socketmap.sock")
		if err == nil {
			conn.Close()
		}
		return err
	})
}

// crash is SIGKILL: nothing that is not on disk survives.
func (d *daemon) crash() error { return d.proc.stop(syscall.SIGKILL) }

// table is a map of the daemon for postmap -q, which needs the absolute path.
func (d *daemon) table(name string) string {
	return "socketmap:unix:" + daemonDir + "/socketmap.sock:" + name
}
