package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"tlspolicyd/cmd/tlspolicyd/internal/audit"
	"tlspolicyd/cmd/tlspolicyd/internal/audit/check"
	"tlspolicyd/cmd/tlspolicyd/internal/audit/output"
	"tlspolicyd/cmd/tlspolicyd/internal/audit/smtpprobe"
	"tlspolicyd/cmd/tlspolicyd/internal/config"
	"tlspolicyd/policymap/policy"
)

const (
	domainsAtOnce = 8
	shortestWatch = 10 * time.Second
)

func newCheck(o *options) *cobra.Command {
	var (
		c     checking
		watch time.Duration
	)
	cmd := &cobra.Command{
		Use:   "check DOMAIN...",
		Short: "Audit a mail domain as other senders see it",
		Long: `check audits mail domains from outside and says what is wrong with their TLS,
and what to do next: the MTA-STS record and the policy file, line by line; the
mail hosts against the policy; at port 25 of every mail host, over IPv4 and
IPv6, STARTTLS and the certificate; TLSA records against the certificate that
the host presents; mode and max_age; the TLSRPT record; and whether a message is
delivered. It needs no running daemon and no cache, and it sends no message.

For one domain every finding is printed, for several only the problems, and a
table at the end; --all prints everything. A single - reads a list from standard
input, one domain a line; # begins a comment.

Marks: ok; warn, works today but needs attention; FAIL, mail is deferred or sent
unprotected; ? unknown, because of this host or its network, which is not the
fault of the domain. Where outgoing connections to port 25 are blocked, as in
most homes, mail hosts cannot be checked.

Only dns.* and fetch.* of the configuration count (fetch.allow_networks also for
mail hosts); fetch.proxy is not used for port 25. Overrides and policy.* do not
count: other senders do not have them.

With --json each domain gives one JSON object on a line of its own;
` + docs + `/check.md lists its fields and all codes. --nagios
prints a line for Nagios, Icinga and similar systems, with their exit status (0
ok, 1 warning, 2 critical, 3 unknown). --prometheus prints metrics for the
textfile collector of node_exporter, and exits with 0 when they are written: the
grades are in them.

--watch repeats and prints the first result and then only what changes; it ends
on an interrupt, with the status of the last audit.

Exit status: 0 no failure, warnings or not; 1 at least one FAIL; 2 wrong usage;
3 no FAIL, but something is unknown.`,
		Example: `  tlspolicyd check example.com
  tlspolicyd check --json example.com |
    jq '.topics[].findings[] | select(.grade == "fail")'
  tlspolicyd check - < domains.txt
  tlspolicyd check --watch 15m example.com example.net
  tlspolicyd check --nagios example.com
  tlspolicyd check --prometheus example.com > tlspolicyd.prom.new`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return c.usage(cmd.OutOrStdout(), errors.New("which DOMAIN? The part of a mail address after the @; - reads a list"))
			}
			if err := c.checkFlags(cmd, watch); err != nil {
				return c.usage(cmd.OutOrStdout(), err)
			}
			domains, err := checkDomains(args, cmd.InOrStdin())
			if err != nil {
				return c.usage(cmd.OutOrStdout(), err)
			}
			cfg, err := o.load()
			if err != nil {
				return c.usage(cmd.OutOrStdout(), err)
			}
			if c.options, err = checkOptions(cfg, o, c); err != nil {
				return c.usage(cmd.OutOrStdout(), err)
			}
			c.domains, c.out, c.hints = domains, cmd.OutOrStdout(), cmd.ErrOrStderr()
			if watch > 0 {
				return c.watch(cmd.Context(), watch)
			}
			return c.once(cmd.Context())
		},
	}
	cmd.Flags().BoolVar(&c.json, "json", false, "print one JSON object for each domain, on a line of its own")
	cmd.Flags().BoolVar(&c.nagios, "nagios", false, "print a line for Nagios, with performance data and its exit status")
	cmd.Flags().BoolVar(&c.prometheus, "prometheus", false, "print metrics for the textfile collector of Prometheus's node_exporter")
	cmd.Flags().BoolVar(&c.all, "all", false, "with several domains: print every finding")
	cmd.Flags().DurationVar(&watch, "watch", 0, "repeat every `INTERVAL`, e.g. 15m, and print changes only")
	cmd.Flags().DurationVar(&c.timeout, "timeout", check.DefaultTimeout, "`TIME` for one domain; slow mail servers need more than 18s, e.g. 60s")
	cmd.Flags().StringVar(&c.ehlo, "ehlo", "", "host `NAME` for EHLO (default that of this host)")
	cmd.Flags().BoolVar(&c.only4, "ipv4", false, "connect to mail hosts over IPv4 only")
	cmd.Flags().BoolVar(&c.only6, "ipv6", false, "connect to mail hosts over IPv6 only")
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return c.usage(cmd.OutOrStdout(), err) })
	return cmd
}

