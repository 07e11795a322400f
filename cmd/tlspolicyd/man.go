package main

import (
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

func newMan() *cobra.Command {
	return &cobra.Command{
		Use:   "man DIR",
		Short: "Write the manual pages",
		Long: `man writes a manual page for each command into a directory. Their date is
$SOURCE_DATE_EPOCH, or that of the source, so that the same source makes the
same pages.`,
		Example: `  tlspolicyd man /usr/local/share/man/man8`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			b := readBuildInfo()
			date, err := sourceDate(os.Getenv("SOURCE_DATE_EPOCH"), b.Time)
			if err != nil {
				return err
			}
			header := &doc.GenManHeader{Section: "8", Date: &date, Source: programName + " " + b.Version, Manual: "System administration"}
			if err := doc.GenManTree(cmd.Root(), header, args[0]); err != nil {
				return unknownError(fmt.Errorf("write the manual pages: %w", err))
			}
			return nil
		},
	}
}

// sourceDate returns the date of the manual pages: $SOURCE_DATE_EPOCH (seconds,
// https://reproducible-builds.org/specs/source-date-epoch/), else the time of
// the source's revision, else 1970.
func sourceDate(epoch, revision string) (time.Time, error) {
	if epoch != "" {
		n, err := strconv.ParseInt(epoch, 10, 64)
		if err != nil {
			return time.Time{}, usageError("SOURCE_DATE_EPOCH=%q: want seconds since 1970", epoch)
		}
		return time.Unix(n, 0).UTC(), nil
	}
	t, err := time.Parse(time.RFC3339, revision)
	if err != nil {
		return time.Unix(0, 0).UTC(), nil
	}
	return t.UTC(), nil
}
