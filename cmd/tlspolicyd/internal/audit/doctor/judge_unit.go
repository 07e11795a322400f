package doctor

import (
	"tlspolicyd/cmd/tlspolicyd/internal/admin"
	"tlspolicyd/cmd/tlspolicyd/internal/audit"
)

func judgeUnits(u Units) []audit.Finding {
	all := []audit.Finding{judgeDaemon(u)}
	switch {
	case !u.Systemd:
		return append(all, ok(SystemdAbsent, "", "systemd does not run this host: its units were not looked at.", ""))
	case u.Untold != "":
		return append(all, unknown(UnitUntold, "", "systemctl did not tell of the units.", u.Untold, "Try: systemctl status tlspolicyd."))
	}
	for _, unit := range []Unit{u.Socket, u.Service} {
		all = append(all, judgeUnit(unit)...)
	}
	return all
}

// systemctl is a command of it, where systemd runs the host; else "".
func (u Units) systemctl(args string) string {
	if !u.Systemd {
		return ""
	}
	return "systemctl " + args
}

// judgeDaemon is about the process itself, by its control socket.
func judgeDaemon(u Units) audit.Finding {
	d := u.Daemon
	socket := oneLine(d.Socket)
	switch {
	case d.Socket == "":
		return unknown(DaemonUntold, "", "The daemon has no control socket, so it was not asked for its version.", `listen.admin is ""`, "")
	case d.Denied:
		return unknown(DaemonUntold, socket, "The control socket is closed to you, so the daemon was not asked for its version.", d.Err, "Run doctor as root.")
	case d.Build == nil:
		return fail(DaemonDown, socket, "No daemon answers at its control socket.", d.Err, "Start it, and look at its log.", u.systemctl("restart tlspolicyd"))
	case d.Build.Version != u.Build.Version || d.Build.Revision != u.Build.Revision:
		return warn(DaemonOtherVersion, "", "The running daemon is of another version than this program.",
			"it runs "+buildText(*d.Build)+", this is "+buildText(u.Build), "Restart it after an upgrade: no answer is lost.", u.systemctl("restart tlspolicyd"))
	}
	return ok(DaemonRuns, "", "The daemon runs, and is of the version of this program.", buildText(*d.Build))
}

func buildText(b admin.Build) string {
	text := oneLine(b.Version)
	if b.Revision != "" {
		text += " revision " + oneLine(b.Revision[:min(len(b.Revision), 12)])
	}
	return text
}

func judgeUnit(u Unit) []audit.Finding {
	if u.Load == "not-found" {
		return []audit.Finding{warn(UnitAbsent, u.Name, "systemd does not know this unit: nothing starts the daemon after a reboot, unless you have a unit of another name.",
			"LoadState="+u.Load, "Install the package, or packaging/systemd from the source.", "")}
	}
	var all []audit.Finding
	state := "ActiveState=" + u.Active + " LoadState=" + u.Load + " UnitFileState=" + u.Enabled
	if u.Active != "active" && u.Active != "reloading" && u.Active != "activating" {
		all = append(all, fail(UnitInactive, u.Name, "The unit does not run.", state, "Start it; its log: journalctl -u "+u.Name+".", "systemctl start "+u.Name))
	}
	if u.Enabled == "disabled" || u.Enabled == "masked" {
		all = append(all, warn(UnitDisabled, u.Name, "After a reboot the unit would not run.", state, "Enable it.", "systemctl enable "+u.Name))
	}
	if len(all) == 0 {
		all = append(all, ok(UnitActive, u.Name, "The unit is active and enabled.", ""))
	}
	return all
}
