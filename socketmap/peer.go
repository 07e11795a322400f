package socketmap

import (
	"fmt"
	"net"
	"net/netip"
)

// peerID is who is at the other end of a connection, as far as sharing out the
// connections goes: a user on a Unix socket, an address on TCP (a /64 of IPv6,
// which is what one host has). Where that cannot be told all are one.
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
		p.addr, _ = addr.Prefix(bits) // an invalid address stands for none
	case *net.UnixAddr:
		p.uid = userOf(nc)
	}
	return p
}

// String is for the log.
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
