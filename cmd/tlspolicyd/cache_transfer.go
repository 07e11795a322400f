package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"tlspolicyd/cmd/tlspolicyd/internal/admin"
	"tlspolicyd/policymap/policy"
)

func newCacheExport(s *cacheSocket) *cobra.Command {
	return &cobra.Command{
		Use:   "export",
		Short: "Write the whole cache as lines of JSON",
		Long: `export writes the whole cache to stdout, for 'cache import' on this host or
another. The first line has the version of the format, the last one the number
of records.`,
		Example: `  tlspolicyd cache export >cache.jsonl
  tlspolicyd cache export | ssh newhost tlspolicyd cache import`,
		Args: noArgument,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.with(cmd.Context(), func(client *admin.Client) error {
				out := bufio.NewWriterSize(cmd.OutOrStdout(), 64<<10)
				err := client.Export(cmd.Context(), out)
				if flushErr := out.Flush(); err == nil {
					err = flushErr
				}
				if err != nil {
					return fmt.Errorf("the export is not complete: %w", err)
				}
				return nil
			})
		},
	}
}

func newCacheImport(s *cacheSocket) *cobra.Command {
	var skipBad bool
	c := &cobra.Command{
		Use:   "import [FILE|-]",
		Short: "Import a cache that 'cache export' wrote",
		Long: `import reads the output of 'cache export' from a file or from stdin. Where a
domain is in the cache already, the later facts win. The whole file is checked
first: with one broken line nothing is imported, unless --skip-bad is given.`,
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
			return s.with(cmd.Context(), func(client *admin.Client) error {
				return importDump(cmd, client, file, name, skipBad)
			})
		},
	}
	c.Flags().BoolVar(&skipBad, "skip-bad", false, "skip broken lines and import the others")
	return c
}

// openDump returns a file that can be read twice: a pipe is copied to a file that
// has no name.
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

// maxReported is how many broken lines are reported one by one.
const maxReported = 10

func importDump(cmd *cobra.Command, client *admin.Client, file *os.File, name string, skipBad bool) error {
	good, broken, err := admin.CheckDump(file)
	if err != nil {
		return unknownError(fmt.Errorf("%s: %w", name, err))
	}
	for i, bad := range broken {
		switch {
		case !skipBad || errors.Is(bad, admin.ErrVersion) || bad.Line == 1:
			hint := "fix it, or import the others with --skip-bad"
			if errors.Is(bad, admin.ErrVersion) || bad.Line == 1 {
				hint = "want the output of 'tlspolicyd cache export'"
			}
			return &exitError{exitNo, fmt.Errorf("%s: %w%s; nothing was imported: %s", name, bad, andMore(len(broken)-1), hint)}
		case i < maxReported:
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

func newCacheWarm(s *cacheSocket) *cobra.Command {
	return &cobra.Command{
		Use:   "warm FILE|-",
		Short: "Look up many domains before the first message to them",
		Long: `warm has the daemon look up domains as a message to each would, and prints how
many have which policy. The file has one domain per line; blank lines and
comments after # are skipped. Domains in the cache are not looked up again.

Exit status: 0 all were looked up, 3 some could not be.`,
		Example: `  grep -oP 'to=<[^@>]+@\K[^>]+' /var/log/mail.log | sort -u |
    tlspolicyd cache warm -
  tlspolicyd cache warm domains.txt`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errors.New("which FILE? One domain per line; - for stdin")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			list, err := readDomainList(args[0], cmd.InOrStdin())
			if err != nil {
				return unknownError(err)
			}
			return s.with(cmd.Context(), func(client *admin.Client) error { return warmCache(cmd, client, list) })
		},
	}
}

// domainList is a file for warm.
type domainList struct {
	keys     []string // canonical, without duplicates, in order of the file
	notNames int      // lines that are not a domain
	first    int      // the first of these
}

// maxDomainLine bounds a line of the list, in bytes.
const maxDomainLine = 64 << 10

func readDomainList(name string, stdin io.Reader) (domainList, error) {
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return domainList{}, err
		}
		defer f.Close()
		stdin = f
	}
	var list domainList
	seen := make(map[string]bool)
	lines := bufio.NewScanner(stdin)
	lines.Buffer(nil, maxDomainLine)
	n := 0
	for lines.Scan() {
		n++
		text, _, _ := strings.Cut(lines.Text(), "#")
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		hop, ok := policy.ParseNextHop(text)
		if !ok {
			if list.notNames++; list.first == 0 {
				list.first = n
			}
			continue
		}
		if key := hop.String(); !seen[key] {
			seen[key] = true
			list.keys = append(list.keys, key)
		}
	}
	if err := lines.Err(); err != nil {
		return list, fmt.Errorf("%s: line %d: %w", name, n+1, err)
	}
	return list, nil
}

func warmCache(cmd *cobra.Command, client *admin.Client, list domainList) error {
	bar := newProgress(cmd.ErrOrStderr(), "looked up")
	bar.total(len(list.keys))
	found := make(map[string]int)
	failed, example := 0, ""
	for keys := range slices.Chunk(list.keys, admin.WarmBatch) {
		err := client.Warm(cmd.Context(), keys, func(p admin.Progress) error {
			if p.Name == "" {
				return nil
			}
			bar.step()
			found[p.Policy]++
			if p.Error != "" {
				if failed++; example == "" {
					example = p.Error
				}
			}
			return nil
		})
		if err != nil {
			bar.hide()
			return fmt.Errorf("after %d of %d domains: %w", bar.done, len(list.keys), err)
		}
	}
	bar.hide()
	out := bufio.NewWriter(cmd.OutOrStdout())
	for level := policy.NoPolicy; level <= policy.Override; level++ {
		if n := found[level.String()]; n > 0 {
			fmt.Fprintf(out, "%8d %s\n", n, level)
		}
	}
	fmt.Fprintf(out, "%8d in total\n", len(list.keys))
	switch {
	case list.notNames == 1:
		fmt.Fprintf(out, "%8d skipped: line %d is not a domain\n", 1, list.first)
	case list.notNames > 1:
		fmt.Fprintf(out, "%8d skipped that are not a domain, the first is line %d\n", list.notNames, list.first)
	}
	if err := out.Flush(); err != nil {
		return outputError(err)
	}
	if failed > 0 {
		return fmt.Errorf("%s could not be looked up, e.g. %s: try again later", counted(failed, "domain"), cleaned(example))
	}
	return nil
}
