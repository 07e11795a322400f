package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"strings"
	"syscall"

	"tlspolicyd/cmd/tlspolicyd/internal/config"
)

// daemonAddresses returns where a daemon with this configuration is reached at
// one of its sockets. A user without a configuration of their own has the
// system's daemon behind the default address.
func daemonAddresses(configured, byDefault, system string, dirs config.Dirs) ([]string, error) {
	if configured != byDefault {
		return []string{configured}, nil
	}
	if dirs.Shared {
		if err := checkOwn(dirs.Runtime); err != nil {
			return nil, unknownError(err)
		}
	}
	if configured == system {
		return []string{configured}, nil
	}
	return []string{configured, system}, nil
}

// unanswered is a request to the daemon at one address that got no reply.
type unanswered struct {
	address string
	err     error
}

// absent reports whether no process is there, so that another address may be
// tried.
func (u unanswered) absent() bool {
	return errors.Is(u.err, fs.ErrNotExist) || errors.Is(u.err, syscall.ECONNREFUSED)
}

// Error says what is between the user and the daemon at this address.
func (u unanswered) Error() string {
	switch {
	case errors.Is(u.err, fs.ErrPermission):
		return fmt.Sprintf("%s: permission denied: %s", u.address, needed(u.address))
	case errors.Is(u.err, context.DeadlineExceeded) || errors.Is(u.err, os.ErrDeadlineExceeded):
		return fmt.Sprintf("the daemon at %s does not answer in time: see its log", u.address)
	}
	return u.err.Error()
}

// needed says what it takes to connect to a Unix socket.
func needed(address string) string {
	info, err := os.Stat(strings.TrimPrefix(address, "unix:"))
	if err != nil {
		return "its directory is closed to you: use another user, e.g. with sudo"
	}
	group := "?"
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		group = strconv.FormatUint(uint64(st.Gid), 10)
		if g, err := user.LookupGroupId(group); err == nil {
			group = g.Name
		}
	}
	if info.Mode().Perm()&0o060 == 0 {
		return "it is open to the daemon's user and to root only: use sudo"
	}
	return fmt.Sprintf("it has mode %#o and group %s: use a member of the group, or sudo", info.Mode().Perm(), group)
}

// noDaemon is the error when no process is at any address.
func noDaemon(tried []unanswered) error {
	var places []string
	for _, u := range tried {
		why := u.err.Error()
		if errno, ok := errors.AsType[syscall.Errno](u.err); ok {
			why = errno.Error()
		}
		places = append(places, u.address+" ("+why+")")
	}
	return fmt.Errorf("no daemon answers at %s: start it with 'systemctl start tlspolicyd' "+
		"or 'tlspolicyd serve', or name its socket with --socket", strings.Join(places, " nor "))
}
