package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"strings"

	"github.com/spf13/cobra"

	"tlspolicyd/cmd/tlspolicyd/internal/config"
	"tlspolicyd/internal/printable"
)

// The exit statuses of every command.
const (
	exitDone    = 0
	exitNo      = 1 // the answer is no
	exitUsage   = 2 // wrong usage, or a wrong configuration
	exitUnknown = 3 // the answer is unknown
	programName = "tlspolicyd"

	// docs is where packages put the documents.
	docs = "/usr/share/doc/tlspolicyd/docs"
)

// exitError is an error that decides the exit status. Without an error inside
// nothing is printed: the output has said it all.
type exitError struct {
	status int
	err    error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.status)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// usageError is for a wrong command line.
func usageError(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

// unknownError is for an answer that could not be had.
func unknownError(err error) error { return &exitError{exitUnknown, err} }

// run executes one command and returns its exit status.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	return runWith(ctx, new(options), args, stdin, stdout, stderr)
}

func runWith(ctx context.Context, o *options, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRoot(o)
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitDone
	}
	status, ee := exitUsage, (*exitError)(nil)
	if errors.As(err, &ee) {
		status = ee.status
		if ee.err == nil {
			return status
		}
	} else if failed, ok := errors.AsType[*fs.PathError](err); ok && failed.Op == "write" {
		status, err = exitUnknown, outputError(err) // of a command that is cobra's own
	} else {
		// cobra's own errors are all about the command line.
		err = fmt.Errorf("%w; see '%s --help'", err, cmd.CommandPath())
	}
	fmt.Fprintf(stderr, "%s: %s\n", programName, printable.Clean(oneLine(err.Error())))
	return status
}

// oneLine joins the lines of a text.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// options are the flags that all commands share, and what a test puts in the
// place of the world.
type options struct {
	config string

	// dial connects to mail hosts; nil: the network. Their port is 25, which no
	// test may listen on.
	dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// load reads the configuration. Its error is one line and ends the command.
func (o *options) load() (config.Config, error) {
	c, err := config.Load(o.config)
	if err != nil {
		return c, &exitError{exitUsage, err}
	}
	return c, nil
}

func newRoot(o *options) *cobra.Command {
	root := &cobra.Command{
		Use:   programName,
		Short: "TLS policies for Postfix: DANE and MTA-STS",
		Long: `tlspolicyd tells Postfix over a socketmap which TLS policy to use for each
destination. It looks up DANE (RFC 7672) and MTA-STS (RFC 8461), keeps what it
learns in a cache on disk and refreshes it.

Setup, messages and configuration: tlspolicyd(8), tlspolicyd.toml(5), and the
documents in ` + docs + `.

Exit status of every command: 0 done, 1 the answer is no, 2 wrong usage or a
wrong configuration, 3 unknown.`,
		Example: `  tlspolicyd serve
  tlspolicyd lookup example.com`,
		Args:              noArgs,
		RunE:              needsSubcommand,
		SilenceErrors:     true,
		SilenceUsage:      true,
		DisableAutoGenTag: true, // manual pages must not depend on the day

		SuggestionsMinimumDistance: 2,
	}
	root.PersistentFlags().StringVar(&o.config, "config", "",
		"configuration `FILE` (default "+config.DefaultPath+")")
	root.AddCommand(newServe(o), newLookup(o), newConfig(o), newCache(o), newVersion(), newMan())
	root.AddCommand(newExplain(o), newCheck(o))
	root.AddCommand(newDoctor(o), newWhy(o), newSuggest(o), newUI(o))
	root.Version = readBuildInfo().String()
	root.SetVersionTemplate("{{.Version}}\n")
	finishBuiltin(root)
	withoutFiles(root)
	// For terminals of 80 columns, and without a usage that does nothing.
	root.SetUsageTemplate(strings.NewReplacer(
		".FlagUsages", ".FlagUsagesWrapped 80", "for more information about a command", "for help on a command",
		"{{if .Runnable}}", "{{if and .Runnable (not .HasAvailableSubCommands)}}",
	).Replace(root.UsageTemplate()))
	return root
}

// withoutFiles keeps shells from offering files where an argument is none.
func withoutFiles(c *cobra.Command) {
	if c.ValidArgsFunction == nil && !strings.Contains(c.Use, "FILE") && !strings.Contains(c.Use, "DIR") {
		c.ValidArgsFunction = cobra.NoFileCompletions
	}
	for _, sub := range c.Commands() {
		withoutFiles(sub)
	}
}

// completeFlag has shells offer these values of a flag, and no files.
func completeFlag(c *cobra.Command, flag string, values ...string) {
	_ = c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)) // the flag exists
}

// finishBuiltin makes the commands that come with cobra take no nonsense
// either, and drops completion for PowerShell: the daemon is for hosts with
// Postfix.
func finishBuiltin(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		switch c.Name() {
		case "help":
			c.Run, c.RunE = nil, func(_ *cobra.Command, args []string) error {
				about, rest, err := root.Find(args)
				if err != nil || len(rest) > 0 {
					return usageError("no command %q; see '%s --help'", strings.Join(args, " "), programName)
				}
				return about.Help()
			}
		case "completion":
			c.Args, c.RunE = noArgs, needsSubcommand
			c.Short, c.Long = "Print the completion script for a shell", "completion prints a script for the shell. Packages install it."
			for _, shell := range c.Commands() {
				load := map[string]string{
					"bash": "source <(tlspolicyd completion bash)", "zsh": "source <(tlspolicyd completion zsh)",
					"fish": "tlspolicyd completion fish | source",
				}[shell.Name()]
				if load == "" {
					c.RemoveCommand(shell)
				}
				shell.Short, shell.Long = "Print the completion script for "+shell.Name(), ""
				shell.Example = "  " + load + "  # in this shell only"
			}
		}
	}
}

// noArgument is for commands that take flags only.
func noArgument(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%q: %s takes no argument", args[0], cmd.CommandPath())
	}
	return nil
}

// noArgs is for commands that are only a place for subcommands.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	msg := fmt.Sprintf("%s has no command %q", cmd.CommandPath(), args[0])
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		msg += ", the nearest is " + strings.Join(near, " or ")
	}
	return errors.New(msg)
}

func needsSubcommand(cmd *cobra.Command, _ []string) error {
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	return usageError("which command? One of: %s; see '%s --help'", strings.Join(names, ", "), cmd.CommandPath())
}
