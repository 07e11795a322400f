package doctor

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"tlspolicyd/cmd/tlspolicyd/internal/audit"
)

// Collector is the socket of the TLSRPT collector: the daemon's where it has one,
// else Postfix's.
type Collector struct {
	Path   string // "": neither has one
	Set    bool   // tlsrpt.socket names it
	User   string // of the daemon, by its unit
	Owner  string // "user:group"
	Mode   fs.FileMode
	Group  string // of the socket, where membership gives the right to write; ""
	Err    string // why nothing can receive there; ""
	Denied string // the path at which User is denied; ""

	Inconclusive string // why it could not be tested; ""
}

// gatherCollector looks at the socket with the rights of the daemon's user. Nothing
// is sent.
func gatherCollector(o Options, p Postfix, unit Unit) Collector {
	c := Collector{Path: o.Config.TLSRPT.Socket, User: cmp.Or(unit.User, "root")}
	c.Set = c.Path != ""
	if name := p.Params["smtp_tlsrpt_socket_name"]; !c.Set && p.known() && p.Params["smtp_tlsrpt_enable"] == "yes" && name != "" {
		for _, s := range p.clients()[:min(1, len(p.clients()))] {
			c.Path = p.target(s, Table{Network: "unix", Address: name}).Address
		}
	}
	if c.Path == "" {
		return c
	}
	info, err := os.Stat(c.Path)
	who, unknown := unit.account()
	switch {
	case errors.Is(err, fs.ErrPermission):
		c.Inconclusive = "its directory is closed to an ordinary user"
		return c
	case err != nil:
		c.Err = reason(err)
		return c
	case info.Mode().Type() != fs.ModeSocket:
		c.Err = "not a socket"
		return c
	case unknown != nil:
		c.Inconclusive = reason(unknown)
		return c
	}
	c.Owner, c.Mode, c.Denied = owner(info), info.Mode(), deniedAt(c.Path, who, writeRight)
	if st, ok := info.Sys().(*syscall.Stat_t); ok && c.Mode&0o020 != 0 && st.Gid != 0 {
		c.Group = groupName(st.Gid)
	}
	if !isRoot() {
		return c
	}
	// That a datagram socket is asked as a stream is seen after its rights.
	conn, err := dialAs(c.Path, "", who)
	switch {
	case err == nil:
		conn.Close()
		c.Err = "not a datagram socket"
	case errors.Is(err, syscall.EPROTOTYPE):
		c.Denied = "" // an access control list may say more than the mode
	case errors.Is(err, fs.ErrPermission):
		c.Denied = cmp.Or(c.Denied, c.Path)
	case !errors.Is(err, errNotAllowed):
		c.Err = reason(err)
	}
	return c
}

func judgeCollector(f Facts) []audit.Finding {
	c := f.Collector
	name := oneLine(c.Path)
	mode := fmt.Sprintf("%s, owner %s", c.Mode, c.Owner)
	var one audit.Finding
	switch {
	case c.Path == "" || !c.Set && c.Err != "":
		return nil
	case c.Inconclusive != "":
		one = audit.Inconclusive("tlsrpt-socket-inconclusive", name, "The socket of the TLSRPT collector could not be tested: "+c.Inconclusive+".", "", "Run doctor as root.")
	case !c.Set:
		one = audit.Warned("tlsrpt-socket-unused", name, "Postfix reports to a TLSRPT collector, and tlspolicyd does not: the reports lack failed fetches of a policy.",
			"smtp_tlsrpt_enable = yes, tlsrpt.socket is empty", "Set it in the section [tlsrpt] of the configuration:", fmt.Sprintf("socket = %q", c.Path))
	case c.Err != "":
		one = audit.Warned("tlsrpt-socket-missing", name, "No TLSRPT collector receives at tlsrpt.socket: failed fetches are not reported.", c.Err, "Start the collector, or correct the path.", "")
	case c.Denied != "" && c.Denied != c.Path:
		one = audit.Warned("tlsrpt-socket-denied", name, "The daemon runs as "+oneLine(c.User)+", which is not allowed to reach the socket of the TLSRPT collector: failed fetches are not reported.",
			oneLine(c.Denied)+" is closed", "Allow it to enter the directory.", "chmod o+x "+shellQuote(c.Denied))
	case c.Denied != "":
		advice, fix := "Have the collector make it with a mode that lets this user write: socketmode and socketgroup of tlsrpt-collectd.", ""
		if c.Group != "" {
			advice, fix = "Put it into the group of the socket, and restart the daemon:", f.Units.joinGroup(c.Group, c.User)
		}
		one = audit.Warned("tlsrpt-socket-denied", name, "The daemon runs as "+oneLine(c.User)+", which is not allowed to write to the socket of the TLSRPT collector: failed fetches are not reported.",
			mode, advice, fix)
	default:
		one = audit.Passed("tlsrpt-socket-ok", name, "The daemon may write to the socket of the TLSRPT collector.", "tried as "+oneLine(c.User)+", "+mode)
	}
	return []audit.Finding{one}
}
