package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"tlspolicyd/cmd/tlspolicyd/internal/admin"
)

func newCacheExport(s *cacheSocket) *cobra.Command {
	return &cobra.Command{
		Use:   "export",
		Short: "Write the whole cache as lines of JSON",
		Long: `export writes all that the daemon knows to stdout, for 'cache import' on this host or
on another one. The first line names the format's version, the last one the number
of records.`,
		Example: `  tlspolicyd cache export >cache.jsonl
  tlspolicyd cache export | ssh newhost tlspolicyd cache import`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := s.open(cmd.Context())
			if err != nil {
				return err
			}
			defer client.Close()
			out := bufio.NewWriterSize(cmd.OutOrStdout(), 64<<10)
			err = client.Export(cmd.Context(), out)
			if flushErr := out.Flush(); err == nil {
				err = flushErr
			}
			if err != nil {
				return unknownError(fmt.Errorf("the export is not complete: %w", err))
			}
			return nil
		},
	}
}

func newCacheImport(s *cacheSocket) *cobra.Command {
	var skipBad bool
	c := &cobra.Command{
		Use:   "import [FILE|-]",
		Short: "Take over a cache that 'cache export' wrote",
		Long: `import reads what 'cache export' wrote, from a file or from stdin. Where a domain is
known already, what was learned later wins. The whole file is checked first: with
one broken line nothing is imported, unless --skip-bad is given.`,
		Example: `  tlspolicyd cache import cache.jsonl
  ssh oldhost tlspolicyd cache export | tlspolicyd cache import`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := "-"
			if len(args) > 0 {
				name = args[0]
			}
			file, err := openDump(name, cmd.InOrStdin())
			if err != nil {
				return unknownError(err)
			}
			defer file.Close()
			client, err := s.open(cmd.Context())
			if err != nil {
				return err
			}
			defer client.Close()
			return importDump(cmd, client, file, name, skipBad)
		},
	}
	c.Flags().BoolVar(&skipBad, "skip-bad", false, "import the good lines of a file with broken ones")
	return c
}

// openDump returns a file that can be read twice: what comes in a pipe is kept
// in a file that has no name.
func openDump(name string, stdin io.Reader) (*os.File, error) {
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
			return f, nil
		}
		defer f.Close()
		stdin = f
	}
	spool, err := os.CreateTemp("", "tlspolicyd-import-*")
	if err != nil {
		return nil, err
	}
	os.Remove(spool.Name())
	_, err = io.Copy(spool, stdin)
	if err == nil {
		_, err = spool.Seek(0, io.SeekStart)
	}
	if err != nil {
		spool.Close()
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return spool, nil
}

// maxTold is how many broken lines are told of one by one.
const maxTold = 10

func importDump(cmd *cobra.Command, client *admin.Client, file *os.File, name string, skipBad bool) error {
	good, broken, err := checkDump(file)
	if err != nil {
		return unknownError(fmt.Errorf("%s: %w", name, err))
	}
	for i, bad := range broken {
		switch {
		case !skipBad || errors.Is(bad, admin.ErrVersion) || bad.Line == 1:
			hint := "mend it, or import the others with --skip-bad"
			if errors.Is(bad, admin.ErrVersion) || bad.Line == 1 {
				hint = "want what 'tlspolicyd cache export' wrote"
			}
			return &exitError{exitNo, fmt.Errorf("%s: %w%s; nothing was imported: %s", name, bad, andMore(len(broken)-1), hint)}
		case i < maxTold:
			fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s: skipped %v\n", programName, name, bad)
		}
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return unknownError(err)
	}
	bar := newProgress(cmd.ErrOrStderr(), "imported")
	bar.total(good)
	imported := 0
	err = client.Import(cmd.Context(), file, skipBad, func(done int) {
		imported = done
		bar.set(done)
	})
	bar.hide()
	if err != nil {
		return unknownError(fmt.Errorf("%s: after %d of %d records: %w", name, imported, good, err))
	}
	if imported != good {
		return unknownError(fmt.Errorf("%s: %d records imported, %d were checked: did the file change?", name, imported, good))
	}
	text := counted(imported, "record") + " imported"
	if len(broken) > 0 {
		text += ", " + counted(len(broken), "line") + " skipped"
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), text)
	return outputError(err)
}

func andMore(n int) string {
	if n <= 0 {
		return ""
	}
	return fmt.Sprintf(" (and %d more)", n)
}

// checkDump reads a whole dump and returns how many lines are good and which are
// broken.
func checkDump(r io.Reader) (good int, broken []*admin.LineError, err error) {
	dump, err := admin.NewDumpReader(r)
	for err == nil {
		_, _, err = dump.Next()
		if err == nil {
			good++
			continue
		}
		if bad, ok := errors.AsType[*admin.LineError](err); ok {
			broken, err = append(broken, bad), nil
		}
	}
	if bad, ok := errors.AsType[*admin.LineError](err); ok { // of the header
		return 0, []*admin.LineError{bad}, nil
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return good, broken, err
}

func newCacheWarm(s *cacheSocket) *cobra.Command {
	c := &cobra.Command{
		Use:   "warm FILE|-",
		Short: "Look up many domains before the first message to them",
		Long: `warm has the daemon look up domains as a message to each would, and prints how many
have which policy. The file has a domain a line; blank lines and what follows a #
are left out. What is known already is not looked up again.

Exit status: 0 all were looked up, 3 some could not be.`,
		Example: `  grep -oP 'to=<[^@>]+@\K[^>]+' /var/log/mail.log | sort -u |
    tlspolicyd cache warm -
  tlspolicyd cache warm domains.txt`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errors.New("which FILE? Domains, one a line; - for stdin")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			list, err := readDomainList(args[0], cmd.InOrStdin())
			if err != nil {
				return unknownError(err)
			}
			client, err := s.open(cmd.Context())
			if err != nil {
				return err
			}
			defer client.Close()
			return warmCache(cmd.Context(), client, list, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	return c
}
