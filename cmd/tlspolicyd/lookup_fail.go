package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/user"
	"strconv"
	"strings"
	"syscall"
	"time"
	"tlspolicyd/policymap/policy"
)

// unanswered is a lookup at one address that got no reply.
type unanswered struct {
	address string
	err     error
	timeout time.Duration // that it was given
}

// absent reports whether nobody is there, so that another address may be tried.
func (u unanswered) absent() bool {
	return errors.Is(u.err, fs.ErrNotExist) || errors.Is(u.err, syscall.ECONNREFUSED)
}

// Error says what stands between the user and the daemon at this address.
func (u unanswered) Error() string {
	switch {
	case errors.Is(u.err, fs.ErrPermission):
		return fmt.Sprintf("%s: permission denied%s", u.address, whoMayConnect(u.address))
	case errors.Is(u.err, context.DeadlineExceeded) || errors.Is(u.err, os.ErrDeadlineExceeded):
		return fmt.Sprintf("the daemon at %s does not answer within %s: see its log", u.address, u.timeout)
	}
	return u.err.Error()
}

// whoMayConnect describes a Unix socket that one may not connect to.
func whoMayConnect(address string) string {
	path, ok := strings.CutPrefix(address, "unix:")
	if !ok {
		return ""
	}
	info, err := os.Stat(path)
	if err != nil {
		return ": its directory is closed to you: ask as another user, e.g. with sudo"
	}
	group := "?"
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		group = strconv.FormatUint(uint64(st.Gid), 10)
		if g, err := user.LookupGroupId(group); err == nil {
			group = g.Name
		}
	}
	return fmt.Sprintf(": it has mode %#o and group %s: ask as a member of the group, or with sudo", info.Mode().Perm(), group)
}

// noDaemon is the error when nobody is at any address.
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

// notNextHop says why nothing was looked up for a key; it is empty for a next hop.
func notNextHop(key string) string {
	if _, ok := policy.ParseNextHop(key); ok {
		return ""
	}
	if _, domain, ok := strings.Cut(key, "@"); ok {
		if _, ok := policy.ParseNextHop(domain); ok {
			return "not a next hop, nothing was looked up: ask for " + visible(domain)
		}
	}
	if _, err := netip.ParseAddr(strings.Trim(key, "[]")); err == nil {
		return "an address has no policy domain, nothing was looked up"
	}
	return "not a next hop, nothing was looked up"
}
