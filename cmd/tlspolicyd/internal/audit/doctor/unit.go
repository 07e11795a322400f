package doctor

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"time"

	"tlspolicyd/cmd/tlspolicyd/internal/admin"
	"tlspolicyd/cmd/tlspolicyd/internal/audit"
)

// Units are the units of systemd that matter, read before anything is asked of
// the daemon.
type Units struct {
	Systemd      bool   // runs this host
	Inconclusive string // why systemctl did not answer; ""
	Service      Unit
	Socket       Unit
	Time         []Unit // services that synchronize the clock and are installed
	LastLine     string // what the service logged last, where it does not run; ""
}

// Unit is what systemctl show prints of one.
type Unit struct {
	Name     string
	Load     string // "loaded", "not-found", "masked"
	Active   string // "active", "inactive", "failed", "activating"
	Sub      string // "running", "auto-restart"
	Enabled  string // "enabled", "disabled"
	Result   string // "success", "exit-code"
	Status   string // exit status of the main process
	Restarts string
	User     string
	Groups   string // SupplementaryGroups=
	Listen   []string
}

const (
	serviceUnit = "tlspolicyd.service"
	socketUnit  = "tlspolicyd.socket"
)

// timeUnits are the services that synchronize the clock, by the names that
// distributions give them.
func timeUnits() []string {
	return []string{"chrony.service", "chronyd.service", "ntpsec.service", "ntp.service", "ntpd.service", "systemd-timesyncd.service"}
}

func gatherUnits(ctx context.Context, systemd string) Units {
	var u Units
	if _, err := os.Stat(systemd); err != nil {
		return u
	}
	u.Systemd = true
	program, err := find("systemctl")
	if err == nil {
		var text string
		text, err = run(ctx, program, append([]string{
			"show", "--no-pager",
			"--property=Id,LoadState,ActiveState,SubState,UnitFileState,Result,ExecMainStatus,NRestarts,User,SupplementaryGroups,Listen", serviceUnit, socketUnit,
		}, timeUnits()...)...)
		for _, unit := range parseUnits(text) {
			switch {
			case unit.Name == serviceUnit:
				u.Service = unit
			case unit.Name == socketUnit:
				u.Socket = unit
			case unit.Load == "loaded":
				u.Time = append(u.Time, unit)
			}
		}
	}
	switch {
	case err != nil:
		u.Inconclusive = oneLine(err.Error())
	case u.Service.Load == "" || u.Socket.Load == "":
		u.Inconclusive = "systemctl show does not print both units"
	case u.Service.restarting() || u.Service.Active == "failed":
		if journalctl, err := find("journalctl"); err == nil {
			text, _ := run(ctx, journalctl, "-q", "-u", serviceUnit, "-t", "tlspolicyd", "-n", "1", "-o", "cat", "--no-pager")
			u.LastLine = oneLine(strings.TrimSpace(text))
		}
	}
	return u
}

// restarting reports a service that has failed and is started again: it waits for
// that, or is being started, once more.
func (u Unit) restarting() bool {
	return u.Active == "activating" && (strings.HasPrefix(u.Sub, "auto-restart") || u.Restarts != "" && u.Restarts != "0")
}

// account returns the user that a service runs as, with its groups.
func (u Unit) account() (Account, error) {
	who, err := account(cmp.Or(u.User, "root"))
	for name := range strings.FieldsSeq(u.Groups) {
		if g, err := user.LookupGroup(name); err == nil {
			gid, _ := strconv.ParseUint(g.Gid, 10, 32) // always a number where there are groups
			who.GIDs = append(who.GIDs, uint32(gid))
		}
	}
	return who, err
}

