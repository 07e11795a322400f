package lab

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
)

// serveStream answers the questions that come over c with a length before each
// message (RFC 1035 §4.2.2), side by side, until c ends.
func (w *World) serveStream(c net.Conn, r resolver) {
	// A channel and not a mutex: one answer may wait for the client to read,
	// and synctest does not take waiting for a mutex as blocked.
	turn := make(chan struct{}, 1)
	var head [2]byte
	for {
		if _, err := io.ReadFull(c, head[:]); err != nil {
			return
		}
		msg := make([]byte, binary.BigEndian.Uint16(head[:]))
		if _, err := io.ReadFull(c, msg); err != nil {
			return
		}
		w.spawn(func() {
			rep := w.ask(msg, r)
			if !w.sleep(rep.delay) {
				return
			}
			turn <- struct{}{}
			defer func() { <-turn }()
			if !w.send(c, rep) {
				c.Close()
			}
		})
	}
}

// ListenDNS serves the world's names on a real address too ("127.0.0.1:0"),
// over UDP and TCP on the same port, until Close.
func (w *World) ListenDNS(address string) (netip.AddrPort, error) {
	udp, tcp, err := listenBoth(address)
	if err != nil {
		return netip.AddrPort{}, err
	}
	addr := tcp.Addr().(*net.TCPAddr).AddrPort()
	if !w.hold(udp) || !w.hold(tcp) {
		udp.Close()
		tcp.Close()
		return netip.AddrPort{}, net.ErrClosed
	}
	w.spawn(func() { w.servePackets(udp, resolver{addr: addr, udp: true}) })
	w.accept(tcp, service{serve: func(c net.Conn, _ string) { w.serveStream(c, resolver{addr: addr}) }})
	return addr, nil
}

// listenBoth opens UDP and TCP on one port. The kernel chooses the port for
// one of them alone, so it may be taken for the other: try again.
func listenBoth(address string) (net.PacketConn, net.Listener, error) {
	var errs []error
	for range 20 {
		tcp, err := net.Listen("tcp", address)
		if err != nil {
			return nil, nil, err
		}
		udp, err := net.ListenPacket("udp", tcp.Addr().String())
		if err == nil {
			return udp, tcp, nil
		}
		tcp.Close()
		errs = append(errs, err)
	}
	return nil, nil, errors.Join(errs...)
}

func (w *World) servePackets(pc net.PacketConn, r resolver) {
	defer w.drop(pc)
	buf := make([]byte, 64<<10)
	for {
		n, from, err := pc.ReadFrom(buf)
		if err != nil {
			return
		}
		msg := append([]byte(nil), buf[:n]...)
		w.spawn(func() {
			rep := w.ask(msg, r)
			if !w.sleep(rep.delay) {
				return
			}
			if rep.stray != nil {
				sendFrom("127.0.0.2:0", rep.stray, from)
				sendFrom("127.0.0.1:0", rep.stray, from)
			}
			for {
				for _, m := range rep.messages {
					if _, err := pc.WriteTo(m, from); err != nil {
						return
					}
				}
				if rep.again == 0 || !w.sleep(rep.again) {
					return
				}
			}
		})
	}
}

// sendFrom sends a datagram from a socket of its own.
func sendFrom(address string, msg []byte, to net.Addr) {
	pc, err := net.ListenPacket("udp", address)
	if err != nil {
		panic("lab: stray datagram: " + err.Error())
	}
	defer pc.Close()
	if _, err := pc.WriteTo(msg, to); err != nil {
		panic("lab: stray datagram: " + err.Error())
	}
}

// accept serves the connections of a real listener until Close.
func (w *World) accept(l net.Listener, s service) {
	w.spawn(func() {
		defer w.drop(l)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			w.serve(s, c, "tcp")
		}
	})
}
