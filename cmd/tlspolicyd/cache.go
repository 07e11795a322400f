package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"syscall"
	"time"
	"tlspolicyd/policymap/policy"

	"github.com/spf13/cobra"

	"tlspolicyd/cmd/tlspolicyd/internal/admin"
	"tlspolicyd/cmd/tlspolicyd/internal/config"
	"tlspolicyd/socketmap"
)

func newCache(o *options) *cobra.Command {
	s := &cacheSocket{options: o}
	c := &cobra.Command{
		Use:   "cache",
		Short: "Look at and change what the running daemon knows",
		Long: `cache talks to the running daemon over its control socket (listen.admin), which is
open to the daemon's user and to root only.`,
		Example: `  tlspolicyd cache list --policy secure
  tlspolicyd cache show example.com`,
		Args: noArgs,
		RunE: needsSubcommand,

		SuggestionsMinimumDistance: 2,
	}
	c.PersistentFlags().StringVar(&s.address, "socket", "", "`ADDRESS` of the control socket, unix:/path (default as configured)")
	c.AddCommand(newCacheList(s), newCacheShow(s), newCacheRefresh(s), newCachePurge(s),
		newCacheExport(s), newCacheImport(s), newCacheWarm(s))
	return c
}

// cacheSocket finds the daemon's control socket.
type cacheSocket struct {
	options *options
	address string // --socket
}

// open returns a client for the daemon that answers. Whoever runs no daemon
// without configuration has the system's behind it, as with lookup.
func (s *cacheSocket) open(ctx context.Context) (*admin.Client, error) {
	addresses := []string{s.address}
	if s.address == "" {
		cfg, err := s.options.load()
		if err != nil {
			return nil, err
		}
		if cfg.Listen.Admin == "" {
			return nil, usageError(`listen.admin is "": the daemon has no control socket: configure one and restart it`)
		}
		addresses[0] = cfg.Listen.Admin
		if dirs := config.DefaultDirs(); cfg.Listen.Admin == config.Default().Listen.Admin {
			if dirs.Shared {
				if err := checkOwn(dirs.Runtime); err != nil {
					return nil, unknownError(err)
				}
			}
			if cfg.Listen.Admin != config.SystemAdmin {
				addresses = append(addresses, config.SystemAdmin)
			}
		}
	}
	return firstAdmin(ctx, addresses)
}

// firstAdmin connects to one address after the other until a daemon is found.
func firstAdmin(ctx context.Context, addresses []string) (*admin.Client, error) {
	var failures []string
	for _, a := range addresses {
		network, path, err := socketmap.ParseAddress(a)
		if err != nil || network != "unix" {
			return nil, usageError("--socket: %q: want unix:/path", a)
		}
		client := admin.NewClient(path)
		err = client.Ping(ctx)
		if err == nil {
			return client, nil
		}
		client.Close()
		if errors.Is(err, fs.ErrPermission) {
			return nil, unknownError(fmt.Errorf("%s is open to the daemon's user and to root only: use sudo", path))
		}
		if errors.Is(err, admin.ErrHangs) {
			return nil, unknownError(fmt.Errorf("the daemon at %s %w", a, err))
		}
		failures = append(failures, fmt.Sprintf("%s: %v", a, reasonOfDial(err)))
	}
	return nil, unknownError(fmt.Errorf("no daemon answers (%s): start it with 'systemctl start tlspolicyd' "+
		"or 'tlspolicyd serve', or name its control socket with --socket", strings.Join(failures, "; ")))
}

func reasonOfDial(err error) error {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno
	}
	return err
}

// daemonError is for what goes wrong on the way to the daemon, or there.
func daemonError(err error) error {
	if err == nil {
		return nil
	}
	if ee, ok := errors.AsType[*exitError](err); ok {
		return ee
	}
	return unknownError(err)
}

// cacheDomains reads the domains on a command line, in any form that people
// write them in.
func cacheDomains(args []string) ([]string, error) {
	var domains []string
	for _, arg := range args {
		hop, ok := policy.ParseNextHop(arg)
		if !ok {
			return nil, usageError("%q is no domain", arg)
		}
		domains = append(domains, hop.Domain)
	}
	return domains, nil
}

// domainsOrAll is for the commands that take DOMAIN... or --all.
func domainsOrAll(all *bool) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		switch {
		case *all && len(args) > 0:
			return errors.New("either DOMAIN or --all")
		case !*all && len(args) == 0:
			return errors.New("which DOMAIN? Or --all")
		}
		return nil
	}
}

// age reads a duration, days included: "30d", "12h".
type age time.Duration

func (a *age) Set(s string) error {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			*a = age(time.Duration(n) * 24 * time.Hour)
			return nil
		}
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return errors.New("want a duration such as 30d, 12h or 90m")
	}
	*a = age(d)
	return nil
}

func (a *age) String() string {
	if *a == 0 {
		return ""
	}
	return time.Duration(*a).String()
}

func (a *age) Type() string { return "AGE" }

// ago says how long a time lies back, or ahead, in one unit.
func ago(t, now time.Time) string {
	if t.IsZero() {
		return "-"
	}
	if d := t.Sub(now); d > 0 {
		return "in " + inOneUnit(d)
	}
	return inOneUnit(now.Sub(t)) + " ago"
}

func inOneUnit(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dd", d/(24*time.Hour))
}
