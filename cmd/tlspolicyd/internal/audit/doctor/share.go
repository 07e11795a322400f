package doctor

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
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
	Inconclusive string // why the engine was not asked; ""
	Err          string // why it cannot be used; ""
	Seen         valkey.Inspection
}

// gatherShare asks the engine for everything that the daemon does.
func gatherShare(ctx context.Context, o Options, user string) Share {
	c := o.Config.Share
	s := Share{Engine: c.URL.String(), Prefix: c.Prefix, User: cmp.Or(c.Username, c.URL.Username), DaemonUser: cmp.Or(user, "root"), Exposed: !c.URL.TLS && !c.URL.Local()}
	if s.Engine == "" {
		return s
	}
	if who, err := account(s.DaemonUser); err == nil {
		for _, path := range []string{c.PasswordFile, c.KeyFile, c.CAFile, c.CertFile, c.CertKeyFile} {
			if _, err := os.Stat(path); err == nil { // credentials of systemd are not there, but in the unit
				s.Denied = cmp.Or(s.Denied, deniedAt(path, who, readRight))
			}
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
		fix := "ACL SETUSER " + cmp.Or(oneLine(s.User), "default") + " ~" + oneLine(s.Prefix) + ":1:*"
		for _, command := range s.Seen.Denied {
			fix += " +" + strings.ToLower(command)
		}
		warn("share-denied", "The user of the shared cache is not allowed to do all that the daemon does there.",
			"denied: "+strings.Join(s.Seen.Denied, ", "), "Give it these rights at the engine, and in the file that the engine reads them from (contrib/fleet/users.acl):", fix)
	}
	if s.Seen.Failed != "" {
		warn("share-not-writable", "The engine of the shared cache takes nothing: what this host fetches is not shared.",
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
