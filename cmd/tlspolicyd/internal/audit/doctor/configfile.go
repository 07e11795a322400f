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
	Path    string // that is read, and of Mode, Owner and Denied: an override file that User cannot read comes first
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
	who, unknown := account(cmp.Or(user, "root"))
	for _, path := range append([]string{c.Path}, o.Config.Policy.OverrideFile...) {
		info, err := os.Stat(path)
		if err != nil {
			c.Absent = c.Absent || path == o.ConfigFile && errors.Is(err, fs.ErrNotExist)
			continue
		}
		if unknown == nil {
			c.Denied = deniedAt(path, who, readRight)
		}
		if c.Denied != "" || path == o.ConfigFile {
			c.Path, c.Mode, c.Owner = path, info.Mode(), owner(info)
		}
		if c.Denied != "" {
			break
		}
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
