package config

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Dirs are the directories of the default paths.
type Dirs struct {
	Runtime string // sockets
	State   string // the database

	// Shared says that Runtime is in a directory where any user may create
	// files. It must then belong to the user before anything in it is trusted.
	Shared bool
}

// The directories of a daemon that the system runs.
const (
	systemRuntime = "/run/tlspolicyd"
	systemState   = "/var/lib/tlspolicyd"
)

// The sockets and the database of such a daemon, where its configuration does not
// name others.
const (
	SystemSocketmap = "unix:" + systemRuntime + "/socketmap.sock"
	SystemAdmin     = "unix:" + systemRuntime + "/admin.sock"
	SystemDatabase  = systemState + "/policies.db"
)

// DefaultDirs returns $RUNTIME_DIRECTORY and $STATE_DIRECTORY, which systemd
// sets for a service. Without them it is /run/tlspolicyd and
// /var/lib/tlspolicyd for root, and for other users the places that the XDG
// base directory specification has for a user's own sockets and state.
func DefaultDirs() Dirs {
	return dirs(os.Getenv, os.Geteuid(), os.TempDir())
}

func dirs(getenv func(string) string, uid int, temp string) Dirs {
	d := Dirs{
		Runtime: first(getenv("RUNTIME_DIRECTORY")),
		State:   first(getenv("STATE_DIRECTORY")),
	}
	if uid == 0 || d.Runtime != "" {
		if d.Runtime == "" {
			d.Runtime = systemRuntime
		}
		if d.State == "" {
			d.State = systemState
		}
		return d
	}
	if base := getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(base) {
		d.Runtime = filepath.Join(base, "tlspolicyd")
	} else {
		d.Runtime = filepath.Join(temp, "tlspolicyd-"+strconv.Itoa(uid))
		d.Shared = true
	}
	if d.State != "" {
		return d
	}
	// The specification wants relative values ignored.
	if base := getenv("XDG_STATE_HOME"); filepath.IsAbs(base) {
		d.State = filepath.Join(base, "tlspolicyd")
	} else if home := getenv("HOME"); filepath.IsAbs(home) {
		d.State = filepath.Join(home, ".local", "state", "tlspolicyd")
	} else {
		d.State = d.Runtime // a user without a home
	}
	return d
}

// first returns the first of the directories in a list as systemd passes it
// (systemd.exec(5), RuntimeDirectory=), or "" when it is not an absolute path.
func first(list string) string {
	dir, _, _ := strings.Cut(list, ":")
	if !filepath.IsAbs(dir) {
		return ""
	}
	return filepath.Clean(dir)
}
