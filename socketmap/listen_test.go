package socketmap

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

func TestParseAddress(t *testing.T) {
	long := "/" + strings.Repeat("p", 106)
	for _, tc := range []struct{ in, network, address, err string }{
		{"unix:/run/tlspolicyd/socketmap.sock", "unix", "/run/tlspolicyd/socketmap.sock", ""},
		{"unix:run/s", "unix", "run/s", ""},
		{"unix:/with:colon", "unix", "/with:colon", ""},
		{"unix:" + long, "unix", long, ""},
		{"tcp:127.0.0.1:8461", "tcp", "127.0.0.1:8461", ""},
		{"tcp:[::1]:8461", "tcp", "[::1]:8461", ""},
		{"inet:localhost:8461", "tcp", "localhost:8461", ""},
		{"", "", "", `address "": want unix:/path or tcp:host:port`},
		{"/run/s", "", "", "want unix:/path or tcp:host:port"},
		{"127.0.0.1:8461", "", "", "want unix:/path or tcp:host:port"},
		{"unix:", "", "", "the path is missing"},
		{"unix:@abstract", "", "", "abstract sockets are not supported"},
		{"unix:/a\x00b", "", "", "NUL in the path"},
		{"unix:" + long + "p", "", "", "path of 108 bytes is too long for a socket: 107 at most"},
		{"tcp:8461", "", "", "want host:port after tcp:"},
		{"tcp:::1:8461", "", "", "an IPv6 address in brackets"},
		{"tcp:localhost:smtp", "", "", `port "smtp": want a number from 0 to 65535`},
		{"tcp:localhost:65536", "", "", "want a number"},
	} {
		network, address, err := ParseAddress(tc.in)
		if tc.err != "" {
			if err == nil || !strings.Contains(err.Error(), tc.err) {
				t.Errorf("%q: error %v, want %q", tc.in, err, tc.err)
			}
			continue
		}
		if err != nil || network != tc.network || address != tc.address {
			t.Errorf("%q: %q, %q, %v", tc.in, network, address, err)
		}
	}
}

