package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"

	"github.com/coreos/go-systemd/v22/activation"

	"tlspolicyd/cmd/tlspolicyd/internal/config"
	"tlspolicyd/socketmap"
)

// activated returns the listeners that systemd passed to the process
// (sd_listen_fds(3)); none when it was started in another way.
func activated() ([]net.Listener, error) {
	passed, err := activation.Listeners()
	if err != nil {
		return nil, fmt.Errorf("sockets from systemd: %w", err)
	}
	for _, l := range passed {
		if l == nil {
			closeAll(passed)
			return nil, errors.New("systemd passed a socket that is not a stream socket: want ListenStream= in the socket unit")
		}
	}
	return passed, nil
}

// listen opens the configured sockets, all or none.
func listen(ctx context.Context, cfg config.Listen) ([]net.Listener, error) {
	var all []net.Listener
	for _, address := range cfg.Socketmap {
		l, err := socketmap.Listen(ctx, address, socketmap.ListenOptions{Mode: cfg.SocketMode, Group: cfg.SocketGroup})
		if err != nil {
			closeAll(all)
			return nil, listenError("listen.socketmap", address, err)
		}
		all = append(all, l)
	}
	return all, nil
}

func closeAll(listeners []net.Listener) {
	for _, l := range listeners {
		if l != nil {
			l.Close() // nothing was written to it
		}
	}
}

// openToNetwork returns those of the listeners that take connections to every
// address of this host.
func openToNetwork(listeners []net.Listener) []string {
	var open []string
	for _, l := range listeners {
		if a, ok := l.Addr().(*net.TCPAddr); ok && a.IP.IsUnspecified() {
			open = append(open, "tcp:"+a.String())
		}
	}
	return open
}

// addresses returns where the listeners are reached, as in the configuration.
func addresses(listeners []net.Listener) []string {
	var all []string
	for _, l := range listeners {
		all = append(all, l.Addr().Network()+":"+l.Addr().String())
	}
	return all
}

// listenError names the setting behind an error of listening at an address of
// listen.socketmap, and the next step where the error does not.
func listenError(setting, address string, err error) error {
	if errno, ok := errors.AsType[syscall.Errno](err); ok && errno == syscall.EACCES && !strings.HasPrefix(address, "unix:") {
		return fmt.Errorf("%s: %s: permission denied: a port below 1024 needs CAP_NET_BIND_SERVICE: choose a higher one", setting, address)
	}
	return fmt.Errorf("%s: %w", setting, err)
}
