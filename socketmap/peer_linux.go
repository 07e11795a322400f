package socketmap

import (
	"net"
	"syscall"
)

// userOf returns the user that connected a Unix socket. Users that are not mapped
// into the user namespace of this process count as one.
func userOf(nc net.Conn) int {
	uid := noUser
	if raw := rawConn(nc); raw != nil {
		_ = raw.Control(func(fd uintptr) {
			if cred, err := syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED); err == nil {
				uid = int(cred.Uid)
			}
		})
	}
	return uid
}