// checking is one run of the command.
type checking struct {
	json, nagios, prometheus, all bool
	only4, only6                  bool
	timeout                       time.Duration
	ehlo                          string

	options    check.Options
	domains    []string // A-labels, each once
	out, hints io.Writer
	blind      bool // that nothing could be seen was printed
}

func (c *checking) checkFlags(cmd *cobra.Command, watch time.Duration) error {
	for _, pair := range [][2]string{
		{"ipv4", "ipv6"}, {"json", "nagios"}, {"json", "prometheus"}, {"nagios", "prometheus"}, {"watch", "nagios"}, {"watch", "prometheus"},
	} {
		if cmd.Flags().Changed(pair[0]) && cmd.Flags().Changed(pair[1]) {
			return usageError("--%s or --%s: one of them", pair[0], pair[1])
		}
	}
	if cmd.Flags().Changed("watch") && watch < shortestWatch {
		return usageError("--watch: %v: want %v at least", watch, shortestWatch)
	}
	if c.timeout < time.Second || c.timeout > time.Hour {
		return usageError("--timeout: %v: want 1s to 1h", c.timeout)
	}
	if c.ehlo != "" {
		if hop, ok := policy.ParseNextHop(c.ehlo); !ok || hop.String() != hop.Domain {
			return usageError("--ehlo: %q: want a host name", c.ehlo)
		}
	}
	return nil
}

// usage is for a run that cannot begin. For Nagios status 2 is critical, and it
// reads standard output.
func (c *checking) usage(out io.Writer, err error) error {
	if !c.nagios {
		return err
	}
	status, writeErr := output.NagiosUnknown(out, err.Error())
	if writeErr != nil {
		return outputError(writeErr)
	}
	return &exitError{status: status}
}

// checkOptions puts the parts of an audit together.
func checkOptions(cfg config.Config, o *options, c checking) (check.Options, error) {
	resolver, err := newResolver(cfg, nil, nil)
	if err != nil {
		return check.Options{}, unknownError(err)
	}
	fetcher, err := newFetcher(cfg, nil, resolver)
	if err != nil {
		return check.Options{}, &exitError{exitUsage, err}
	}
	out := check.Options{
		Resolver: resolver, Servers: resolver.Servers(), Trusted: resolver.Trusted(), Fetcher: fetcher,
		Prober: smtpprobe.Prober{Name: c.ehlo, Dial: o.dial}, Timeout: c.timeout,
	}
	if out.Prober.Name == "" {
		out.Prober.Name = ownName()
	}
	switch {
	case c.only4:
		out.Family = 4
	case c.only6:
		out.Family = 6
	}
	return out, nil
}

// ownName is how this host greets others; "" where it has no name that fits.
func ownName() string {
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	hop, ok := policy.ParseNextHop(name)
	if !ok {
		return ""
	}
	return hop.Domain
}

// once audits each domain once.
func (c *checking) once(ctx context.Context) error {
	write := c.writeText
	switch {
	case c.json:
		write = c.writeJSON
	case c.nagios, c.prometheus:
		write = func(check.Report) error { return nil }
	}
	reports, err := c.round(ctx, write)
	if err != nil {
		return outputError(err)
	}
	switch {
	case c.nagios:
		status, err := output.Nagios(c.out, reports)
		if err == nil && status != exitDone {
			return &exitError{status: status}
		}
		return outputError(err)
	case c.prometheus:
		return outputError(output.Prometheus(c.out, reports))
	case !c.json && len(reports) > 1:
		if err := output.Table(c.out, reports); err != nil {
			return outputError(err)
		}
	}
	return gradeStatus(check.Worst(reports))
}

func (c *checking) writeJSON(r check.Report) error { return output.JSON(c.out, r, false) }

// writeText writes the report on one domain: all of it when there is only one,
// else the problems.
func (c *checking) writeText(r check.Report) error {
	topics := r.Topics
	if r.NothingSeen() && len(c.domains) > 1 {
		if c.blind {
			return nil // once is enough, the table has the others
		}
		c.blind = true
	}
	if len(c.domains) > 1 && !c.all {
		if topics = output.Problems(topics); len(topics) == 0 {
			return nil
		}
	}
	if _, err := fmt.Fprintf(c.out, "== %s: %s\n\n", r.Domain, output.Summary(r.Topics)); err != nil {
		return err
	}
	return output.TextFor(c.out).Write(c.out, topics)
}

// gradeStatus turns a grade into the command's exit status.
func gradeStatus(g audit.Grade) error {
	switch g {
	case audit.Fail:
		return &exitError{status: exitNo}
	case audit.Unknown:
		return &exitError{status: exitUnknown}
	}
	return nil
}
