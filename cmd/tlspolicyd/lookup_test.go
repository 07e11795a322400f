package main

import (
	"context"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What a daemon, or somebody in its place, replies must not reach a terminal
// as control characters.
func TestRepliesAreShownAsWhatTheyAre(t *testing.T) {
	for in, want := range map[string]string{
		"OK secure match=.a.test servername=hostname": "OK secure match=.a.test servername=hostname",
		"bücher.test":    "bücher.test",
		"OK may\x1b[2J":  `"OK may\x1b[2J"`,
		"OK a\nOK b":     `"OK a\nOK b"`,
		"OK \xff":        `"OK \xff"`,
		"OK a\u202etest": `"OK a\u202etest"`,
		"":               `""`,
	} {
		if got := visible(in); got != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
	}
}

// Who is locked out is not told to start a daemon that runs.
func TestPermissionDeniedIsSaidWithModeAndGroupOfTheSocket(t *testing.T) {
	path := t.TempDir() + "/s"
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Chmod(path, 0o660); err != nil {
		t.Fatal(err)
	}
	denied := unanswered{"unix:" + path, os.NewSyscallError("connect", syscall.EACCES), time.Second}
	got := denied.Error()
	if !strings.HasPrefix(got, "unix:"+path+": permission denied: it has mode 0660 and group ") || denied.absent() {
		t.Errorf("got %q, absent %t", got, denied.absent())
	}
	denied.address += "/in/a/closed/directory"
	if got := denied.Error(); !strings.Contains(got, "permission denied: its directory is closed to you") {
		t.Errorf("got %q", got)
	}
}

// A daemon that hangs is there: no other one is asked, and none to be started.
func TestADaemonThatDoesNotAnswer(t *testing.T) {
	path := t.TempDir() + "/s"
	silent, err := net.Listen("unix", path) // connections wait in its queue
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	asked := lookup{mapName: "postfix", timeout: time.Millisecond}
	err = asked.run(context.Background(), io.Discard, io.Discard, []string{"unix:" + path, "unix:/nonexistent"}, []string{"example.test"})
	if want := "the daemon at unix:" + path + " does not answer within 1ms: see its log"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// One line names every place that was tried.
func TestNobodyAtSeveralSockets(t *testing.T) {
	err := (&lookup{mapName: "postfix", timeout: time.Minute}).run(context.Background(), io.Discard, io.Discard,
		[]string{"unix:/nonexistent/a", "unix:/nonexistent/b"}, []string{"example.test"})
	want := "no daemon answers at unix:/nonexistent/a (no such file or directory) nor unix:/nonexistent/b (no such file or directory): start it"
	if err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
}
