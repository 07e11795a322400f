//go:build linux && !386 && !arm && !mips && !mipsle

package doctor

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// errNotAllowed: this process is not allowed to act as another user.
var errNotAllowed = errors.New("may not act as another user")

// dialAs connects to a Unix socket with the rights of a user, from inside of a
// chroot when root is not empty. Only root can.
//
// All of it happens in a thread of its own, which is not used afterwards: on
// Linux user, groups and root directory belong to a thread (setfsuid(2),
// unshare(2)). So the kernel decides, with access control lists and all, and no
// program has to be started as that user.
func dialAs(path, root string, who Account) (net.Conn, error) {
	type outcome struct {
		conn net.Conn
		err  error
	}
	done := make(chan outcome, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this
		conn, err := connectAs(path, root, who)
		done <- outcome{conn, err}
	}()
	o := <-done
	return o.conn, o.err
}

func connectAs(path, root string, who Account) (net.Conn, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), path)
	defer file.Close() // net.FileConn has a copy
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: 3}); err != nil {
		return nil, err
	}
	if err := become(root, who); err != nil {
		return nil, fmt.Errorf("%w: %w", errNotAllowed, err)
	}
	address := path
	if root != "" {
		address = strings.TrimPrefix(path, strings.TrimSuffix(root, "/"))
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: address}); err != nil {
		return nil, os.NewSyscallError("connect", err)
	}
	return net.FileConn(file)
}

// become changes root directory, groups and user of this thread alone.
func become(root string, who Account) error {
	if root != "" {
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return err
		}
		if err := unix.Chroot(root); err != nil {
			return err
		}
		if err := unix.Chdir("/"); err != nil {
			return err
		}
	}
	if len(who.GIDs) == 0 {
		return errors.New("no group")
	}
	// Not syscall.Setgroups, which changes all threads.
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(who.GIDs)), uintptr(unsafe.Pointer(&who.GIDs[0])), 0); errno != 0 {
		return errno
	}
	if err := unix.Setfsgid(int(who.GIDs[0])); err != nil {
		return err
	}
	if err := unix.Setfsuid(int(who.UID)); err != nil {
		return err
	}
	// setfsuid(2) does not report failure; called again it returns the user.
	if now, err := unix.SetfsuidRetUid(-1); err != nil || now != int(who.UID) {
		return errors.New("the user did not change")
	}
	return nil
}
