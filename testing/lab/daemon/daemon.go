// Package daemon runs the real tlspolicyd as a process of its own, for the demo
// and for the figures.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"tlspolicyd/socketmap"
)

const (
	// For a hang: a busy machine may take long.
	startWithin = 2 * time.Minute
	stopWithin  = 2 * time.Minute

	// anyKey needs no lookup of any kind.
	anyKey = ".ready.test"
)

// Daemon is a running tlspolicyd.
type Daemon struct {
	Log string // file with its stdout and stderr

	cmd   *exec.Cmd
	ended chan error // its exit, once
}

// Start runs `BINARY serve` with a configuration, which it writes to dir; its
// log is there as well.
func Start(binary, dir, config string) (*Daemon, error) {
	path := filepath.Join(dir, "tlspolicyd.toml")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		return nil, err
	}
	d := &Daemon{Log: filepath.Join(dir, "log"), ended: make(chan error, 1)}
	out, err := os.Create(d.Log)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	d.cmd = exec.Command(binary, "serve", "--config", path)
	d.cmd.Stdout, d.cmd.Stderr = out, out
	d.cmd.Env = withoutSystemd(os.Environ())
	if err := d.cmd.Start(); err != nil {
		return nil, fmt.Errorf("%w: build the daemon with \"make build\", or name it with -daemon", err)
	}
	go func() { d.ended <- d.cmd.Wait() }()
	return d, nil
}

// Pid is the number of its process.
func (d *Daemon) Pid() int { return d.cmd.Process.Pid }

// withoutSystemd drops what would make the daemon take its sockets, paths and
// log from a systemd that runs the caller.
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

// Ready waits until the daemon answers the client.
func (d *Daemon) Ready(ctx context.Context, client *socketmap.Client) error {
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		_, err := client.Lookup(ctx, "postfix", anyKey)
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

// Stop asks the daemon to end, as systemd does, and waits for exit status 0.
func (d *Daemon) Stop() error {
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
