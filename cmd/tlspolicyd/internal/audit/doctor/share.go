package doctor

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"

	"tlspolicyd/cmd/tlspolicyd/internal/audit"
	"tlspolicyd/cmd/tlspolicyd/internal/config"
	"tlspolicyd/share/valkey"
)

const (
	engineWait  = 5 * time.Second
	clocksApart = 30 * time.Second
)

// Share is the engine by which several hosts share policies.
type Share struct {
	Engine     string // share.url without its password; "": none is configured
	Prefix     string
	User       string // of the engine; "": its default user
	DaemonUser string
	Exposed    bool // neither TLS nor on this host

	Denied       string // a file of [share] that the daemon's user cannot read; ""
	Closed       string // where the way to the Unix socket is closed to that user; ""
	Group        string // of that socket; ""
	Inconclusive string // why the engine was not asked; ""
	Err          string // why it cannot be used; ""
	Seen         valkey.Inspection
}

// gatherShare asks the engine for everything that the daemon does.
func gatherShare(ctx context.Context, o Options, unit Unit) Share {
	c := o.Config.Share
	s := Share{Engine: c.URL.String(), Prefix: c.Prefix, User: cmp.Or(c.Username, c.URL.Username), DaemonUser: cmp.Or(unit.User, "root"), Exposed: !c.URL.TLS && !c.URL.Local()}
	if s.Engine == "" {
		return s
	}
	if who, err := unit.account(); err == nil {
		for _, path := range []string{c.PasswordFile, c.KeyFile, c.CAFile, c.CertFile, c.CertKeyFile} {
			if _, err := os.Stat(path); err == nil { // credentials of systemd are not there, but in the unit
				s.Denied = cmp.Or(s.Denied, deniedAt(path, who, readRight))
			}
		}
		if c.URL.Network == "unix" {
			s.lookAtSocket(ctx, c.URL.Hosts[0], who)
		}
	}
	switch {
	case o.Engine != nil:
	case errors.Is(o.EngineErr, fs.ErrPermission):
		s.Inconclusive = "the files with the password and the key are closed to an ordinary user"
		return s
	default:
		s.Inconclusive = reason(o.EngineErr)
		return s
	}
	ctx, cancel := context.WithTimeout(ctx, engineWait)
	defer cancel()
	seen, err := valkey.Inspect(ctx, engineOf(c), c.Prefix, *o.Engine)
	if s.Seen = seen; err != nil {
		s.Err = reason(err)
	}
	return s
}

// lookAtSocket finds out whether a user is allowed to connect to the engine's socket.
func (s *Share) lookAtSocket(ctx context.Context, path string, who Account) {
	p := Probe{Target: Target{"unix", path, ""}, Denied: deniedAt(path, who, writeRight)}
	if isRoot() {
		if conn, err := p.dialAs(ctx, who); err == nil {
			_ = conn.Close() // nothing was sent
		}
	}
	s.Closed = p.Denied
	if info, err := os.Stat(path); err == nil && info.Mode()&0o020 != 0 {
		if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Gid != 0 {
			s.Group = groupName(st.Gid)
		}
	}
}

func engineOf(c config.Share) valkey.Engine {
	return valkey.Engine{
		Network: c.URL.Network, Hosts: c.URL.Hosts, Database: c.URL.Database,
		SentinelMaster: c.SentinelMaster, Cluster: c.Cluster,
	}
}

func judgeShare(f Facts) []audit.Finding {
	s := f.Share
	name := oneLine(s.Engine)
	const alone = "this host works as though it were alone."
	if s.Engine == "" {
		return nil
	}
	var all []audit.Finding
	if s.Denied != "" {
		all = append(all, audit.Failed("share-file-unreadable", oneLine(s.Denied), "The daemon runs as "+oneLine(s.DaemonUser)+", which is not allowed to read this file of the section [share], so it does not start.",
			"denied at "+oneLine(s.Denied), "Let that user read it, and no other:", "chgrp "+shellQuote(s.DaemonUser)+" "+shellQuote(s.Denied)+" && chmod 0640 "+shellQuote(s.Denied)))
	}
	if s.Exposed {
		all = append(all, audit.Warned("share-not-encrypted", name, "The engine of the shared cache is not on this host, and the connection to it has no TLS: the password and the names of the domains can be read on the way.",
			"", "Use rediss:// in share.url; docs/fleet.md says how.", ""))
	}
	switch {
	case s.Closed != "":
		fix := ""
		if s.Group != "" {
			fix = f.Units.joinGroup(s.Group, s.DaemonUser)
		}
		return append(all, audit.Warned("share-unreachable", name, "The daemon runs as "+oneLine(s.DaemonUser)+", which is not allowed to connect to this Unix socket: "+alone,
			"denied at "+oneLine(s.Closed), "Have the engine create it with unixsocketperm 770, and put that user into its group:", fix))
	case s.Inconclusive != "":
		return append(all, audit.Inconclusive("share-inconclusive", name, "The engine of the shared cache was not tested.", s.Inconclusive, "Run doctor as root. Secrets that systemd passes are readable to the daemon alone: tlspolicyd_share_up in its metrics is 1 where it can use the engine."))
	case s.Err != "":
		return append(all, audit.Warned("share-unreachable", name, "The engine of the shared cache cannot be used: "+alone, s.Err, "Check share.url, the user and its password, and that the engine runs.", ""))
	}
	works := true
	warn := func(code, text, evidence, advice, fix string) {
		works = false
		all = append(all, audit.Warned(code, name, text, evidence, advice, fix))
	}
	if len(s.Seen.Denied) > 0 {
		user := cmp.Or(oneLine(s.User), "default")
		fix := "~" + oneLine(s.Prefix) + ":1:*"
		for _, command := range s.Seen.Denied {
			fix += " +" + strings.ToLower(command)
		}
		warn("share-denied", "The user of the shared cache is not allowed to do all that the daemon does there.",
			"denied: "+strings.Join(s.Seen.Denied, ", "), "Add this to the line \"user "+user+"\" of the engine's ACL file (aclfile) and restart the engine, or add it as an administrator with ACL SETUSER "+user+":", fix)
	}
	if s.Seen.Failed != "" {
		warn("share-not-writable", "The engine of the shared cache refuses writes: what this host fetches is not shared.",
			oneLine(s.Seen.Failed), "Free memory at the engine, or name the master instead of a replica.", "")
	}
	if s.Seen.Clock.Abs() > clocksApart {
		warn("share-clock-differs", "The clocks of this host and of the engine differ.",
			"the engine's is ahead by "+s.Seen.Clock.Round(time.Second).String(), "Synchronize both.", "")
	}
	if works {
		all = append(all, audit.Passed("share-ok", name, "The engine of the shared cache allows all that the daemon does there.", oneLine(s.Seen.Server)))
	}
	return all
}
