package admin

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// dialEnv makes the test binary connect to a Unix socket and tell how it went.
const dialEnv = "TLSPOLICYD_TEST_DIAL"

func dialAsChild(path string) int {
	nc, err := net.Dial("unix", path)
	switch {
	case err == nil:
		nc.Close()
		fmt.Print("connected")
	case errors.Is(err, fs.ErrPermission):
		fmt.Print("permission denied")
	default:
		fmt.Print(err)
	}
	return 0
}

const nobody = 65534

// dialAs connects to a Unix socket as another user, in a process of its own.
func dialAs(t *testing.T, uid uint32, path string) string {
	t.Helper()
	// Not by its path, which leads through directories of ours only.
	child := exec.Command("/proc/self/exe")
	child.Env = []string{dialEnv + "=" + path}
	child.Dir = "/"
	child.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	out, err := child.CombinedOutput()
	if err != nil {
		t.Fatalf("child: %v: %s", err, out)
	}
	return string(out)
}

// A control request from another user is refused by the socket's mode. Only root
// can be another user; anybody else finds that the mode is what decides.
func TestAnotherUserIsRefused(t *testing.T) {
	d := start(t)
	info, err := os.Lstat(d.socket)
	if err != nil || info.Mode() != fs.ModeSocket|0o600 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
	if err := d.client.Ping(t.Context()); err != nil {
		t.Fatalf("the daemon's own user: %v", err)
	}
	if os.Geteuid() != 0 {
		if err := os.Chmod(d.socket, 0); err != nil {
			t.Fatal(err)
		}
		other := NewClient(d.socket)
		defer other.Close()
		if err := other.Ping(t.Context()); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("a user whom the mode shuts out: %v", err)
		}
		return
	}
	if got := dialAs(t, nobody, d.socket); got != "permission denied" {
		t.Errorf("another user: %s", got)
	}
	// The same user gets in where the mode lets it: it was the mode, not the way.
	open := filepath.Join(filepath.Dir(d.socket), "open.sock")
	l, err := net.Listen("unix", open)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Chmod(open, 0o666); err != nil {
		t.Fatal(err)
	}
	if got := dialAs(t, nobody, open); got != "connected" {
		t.Errorf("at an open socket: %s", got)
	}
}

// Nothing can be changed over TCP.
func TestTCPAddressIsReadOnly(t *testing.T) {
	d := start(t)
	d.ask(t, "plain.test", "NOTFOUND ")
	for _, path := range []string{"/v1/purge", "/v1/refresh", "/v1/warm", "/v1/import"} {
		if status, _ := d.get(t, "POST", path); status != 404 && status != 405 {
			t.Errorf("POST %s: %d", path, status)
		}
	}
	for _, path := range []string{"/v1/domains", "/v1/domains/plain.test", "/v1/export", "/v1/ping", "/debug/pprof/", "/favicon.ico"} {
		if status, body := d.get(t, "GET", path); status != 404 || strings.Contains(body, "plain.test") {
			t.Errorf("GET %s: %d %s", path, status, body)
		}
	}
	for _, path := range []string{"/", "/metrics", "/healthz", "/readyz"} {
		for _, method := range []string{"POST", "PUT", "DELETE", "PATCH"} {
			if status, _ := d.get(t, method, path); status != 405 {
				t.Errorf("%s %s: %d", method, path, status)
			}
		}
		if status, body := d.get(t, "GET", path); status != 200 || strings.Contains(body, "plain.test") {
			t.Errorf("GET %s: %d %s", path, status, body)
		}
	}
}
