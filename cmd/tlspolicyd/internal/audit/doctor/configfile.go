package doctor

import (
	"cmp"
	"errors"
	"io/fs"
	"os"

	"tlspolicyd/cmd/tlspolicyd/internal/audit"
)

// ConfigFile is the daemon's configuration file.
type ConfigFile struct {
	Path    string
	Absent  bool
	Closed  string // why this user cannot read it; ""
	Mistake string // the first mistake in it; ""
	User    string // of the daemon, by its unit
	Denied  string // the path at which User is denied; ""
	Mode    fs.FileMode
	Owner   string // "user:group"

	PostfixLevel string // policy.postfix_level
}

func gatherConfig(o Options, user string) ConfigFile {
	c := ConfigFile{Path: o.ConfigFile, User: user, PostfixLevel: o.Config.Policy.PostfixLevel}
	switch {
	case errors.Is(o.ConfigErr, fs.ErrPermission):
		c.Closed = reason(o.ConfigErr)
	case o.ConfigErr != nil:
		c.Mistake = oneLine(o.ConfigErr.Error())
	}
	info, err := os.Stat(c.Path)
	if err != nil {
		c.Absent = errors.Is(err, fs.ErrNotExist)
		return c
	}
	c.Mode, c.Owner = info.Mode(), owner(info)
	if who, err := account(cmp.Or(user, "root")); err == nil {
		c.Denied = deniedAt(c.Path, who, readRight)
	}
	return c
}

func judgeConfig(f Facts) []audit.Finding {
	c := f.Config
	path := oneLine(c.Path)
	var all []audit.Finding
	if c.Mistake != "" {
		all = append(all, audit.Failed("config-invalid", path, "The configuration has a mistake: the daemon does not start with it, and a reload does not read it. Everything else was checked with the default settings.",
			c.Mistake, "Correct it; this must succeed:", "tlspolicyd config check --config "+shellQuote(c.Path)))
	}
	if c.Denied != "" {
		fix := "chgrp " + shellQuote(c.User) + " " + shellQuote(c.Path) + " && chmod 0640 " + shellQuote(c.Path)
		if c.Denied != c.Path {
			fix = "chmod o+x " + shellQuote(c.Denied)
		}
		all = append(all, audit.Failed("config-unreadable", path, "The daemon runs as "+oneLine(c.User)+", which is not allowed to read the configuration, so it does not start.",
			c.Mode.String()+", owner "+c.Owner+"; denied at "+oneLine(c.Denied), "Let that user read it:", fix+" && systemctl restart tlspolicyd"))
	}
	switch {
	case len(all) > 0:
	case c.Closed != "":
		all = append(all, audit.Inconclusive("config-inconclusive", path, "You are not allowed to read the configuration. Everything was checked with the default settings.", c.Closed, "Run doctor as root."))
	case c.Absent:
		all = append(all, audit.Passed("config-ok", path, "There is no configuration file: the default settings apply.", ""))
	default:
		all = append(all, audit.Passed("config-ok", path, "The configuration has no mistake.", ""))
	}
	return all
}
