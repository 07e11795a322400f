package main

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"tlspolicyd/cmd/tlspolicyd/internal/audit/check"
	"tlspolicyd/cmd/tlspolicyd/internal/audit/output"
)

// Colour is for terminals, unless NO_COLOR is set.
func TestCheckColour(t *testing.T) {
	for _, test := range []struct {
		name, noColor, term string
		coloured            bool
	}{
		{"a terminal", "", "xterm", true},
		{"NO_COLOR", "1", "xterm", false},
		{"a terminal without colour", "", "dumb", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Setenv("NO_COLOR", test.noColor)
			t.Setenv("TERM", test.term)
			_, terminal := openTerminal(t, 60)
			got := output.TextFor(terminal)
			if got != (output.Text{Colour: test.coloured, Width: 60}) {
				t.Errorf("%+v", got)
			}
		})
	}
	if got := output.TextFor(&bytes.Buffer{}); got != (output.Text{}) {
		t.Errorf("in a pipe: %+v", got)
	}
}

// On a terminal long work shows a bar, which is gone in the end.
func TestCheckProgress(t *testing.T) {
	master, terminal := openTerminal(t, 80)
	synctest.Test(t, func(t *testing.T) {
		w, _, o := watchWorld(t)
		defer w.Close()
		w.Delay(time.Second)
		c := &checking{options: o, out: &bytes.Buffer{}, hints: terminal}
		for _, name := range strings.Fields("a b c d e f g h i j k l m n o p") {
			c.domains = append(c.domains, name+".test")
		}
		if _, err := c.round(t.Context(), func(check.Report) error { return nil }); err != nil {
			t.Fatal(err)
		}
	})
	if _, err := terminal.WriteString("END"); err != nil {
		t.Fatal(err)
	}
	var text []byte
	for buf := make([]byte, 4096); !bytes.HasSuffix(text, []byte("END")); {
		n, err := master.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, buf[:n]...)
	}
	if !bytes.Contains(text, []byte(" 0 of 16 domains checked")) || !bytes.Contains(text, []byte(" 8 of 16 domains checked")) || !bytes.HasSuffix(text, []byte("\r\x1b[KEND")) {
		t.Errorf("%q", text)
	}
}

// openTerminal returns the two ends of a pseudo-terminal.
func openTerminal(t *testing.T, columns uint16) (master, terminal *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: columns}); err != nil {
		t.Fatal(err)
	}
	terminal, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { terminal.Close() })
	return master, terminal
}