// parseUnits reads the output of systemctl show, a blank line between units.
func parseUnits(text string) []Unit {
	var list []Unit
	for block := range strings.SplitSeq(text, "\n\n") {
		var u Unit
		fields := map[string]*string{
			"Id": &u.Name, "LoadState": &u.Load, "ActiveState": &u.Active, "SubState": &u.Sub, "UnitFileState": &u.Enabled,
			"Result": &u.Result, "ExecMainStatus": &u.Status, "NRestarts": &u.Restarts, "User": &u.User, "SupplementaryGroups": &u.Groups,
		}
		for line := range strings.Lines(block) {
			key, value, _ := strings.Cut(strings.TrimRight(line, "\n"), "=")
			if field := fields[key]; field != nil {
				*field = oneLine(value)
			} else if address := listenAddress(value); key == "Listen" && address != "" {
				u.Listen = append(u.Listen, address)
			}
		}
		if u.Name != "" {
			list = append(list, u)
		}
	}
	return list
}

// listenAddress turns "/run/x.sock (Stream)" into "unix:/run/x.sock".
func listenAddress(value string) string {
	address, kind, _ := strings.Cut(value, " ")
	switch {
	case kind != "(Stream)":
		return ""
	case strings.HasPrefix(address, "/"):
		return "unix:" + address
	}
	return "tcp:" + address
}

// listening is where the daemon listens: the socket unit decides where there is
// one, else the configuration.
func listening(u Units, configured []string) []string {
	if u.Systemd && u.Socket.Load == "loaded" && len(u.Socket.Listen) > 0 &&
		(u.Socket.Active == "active" || u.Socket.Enabled == "enabled") {
		return u.Socket.Listen
	}
	return configured
}

// systemctl is a command of it, where systemd runs the host; else "".
func (u Units) systemctl(args string) string {
	if !u.Systemd {
		return ""
	}
	return "systemctl " + args
}

// joinGroup is the command that puts the daemon's user into a group.
func (u Units) joinGroup(group, user string) string {
	command := "usermod -a -G " + shellQuote(group) + " " + shellQuote(user)
	if restart := u.systemctl("restart " + serviceUnit); restart != "" {
		command += " && " + restart
	}
	return command
}

// listenFix is a line that changes the socket unit for good: by a drop-in that
// systemd reads after override.conf of "systemctl edit". (A socket unit is not
// restarted while its service runs, so both are.)
func (u Units) listenFix(name, setting string) string {
	if !u.Systemd || u.Socket.Load != "loaded" {
		return ""
	}
	dir := "/etc/systemd/system/" + socketUnit + ".d"
	return "mkdir -p " + dir + " && printf '%s\\n' '[Socket]' " + shellQuote(setting) + " >" + dir + "/zz-" + name + ".conf && " +
		"systemctl daemon-reload && systemctl restart " + socketUnit + " " + serviceUnit
}

// Daemon is what the control socket reports.
type Daemon struct {
	This   admin.Build // of this program
	Socket string      // path; "": listen.admin is ""
	Build  *admin.Build
	Err    string  // why there is no answer; ""
	Denied bool    // it is closed to this user
	Store  *string // what the daemon reports of its database, "" for nothing; nil: not asked
}

const daemonTime = 6 * time.Second // /readyz waits up to 5 s for a resolver

func gatherDaemon(ctx context.Context, o Options) Daemon {
	d := Daemon{This: o.Build, Socket: o.Admin}
	if o.Admin == "" {
		return d
	}
	ctx, cancel := context.WithTimeout(ctx, daemonTime)
	defer cancel()
	client := admin.NewClient(o.Admin)
	defer client.Close()
	build, err := client.Build(ctx)
	if err != nil {
		d.Err, d.Denied = reason(err), errors.Is(err, fs.ErrPermission)
		return d
	}
	d.Build = &build
	if state, err := client.Store(ctx); err == nil {
		state = oneLine(state)
		d.Store = &state
	}
	return d
}

