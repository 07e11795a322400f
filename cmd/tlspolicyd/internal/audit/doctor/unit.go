package doctor

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"

	"tlspolicyd/cmd/tlspolicyd/internal/admin"
)

// Units are the running daemon, and the units of systemd behind it.
type Units struct {
	Systemd bool   // runs this host
	Untold  string // why systemctl did not tell; ""
	Service Unit
	Socket  Unit

	Build  admin.Build // of this program
	Daemon Daemon
}

// Unit is what systemctl show tells of one.
type Unit struct {
	Name    string
	Load    string // "loaded", "not-found", "masked"
	Active  string // "active", "inactive", "failed"
	Enabled string // "enabled", "disabled"
	Listen  []string
}

// Daemon is what the control socket tells.
type Daemon struct {
	Socket string // path; "": listen.admin is ""
	Build  *admin.Build
	Err    string  // why there is no answer; ""
	Denied bool    // it is closed to this user
	Store  *string // what it says of its database, "" for nothing; nil: not asked
}

const daemonTime = 6 * time.Second // /readyz waits up to 5 s for a resolver

func gatherUnits(ctx context.Context, o Options) Units {
	u := Units{Build: o.Build, Daemon: gatherDaemon(ctx, o.Admin)}
	if _, err := os.Stat(o.Systemd); err != nil {
		return u
	}
	u.Systemd = true
	program, err := find("systemctl")
	if err == nil {
		var text string
		text, err = run(ctx, program, "show", "--no-pager",
			"--property=Id,LoadState,ActiveState,UnitFileState,Listen", serviceUnit, socketUnit)
		for _, unit := range parseUnits(text) {
			switch unit.Name {
			case serviceUnit:
				u.Service = unit
			case socketUnit:
				u.Socket = unit
			}
		}
	}
	switch {
	case err != nil:
		u.Untold = oneLine(err.Error())
	case u.Service.Load == "" || u.Socket.Load == "":
		u.Untold = "systemctl show did not tell of both units"
	}
	return u
}

const (
	serviceUnit = "tlspolicyd.service"
	socketUnit  = "tlspolicyd.socket"
)

// parseUnits reads the output of systemctl show, a blank line between units.
func parseUnits(text string) []Unit {
	var list []Unit
	for block := range strings.SplitSeq(text, "\n\n") {
		var u Unit
		for line := range strings.Lines(block) {
			key, value, _ := strings.Cut(strings.TrimRight(line, "\n"), "=")
			switch key {
			case "Id":
				u.Name = value
			case "LoadState":
				u.Load = value
			case "ActiveState":
				u.Active = value
			case "UnitFileState":
				u.Enabled = value
			case "Listen":
				if address := listenAddress(value); address != "" {
					u.Listen = append(u.Listen, address)
				}
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

// listening is where the daemon is to be found: the socket unit decides where
// there is one, else the configuration.
func listening(u Units, configured []string) []string {
	if u.Systemd && u.Socket.Load == "loaded" && len(u.Socket.Listen) > 0 &&
		(u.Socket.Active == "active" || u.Socket.Enabled == "enabled") {
		return u.Socket.Listen
	}
	return configured
}

// gatherDaemon asks the first control socket at which somebody answers.
func gatherDaemon(ctx context.Context, paths []string) Daemon {
	ctx, cancel := context.WithTimeout(ctx, daemonTime)
	defer cancel()
	var d Daemon
	for _, path := range paths {
		one := Daemon{Socket: path}
		client := admin.NewClient(path)
		err := client.Ping(ctx)
		if err == nil {
			var build admin.Build
			if build, err = client.Build(ctx); err == nil {
				one.Build = &build
			}
			if state, err := client.Store(ctx); err == nil {
				state = oneLine(state)
				one.Store = &state
			}
		}
		client.Close()
		if err != nil {
			one.Err = reason(err)
			one.Denied = errors.Is(err, fs.ErrPermission)
		}
		if d.Socket == "" || err == nil || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ECONNREFUSED) {
			d = one
		}
		if one.Build != nil {
			break
		}
	}
	return d
}
