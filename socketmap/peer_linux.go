package socketmap

import (
	"net"
	"syscall"
)

// userOf returns the user that connected a Unix socket. Users that are not
// mapped into the user namespace of this process are all one.
func userOf(nc net.Conn) int {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return noUser
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return noUser
	}
	uid := noUser
	_ = rc.Control(func(fd uintptr) {
		if cred, err := syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED); err == nil {
			uid = int(cred.Uid)
		}
	})
	return uid
}
