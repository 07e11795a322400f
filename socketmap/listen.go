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

// ErrInUse is the error of Listen for a socket that another process serves, or
// is about to. Nothing has been changed; stop that process or choose another path.
var ErrInUse = errors.New("another process is listening there")

// DefaultMode is the mode of a Unix socket when none is asked for: every local
// user may ask for a policy, as everybody may ask DNS.
const DefaultMode os.FileMode = 0o666

// aliveTimeout is how long whoever listens at a path may take to accept the
// connection that shows it is alive.
const aliveTimeout = 5 * time.Second

// backlog is the length of the listen queue; the kernel lowers it to its own
// limit (net.core.somaxconn). Clients wait there at the connection limit.
const backlog = 1 << 14

// ListenOptions are about Unix sockets; TCP has no use for them.
type ListenOptions struct {
	Mode  os.FileMode // permission bits; 0: DefaultMode
	Group string      // name or number of the group; empty: as created
}

// Listen opens a listener at an address as ParseAddress takes it. TCP on an IP
// literal is of that address family only: 0.0.0.0 is IPv4 and [::] is IPv6, and
// without a host, "tcp::port", it is both.
//
// A Unix socket has its mode and group before anybody can connect to it. A
// socket that nobody listens on any more is replaced. A path that is served is
// ErrInUse, and one that is no socket is an error too; in both cases nothing is
// touched. No directory is created. Closing the listener unlinks the path if it
// is still the socket that was made here.
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

// family returns the network that package net calls by the address family of an
// IP literal: with plain "tcp" it would listen on IPv6 for 0.0.0.0 as well, where
// a firewall for IPv4 does not look. A name or no host at all stands for both.
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

// lockPath keeps two processes that start at once from both replacing the same
// stale socket. The lock file is gone when unlock returns; it is not readable
// for others, who could hold the lock otherwise.
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

// lockFile locks a lock file, or says ErrInUse.
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
	// Whoever held the lock before may have removed the file after it was
	// opened here: then this is a lock on nothing.
	if there, err := os.Lstat(f.Name()); err != nil || !os.SameFile(ours, there) {
		return ErrInUse
	}
	return nil
}

// removeStale makes way at path. Only a socket that refuses connections, which
// means that no process listens on it, is removed.
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
	return fmt.Errorf("cannot tell whether another process listens there: %w", err)
}

// bindUnix makes the socket at path. Connections to it are refused until
// listen(2) has been called, so what is done before that is done unseen; this
// is why package net, which does both in one step, does not serve.
func bindUnix(path string) (*os.File, error) {
	syscall.ForkLock.RLock() // no child may inherit it, SOCK_CLOEXEC is not everywhere
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

// openUnix gives the bound socket its owner and mode and begins to listen.
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

// groupID finds a group by name or number; -1 stands for none asked for.
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
		return 0, fmt.Errorf("there is no group %.100q", group)
	}
	return int(gid), nil
}

// unixListener unlinks its path when it is closed.
type unixListener struct {
	net.Listener
	path string
	info os.FileInfo // of the socket we made
	once sync.Once
}

// Close unlinks before it closes: as long as the socket is open, a second
// process takes it for alive and does not put its own at the path.
func (l *unixListener) Close() error {
	l.once.Do(func() {
		if there, err := os.Lstat(l.path); err == nil && os.SameFile(l.info, there) {
			os.Remove(l.path)
		}
	})
	return l.Listener.Close()
}
