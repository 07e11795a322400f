package doctor

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"tlspolicyd/store"
	"tlspolicyd/store/bolt"
)

// Database is the file with what was learned.
type Database struct {
	Path    string
	Absent  bool
	Untold  string // why it could not be looked at; ""
	Size    int64
	Mode    fs.FileMode
	Owner   string // "user:group"
	DirUser string // owner of the directory, who is the daemon's user
	User    string // owner of the file

	InUse   bool // a process has it open
	Records int
	Schema  int
	Damaged string // what is wrong with it; ""
	Newer   string // the same for a schema of a newer version; ""

	Daemon *string // what the running daemon says of it, "" for nothing; nil: nobody was asked

	Free  uint64 // bytes
	Total uint64
}

// gatherDatabase looks at the file. One that a daemon has open is left alone,
// and the daemon is asked instead.
func gatherDatabase(path string, daemon *string) Database {
	d := Database{Path: path, Daemon: daemon}
	dir := filepath.Dir(path)
	var fsys unix.Statfs_t
	if err := unix.Statfs(dir, &fsys); err == nil {
		d.Free = uint64(fsys.Bavail) * uint64(fsys.Bsize)
		d.Total = uint64(fsys.Blocks) * uint64(fsys.Bsize)
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		d.Absent = true
		return d
	case errors.Is(err, fs.ErrPermission):
		d.Untold = "it is closed to an ordinary user"
		return d
	case err != nil:
		d.Untold = reason(err)
		return d
	}
	d.Size, d.Mode, d.Owner = info.Size(), info.Mode(), owner(info)
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		d.User = userName(st.Uid)
	}
	if above, err := os.Stat(dir); err == nil {
		if st, ok := above.Sys().(*syscall.Stat_t); ok {
			d.DirUser = userName(st.Uid)
		}
	}
	seen, err := bolt.Inspect(path)
	d.Records, d.Schema = seen.Records, seen.Schema
	switch {
	case err == nil:
	case errors.Is(err, store.ErrLocked):
		d.InUse = true
	case errors.Is(err, store.ErrNewerSchema):
		d.Newer = oneLine(err.Error())
	case errors.Is(err, store.ErrDamaged):
		d.Damaged = oneLine(err.Error())
	case errors.Is(err, fs.ErrPermission):
		d.Untold = "it is closed to an ordinary user"
	default:
		d.Untold = reason(err)
	}
	return d
}
