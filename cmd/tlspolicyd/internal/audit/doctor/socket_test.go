package doctor

import (
	"context"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tlspolicyd/socketmap"
)

// daemonHandler answers as a tlspolicyd does what needs no lookup.
type daemonHandler struct{}

func (daemonHandler) Lookup(_ context.Context, name, _ []byte) []byte {
	if string(name) == "postfix" {
		return []byte("NOTFOUND ")
	}
	return fmt.Appendf(nil, "PERM unknown map %q: use postfix or postfix-tlsrpt", name)
}

type foreignHandler struct{}

func (foreignHandler) Lookup(context.Context, []byte, []byte) []byte { return []byte("NOTFOUND ") }

// serve runs a real server at a real socket, in a directory that others may
// enter.
func serve(t *testing.T, h socketmap.Handler) string {
	t.Helper()
	dir := openDir(t)
	path := filepath.Join(dir, "s.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	if h == nil {
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = c.Write([]byte("220 mail.example.net ESMTP\r\n"))
				defer c.Close()
			}
		}()
		t.Cleanup(func() { l.Close() })
		return path
	}
	s := &socketmap.Server{Handler: h}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() { s.Close(); <-done })
	return path
}

// openDir is a directory that every user may enter.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "doctor")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// outsider is a user who owns nothing here.
func outsider() *Account { return &Account{Name: "outsider", UID: 54321, GIDs: []uint32{54321}} }

func probed(t *testing.T, path, root string, who *Account) Probe {
	t.Helper()
	p := Probe{Target: Target{"unix", path, root}, Own: true, Services: []string{"smtp"}}
	probe(t.Context(), &p, who)
	return p
}

func TestProbe(t *testing.T) {
	t.Run("a daemon", func(t *testing.T) {
		p := probed(t, serve(t, daemonHandler{}), "", outsider())
		if got := judgeSocket(p, Units{}); got.Code != "socket-ok" || !p.Ours || p.Reply != "NOTFOUND" {
			t.Errorf("got %+v, %+v", got, p)
		}
	})
	t.Run("another program", func(t *testing.T) {
		if got := judgeSocket(probed(t, serve(t, foreignHandler{}), "", outsider()), Units{}); got.Code != "socket-other-program" {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("another protocol", func(t *testing.T) {
		if got := judgeSocket(probed(t, serve(t, nil), "", outsider()), Units{}); got.Code != "socket-other-program" {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("nothing", func(t *testing.T) {
		if got := judgeSocket(probed(t, filepath.Join(openDir(t), "s.sock"), "", outsider()), Units{}); got.Code != "socket-missing" {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("a file", func(t *testing.T) {
		path := filepath.Join(openDir(t), "s.sock")
		if err := os.WriteFile(path, nil, 0o666); err != nil {
			t.Fatal(err)
		}
		if got := judgeSocket(probed(t, path, "", outsider()), Units{}); got.Code != "socket-not-a-socket" {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("nothing listens any more", func(t *testing.T) {
		path := filepath.Join(openDir(t), "s.sock")
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		l.Close()
		if err := os.Chmod(path, 0o666); err != nil {
			t.Fatal(err)
		}
		if got := judgeSocket(probed(t, path, "", outsider()), Units{}); got.Code != "socket-no-answer" {
			t.Errorf("got %+v", got)
		}
	})
	for name, c := range map[string]struct{ dir, socket fs.FileMode }{
		"a closed socket":    {0o755, 0o600},
		"a closed directory": {0o700, 0o666},
	} {
		t.Run(name, func(t *testing.T) {
			path := serve(t, daemonHandler{})
			if err := os.Chmod(path, c.socket); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(filepath.Dir(path), c.dir); err != nil {
				t.Fatal(err)
			}
			got := judgeSocket(probed(t, path, "", outsider()), Units{})
			if got.Code != "socket-denied" || c.dir == 0o700 && !strings.Contains(got.Fix, "chmod o+x "+filepath.Dir(path)) {
				t.Errorf("got %+v", got)
			}
		})
	}
}

// As root the test is made with the rights of the user: the groups count, and
// the chroot is entered.
func TestProbeAsRoot(t *testing.T) {
	if !isRoot() {
		t.Log("as an ordinary user: only the modes can be judged, which TestMay does")
		return
	}
	t.Run("by a supplementary group", func(t *testing.T) {
		path := serve(t, daemonHandler{})
		if err := os.Chown(path, 0, 45678); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o660); err != nil {
			t.Fatal(err)
		}
		member := Account{Name: "member", UID: 54321, GIDs: []uint32{54321, 45678}}
		if got := judgeSocket(probed(t, path, "", &member), Units{}); got.Code != "socket-ok" {
			t.Errorf("got %+v", got)
		}
		if got := judgeSocket(probed(t, path, "", outsider()), Units{}); got.Code != "socket-denied" {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("inside of a chroot", func(t *testing.T) {
		path := serve(t, daemonHandler{})
		link := filepath.Join(filepath.Dir(path), "link.sock")
		if err := os.Symlink("/s.sock", link); err != nil { // right in the chroot only
			t.Fatal(err)
		}
		conn, err := dialAs(link, filepath.Dir(path), *outsider())
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	})
	t.Run("and no other thread is changed", func(t *testing.T) {
		if _, err := os.Stat("/proc/self"); err != nil || os.Geteuid() != 0 {
			t.Errorf("uid %d, %v", os.Geteuid(), err)
		}
	})
}

func TestMay(t *testing.T) {
	dir := openDir(t)
	file := filepath.Join(dir, "f")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	uid, gid := uint32(os.Getuid()), uint32(os.Getgid())
	if uid == 0 { // for whom all is open
		uid, gid = 54320, 54320
		if err := os.Chown(file, int(uid), int(gid)); err != nil {
			t.Fatal(err)
		}
	}
	own, group := Account{UID: uid, GIDs: []uint32{1}}, Account{UID: 54321, GIDs: []uint32{7, gid}}
	for mode, want := range map[fs.FileMode][3]bool{ // owner, group, others
		0o600: {true, false, false}, 0o660: {true, true, false}, 0o606: {true, false, true}, 0o062: {false, true, true}, 0o444: {},
	} {
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if got := [3]bool{may(info, own, writeRight), may(info, group, writeRight), may(info, *outsider(), writeRight)}; got != want {
			t.Errorf("%#o: got %v, want %v", mode, got, want)
		}
	}
}
