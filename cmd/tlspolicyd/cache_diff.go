package main

import (
	"bufio"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"tlspolicyd/cmd/tlspolicyd/internal/admin"
	"tlspolicyd/internal/printable"
)

func newCacheDiff(s *cacheSocket) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "diff",
		Short: "Compare the policies of this host with the shared cache",
		Long: `diff prints a line for each policy that only this host has, that only the shared
cache has (share.url), or that differs there. That one of the two is older is
not a difference: hosts renew policies for each other.

In a fleet that works there may be some: what a host knew before it joined is
only-here until it is next refreshed, and a policy in another mode than enforce
is only-shared until the host is asked for the domain.

Exit status: 0 no difference, 1 there are some, 3 the shared cache cannot be
read.`,
		Example: `  tlspolicyd cache diff
  tlspolicyd cache diff --json | jq -r 'select(.kind == "differs").domain'`,
		Args: noArgument,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.with(cmd.Context(), func(client *admin.Client) error {
				out := bufio.NewWriter(cmd.OutOrStdout())
				table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
				now, n := time.Now(), 0
				err := client.Diff(cmd.Context(), func(d admin.Difference) error {
					if n++; asJSON {
						return outputError(writeJSONLine(printable.JSON(out), d))
					}
					if n == 1 {
						fmt.Fprintln(table, "DOMAIN\tDIFFERENCE\tHERE\tSHARED")
					}
					fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", printable.Text(d.Domain), d.Kind, side(d.Here, now), side(d.Shared, now))
					return nil
				})
				err = errors.Join(err, outputError(table.Flush()), outputError(out.Flush()))
				if err == nil && n > 0 {
					return &exitError{status: exitNo}
				}
				return err
			})
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object for each difference")
	return c
}

// side describes a policy in a few words.
func side(p *admin.PolicySide, now time.Time) string {
	if p == nil {
		return "-"
	}
	text := fmt.Sprintf("%s %s, id %s, fetched %s ago", p.Mode, strings.Join(p.MX, " "), p.ID, now.Sub(p.FetchedAt).Round(time.Minute))
	if p.Host != "" {
		text += " by " + p.Host
	}
	return printable.Line(text, 120)
}
