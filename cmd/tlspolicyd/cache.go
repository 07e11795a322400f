package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tlspolicyd/cmd/tlspolicyd/internal/admin"
	"tlspolicyd/cmd/tlspolicyd/internal/config"
	"tlspolicyd/internal/printable"
	"tlspolicyd/policymap/policy"
	"tlspolicyd/socketmap"
)

func newCache(o *options) *cobra.Command {
	s := &cacheSocket{options: o}
	c := &cobra.Command{
		Use:   "cache",
		Short: "Show and change the cache of the running daemon",
		Long: `cache talks to the running daemon over its control socket (listen.admin), which
is open to the daemon's user and to root only.`,
		Example: `  tlspolicyd cache list --policy secure
  tlspolicyd cache show example.com`,
		Args: noArgs,
		RunE: needsSubcommand,

		SuggestionsMinimumDistance: 2,
	}
	c.PersistentFlags().StringVar(&s.address, "socket", "", "`ADDRESS` of the control socket, unix:/path (default as configured)")
	c.AddCommand(newCacheList(s), newCacheShow(s), newCacheRefresh(s), newCachePurge(s), newCacheDiff(s),
		newCacheExport(s), newCacheImport(s), newCacheWarm(s))
	return c
}

// cacheSocket finds the daemon's control socket.
type cacheSocket struct {
	options *options
	address string // --socket
}

// with calls work with a client for the daemon that answers.
func (s *cacheSocket) with(ctx context.Context, work func(*admin.Client) error) error {
	addresses := []string{s.address}
	if s.address == "" {
		cfg, err := s.options.load()
		if err != nil {
			return err
		}
		if cfg.Listen.Admin == "" {
			return usageError(`listen.admin is "": the daemon has no control socket: configure one and restart it`)
		}
		addresses, err = daemonAddresses(cfg.Listen.Admin, config.Default().Listen.Admin, config.SystemAdmin, config.DefaultDirs())
		if err != nil {
			return err
		}
	}
	var tried []unanswered
	for _, a := range addresses {
		network, path, err := socketmap.ParseAddress(a)
		if err != nil || network != "unix" {
			return usageError("--socket: %q: want unix:/path", a)
		}
		client := admin.NewClient(path)
		defer client.Close()
		err = client.Ping(ctx)
		if err == nil {
			return daemonError(work(client))
		}
		u := unanswered{a, err}
		if !u.absent() {
			return unknownError(u)
		}
		tried = append(tried, u)
	}
	return unknownError(noDaemon(tried))
}

// daemonError is for what goes wrong on the way to the daemon, or there.
func daemonError(err error) error {
	if _, ok := errors.AsType[*exitError](err); err == nil || ok {
		return err
	}
	if refused, ok := errors.AsType[*admin.StatusError](err); ok && refused.Status == http.StatusConflict {
		return usageError("%w", refused)
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
			return nil, usageError("%q is not a domain", arg)
		}
		domains = append(domains, hop.Domain)
	}
	return domains, nil
}

// maxCompletions is how many domains a shell is offered.
const maxCompletions = 100

// complete offers domains of the cache, if the daemon answers at once, and never
// files.
func (s *cacheSocket) complete(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), time.Second)
	defer cancel()
	var domains []string
	_ = s.with(ctx, func(client *admin.Client) error { // without a daemon there is nothing to offer
		page, err := client.Page(ctx, admin.Query{Search: prefix, Limit: maxCompletions})
		for _, d := range page.Domains {
			if !slices.Contains(args, d.Domain) {
				domains = append(domains, d.Domain)
			}
		}
		return err
	})
	return domains, cobra.ShellCompDirectiveNoFileComp
}

// completeOne offers domains for the only argument.
func (s *cacheSocket) completeOne(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return s.complete(cmd, args, prefix)
}

