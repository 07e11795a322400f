package socketmap

import (
	"context"
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

type clientKey struct{}

// ClientName returns the client whose lookup a handler was called for, as the log names
// it ("user 104", "192.0.2.7"), or "" for a context of another origin. It is one
// client however many connections it has.
func ClientName(ctx context.Context) string {
	name, _ := ctx.Value(clientKey{}).(string)
	return name
}

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
