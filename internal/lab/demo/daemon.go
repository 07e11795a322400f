package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"tlspolicyd/internal/lab"
	"tlspolicyd/socketmap"
)

const (
	startWithin = 20 * time.Second
	stopWithin  = 20 * time.Second
)

// daemon is a running tlspolicyd.
type daemon struct {
	cmd    *exec.Cmd
	log    string     // file with its stdout and stderr
	ended  chan error // its exit, once
	socket string     // as socketmap.NewClient takes it
}

// startDaemon runs `BINARY serve` with a configuration that knows the world,
// all its files in dir.
func startDaemon(binary, dir string, w *lab.World) (*daemon, error) {
	config, err := writeConfig(dir, w)
	if err != nil {
		return nil, err
	}
	d := &daemon{
		log:    filepath.Join(dir, "log"),
		ended:  make(chan error, 1),
		socket: "unix:" + filepath.Join(dir, "socketmap.sock"),
	}
	out, err := os.Create(d.log)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	d.cmd = exec.Command(binary, "serve", "--config", config)
	d.cmd.Stdout, d.cmd.Stderr = out, out
	d.cmd.Env = withoutSystemd(os.Environ())
	if err := d.cmd.Start(); err != nil {
		return nil, fmt.Errorf("%w: build the daemon with \"make build\", or name it with -daemon", err)
	}
	go func() { d.ended <- d.cmd.Wait() }()
	return d, nil
}

// writeConfig writes the daemon's configuration file.
func writeConfig(dir string, w *lab.World) (string, error) {
	dns, err := w.ListenDNS("127.0.0.1:0")
	if err != nil {
		return "", err
	}
	proxy, err := w.ListenProxy("127.0.0.1:0")
	if err != nil {
		return "", err
	}
	ca := filepath.Join(dir, "ca.pem")
	if err := w.WriteCA(ca); err != nil {
		return "", err
	}
	path := filepath.Join(dir, "tlspolicyd.toml")
	return path, os.WriteFile(path, []byte(configText(dir, ca, dns, proxy)), 0o600)
}

func configText(dir, ca string, dns, proxy netip.AddrPort) string {
	return fmt.Sprintf(`[listen]
socketmap = ["unix:%[1]s/socketmap.sock"]
admin     = "unix:%[1]s/admin.sock"

[dns]
servers = ["%[3]s"]

[fetch]
wait           = "1s"
ca_file        = "%[2]s"
allow_networks = ["%[5]s"]
proxy          = "http://%[4]s"

[cache]
path = "%[1]s/policies.db"

%[6]s`, dir, ca, dns, proxy, lab.Network, overrides)
}

// withoutSystemd drops what would make the daemon take its sockets, paths and
// log from a systemd that runs the demo.
func withoutSystemd(env []string) []string {
	var kept []string
	for _, v := range env {
		switch name, _, _ := strings.Cut(v, "="); name {
		case "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID",
			"JOURNAL_STREAM", "RUNTIME_DIRECTORY", "STATE_DIRECTORY":
		default:
			kept = append(kept, v)
		}
	}
	return kept
}

// ready waits until the daemon's socket answers.
func (d *daemon) ready(ctx context.Context, client *socketmap.Client) error {
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		// A key that needs no lookup of any kind.
		_, err := client.Lookup(ctx, postfix, ".ready.test")
		if err == nil {
			return nil
		}
		select {
		case exit := <-d.ended:
			d.ended <- exit
			return fmt.Errorf("the daemon ended: %w", exitError(exit))
		case <-ctx.Done():
			return fmt.Errorf("the daemon's socket does not answer: %w", err)
		case <-tick.C:
		}
	}
}

// stop asks the daemon to end, as systemd does, and waits for exit status 0.
func (d *daemon) stop() error {
	err := d.cmd.Process.Signal(syscall.SIGTERM)
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case exit := <-d.ended:
		if exit != nil || err != nil {
			return fmt.Errorf("the daemon ended: %w", exitError(exit))
		}
		return nil
	case <-time.After(stopWithin):
		d.cmd.Process.Kill()
		<-d.ended
		return fmt.Errorf("the daemon did not end within %v of SIGTERM", stopWithin)
	}
}

func exitError(exit error) error {
	if exit == nil {
		return errors.New("exit status 0, before it was asked to")
	}
	return exit
}
