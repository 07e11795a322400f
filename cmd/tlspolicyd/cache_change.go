package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"tlspolicyd/cmd/tlspolicyd/internal/admin"
)

func newCacheRefresh(s *cacheSocket) *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:   "refresh DOMAIN... | --all",
		Short: "Look domains up again now, DANE and MTA-STS",
		Long: `refresh has the daemon look up what it knows of a domain again, and fetch the policy
file even if its id is the same or its last fetch has just failed. Until that is
done, and where it fails, the old answers stand.

Exit status: 0 all were looked up, 1 of some nothing was known, 3 some could not
be looked up.`,
		Example: `  tlspolicyd cache refresh example.com
  tlspolicyd cache refresh --all`,
		Args: domainsOrAll(&all),
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
			bar := newProgress(cmd.ErrOrStderr(), "refreshed")
			status, n := exitDone, 0
			err = client.Refresh(cmd.Context(), admin.Names{Names: domains, All: all}, func(p admin.Progress) error {
				if p.Total > 0 {
					bar.total(p.Total)
				}
				if p.Name == "" {
					return nil
				}
				n++
				switch {
				case p.Unknown:
					status = max(status, exitNo)
				case p.Error != "":
					status = exitUnknown
				}
				bar.step()
				if all && p.Error == "" {
					return nil
				}
				bar.hide()
				return outputError(printProgress(cmd.OutOrStdout(), p))
			})
			bar.hide()
			if err != nil {
				return daemonError(err)
			}
			if all {
				fmt.Fprintf(cmd.OutOrStdout(), "%d domains looked up\n", n)
			}
			if status != exitDone {
				return &exitError{status: status}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&all, "all", false, "every domain that is known")
	return c
}

func printProgress(out io.Writer, p admin.Progress) error {
	text := p.Policy
	switch reason := cleaned(p.Error); {
	case p.Error != "" && p.Policy != "":
		text += " (" + reason + ")"
	case p.Error != "":
		text = reason
	}
	_, err := fmt.Fprintf(out, "%s: %s\n", visible(p.Name), text)
	return err
}

func newCachePurge(s *cacheSocket) *cobra.Command {
	var all, yes bool
	c := &cobra.Command{
		Use:   "purge DOMAIN... | --all",
		Short: "Forget domains, their policies too",
		Long: `purge has the daemon forget domains. The next lookup starts from nothing: a policy
that cannot be fetched then is lost, which is what MTA-STS is meant to prevent.
'cache refresh' is nearly always what is wanted instead.

Exit status: 0 done, 1 nothing was known of any of them.`,
		Example: `  tlspolicyd cache purge example.com
  tlspolicyd cache export >backup.jsonl
  tlspolicyd cache purge --all --yes`,
		Args: domainsOrAll(&all),
		RunE: func(cmd *cobra.Command, args []string) error {
			domains, err := cacheDomains(args)
			if err != nil {
				return err
			}
			if all && !yes {
				if err := confirmPurge(cmd.InOrStdin(), cmd.ErrOrStderr()); err != nil {
					return err
				}
			}
			client, err := s.open(cmd.Context())
			if err != nil {
				return err
			}
			defer client.Close()
			n, err := client.Purge(cmd.Context(), admin.Names{Names: domains, All: all})
			if err != nil {
				return daemonError(err)
			}
			text := counted(n, "domain") + " forgotten"
			if !all {
				text = fmt.Sprintf("%d of %s forgotten", n, countDomains(len(domains), all))
			}
			if _, err := fmt.Fprintln(cmd.OutOrStdout(), text); err != nil {
				return outputError(err)
			}
			if n == 0 && !all {
				return &exitError{status: exitNo}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&all, "all", false, "every domain that is known; asks before")
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c
}

func countDomains(n int, all bool) string {
	if all {
		return "all domains"
	}
	return counted(n, "domain")
}

// counted is "1 domain" or "2 domains".
func counted(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// confirmPurge asks on a terminal. Where nobody can be asked it is wrong usage
// to leave --yes out.
func confirmPurge(in io.Reader, out io.Writer) error {
	if !isTerminal(in) {
		return usageError("purge --all forgets every policy: add --yes, as there is no terminal to ask on")
	}
	fmt.Fprint(out, "Forget every domain, and every MTA-STS policy with it? [y/N] ")
	text, err := bufio.NewReader(io.LimitReader(in, 100)).ReadString('\n')
	if err != nil && err != io.EOF {
		return unknownError(err)
	}
	if text = strings.ToLower(strings.TrimSpace(text)); text != "y" && text != "yes" {
		return &exitError{exitNo, fmt.Errorf("nothing was purged")}
	}
	return nil
}

// isTerminal reports whether somebody sits at the other end.
func isTerminal(v any) bool {
	f, ok := v.(*os.File)
	if !ok {
		return false
	}
	return term.IsTerminal(int(f.Fd()))
}
