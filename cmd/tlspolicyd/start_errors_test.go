package main

import (
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"tlspolicyd/cmd/tlspolicyd/internal/config"
	"tlspolicyd/store"
)

// What keeps the daemon from starting is one line with the setting and the
// next step.
func TestStartErrorsNameTheSettingAndTheNextStep(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "p.db")
	denied := &fs.PathError{Op: "open", Path: file, Err: syscall.EACCES}
	privileged := &net.OpError{Op: "listen", Net: "tcp4", Err: os.NewSyscallError("bind", syscall.EACCES)}
	for name, tt := range map[string]struct {
		err  error
		want string
	}{
		"database in use":             {databaseError(file, fmt.Errorf("%s: %w", file, store.ErrLocked)), "cache.path: " + file + ": database is in use by another process: is another tlspolicyd running? Stop it, or name another file"},
		"database is a directory":     {databaseError(dir, syscall.EISDIR), "cache.path: " + dir + " is a directory: name a file, e.g. " + file[:len(file)-len("p.db")] + "policies.db"},
		"database of somebody else":   {databaseError(file, denied), "cache.path: " + file + ": permission denied for user " + userName() + ": 'chown " + userName() + " " + dir + "', or name another file"},
		"another error of a database": {databaseError(file, store.ErrNewerSchema), "cache.path: " + store.ErrNewerSchema.Error()},
		"privileged port":             {listenError("listen.socketmap", "tcp:127.0.0.1:25", privileged), "listen.socketmap: tcp:127.0.0.1:25: permission denied: a port below 1024 needs CAP_NET_BIND_SERVICE: choose a higher one"},
		"a socket where one may not":  {listenError("listen.socketmap", "unix:/s", denied), "listen.socketmap: " + denied.Error()},
	} {
		if got := tt.err.Error(); got != tt.want {
			t.Errorf("%s:\ngot  %s\nwant %s", name, got, tt.want)
		}
	}
}

// A login session that is over leaves the variable behind.
func TestRuntimeDirectoryOfTheUserDoesNotExist(t *testing.T) {
	base := filepath.Join(t.TempDir(), "gone")
	t.Setenv("XDG_RUNTIME_DIR", base)
	dirs := config.Dirs{Runtime: filepath.Join(base, "tlspolicyd")}
	err := makeDirs(config.Config{}, dirs, []string{"unix:" + filepath.Join(dirs.Runtime, "s")})
	if err == nil || !strings.HasPrefix(err.Error(), "XDG_RUNTIME_DIR="+base+" does not exist: ") {
		t.Errorf("got %v", err)
	}
}
