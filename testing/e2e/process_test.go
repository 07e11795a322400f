//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	workDir = "/run/e2e"
	logDir  = workDir + "/log"

	tableEnv = "TLSPOLICYD_E2E_TABLE" // file for the tables that a test makes

	// patience bounds every wait for something that takes milliseconds on a
	// machine that is not overloaded. It only turns a hang into a failure.
	patience = 2 * time.Minute
)

// process is a server that runs in the foreground.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

// start runs a server in a folder ("" for none) as a user, with its output in a
// log file that is dumped when a test fails.
func start(root string, uid uint32, argv ...string) (*process, error) {
	log, err := os.OpenFile(filepath.Join(logDir, filepath.Base(argv[0])+".log"),
		os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p := &process{cmd: exec.Command(argv[0], argv[1:]...), done: make(chan struct{})}
	p.cmd.Dir = "/"
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
	if uid != 0 {
		p.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uid, Gid: uid}
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", argv[0], err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// stop sends a signal and waits for the end.
func (p *process) stop(sig syscall.Signal) error {
	_ = p.cmd.Process.Signal(sig)
	select {
	case <-p.done:
		return nil
	case <-time.After(patience):
		_ = p.cmd.Process.Kill()
		<-p.done
		return fmt.Errorf("%s did not end on %v", p.cmd.Path, sig)
	}
}

// command runs a program of a folder to its end.
func command(root string, argv ...string) (stdout, stderr string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = workDir
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err = cmd.Run(); err != nil {
		err = fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, errOut.String())
	}
	return out.String(), errOut.String(), err
}

// waitFor asks until the condition holds. The condition says what is missing.
func waitFor(missing func() error) error { return waitUpTo(patience, missing) }

func waitUpTo(limit time.Duration, missing func() error) error {
	deadline := time.After(limit)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := missing()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-deadline:
			return err
		}
	}
}

// mustWait is waitFor in a test.
func mustWait(t *testing.T, missing func() error) {
	t.Helper()
	if err := waitFor(missing); err != nil {
		t.Fatal(err)
	}
}

// write makes a file and the directories above it.
func write(path, content string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(content), 0o644)
}

// writeSection replaces what a document has below a heading.
func writeSection(path, heading, text string) error {
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, after, found := strings.Cut(string(old), heading+"\n")
	if !found {
		return fmt.Errorf("%s has no %q", path, heading)
	}
	if i := strings.Index(after, "\n## "); i >= 0 {
		after = after[i:]
	} else {
		after = ""
	}
	return write(path, before+heading+"\n\n"+text+after)
}

// dumpLogs shows the end of every server's log.
func dumpLogs() {
	names, _ := filepath.Glob(logDir + "/*")
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		lines = lines[max(0, len(lines)-60):]
		fmt.Printf("---- end of %s\n%s\n", name, strings.Join(lines, "\n"))
	}
}
