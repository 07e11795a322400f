package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"tlspolicyd/internal/printable"
	"tlspolicyd/socketmap"
)

// What can be wrong with a value. The text is between the value and what
// would be right.
var (
	errNotAbsolute = errors.New("not an absolute path")
	errUnknown     = errors.New("unknown")
	errNotProxy    = errors.New("not an http URL")
	errProxyPath   = errors.New("a proxy has no path")
	errPort        = errors.New("not a port number up to 65535")
	errNoPort      = errors.New("not a host with a port")
	errNoAddress   = errors.New("not an address")
	errAdminTCP    = errors.New("not a Unix socket")
	errMode        = errors.New("not an octal number up to 0777")
	errModeZero    = errors.New("no client could connect")
	errGroup       = errors.New("not a group name")
	errHostBits    = errors.New("bits after the prefix are set")
	errNoNetwork   = errors.New("not a network")
)

// parseAddress reads an address on which to listen. What Postfix would take
// but a daemon cannot promise, a path relative to its working directory, is
// refused.
func parseAddress(s string) (string, error) {
	network, address, err := socketmap.ParseAddress(s)
	if err != nil {
		if reason := errors.Unwrap(err); reason != nil {
			err = reason // without the address, which is before it already
		}
		return "", err
	}
	if network == "unix" {
		if address, err = parsePath(address); err != nil {
			return "", err
		}
	}
	return network + ":" + address, nil
}

func parseUnixAddress(s string) (string, error) {
	if !strings.HasPrefix(s, "unix:") {
		return "", errAdminTCP
	}
	return parseAddress(s)
}

// parseSocketPath is parseUnixAddress for a path as Postfix writes it.
func parseSocketPath(s string) (string, error) {
	address, err := parseAddress("unix:" + s)
	return strings.TrimPrefix(address, "unix:"), err
}

// parseHTTPAddress takes what parseHostPort does, and a Unix socket.
func parseHTTPAddress(s string) (string, error) {
	if strings.HasPrefix(s, "unix:") {
		return parseUnixAddress(s)
	}
	return parseHostPort(s)
}

// parseHostPort wants a port number. Without a host it is every address of
// this machine.
func parseHostPort(s string) (string, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil || !printable.Is(host) || strings.ContainsAny(host, " /") {
		return "", errNoPort
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", errPort
	}
	return s, nil
}

// parseServer reads the address of a resolver; its port is 53 unless given.
// What may be meant as an IPv6 address with a port needs brackets.
func parseServer(s string) (netip.AddrPort, error) {
	if host, port, ok := splitAmbiguous(s); ok {
		if _, err := netip.ParseAddr(s); err != nil { // nine groups
			return netip.AddrPort{}, fmt.Errorf("want [%s]:%s", host, port)
		}
		return netip.AddrPort{}, fmt.Errorf("address or address and port? Want [%s]:%s or [%s]", host, port, s)
	}
	bare := s
	if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
		bare = s[1 : len(s)-1]
	}
	if a, err := netip.ParseAddr(bare); err == nil {
		return netip.AddrPortFrom(a, 53), nil
	}
	ap, err := netip.ParseAddrPort(s)
	if err != nil || ap.Port() == 0 {
		return netip.AddrPort{}, errNoAddress
	}
	return ap, nil
}

// splitAmbiguous splits an IPv6 address without brackets at its last colon if
// both sides could stand alone, as an address and a port: "::1:53" is an address
// by RFC 4291 section 2.2, and hardly ever what was meant (RFC 5952 section 6).
func splitAmbiguous(s string) (host, port string, ok bool) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return "", "", false
	}
	host, port = s[:i], s[i+1:]
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", "", false
	}
	a, err := netip.ParseAddr(host)
	return host, port, err == nil && a.Is6()
}

func formatServer(ap netip.AddrPort) string {
	if s := ap.Addr().String(); ap.Port() == 53 {
		if _, _, ambiguous := splitAmbiguous(s); ambiguous {
			return "[" + s + "]"
		}
		return s
	}
	return ap.String()
}

func parsePrefix(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, errNoNetwork
	}
	if p != p.Masked() {
		return netip.Prefix{}, errHostBits
	}
	return p, nil
}

func parseMode(s string) (fs.FileMode, error) {
	n, err := strconv.ParseUint(s, 8, 32)
	if err != nil || n > 0o777 {
		return 0, errMode
	}
	if n == 0 {
		return 0, errModeZero
	}
	return fs.FileMode(n), nil
}

func formatMode(m fs.FileMode) string { return "0" + strconv.FormatUint(uint64(m), 8) }

// parseGroup keeps to what useradd(8) allows for names, and numbers. Whether
// there is such a group is seen when the socket is made.
func parseGroup(s string) (string, error) {
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-$"
	if strings.Trim(s, allowed) != "" || len(s) > 32 {
		return "", errGroup
	}
	return s, nil
}
