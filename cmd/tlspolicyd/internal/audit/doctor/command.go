package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"tlspolicyd/internal/printable"
)

const (
	commandTime   = 5 * time.Second
	commandOutput = 1 << 20 // bytes of stdout
)

var errLongOutput = errors.New("its output is too long")

// bounded is a buffer of limited size. (It embeds nothing: the
// ReadFrom of a bytes.Buffer would go around Write.)
type bounded struct {
	text bytes.Buffer
	room int
	full func() // called when there is more
}

func (b *bounded) Write(p []byte) (int, error) {
	if len(p) > b.room {
		b.room = -1
		b.full()
		return 0, errLongOutput
	}
	b.room -= len(p)
	return b.text.Write(p)
}

// run runs a program, without a shell, and returns what it printed. The error
// has the last line of its stderr.
func run(ctx context.Context, program string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.Dir = "/"
	cmd.WaitDelay = time.Second // for a child that keeps the pipes open
	stdout := &bounded{room: commandOutput, full: cancel}
	stderr := &bounded{room: commandOutput, full: cancel}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	err := cmd.Run()
	name := filepath.Base(program)
	switch {
	case err == nil:
		return stdout.text.String(), nil
	case stdout.room < 0 || stderr.room < 0:
		return "", fmt.Errorf("%s: %w", name, errLongOutput)
	case ctx.Err() != nil:
		return "", fmt.Errorf("%s did not end within %v", name, commandTime)
	case stderr.text.Len() > 0:
		return "", fmt.Errorf("%s", oneLine(lastLine(stderr.text.String())))
	}
	return "", fmt.Errorf("%s: %w", name, err)
}

// openFile opens a file for reading, and does not wait for a writer where it is a
// pipe.
func openFile(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// find returns a program of the system, which for an ordinary user may not be
// in PATH.
func find(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/usr/local/sbin", "/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("no %s in PATH nor in /usr/sbin", name)
}

// oneLine makes one printable line of the text of another program or file.
func oneLine(s string) string { return printable.Line(s, 300) }

// shellQuote makes one word of a POSIX shell of a text.
func shellQuote(s string) string {
	safe := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:=@%+,", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !safe(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
