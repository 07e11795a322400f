package socketmap

import (
	"fmt"
	"net"
	"net/netip"
)

// peerID identifies the client of a connection for the connection limit: the
// user on a Unix socket, the address on TCP (on IPv6 its /64, which is what one
// host has). Clients that cannot be identified count as one.
type peerID struct {
	uid  int // of a Unix socket; noUser: unknown
	addr netip.Prefix
}

const noUser = -1

func peerOf(nc net.Conn) peerID {
	p := peerID{uid: noUser}
	switch a := nc.RemoteAddr().(type) {
	case *net.TCPAddr:
		addr := a.AddrPort().Addr().Unmap().WithZone("")
		bits := addr.BitLen()
		if addr.Is6() {
			bits = 64
		}
		p.addr, _ = addr.Prefix(bits) // invalid if addr is
	case *net.UnixAddr:
		p.uid = userOf(nc)
	}
	return p
}

// String returns the client as the log names it.
func (p peerID) String() string {
	switch {
	case p.addr.IsSingleIP():
		return p.addr.Addr().String()
	case p.addr.IsValid():
		return p.addr.String()
	case p.uid != noUser:
		return fmt.Sprintf("user %d", p.uid)
	}
	return "unknown"
}
