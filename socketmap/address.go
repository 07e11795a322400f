package socketmap

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"syscall"
)

// ParseAddress splits the address of a socketmap server, "unix:/path" or
// "tcp:host:port", into network and address for package net. It checks the
// form only. As in Postfix, a Unix path may be relative and "tcp:" may be written
// "inet:".
func ParseAddress(s string) (network, address string, err error) {
	kind, rest, _ := strings.Cut(s, ":")
	switch kind {
	case "unix":
		network, err = "unix", checkPath(rest)
	case "tcp", "inet":
		network, err = "tcp", checkHostPort(rest)
	default:
		err = errors.New("want unix:/path or tcp:host:port")
	}
	if err != nil {
		return "", "", fmt.Errorf("address %.200q: %w", s, err)
	}
	return network, rest, nil
}

func checkPath(path string) error {
	// sockaddr_un ends with a NUL byte.
	const maxPath = len(syscall.RawSockaddrUnix{}.Path) - 1
	switch {
	case path == "":
		return errors.New("the path is missing")
	case path[0] == '@':
		return errors.New("abstract sockets are not supported: Postfix cannot connect to them")
	case strings.IndexByte(path, 0) >= 0:
		return errors.New("NUL in the path")
	case len(path) > maxPath:
		return fmt.Errorf("path of %d bytes is too long for a socket: %d at most", len(path), maxPath)
	}
	return nil
}

func checkHostPort(s string) error {
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		return errors.New("want host:port after tcp:, an IPv6 address in brackets")
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("port %.20q: want a number from 0 to 65535", port)
	}
	return nil
}
