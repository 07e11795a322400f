package doctor

import (
	"context"
	"fmt"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Postfix is one instance as postconf(1) prints it.
type Postfix struct {
	Absent string // why nothing is known of it; "": the rest is
	Err    string // why postconf did not print it; ""

	ConfigDir string // as given with -c; "": the default one
	Version   Version
	Params    map[string]string // main.cf with its defaults, expanded
	RawMaps   string            // smtp_tls_policy_maps as written
	Services  []Service         // of master.cf
	User      Account           // mail_owner: what smtp(8) runs as
	UserErr   string            // why that is not known
}

// Service is a line of master.cf.
type Service struct {
	Name, Type string
	Chrooted   bool
	Program    string            // "smtp"
	Overrides  map[string]string // -o name=value
}

// Account is a user with all groups.
type Account struct {
	Name string
	UID  uint32
	GIDs []uint32 // the first is the primary one
}

// known reports whether there is an instance to judge.
func (p Postfix) known() bool { return p.Absent == "" && p.Err == "" }

// queue is the directory that smtp(8) runs in, chrooted or not.
func (p Postfix) queue() string { return p.Params["queue_directory"] }

// param is the value that a service sees.
func (p Postfix) param(s Service, name string) string {
	if v, ok := s.Overrides[name]; ok {
		return v
	}
	return p.Params[name]
}

// clients are the services that deliver by SMTP: smtp, relay and copies of
// them.
func (p Postfix) clients() []Service {
	var list []Service
	for _, s := range p.Services {
		if s.Program == "smtp" {
			list = append(list, s)
		}
	}
	return list
}

// chrooted are the clients that are.
func (p Postfix) chrooted() []string {
	var names []string
	for _, s := range p.clients() {
		if s.Chrooted {
			names = append(names, s.Name)
		}
	}
	return names
}

// gatherPostfix asks postconf. None of its commands changes anything.
func gatherPostfix(ctx context.Context, dir string) Postfix {
	p := Postfix{ConfigDir: dir}
	program, err := find("postconf")
	if err != nil {
		p.Absent = err.Error()
		return p
	}
	var out [4]string
	var errs [4]error
	var asked sync.WaitGroup
	for i, args := range [][]string{{"-x"}, {"-h", policyMaps}, {"-F"}, {"-x", "-P"}} {
		if dir != "" {
			args = append([]string{"-c", dir}, args...)
		}
		asked.Go(func() { out[i], errs[i] = run(ctx, program, args...) })
	}
	asked.Wait()
	for _, err := range errs {
		if err != nil {
			p.Err = err.Error()
			return p
		}
	}
	p.Params = parseParams(out[0])
	p.RawMaps = strings.TrimSpace(out[1])
	if p.Version, err = parseVersion(p.Params["mail_version"]); err != nil {
		p.Err = "mail_version: " + err.Error()
		return p
	}
	// Postfix chdirs to the queue directory: a relative one makes no sense.
	if !filepath.IsAbs(p.queue()) {
		p.Err = fmt.Sprintf("queue_directory is %q", oneLine(p.queue()))
		return p
	}
	p.Services = parseServices(out[2], out[3], p.defaultChroot())
	if p.User, err = account(p.Params["mail_owner"]); err != nil {
		p.UserErr = err.Error()
	}
	return p
}

// defaultChroot is what "-" means in the fifth column (master(5)).
func (p Postfix) defaultChroot() bool {
	return !p.Version.atLeast(3, 0, 0) || p.Params["compatibility_level"] == "0"
}

// parseParams reads "name = value" lines.
func parseParams(text string) map[string]string {
	params := make(map[string]string)
	for line := range strings.Lines(text) {
		name, value, found := strings.Cut(strings.TrimRight(line, "\n"), "=")
		if found {
			params[strings.TrimSpace(name)] = strings.TrimSpace(value)
		}
	}
	return params
}

// parseServices reads the fields (postconf -F, "smtp/unix/chroot = y") and the
// overrides (postconf -P, "relay/unix/syslog_name = x") of master.cf.
func parseServices(fields, overrides string, chroot bool) []Service {
	var list []Service
	at := func(path string) (*Service, string) {
		parts := strings.Split(path, "/")
		if len(parts) < 3 {
			return nil, ""
		}
		n := len(parts) // a service's name may be a path itself
		name, kind, field := strings.Join(parts[:n-2], "/"), parts[n-2], parts[n-1]
		i := slices.IndexFunc(list, func(s Service) bool { return s.Name == name && s.Type == kind })
		if i < 0 {
			list = append(list, Service{Name: name, Type: kind, Chrooted: chroot, Overrides: map[string]string{}})
			i = len(list) - 1
		}
		return &list[i], field
	}
	each := func(text string, use func(s *Service, field, value string)) {
		for line := range strings.Lines(text) {
			path, value, found := strings.Cut(strings.TrimRight(line, "\n"), " =")
			if !found {
				continue
			}
			if s, field := at(path); s != nil {
				use(s, field, strings.TrimSpace(value))
			}
		}
	}
	each(fields, func(s *Service, field, value string) {
		switch field {
		case "chroot":
			s.Chrooted = value == "y" || value == "-" && chroot
		case "command":
			s.Program, _, _ = strings.Cut(value, " ")
		}
	})
	each(overrides, func(s *Service, field, value string) { s.Overrides[field] = value })
	return list
}

// account looks up a user with all groups.
func account(name string) (Account, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return Account{}, err
	}
	a := Account{Name: name}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return Account{}, err
	}
	a.UID = uint32(uid)
	groups, err := u.GroupIds()
	if err != nil || !slices.Contains(groups, u.Gid) {
		groups = append([]string{u.Gid}, groups...)
	}
	for _, g := range groups {
		gid, err := strconv.ParseUint(g, 10, 32)
		if err != nil {
			return Account{}, err
		}
		if g == u.Gid {
			a.GIDs = append([]uint32{uint32(gid)}, a.GIDs...)
		} else {
			a.GIDs = append(a.GIDs, uint32(gid))
		}
	}
	return a, nil
}

// Version is a Postfix release; a snapshot such as "3.11-20250304" has no patch
// level, and is counted as the first one of its release.
type Version struct{ Major, Minor, Patch int }

// parseVersion reads mail_version.
func parseVersion(s string) (Version, error) {
	numbers, _, _ := strings.Cut(s, "-")
	parts := strings.Split(numbers, ".")
	if len(parts) < 2 || len(parts) > 3 {
		return Version{}, fmt.Errorf("%q is not a version of Postfix", oneLine(s))
	}
	var n [3]int
	for i, part := range parts {
		v, err := strconv.ParseUint(part, 10, 16)
		if err != nil {
			return Version{}, fmt.Errorf("%q is not a version of Postfix", oneLine(s))
		}
		n[i] = int(v)
	}
	return Version{n[0], n[1], n[2]}, nil
}

// atLeast reports whether v is that release or a later one.
func (v Version) atLeast(major, minor, patch int) bool {
	switch {
	case v.Major != major:
		return v.Major > major
	case v.Minor != minor:
		return v.Minor > minor
	}
	return v.Patch >= patch
}

// String is "3.10.5".
func (v Version) String() string { return fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Patch) }