func judgeUnits(f Facts) []audit.Finding {
	u := f.Units
	all := []audit.Finding{judgeDaemon(f)}
	switch {
	case !u.Systemd:
		return append(all, audit.Passed("systemd-absent", "", "systemd does not run this host: its units were not checked.", ""))
	case u.Inconclusive != "":
		return append(all, audit.Inconclusive("unit-inconclusive", "", "systemctl does not report the state of the units.", u.Inconclusive, "Try: systemctl status tlspolicyd."))
	}
	return slices.Concat(all, u.judge(u.Socket), u.judge(u.Service))
}

// judgeDaemon is about the process itself, by its control socket.
func judgeDaemon(f Facts) audit.Finding {
	d := f.Daemon
	socket := oneLine(d.Socket)
	switch {
	case d.Socket == "":
		return audit.Inconclusive("daemon-inconclusive", "", "The daemon has no control socket, so its version is unknown.", `listen.admin is ""`, "Set listen.admin.")
	case d.Denied:
		return audit.Inconclusive("daemon-inconclusive", socket, "The control socket is closed to you, so the daemon's version is unknown.", d.Err, "Run doctor as root.")
	case d.Build == nil:
		return audit.Failed("daemon-down", socket, "No daemon answers at its control socket.", d.Err, "Start it, and read its log.", f.Units.systemctl("restart tlspolicyd"))
	case d.Build.Version != d.This.Version || d.Build.Revision != d.This.Revision:
		return audit.Warned("daemon-other-version", "", "The running daemon has another version than this program.",
			"it runs "+buildText(*d.Build)+", this is "+buildText(d.This), "Restart it after an upgrade: no lookup is lost.", f.Units.systemctl("restart tlspolicyd"))
	}
	return audit.Passed("daemon-ok", "", "The daemon runs, and has the version of this program.", buildText(*d.Build))
}

func buildText(b admin.Build) string {
	text := oneLine(b.Version)
	if b.Revision != "" {
		text += " revision " + oneLine(b.Revision[:min(len(b.Revision), 12)])
	}
	return text
}

func (u Units) judge(unit Unit) []audit.Finding {
	if unit.Load == "not-found" {
		return []audit.Finding{audit.Warned("unit-missing", unit.Name, "systemd does not know this unit: nothing starts the daemon after a reboot, unless you have a unit of another name.",
			"LoadState="+unit.Load, "Install the package, or packaging/systemd from the source.", "")}
	}
	var all []audit.Finding
	state := "ActiveState=" + unit.Active + " (" + unit.Sub + ") LoadState=" + unit.Load + " UnitFileState=" + unit.Enabled
	last := ""
	if unit.Name == serviceUnit && u.LastLine != "" {
		last = "; last log line: " + u.LastLine
	}
	read := "Read its log: journalctl -u " + unit.Name + " -n 20."
	switch {
	case unit.restarting():
		all = append(all, audit.Failed("unit-restarting", unit.Name, "The unit fails each time it is started, and systemd starts it again.",
			state+" Result="+unit.Result+" ExecMainStatus="+unit.Status+" NRestarts="+unit.Restarts+last, "Fix what it reports. "+read, ""))
	case unit.Active == "active" || unit.Active == "reloading" || unit.Active == "activating":
	case unit.Name == serviceUnit && unit.Active == "inactive" && u.Socket.Active == "active":
		all = append(all, audit.Warned("unit-inactive", unit.Name, "The service was stopped. Its socket is open, so the first lookup starts it, as this check may have done.",
			state, "Start it, or stop tlspolicyd.socket as well.", "systemctl start "+unit.Name))
	default:
		all = append(all, audit.Failed("unit-inactive", unit.Name, "The unit does not run.", state+last, "Start it. "+read, "systemctl start "+unit.Name))
	}
	if unit.Enabled == "disabled" || unit.Enabled == "masked" {
		all = append(all, audit.Warned("unit-disabled", unit.Name, "The unit does not start after a reboot.", state, "Enable it.", "systemctl enable "+unit.Name))
	}
	if len(all) == 0 {
		all = append(all, audit.Passed("unit-ok", unit.Name, "The unit is active and enabled.", ""))
	}
	return all
}
