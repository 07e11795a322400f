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

// A user without permission is not advised to start a daemon that runs.
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
	denied := unanswered{"unix:" + path, os.NewSyscallError("connect", syscall.EACCES)}
	got := denied.Error()
	if !strings.HasPrefix(got, "unix:"+path+": permission denied: it has mode 0660 and group ") || denied.absent() {
		t.Errorf("got %q, absent %t", got, denied.absent())
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := denied.Error(); !strings.HasSuffix(got, ": permission denied: it is open to the daemon's user and to root only: use sudo") {
		t.Errorf("got %q", got)
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
	if want := "the daemon at unix:" + path + " does not answer in time: see its log"; err == nil || err.Error() != want {
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
