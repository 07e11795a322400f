package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"tlspolicyd/cmd/tlspolicyd/internal/config"
)

// makeDirs creates the missing directories of the sockets and of the database. The
// parents of the sockets' directories must exist: without /var/spool/postfix this is
// not the machine that the operator means. On a disk that is read-only or full the
// daemon runs without a database.
func makeDirs(cfg config.Config, dirs config.Dirs, sockets []string) error {
	for _, address := range sockets {
		path, ok := strings.CutPrefix(address, "unix:")
		if !ok {
			continue
		}
		dir := filepath.Dir(path)
		if dir == dirs.Runtime && dirs.Shared {
			if err := makeDir(dir, 0o700); err != nil {
				return err
			}
			if err := checkOwn(dir); err != nil {
				return err
			}
			continue
		}
		if base := filepath.Dir(dir); base == os.Getenv("XDG_RUNTIME_DIR") {
			if _, err := os.Stat(base); errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("XDG_RUNTIME_DIR=%s does not exist: unset it, or set listen.socketmap and listen.admin", base)
			}
		}
		// Who may connect is decided by the mode of the socket.
		if err := makeDir(dir, 0o755); err != nil {
			return err
		}
	}
	dir := filepath.Dir(cfg.Cache.Path)
	err := os.MkdirAll(filepath.Dir(dir), 0o755)
	if err != nil {
		err = fmt.Errorf("create the directory of cache.path: %w: set STATE_DIRECTORY or cache.path to a place of your own", err)
	} else {
		err = makeDir(dir, 0o700)
	}
	if errors.Is(err, syscall.EROFS) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return nil
	}
	return err
}

// makeDir creates a directory with exactly this mode, whatever the umask. It leaves
// an existing one as it is.
func makeDir(dir string, mode fs.FileMode) error {
	err := os.Mkdir(dir, mode)
	switch {
	case errors.Is(err, fs.ErrExist):
		return nil
	case err != nil:
		return fmt.Errorf("%w: create it, or configure another place", err)
	}
	return os.Chmod(dir, mode)
}

// checkOwn makes sure that a directory which any user could have created belongs to
// this user and is closed to others: the socket in another user's directory is of
// that user's daemon. A directory that does not exist is not an error.
func checkOwn(dir string) error {
	info, err := os.Lstat(dir) // a symbolic link is not trusted either
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() || int(st.Uid) != os.Geteuid() || info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s is not a directory of your own with mode 0700: remove it, or set XDG_RUNTIME_DIR", dir)
	}
	return nil
}
