package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tlspolicyd/cmd/tlspolicyd/internal/admin"
	"tlspolicyd/internal/printable"
)

func newCacheList(s *cacheSocket) *cobra.Command {
	var (
		f             admin.Filter
		older, unused age
		asJSON        bool
	)
	c := &cobra.Command{
		Use:   "list",
		Short: "List what is known, a line for each next hop, sorted by domain",
		Long: `list prints what is known of each domain: a line for each way in which Postfix asked
for it, with the policy that it gets now, the state of DANE, the mode of MTA-STS,
when it was last asked for and when it is looked up again.

Exit status: 0 something is listed, 1 nothing.`,
		Example: `  tlspolicyd cache list
  tlspolicyd cache list --policy secure --unused 30d
  tlspolicyd cache list --state enforce --json | jq -r .domain`,
		Args: cobra.NoArgs,
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
			client, err := s.open(cmd.Context())
			if err != nil {
				return err
			}
			defer client.Close()
			return listDomains(cmd.Context(), client, f, asJSON, cmd.OutOrStdout())
		},
	}
	c.Flags().StringVar(&f.Policy, "policy", "", "only domains that get this `POLICY`: dane-only, dane, secure, notfound, temp or override")
	c.Flags().StringVar(&f.State, "state", "", "only this `STATE` of MTA-STS (enforce, testing, mta-sts:none, absent) or of DANE (full, partial, insecure-mx, dane:none, unknown)")
	c.Flags().Var(&older, "older", "only domains of which nothing was looked up for so long, e.g. 12h")
	c.Flags().Var(&unused, "unused", "only domains that nobody asked for so long, e.g. 30d")
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object for each domain")
	return c
}

const listFormat = "%-32s %-10s %-12s %-8s %-9s %s\n"

func listDomains(ctx context.Context, client *admin.Client, f admin.Filter, asJSON bool, stdout io.Writer) error {
	out := bufio.NewWriter(stdout)
	now, n := time.Now(), 0
	err := client.List(ctx, f, func(d admin.Domain) error {
		n++
		if asJSON {
			return outputError(writeJSONLine(printable.JSON(out), d))
		}
		if n == 1 {
			fmt.Fprintf(out, listFormat, "NEXT HOP", "POLICY", "DANE", "MTA-STS", "LAST USED", "REFRESH")
		}
		return outputError(listLines(out, d, now))
	})
	if flushErr := out.Flush(); err == nil {
		err = outputError(flushErr)
	}
	if err == nil && n == 0 {
		switch {
		case asJSON:
			return &exitError{status: exitNo}
		case f == (admin.Filter{}):
			return &exitError{exitNo, errors.New("the cache is empty: nobody has asked for a domain yet")}
		}
		return &exitError{exitNo, errors.New("no domain in the cache is like that")}
	}
	return daemonError(err)
}

func listLines(out io.Writer, d admin.Domain, now time.Time) error {
	used, next := ago(d.LastUsed, now), ago(d.NextRefresh, now)
	if len(d.Answers) == 0 {
		_, err := fmt.Fprintf(out, listFormat, visible(d.Domain), "-", "-", d.MTASTS, used, next)
		return err
	}
	for _, a := range d.Answers {
		dane := a.DANE
		if !a.DANEFresh {
			dane += " (old)"
		}
		if _, err := fmt.Fprintf(out, listFormat, visible(a.NextHop), a.Policy, dane, d.MTASTS, used, next); err != nil {
			return err
		}
	}
	return nil
}

func newCacheShow(s *cacheSocket) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "show DOMAIN",
		Short: "Show all that is known of a domain, and what Postfix is told",
		Long: `show prints the facts about a domain, when they were learned, when they are looked
up again, the last error, the last use, and what Postfix is told now.

Exit status: 0 something is known, 1 nothing.`,
		Example: `  tlspolicyd cache show example.com
  tlspolicyd cache show --json bücher.example | jq .facts`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errors.New("which DOMAIN? One at a time")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			domains, err := cacheDomains(args)
			if err != nil {
				return err
			}
			client, err := s.open(cmd.Context())
			if err != nil {
				return err
			}
			defer client.Close()
			d, err := client.Show(cmd.Context(), domains[0])
			if refused, ok := errors.AsType[*admin.StatusError](err); ok && refused.Status == http.StatusNotFound {
				return &exitError{exitNo, fmt.Errorf("%s: nothing is known of it; 'tlspolicyd lookup %s' looks it up", domains[0], domains[0])}
			}
			if err != nil {
				return daemonError(err)
			}
			if asJSON {
				return outputError(writeJSON(printable.JSON(cmd.OutOrStdout()), d))
			}
			return outputError(showDomain(cmd.OutOrStdout(), d, time.Now()))
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func showDomain(stdout io.Writer, d admin.Details, now time.Time) error {
	out := bufio.NewWriter(stdout)
	line := func(name, format string, args ...any) {
		fmt.Fprintln(out, strings.TrimRight(fmt.Sprintf("  %-14s %s", name, cleaned(fmt.Sprintf(format, args...))), " "))
	}
	at := func(t time.Time) string {
		if t.IsZero() {
			return "-"
		}
		return fmt.Sprintf("%s (%s)", t.Format(time.RFC3339), ago(t, now))
	}
	fmt.Fprintln(out, visible(d.Domain.Domain))
	line("last used", "%s", at(d.LastUsed))
	line("next refresh", "%s", at(d.NextRefresh))
	if d.LastError != "" {
		line("last error", "%s", d.LastError)
	}
	showSTS(line, at, d)
	for i, a := range d.Answers {
		fmt.Fprintf(out, "\nnext hop %s\n", visible(a.NextHop))
		line("policy", "%s", a.Policy)
		line("why", "%s", a.Why)
		line("DANE", "%s", a.DANE)
		if i < len(d.Facts.DANE) {
			fact := d.Facts.DANE[i]
			if fact.Detail != "" {
				line("", "%s", fact.Detail)
			}
			line("learned", "%s", at(fact.KnownAt))
		}
		line("expires", "%s", at(a.DANEExpires))
		line("postfix", "%s", a.Postfix)
		line("postfix-tlsrpt", "%s", a.TLSRPT)
	}
	return out.Flush()
}

func showSTS(line func(string, string, ...any), at func(time.Time) string, d admin.Details) {
	if d.Why != "" {
		line("MTA-STS", "%s: %s", d.MTASTS, d.Why)
	} else {
		line("MTA-STS", "%s", d.MTASTS)
	}
	s := d.Facts.STS
	if s == nil {
		return
	}
	if s.TXTID != "" {
		line("TXT id", "%s", s.TXTID)
	}
	line("TXT looked up", "%s", at(s.CheckedAt))
	if s.Policy == nil {
		return
	}
	line("fetched", "%s, id %s", at(s.FetchedAt), s.PolicyID)
	line("expires", "%s", at(d.Expires))
	for i, text := range strings.Split(strings.TrimRight(*s.Policy, "\r\n"), "\n") {
		name := ""
		if i == 0 {
			name = "policy file"
		}
		line(name, "%s", strings.TrimSuffix(text, "\r"))
	}
}
