package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"tlspolicyd/cmd/tlspolicyd/internal/audit"
	"tlspolicyd/cmd/tlspolicyd/internal/audit/doctor"
	"tlspolicyd/cmd/tlspolicyd/internal/config"
	"tlspolicyd/internal/dnsclient"
)

func newDoctor(o *options) *cobra.Command {
	var (
		d      doctorRun
		host   doctor.Options
		asJSON bool
		fix    bool
	)
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Look this host over: Postfix, sockets, resolvers, database, clock",
		Long: `doctor looks at everything on this host that mail under a policy depends on:
Postfix's settings and what its version understands; whether smtp(8) reaches the
socket, as its user and from inside its chroot; whether each resolver answers and
validates; the database, the clock, the trust stores, the units of systemd.

It changes nothing. Each finding has a grade, what was seen, what to do, and the
command that does it. With --fix it prints a shell script of "postconf -e" lines
instead, and does not run it. Run it as root: an ordinary user cannot connect as
Postfix does, nor ask the daemon.

docs/doctor.md has every finding. It takes 20 s at most, also without a network.

Exit status: 0 all is well, or there are warnings only, 1 something fails,
3 something could not be told, and nothing fails.`,
		Example: `  tlspolicyd doctor
  tlspolicyd doctor --fix > mend.sh
  tlspolicyd doctor --postfix-config /etc/postfix-out --json | jq '.topics[].findings[] | select(.grade == "fail")'`,
		Args: noArgument,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := o.load()
			if err != nil {
				return err
			}
			for flag, name := range map[string]string{"signed-name": host.Signed, "broken-name": host.Broken} {
				if strings.ContainsFunc(name, unicode.IsSpace) || name != "" && !dnsclient.Askable(name) {
					return usageError("--%s: %q: want a domain name", flag, name)
				}
			}
			switch {
			case asJSON && fix:
				return usageError("--json or --fix: one of them")
			case asJSON:
				d.write = writeDoctorJSON
			case fix:
				d.write = writeDoctorScript
			default:
				d.write = writeDoctorText
			}
			describeHost(&host, cfg)
			return d.run(cmd.Context(), host, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := c.Flags()
	f.StringVar(&host.PostfixConfig, "postfix-config", "", "`DIR` with main.cf of another instance of Postfix (default as postconf has it)")
	f.StringVar(&host.Signed, "signed-name", "", "`NAME` with a valid signature, to test resolvers with (default the root)")
	f.StringVar(&host.Broken, "broken-name", "", "`NAME` with a broken signature, to test resolvers with (default "+doctor.DefaultBroken+")")
	f.BoolVar(&asJSON, "json", false, "print JSON; docs/doctor.md has the fields")
	f.BoolVar(&fix, "fix", false, "print a shell script that mends main.cf, and do not run it")
	return c
}

// describeHost tells where the daemon's things are. An ordinary user who runs
// no daemon of his own means the system's, as with lookup.
func describeHost(host *doctor.Options, cfg config.Config) {
	defaults := config.Default()
	own, _ := strings.CutPrefix(cfg.Listen.Socketmap[0], "unix:")
	if _, err := os.Stat(own); err != nil && os.Geteuid() != 0 && os.Getenv("RUNTIME_DIRECTORY") == "" &&
		cfg.Listen.Socketmap[0] == defaults.Listen.Socketmap[0] {
		cfg.Listen.Socketmap = []string{config.SystemSocketmap}
		if cfg.Listen.Admin == defaults.Listen.Admin {
			cfg.Listen.Admin = systemAdmin()
		}
		if cfg.Cache.Path == defaults.Cache.Path {
			cfg.Cache.Path = config.SystemDatabase
		}
	}
	host.Config, host.Build, host.Sockets = cfg, adminBuild(), cfg.Listen.Socketmap
	if path, ok := strings.CutPrefix(cfg.Listen.Admin, "unix:"); ok {
		host.Admin = []string{path}
	}
}

// doctorRun is one run of the command.
type doctorRun struct {
	write func(io.Writer, doctor.Facts, []audit.Topic) error
}

func (d doctorRun) run(ctx context.Context, host doctor.Options, out, progress io.Writer) error {
	if isTerminal(progress) {
		fmt.Fprintf(progress, "looking at this host, for %v at most ...", doctor.Limit)
	}
	facts := doctor.Gather(ctx, host)
	if isTerminal(progress) {
		fmt.Fprint(progress, "\r\x1b[K")
	}
	topics := doctor.Judge(facts)
	if err := d.write(out, facts, topics); err != nil {
		return outputError(err)
	}
	switch audit.Worst(topics) {
	case audit.Fail:
		return &exitError{status: exitNo}
	case audit.Unknown:
		return &exitError{status: exitUnknown}
	}
	return nil
}

func writeDoctorText(out io.Writer, _ doctor.Facts, topics []audit.Topic) error {
	text := audit.Text{Colour: isTerminal(out) && os.Getenv("NO_COLOR") == ""}
	if err := text.Write(out, topics); err != nil {
		return err
	}
	_, err := fmt.Fprintln(out, doctorSummary(topics))
	return err
}

// doctorSummary is the last line, which is all that most people read.
func doctorSummary(topics []audit.Topic) string {
	count := map[audit.Grade]int{}
	settings := false
	for _, t := range topics {
		for _, f := range t.Findings {
			count[f.Grade]++
			settings = settings || f.Grade != audit.OK && strings.HasPrefix(f.Fix, "postconf ") && strings.Contains(f.Fix, " -e ")
		}
	}
	s := fmt.Sprintf("%d fail, %d warn, %d could not be told, %d ok.", count[audit.Fail], count[audit.Warn], count[audit.Unknown], count[audit.OK])
	if settings {
		s += " tlspolicyd doctor --fix prints the postconf lines as a script."
	}
	return s
}

// doctorReport is what --json prints.
type doctorReport struct {
	Grade  audit.Grade   `json:"grade"` // the worst of all
	Topics []audit.Topic `json:"topics"`
}

func writeDoctorJSON(out io.Writer, _ doctor.Facts, topics []audit.Topic) error {
	for i := range topics {
		if topics[i].Findings == nil {
			topics[i].Findings = []audit.Finding{}
		}
	}
	return writeJSON(out, doctorReport{audit.Worst(topics), topics})
}

func writeDoctorScript(out io.Writer, facts doctor.Facts, topics []audit.Topic) error {
	_, err := io.WriteString(out, doctor.Script(topics, facts.Postfix))
	return err
}
