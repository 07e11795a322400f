package socketmap

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// ErrInUse means that another process serves the socket or is about to. Listen
// has changed nothing; stop that process or choose another path.
var ErrInUse = errors.New("another process is listening there")

// DefaultMode is the mode of a Unix socket unless ListenOptions sets one: any
// local user can query, as any local user can query DNS.
const DefaultMode os.FileMode = 0o666

// aliveTimeout is how long a process that listens at a path may take to accept
// the connection that tests for it.
const aliveTimeout = 5 * time.Second

// backlog is the length of the listen queue. The kernel lowers it to its own limit
// (net.core.somaxconn).
const backlog = 1 << 14

// ListenOptions are options of Unix sockets; TCP ignores them.
type ListenOptions struct {
	Mode  os.FileMode // permission bits; 0: DefaultMode
	Group string      // name or number of the group; empty: that of the process
}

// Listen opens a listener at an address of the form that ParseAddress accepts. TCP
// on an IP literal uses that address family only: 0.0.0.0 is IPv4 and [::] is IPv6;
// without a host, "tcp::port", it is both.
//
// A Unix socket gets its mode and group before a client can connect to it. A socket
// that no process listens on is replaced. A path that another process serves is
// ErrInUse, and a path that is not a socket is an error too; both are left as they
// are. Listen creates no directory. Closing the listener unlinks the path if it is
// still the socket that Listen created.
func Listen(ctx context.Context, address string, opt ListenOptions) (net.Listener, error) {
	network, addr, err := ParseAddress(address)
	if err != nil {
		return nil, err
	}
	if network != "unix" {
		l, err := new(net.ListenConfig).Listen(ctx, family(addr), addr)
		if errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("listen on %s: %w", address, ErrInUse)
		}
		return l, err
	}
	l, err := listenUnix(ctx, addr, opt)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	return l, nil
}

// family returns "tcp4" or "tcp6" for an IP literal and "tcp" for a name or no host.
// With "tcp" package net would listen on IPv6 for 0.0.0.0 too, where a firewall for
// IPv4 has no effect.
func family(hostPort string) string {
	ap, err := netip.ParseAddrPort(hostPort)
	switch {
	case err != nil:
		return "tcp"
	case ap.Addr().Unmap().Is4():
		return "tcp4"
	}
	return "tcp6"
}

func listenUnix(ctx context.Context, path string, opt ListenOptions) (net.Listener, error) {
	gid, err := groupID(opt.Group)
	if err != nil {
		return nil, err
	}
	if opt.Mode.Perm() == 0 {
		opt.Mode = DefaultMode
	}
	unlock, err := lockPath(path)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := removeStale(ctx, path); err != nil {
		return nil, err
	}
	f, err := bindUnix(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	l, err := openUnix(f, path, opt.Mode.Perm(), gid)
	if err != nil {
		os.Remove(path)
		return nil, err
	}
	return l, nil
}

// lockPath keeps two processes that start at the same time from both replacing the
// same stale socket. unlock removes the lock file. Other users cannot read it, so
// they cannot hold the lock.
func lockPath(path string) (unlock func(), err error) {
	name := path + ".lock"
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("directory %q does not exist", filepath.Dir(path))
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("directory %q: %w: this user may not create a socket there", filepath.Dir(path), fs.ErrPermission)
	}
	if err != nil {
		return nil, err
	}
	if err := lockFile(f); err != nil {
		f.Close()
		return nil, err
	}
	return func() { os.Remove(name); f.Close() }, nil
}

// lockFile locks a lock file, or returns ErrInUse.
func lockFile(f *os.File) error {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return ErrInUse
	}
	if err != nil {
		return fmt.Errorf("lock %q: %w", f.Name(), err)
	}
	ours, err := f.Stat()
	if err != nil {
		return err
	}
	// The process that held the lock before may have removed the file after it was
	// opened here. Then this lock excludes no other process.
	if there, err := os.Lstat(f.Name()); err != nil || !os.SameFile(ours, there) {
		return ErrInUse
	}
	return nil
}

// removeStale removes the socket at path if it refuses connections, which means
// that no process listens on it.
func removeStale(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return errors.New("the path exists and is not a socket: remove it or choose another")
	}
	ctx, cancel := context.WithTimeout(ctx, aliveTimeout)
	defer cancel()
	nc, err := new(net.Dialer).DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		nc.Close()
		return ErrInUse
	case errors.Is(err, syscall.EAGAIN): // its listen queue is full
		return ErrInUse
	case errors.Is(err, syscall.ECONNREFUSED):
		return os.Remove(path)
	case errors.Is(err, fs.ErrNotExist):
		return nil
	}
	return fmt.Errorf("cannot find out whether another process listens there: %w", err)
}

// bindUnix creates the socket at path. Connections to it are refused until
// listen(2), so its mode and owner can be set first. Package net does both in one
// step.
func bindUnix(path string) (*os.File, error) {
	syscall.ForkLock.RLock() // no child may inherit it; SOCK_CLOEXEC is not portable
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}); err != nil {
		syscall.Close(fd)
		return nil, os.NewSyscallError("bind", err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// openUnix sets the owner and mode of the bound socket and begins to listen.
func openUnix(f *os.File, path string, mode os.FileMode, gid int) (net.Listener, error) {
	if gid >= 0 {
		if err := os.Lchown(path, -1, gid); err != nil {
			return nil, fmt.Errorf("set group %d: %w (the daemon must be a member of it)", gid, err)
		}
	}
	if err := os.Chmod(path, mode); err != nil {
		return nil, err
	}
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if err := syscall.Listen(int(f.Fd()), backlog); err != nil {
		return nil, os.NewSyscallError("listen", err)
	}
	l, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	return &unixListener{Listener: l, path: path, info: info}, nil
}

// groupID finds a group by name or number; an empty name is -1.
func groupID(group string) (int, error) {
	if group == "" {
		return -1, nil
	}
	id := group
	if g, err := user.LookupGroup(group); err == nil {
		id = g.Gid
	}
	gid, err := strconv.ParseUint(id, 10, 31)
	if err != nil {
		return 0, fmt.Errorf("group %.100q does not exist", group)
	}
	return int(gid), nil
}

// unixListener unlinks its path when it is closed.
type unixListener struct {
	net.Listener
	path string
	info os.FileInfo // of the socket that Listen created
	once sync.Once
}

// Close unlinks before it closes: while the socket is open, a second process takes
// it for one in use and does not put its own at the path.
func (l *unixListener) Close() error {
	l.once.Do(func() {
		if there, err := os.Lstat(l.path); err == nil && os.SameFile(l.info, there) {
			os.Remove(l.path)
		}
	})
	return l.Listener.Close()
}
