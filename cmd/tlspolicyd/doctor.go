package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"tlspolicyd/cmd/tlspolicyd/internal/audit"
	"tlspolicyd/cmd/tlspolicyd/internal/audit/doctor"
	"tlspolicyd/cmd/tlspolicyd/internal/audit/output"
	"tlspolicyd/cmd/tlspolicyd/internal/config"
	"tlspolicyd/internal/dnsclient"
)

func newDoctor(o *options) *cobra.Command {
	var (
		host   doctor.Options
		asJSON bool
		fix    bool
	)
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Check this host: Postfix, sockets, resolvers, database, clock",
		Long: `doctor checks everything on this host that mail under a policy depends on:
Postfix's settings and what its version understands; whether smtp(8) reaches the
socket, as its user and from inside its chroot; whether each resolver answers
and validates; the configuration, the database, the shared cache, the clock, the
trust stores, the units of systemd.

It changes nothing. Each finding has a grade, what was seen, what to do, and the
command that does it. With --fix it prints a shell script of "postconf -e" lines
instead, and does not run it. Run it as root: an ordinary user cannot connect as
Postfix does, nor query the control socket.

` + docs + `/doctor.md lists every finding. It takes 20 s at
most, also without a network.

Exit status: 0 no failure, warnings or not, 1 at least one failure, 2 wrong
usage, 3 no failure, but something is unknown.`,
		Example: `  tlspolicyd doctor
  tlspolicyd doctor --fix > fix.sh
  tlspolicyd doctor --postfix-config /etc/postfix-out --json |
    jq '.topics[].findings[] | select(.grade == "fail")'`,
		Args: noArgument,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for flag, name := range map[string]string{"signed-name": host.Signed, "broken-name": host.Broken} {
				if strings.ContainsFunc(name, unicode.IsSpace) || name != "" && !dnsclient.Askable(name) {
					return usageError("--%s: %q: want a domain name", flag, name)
				}
			}
			if asJSON && fix {
				return usageError("--json or --fix: one of them")
			}
			if err := o.describeHost(&host); err != nil {
				return err
			}
			progress := cmd.ErrOrStderr()
			if isTerminal(progress) {
				fmt.Fprintf(progress, "checking this host, for %v at most ...", doctor.Limit)
			}
			facts := doctor.Gather(cmd.Context(), host)
			if isTerminal(progress) {
				fmt.Fprint(progress, "\r\x1b[K")
			}
			topics := doctor.Judge(facts)
			out := cmd.OutOrStdout()
			var err error
			switch {
			case asJSON:
				err = output.JSON(out, doctor.Report{Grade: audit.Worst(topics), Topics: topics}, true)
			case fix:
				_, err = fmt.Fprint(out, doctor.Script(topics, facts.Postfix))
			default:
				summary := output.Summary(topics) + "."
				if doctor.Fixable(topics, facts.Postfix) {
					summary += " tlspolicyd doctor --fix prints the postconf lines as a script."
				}
				if err = output.TextFor(out).Write(out, topics); err == nil {
					_, err = fmt.Fprintln(out, summary)
				}
			}
			if err != nil {
				return outputError(err)
			}
			return gradeStatus(audit.Worst(topics))
		},
	}
	f := c.Flags()
	f.StringVar(&host.PostfixConfig, "postfix-config", "", "`DIR` with main.cf of another instance of Postfix (default that of postconf)")
	f.StringVar(&host.Signed, "signed-name", "", "`NAME` with a valid signature, to test resolvers with (default the root)")
	f.StringVar(&host.Broken, "broken-name", "", "`NAME` with a wrong signature, to test resolvers with (default "+doctor.DefaultBroken+")")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	f.BoolVar(&fix, "fix", false, "print a shell script that fixes main.cf, and do not run it")
	return c
}

// describeHost says where the daemon's things are. A mistake in the configuration
// is a finding, and the defaults take its place; a file that was named and does
// not exist is wrong usage. An ordinary user who runs no daemon means the
// system's, as with lookup.
func (o *options) describeHost(host *doctor.Options) error {
	cfg, err := o.load()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return err
	case err != nil:
		cfg = config.Default()
	default:
		err = checkHost(cfg)
	}
	host.ConfigErr, host.ConfigFile = err, cmp.Or(o.config, config.DefaultPath)
	defaults := config.Default()
	own, _ := strings.CutPrefix(cfg.Listen.Socketmap[0], "unix:")
	if _, err := os.Stat(own); err != nil && os.Geteuid() != 0 && os.Getenv("RUNTIME_DIRECTORY") == "" &&
		cfg.Listen.Socketmap[0] == defaults.Listen.Socketmap[0] {
		cfg.Listen.Socketmap = []string{config.SystemSocketmap}
		if cfg.Listen.Admin == defaults.Listen.Admin {
			cfg.Listen.Admin = config.SystemAdmin
		}
		if cfg.Cache.Path == defaults.Cache.Path {
			cfg.Cache.Path = config.SystemDatabase
		}
	}
	host.Config, host.Build, host.Sockets = cfg, adminBuild(), cfg.Listen.Socketmap
	if cfg.Share.URL.Hosts != nil {
		if set, err := fleetSettings(cfg.Share); err != nil {
			host.EngineErr = err
		} else {
			host.Engine = &set.Login
		}
	}
	host.Admin = strings.TrimPrefix(cfg.Listen.Admin, "unix:")
	return nil
}
