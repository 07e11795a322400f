package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"tlspolicyd/cmd/tlspolicyd/internal/audit"
	"tlspolicyd/store"
	"tlspolicyd/store/bolt"
)

// Database is the file of the cache.
type Database struct {
	Path         string
	Absent       bool
	Inconclusive string // why it could not be read; ""
	Size         int64
	Mode         fs.FileMode
	Owner        string // "user:group"; "": the file was not seen
	User         string // owner of the file
	DirUser      string // owner of the directory, which is the daemon's user

	InUse   bool // a process has it open
	Records int
	Schema  int
	Damaged string // what is wrong with it; ""
	Newer   string // the same for a schema of a newer version; ""

	Daemon *string // what the running daemon reports of it, "" for nothing; nil: not asked

	Free, Total uint64 // bytes of the disk
}

const (
	diskLow  = 64 << 20 // bytes; a database of 100,000 domains takes about as much
	diskFull = 2 << 20  // the file grows by 1 MiB
)

// gatherDatabase opens the file for reading. One that a daemon has open is left
// alone: the daemon is asked instead.
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
	case err != nil:
		d.Inconclusive = reason(err)
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
	default:
		d.Inconclusive = reason(err)
	}
	return d
}

func judgeDatabase(f Facts) []audit.Finding {
	d := f.Database
	all := []audit.Finding{judgeFile(d, f.Units)}
	path, fix := oneLine(d.Path), "chmod 0600 "+shellQuote(d.Path)
	switch mode := d.Mode.Perm(); {
	case d.Owner == "":
	case mode&0o600 != 0o600:
		all = append(all, audit.Failed("database-mode", path, "The daemon is not allowed to read and write its database.", d.Mode.String(), "Allow it.", fix))
	case mode&0o022 != 0:
		all = append(all, audit.Failed("database-mode", path, "Other users can write to the database, and so change policies.", d.Mode.String(), "Only the daemon needs it.", fix))
	case mode&0o044 != 0:
		all = append(all, audit.Warned("database-mode", path, "Other users can read which domains this host sends to.", d.Mode.String(), "Only the daemon needs it.", fix))
	}
	if d.User != d.DirUser {
		all = append(all, audit.Failed("database-owner", path, fmt.Sprintf("The file belongs to %s, the directory to %s: the daemon cannot open it.", d.User, d.DirUser),
			d.Mode.String()+", owner "+d.Owner, "Often the daemon was run once as root.", "chown --reference="+shellQuote(filepath.Dir(d.Path))+" "+shellQuote(d.Path)))
	}
	if d.Total == 0 {
		return all // the directory does not exist, or is closed
	}
	free := bytesText(d.Free) + " free in " + oneLine(filepath.Dir(d.Path))
	switch {
	case d.Free < diskFull:
		all = append(all, audit.Failed("disk-full", "", "The disk is full: new facts stay in memory and are lost with a restart.", free, "Free some space.", ""))
	case d.Free < diskLow:
		all = append(all, audit.Warned("disk-low", "", "The disk is nearly full.", free, "Free some space before the database cannot grow.", ""))
	default:
		all = append(all, audit.Passed("disk-ok", "", "The database has room to grow.", free))
	}
	return all
}

// judgeFile is about what is in the file, or what the daemon reports of it.
func judgeFile(d Database, u Units) audit.Finding {
	path := oneLine(d.Path)
	switch {
	case d.Daemon != nil && *d.Daemon != "":
		return audit.Failed("database-failed", path, "The running daemon cannot use its database, so new facts are lost with a restart.", *d.Daemon, "Read its log.", "")
	case d.Absent && d.Daemon == nil:
		return audit.Warned("database-missing", path, "There is no database: the daemon has not run with this path.", "no such file", "Start it once; otherwise check cache.path.", u.systemctl("start tlspolicyd"))
	case d.Damaged != "":
		return audit.Warned("database-damaged", path, "The database is damaged: at its next start the daemon sets it aside and begins an empty one.", d.Damaged,
			"Find the cause (a full or failing disk), and restore a copy if you have one: tlspolicyd cache import.", "")
	case d.Newer != "":
		return audit.Failed("database-newer", path, "The database was written by a newer version: the daemon does not start with it.", d.Newer, "Upgrade, or set another cache.path.", "")
	case d.InUse && d.Daemon == nil:
		return audit.Inconclusive("database-inconclusive", path, "A process has the database open, and no daemon could be asked about it.", "locked", "Run doctor as root, with the configuration of that daemon (--config).")
	case d.Daemon != nil:
		return audit.Passed("database-ok", path, "The running daemon has the database open and can use it.", d.sizeText())
	case d.Inconclusive != "":
		return audit.Inconclusive("database-inconclusive", path, "The database could not be read.", d.Inconclusive, "Run doctor as root.")
	}
	return audit.Passed("database-ok", path, fmt.Sprintf("The database opens: schema %d, %d domains.", d.Schema, d.Records), d.sizeText())
}

func (d Database) sizeText() string {
	if d.Owner == "" {
		return ""
	}
	return bytesText(uint64(d.Size)) + ", " + d.Mode.String() + ", owner " + d.Owner
}

func bytesText(n uint64) string {
	switch {
	case n >= 10<<30:
		return fmt.Sprintf("%d GiB", n>>30)
	case n >= 10<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%d KiB", n>>10)
}