func newCacheList(s *cacheSocket) *cobra.Command {
	var (
		f             admin.Filter
		older, unused age
		asJSON        bool
	)
	c := &cobra.Command{
		Use:   "list",
		Short: "List the cached domains, a line for each next hop",
		Long: `list prints a line for each next hop that Postfix has looked up, sorted by
domain: its policy now, the DANE state, the MTA-STS mode, the time of the last
lookup and that of the next refresh.

Exit status: 0 something is listed, 1 nothing.`,
		Example: `  tlspolicyd cache list
  tlspolicyd cache list --policy secure --unused 30d
  tlspolicyd cache list --state enforce --json | jq -r .domain`,
		Args: noArgument,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f.Older, f.Unused = time.Duration(older), time.Duration(unused)
			if f.Policy != "" {
				if err := admin.ParsePolicy(f.Policy); err != nil {
					return usageError("--policy: %w", err)
				}
			}
			if f.State != "" {
				if err := admin.ParseState(f.State); err != nil {
					return usageError("--state: %w", err)
				}
			}
			return s.with(cmd.Context(), func(client *admin.Client) error {
				return listDomains(cmd.Context(), client, f, asJSON, cmd.OutOrStdout())
			})
		},
	}
	c.Flags().StringVar(&f.Policy, "policy", "", "only domains with this `POLICY`: "+strings.Join(admin.Policies(), ", "))
	c.Flags().StringVar(&f.State, "state", "", "only this `STATE` of MTA-STS (enforce, testing, mta-sts:none, absent) or of DANE (full, partial, insecure-mx, dane:none, unknown)")
	c.Flags().Var(&older, "older", "only domains that were not refreshed for this long, e.g. 12h")
	c.Flags().Var(&unused, "unused", "only domains that were not looked up for this long, e.g. 30d")
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object for each domain")
	completeFlag(c, "policy", admin.Policies()...)
	completeFlag(c, "state", admin.States()...)
	completeFlag(c, "older", "12h", "30d")
	completeFlag(c, "unused", "12h", "30d")
	return c
}

func listDomains(ctx context.Context, client *admin.Client, f admin.Filter, asJSON bool, stdout io.Writer) error {
	out := bufio.NewWriter(stdout)
	now, n := time.Now(), 0
	err := client.List(ctx, f, func(d admin.Domain) error {
		if n++; asJSON {
			return outputError(writeJSONLine(printable.JSON(out), d))
		}
		if n == 1 {
			admin.WriteHeading(out)
		}
		return outputError(d.WriteRows(out, now))
	})
	if flushErr := out.Flush(); err == nil {
		err = outputError(flushErr)
	}
	switch {
	case err != nil || n > 0:
		return err
	case asJSON:
		return &exitError{status: exitNo}
	case f == admin.Filter{}:
		return &exitError{exitNo, errors.New("the cache is empty: there was no lookup yet")}
	}
	return &exitError{exitNo, errors.New("no domain in the cache matches")}
}

func newCacheShow(s *cacheSocket) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "show DOMAIN",
		Short: "Show what is cached about a domain, and its replies to Postfix",
		Long: `show prints the cached facts about a domain, when they were learned, the time of
the next refresh, the last error, the last lookup, and the replies that Postfix
gets now.

Exit status: 0 the domain is cached, 1 it is not.`,
		Example: `  tlspolicyd cache show example.com
  tlspolicyd cache show --json bücher.example | jq .facts`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errors.New("which DOMAIN? One at a time")
			}
			return nil
		},
		ValidArgsFunction: s.completeOne,
		RunE: func(cmd *cobra.Command, args []string) error {
			domains, err := cacheDomains(args)
			if err != nil {
				return err
			}
			return s.with(cmd.Context(), func(client *admin.Client) error {
				d, err := client.Show(cmd.Context(), domains[0])
				if refused, ok := errors.AsType[*admin.StatusError](err); ok && refused.Status == http.StatusNotFound {
					return &exitError{exitNo, fmt.Errorf("%s is not in the cache; 'tlspolicyd lookup %[1]s' looks it up", domains[0])}
				}
				if err != nil {
					return err
				}
				if asJSON {
					return outputError(writeJSON(printable.JSON(cmd.OutOrStdout()), d))
				}
				return outputError(d.WriteText(cmd.OutOrStdout(), time.Now()))
			})
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// age is a flag with a duration, days included: "30d", "12h".
type age time.Duration

func (a *age) Set(s string) error {
	d, err := admin.ParseAge(s)
	*a = age(d)
	return err
}

func (a *age) String() string {
	if *a == 0 {
		return ""
	}
	return time.Duration(*a).String()
}

func (a *age) Type() string { return "AGE" }
