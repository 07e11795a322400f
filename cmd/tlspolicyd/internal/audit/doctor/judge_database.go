package doctor

import (
	"fmt"

	"tlspolicyd/cmd/tlspolicyd/internal/audit"
)

const (
	lowRoom  = 64 << 20 // bytes; a database of 100,000 domains takes about as much
	fullRoom = 2 << 20  // the file grows by 1 MiB
)

func judgeDatabase(f Facts) []audit.Finding {
	d := f.Database
	all := []audit.Finding{judgeFile(d, f.Units)}
	path := oneLine(d.Path)
	if d.Mode.Perm()&0o077 != 0 {
		text := "Others may read which domains this host sends to."
		one := warn(DatabaseMode, path, text, d.Mode.String(), "Only the daemon needs it.", "chmod 0600 "+shellQuote(d.Path))
		if d.Mode.Perm()&0o022 != 0 {
			one.Grade, one.Text = audit.Fail, "Others may write to it, and so decide about policies."
		}
		all = append(all, one)
	}
	if d.User != d.DirUser {
		all = append(all, fail(DatabaseOwner, path, fmt.Sprintf("The file belongs to %s, the directory to %s: the daemon cannot open it.", d.User, d.DirUser),
			d.Mode.String()+", owner "+d.Owner, "Often the daemon was run once as root.", "chown --reference="+shellQuote(dirOf(d.Path))+" "+shellQuote(d.Path)))
	}
	if d.Total == 0 {
		return all // the directory is not there, or closed
	}
	room := bytesText(d.Free) + " free in " + dirOf(d.Path)
	switch {
	case d.Free < fullRoom:
		all = append(all, fail(DiskFull, "", "The disk is full: what is learned stays in memory and is lost with a restart.", room, "Make room.", ""))
	case d.Free < lowRoom:
		all = append(all, warn(DiskLow, "", "The disk is nearly full.", room, "Make room before the database cannot grow.", ""))
	default:
		all = append(all, ok(DiskRoom, "", "There is room for the database to grow.", room))
	}
	return all
}

// judgeFile is about what is in the file, or what the daemon says of it.
func judgeFile(d Database, u Units) audit.Finding {
	path := oneLine(d.Path)
	switch {
	case d.Daemon != nil && *d.Daemon != "":
		return fail(DatabaseFails, path, "The running daemon cannot use its database, and what it learns is lost with a restart.", *d.Daemon, "See its log.", "")
	case d.Absent && d.Daemon == nil:
		return warn(DatabaseAbsent, path, "There is no database yet: the daemon has not run with this path.", "no such file", "Start it once; see cache.path otherwise.", u.systemctl("start tlspolicyd"))
	case d.Damaged != "":
		return warn(DatabaseDamaged, path, "The database is damaged: at its next start the daemon sets it aside and begins an empty one.", d.Damaged,
			"Look for the cause (a full or failing disk), and restore a copy if you have one: tlspolicyd cache import.", "")
	case d.Newer != "":
		return fail(DatabaseNewer, path, "The database was written by a newer version: the daemon does not start with it.", d.Newer, "Upgrade, or name another cache.path.", "")
	case d.InUse && d.Daemon == nil:
		return unknown(DatabaseUntold, path, "A process has the database open, and no daemon could be asked about it.", "locked", "Run doctor as root, with the configuration of that daemon (--config).")
	case d.Daemon != nil:
		return ok(DatabaseGood, path, "The running daemon has it open and can use it.", d.sizeText())
	case d.Untold != "":
		return unknown(DatabaseUntold, path, "The database could not be looked at: "+d.Untold+".", "", "Run doctor as root.")
	}
	return ok(DatabaseGood, path, fmt.Sprintf("The database opens: schema %d, %d domains.", d.Schema, d.Records), d.sizeText())
}

func (d Database) sizeText() string {
	if d.Size == 0 {
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
