package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"tlspolicyd/store"
)

// databaseError names the setting behind an error of opening the database, and
// the next step.
func databaseError(path string, err error) error {
	info, statErr := os.Stat(path)
	switch {
	case errors.Is(err, store.ErrLocked):
		return fmt.Errorf("cache.path: %s: %w: is another tlspolicyd running? Stop it, or name another file", path, store.ErrLocked)
	case statErr == nil && info.IsDir():
		return fmt.Errorf("cache.path: %s is a directory: name a file, e.g. %s", path, filepath.Join(path, "policies.db"))
	case errors.Is(err, fs.ErrPermission):
		at := path
		if errors.Is(statErr, fs.ErrNotExist) {
			at = filepath.Dir(path) // where the file cannot be created
		}
		return fmt.Errorf("cache.path: %s: permission denied for user %s: 'chown %[2]s %s', or name another file", path, userName(), at)
	}
	return fmt.Errorf("cache.path: %w", err)
}

// userName is who runs the daemon: the number where there is no name.
func userName() string {
	id := strconv.Itoa(os.Geteuid())
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}

// listenError names the setting behind an error of listening at an address of
// listen.socketmap, and the next step where the error does not.
func listenError(setting, address string, err error) error {
	if errno, ok := errors.AsType[syscall.Errno](err); ok && errno == syscall.EACCES && !strings.HasPrefix(address, "unix:") {
		return fmt.Errorf("%s: %s: permission denied: a port below 1024 needs CAP_NET_BIND_SERVICE: choose a higher one", setting, address)
	}
	return fmt.Errorf("%s: %w", setting, err)
}
