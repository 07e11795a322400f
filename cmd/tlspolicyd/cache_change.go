package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"tlspolicyd/cmd/tlspolicyd/internal/admin"
)

func newCacheRefresh(s *cacheSocket) *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:   "refresh DOMAIN... | --all",
		Short: "Look domains up again now, DANE and MTA-STS",
		Long: `refresh has the daemon look up cached domains again, and fetch the policy file
even if its id is unchanged or its last fetch has just failed. Until that is
done, and where it fails, Postfix gets the replies that it got before.

Exit status: 0 all were looked up, 1 some are not in the cache, 3 some could not
be looked up.`,
		Example: `  tlspolicyd cache refresh example.com
  tlspolicyd cache refresh --all`,
		Args:              domainsOrAll(&all),
		ValidArgsFunction: s.complete,
		RunE: func(cmd *cobra.Command, args []string) error {
			domains, err := cacheDomains(args)
			if err != nil {
				return err
			}
			return s.with(cmd.Context(), func(client *admin.Client) error {
				return refreshDomains(cmd, client, admin.Names{Names: domains, All: all})
			})
		},
	}
	c.Flags().BoolVar(&all, "all", false, "every cached domain")
	return c
}

func refreshDomains(cmd *cobra.Command, client *admin.Client, names admin.Names) error {
	bar := newProgress(cmd.ErrOrStderr(), "refreshed")
	defer bar.hide()
	status, n := exitDone, 0
	err := client.Refresh(cmd.Context(), names, func(p admin.Progress) error {
		bar.total(p.Total)
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
		if names.All && p.Error == "" {
			return nil
		}
		bar.hide()
		_, err := fmt.Fprintln(cmd.OutOrStdout(), p)
		return outputError(err)
	})
	if err != nil {
		return err
	}
	if names.All {
		bar.hide()
		fmt.Fprintf(cmd.OutOrStdout(), "%s looked up\n", counted(n, "domain"))
	}
	if status != exitDone {
		return &exitError{status: status}
	}
	return nil
}

func newCachePurge(s *cacheSocket) *cobra.Command {
	var all, yes, fleet bool
	c := &cobra.Command{
		Use:   "purge DOMAIN... | --all",
		Short: "Delete domains from the cache, with their policies",
		Long: `purge deletes domains from the cache. The next lookup starts from nothing: a
policy that cannot be fetched then is lost, which MTA-STS is meant to prevent.
In most cases 'cache refresh' is the right command.

Where hosts share policies (share.url), the next lookup may get a policy of
another host again. With --fleet it is deleted from the shared cache too, and
with --all every policy there; what the other hosts have in their own caches
stays: run the command on each.

Exit status: 0 done, 1 none of them was in the cache, nor with --fleet in the
shared one, 3 the daemon cannot be reached or failed, or the shared cache
failed: then nothing was deleted on this host.`,
		Example: `  tlspolicyd cache purge example.com
  tlspolicyd cache export >backup.jsonl
  tlspolicyd cache purge --all --yes`,
		Args:              domainsOrAll(&all),
		ValidArgsFunction: s.complete,
		RunE: func(cmd *cobra.Command, args []string) error {
			domains, err := cacheDomains(args)
			if err != nil {
				return err
			}
			if all && !yes {
				if err := confirmPurge(cmd.InOrStdin(), cmd.ErrOrStderr(), fleet); err != nil {
					return err
				}
			}
			return s.with(cmd.Context(), func(client *admin.Client) error {
				n, err := client.Purge(cmd.Context(), admin.Names{Names: domains, All: all}, fleet)
				if err != nil {
					return err
				}
				text := counted(n.Count, "domain")
				if !all {
					text = fmt.Sprintf("%d of %s", n.Count, counted(len(domains), "domain"))
				}
				if text += " deleted"; fleet {
					text += fmt.Sprintf(", %d in the shared cache", n.Shared)
				}
				if _, err := fmt.Fprintln(cmd.OutOrStdout(), text); err != nil {
					return outputError(err)
				}
				if n.Count+n.Shared == 0 && !all {
					return &exitError{status: exitNo}
				}
				return nil
			})
		},
	}
	c.Flags().BoolVar(&all, "all", false, "every cached domain; asks for confirmation")
	c.Flags().BoolVar(&fleet, "fleet", false, "from the shared cache (share.url) too")
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c
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

// counted is "1 domain" or "2 domains".
func counted(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// confirmPurge asks on a terminal. Without one, it is wrong usage to leave --yes
// out.
func confirmPurge(in io.Reader, out io.Writer, fleet bool) error {
	if !isTerminal(in) {
		return usageError("purge --all deletes every policy: add --yes, as there is no terminal to ask on")
	}
	if fleet {
		fmt.Fprint(out, "The cache that hosts share is emptied for all of them. ")
	}
	fmt.Fprint(out, "Delete every domain, and every MTA-STS policy with it? [y/N] ")
	text, err := bufio.NewReader(io.LimitReader(in, 100)).ReadString('\n')
	if err != nil && err != io.EOF {
		return unknownError(err)
	}
	if text = strings.ToLower(strings.TrimSpace(text)); text != "y" && text != "yes" {
		return &exitError{exitNo, errors.New("nothing was deleted")}
	}
	return nil
}
