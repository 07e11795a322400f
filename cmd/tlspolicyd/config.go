package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"tlspolicyd/cmd/tlspolicyd/internal/config"
)

func newConfig(o *options) *cobra.Command {
	c := &cobra.Command{
		Use:   "config",
		Short: "Check or show the configuration",
		Example: `  tlspolicyd config check
  tlspolicyd config show`,
		Args: noArgs,
		RunE: needsSubcommand,

		SuggestionsMinimumDistance: 2,
	}
	c.AddCommand(newConfigCheck(o), newConfigShow(o))
	return c
}

func newConfigCheck(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Check the configuration file",
		Long: `check reads the configuration file as serve does and reports the first mistake
with its line and column. It also checks that the files and the group it names
exist. Nothing is started.`,
		Example: `  tlspolicyd config check
  tlspolicyd config check --config new.toml`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("%q: name the file with --config", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := o.load()
			if err != nil {
				return err
			}
			if err := checkHost(cfg); err != nil {
				return err
			}
			name, verdict := o.config, "ok"
			if name == "" {
				name = config.DefaultPath
				if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) {
					verdict = "absent: defaults apply"
				}
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", name, verdict)
			return outputError(err)
		},
	}
}

func newConfigShow(o *options) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "show",
		Short: "Show the settings in force, defaults included",
		Long: `show prints every setting with its description. The output is a valid
configuration file.`,
		Example: `  tlspolicyd config show > tlspolicyd.toml
  tlspolicyd config show --json | jq .dns`,
		Args: noArgument,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := o.load()
			if err != nil {
				return err
			}
			if asJSON {
				return outputError(writeJSON(cmd.OutOrStdout(), cfg))
			}
			return outputError(cfg.WriteTOML(cmd.OutOrStdout()))
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// writeJSON writes a value for scripts that people may read as well.
func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// writeJSONLine writes a value on a line of its own.
func writeJSONLine(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// outputError is for output that could not be written: a script must not take
// a part of it for all.
func outputError(err error) error {
	if err == nil {
		return nil
	}
	return unknownError(fmt.Errorf("write the output: %w", err))
}