// A listener on an IPv4 literal accepts nothing over IPv6, and the reverse.
func TestATCPLiteralIsOfOneAddressFamily(t *testing.T) {
	for address, want := range map[string]string{
		"0.0.0.0:8461": "tcp4", "127.0.0.1:8461": "tcp4", "[::ffff:127.0.0.1]:8461": "tcp4",
		"[::]:8461": "tcp6", "[::1]:8461": "tcp6", "[fe80::1%eth0]:8461": "tcp6",
		":8461": "tcp", "localhost:8461": "tcp",
	} {
		if got := family(address); got != want {
			t.Errorf("%s: %s, want %s", address, got, want)
		}
	}
	l, err := Listen(t.Context(), "tcp:0.0.0.0:0", ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if got, _, _ := net.SplitHostPort(l.Addr().String()); got != "0.0.0.0" {
		t.Errorf("listens on %s", got)
	}
}

// stale leaves a socket behind that no process listens on, as a killed daemon does.
func stale(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
}

// entries are the names in the directory of path.
func entries(t *testing.T, path string) string {
	t.Helper()
	list, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

func TestListenReplacesAStaleSocketAndCleansUp(t *testing.T) {
	path := filepath.Join(socketDir(t), "s")
	stale(t, path)
	l, err := Listen(t.Context(), "unix:"+path, ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := entries(t, path); got != "s" {
		t.Errorf("while listening the directory holds %q, want s alone", got)
	}
	go func() {
		if nc, err := l.Accept(); err == nil {
			nc.Close()
		}
	}()
	dial(t, l).wantClosed()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if got := entries(t, path); got != "" {
		t.Errorf("after Close the directory holds %q", got)
	}
	if err := l.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("second Close: %v", err)
	}
}

func TestListenLeavesALiveSocketAlone(t *testing.T) {
	path := filepath.Join(socketDir(t), "s")
	first, err := Listen(t.Context(), "unix:"+path, ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	before, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Listen(t.Context(), "unix:"+path, ListenOptions{Mode: 0o600})
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), path) {
		t.Errorf("second Listen: %v, want ErrInUse with the path", err)
	}
	after, err := os.Lstat(path)
	if err != nil || !os.SameFile(before, after) || after.Mode() != before.Mode() {
		t.Errorf("the live socket was touched: %v, %v", after, err)
	}
}

func TestListenLeavesASocketOfAnotherKindAlone(t *testing.T) {
	path := filepath.Join(socketDir(t), "s")
	other, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := Listen(t.Context(), "unix:"+path, ListenOptions{}); err == nil {
		t.Error("Listen took a datagram socket's path")
	}
	if got := entries(t, path); got != "s" {
		t.Errorf("the directory holds %q, want s", got)
	}
}

func TestListenRefusesAPathThatIsNotASocket(t *testing.T) {
	dir := socketDir(t)
	stale(t, filepath.Join(dir, "target"))
	for name, make := range map[string]func(path string) error{
		"file":      func(p string) error { return os.WriteFile(p, []byte("mail"), 0o600) },
		"directory": func(p string) error { return os.Mkdir(p, 0o700) },
		"fifo":      func(p string) error { return syscall.Mkfifo(p, 0o600) },
		"symlink":   func(p string) error { return os.Symlink("target", p) },
	} {
		path := filepath.Join(dir, name)
		if err := make(path); err != nil {
			t.Fatal(err)
		}
		_, err := Listen(t.Context(), "unix:"+path, ListenOptions{})
		if err == nil || !strings.Contains(err.Error(), "not a socket") {
			t.Errorf("%s: %v, want it refused", name, err)
		}
	}
	if got := entries(t, filepath.Join(dir, "s")); got != "directory fifo file symlink target" {
		t.Errorf("the directory holds %q", got)
	}
}

func TestListenCreatesNoDirectory(t *testing.T) {
	dir := filepath.Join(socketDir(t), "absent")
	_, err := Listen(t.Context(), "unix:"+dir+"/s", ListenOptions{})
	if err == nil || !strings.Contains(err.Error(), "directory "+strconv.Quote(dir)+" does not exist") {
		t.Errorf("Listen: %v", err)
	}
	if _, err := os.Lstat(dir); err == nil {
		t.Error("the directory was created")
	}
}

func TestListenWithThePathTooLong(t *testing.T) {
	path := filepath.Join(socketDir(t), strings.Repeat("s", 107))
	_, err := Listen(t.Context(), "unix:"+path, ListenOptions{})
	if err == nil || !strings.Contains(err.Error(), "too long for a socket") {
		t.Errorf("Listen: %v", err)
	}
	// The longest that fits needs no longer name beside it either.
	path = path[:107]
	l, err := Listen(t.Context(), "unix:"+path, ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}

// otherGroup is a group the test may give a file to, by number; as root any.
func otherGroup(t *testing.T) int {
	if os.Geteuid() == 0 {
		return 1
	}
	groups, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	return append(groups, os.Getgid())[0]
}

func TestListenSetsModeAndGroupWhateverTheUmask(t *testing.T) {
	gid := otherGroup(t)
	for _, tc := range []struct {
		umask      int
		mode, want os.FileMode
	}{
		{0o077, 0, DefaultMode},
		{0o022, 0o666, 0o666},
		{0o077, 0o660, 0o660},
		{0o000, 0o600, 0o600},
	} {
		path := filepath.Join(socketDir(t), "s")
		old := syscall.Umask(tc.umask)
		l, err := Listen(t.Context(), "unix:"+path, ListenOptions{Mode: tc.mode, Group: strconv.Itoa(gid)})
		syscall.Umask(old)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != tc.want {
			t.Errorf("umask %03o, mode %03o: got %03o, want %03o", tc.umask, tc.mode, got, tc.want)
		}
		if got := int(info.Sys().(*syscall.Stat_t).Gid); got != gid {
			t.Errorf("group %d, want %d", got, gid)
		}
		l.Close()
	}
}

func TestModeAndGroupAreSetBeforeAClientCanConnect(t *testing.T) {
	path := filepath.Join(socketDir(t), "s")
	f, err := bindUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := net.Dial("unix", path); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("connect to the bound socket: %v, want it refused", err)
	}
	l, err := openUnix(f, path, 0o600, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	nc, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	nc.Close()
}

func TestListenWithAnUnknownGroup(t *testing.T) {
	path := filepath.Join(socketDir(t), "s")
	stale(t, path)
	_, err := Listen(t.Context(), "unix:"+path, ListenOptions{Group: "no such group"})
	if err == nil || !strings.Contains(err.Error(), `group "no such group" does not exist`) {
		t.Errorf("Listen: %v", err)
	}
	if got := entries(t, path); got != "s" {
		t.Errorf("the directory holds %q, want the stale socket untouched", got)
	}
}

func TestTwoListenersForOneStaleSocket(t *testing.T) {
	for range 50 {
		path := filepath.Join(socketDir(t), "s")
		stale(t, path)
		var wg sync.WaitGroup
		var mu sync.Mutex
		var won []net.Listener
		for range 4 {
			wg.Go(func() {
				l, err := Listen(context.Background(), "unix:"+path, ListenOptions{})
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					won = append(won, l)
				case !errors.Is(err, ErrInUse):
					t.Errorf("Listen: %v, want ErrInUse", err)
				}
			})
		}
		wg.Wait()
		if len(won) != 1 {
			t.Fatalf("%d listeners won", len(won))
		}
		if got := entries(t, path); got != "s" {
			t.Errorf("the directory holds %q, want s alone", got)
		}
		nc, err := net.Dial("unix", path)
		if err != nil {
			t.Fatalf("the winner is not at the path: %v", err)
		}
		nc.Close()
		won[0].Close()
	}
}

func TestLockOnALockFileThatIsGoneIsNone(t *testing.T) {
	name := filepath.Join(socketDir(t), "s.lock")
	open := func() *os.File {
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	late := open()
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	if err := lockFile(late); !errors.Is(err, ErrInUse) {
		t.Errorf("lock of a removed file: %v, want ErrInUse", err)
	}
	if err := lockFile(open()); err != nil {
		t.Errorf("lock of the new file: %v", err)
	}
	if err := lockFile(late); !errors.Is(err, ErrInUse) {
		t.Errorf("lock of a replaced file: %v, want ErrInUse", err)
	}
}

func TestListenLeavesASocketWithAFullQueueAlone(t *testing.T) {
	path := filepath.Join(socketDir(t), "s")
	f, err := bindUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := syscall.Listen(int(f.Fd()), 1); err != nil {
		t.Fatal(err)
	}
	for { // until the queue takes no more
		nc, err := net.Dial("unix", path)
		if errors.Is(err, syscall.EAGAIN) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
	}
	if _, err := Listen(t.Context(), "unix:"+path, ListenOptions{}); !errors.Is(err, ErrInUse) {
		t.Errorf("Listen: %v, want ErrInUse", err)
	}
	if got := entries(t, path); got != "s" {
		t.Errorf("the directory holds %q, want s", got)
	}
}

func TestCloseLeavesWhatIsNotOursAnyMore(t *testing.T) {
	path := filepath.Join(socketDir(t), "s")
	first, err := Listen(t.Context(), "unix:"+path, ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	second, err := Listen(t.Context(), "unix:"+path, ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	first.Close()
	nc, err := net.Dial("unix", path)
	if err != nil {
		t.Fatalf("the second listener's path is gone: %v", err)
	}
	nc.Close()
}

func TestListenTCP(t *testing.T) {
	l, address := listen(t, "tcp")
	defer l.Close()
	if _, err := Listen(t.Context(), address, ListenOptions{}); !errors.Is(err, ErrInUse) {
		t.Errorf("second Listen: %v, want ErrInUse, as for a path", err)
	}
}
