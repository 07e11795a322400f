package main

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/template"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"tlspolicyd/cmd/tlspolicyd/internal/config"
)

func newMan() *cobra.Command {
	return &cobra.Command{
		Use:   "man DIR",
		Short: "Write the manual pages",
		Long: `man writes the manual pages into a directory: tlspolicyd(8), one for each
command, and tlspolicyd.toml(5). Their date is $SOURCE_DATE_EPOCH, or that of
the source, so that the same source makes the same pages.`,
		Example: `  tlspolicyd man /tmp && man -l /tmp/tlspolicyd.toml.5`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errors.New("which DIR? An existing one, for all the pages")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			b := readBuildInfo()
			date, err := sourceDate(os.Getenv("SOURCE_DATE_EPOCH"), b.Time)
			if err != nil {
				return err
			}
			if err := writeManPages(cmd.Root(), args[0], programName+" "+b.Version, date); err != nil {
				return unknownError(fmt.Errorf("write the manual pages: %w", err))
			}
			return nil
		},
	}
}

// sourceDate returns the date of the manual pages, YYYY-MM-DD: that of
// $SOURCE_DATE_EPOCH (seconds, https://reproducible-builds.org/specs/source-date-epoch/),
// else of the source's revision, else none: no date is better than a wrong one.
func sourceDate(epoch, revision string) (string, error) {
	t, err := time.Parse(time.RFC3339, revision)
	if epoch != "" {
		n, err := strconv.ParseInt(epoch, 10, 64)
		if err != nil {
			return "", usageError("SOURCE_DATE_EPOCH=%q: want seconds since 1970", epoch)
		}
		t = time.Unix(n, 0)
	} else if err != nil {
		return "", nil
	}
	return t.UTC().Format(time.DateOnly), nil
}

//go:embed man/*.roff
var manFiles embed.FS

// manWriter writes manual pages out of the templates in man/.
type manWriter struct {
	dir          string
	pages        *template.Template
	Date, Source string
}

// writeManPages writes all pages into a directory that exists.
func writeManPages(root *cobra.Command, dir, source, date string) error {
	pages, err := template.New("").Funcs(template.FuncMap{"roff": roffLine, "text": roffParagraphs}).ParseFS(manFiles, "man/*.roff")
	if err != nil {
		return err
	}
	w := manWriter{dir, pages, date, source}
	if err := w.command(root); err != nil {
		return err
	}
	settings, err := manSettings()
	if err != nil {
		return err
	}
	return w.write("tlspolicyd.toml.5", "toml.roff", struct {
		manWriter
		Settings []manSetting
	}{w, settings})
}

func (w manWriter) write(name, page string, data any) error {
	var text bytes.Buffer
	if err := w.pages.ExecuteTemplate(&text, page, data); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(w.dir, name), text.Bytes(), 0o644)
}

// manCommand is the page of a command.
type manCommand struct {
	manWriter
	*cobra.Command
	Page, Title string
	Commands    []manCommand
	Options     []manOption
	Sections    string // that the main page has in addition
	See         []string
}

type manOption struct{ Short, Name, Value, Usage string }

func (w manWriter) page(c *cobra.Command) manCommand {
	name := strings.ReplaceAll(c.CommandPath(), " ", "-")
	m := manCommand{manWriter: w, Command: c, Page: name, Title: strings.ToUpper(name)}
	if c.Long == "" {
		m.Command.Long = c.Short + "."
	}
	return m
}

// command writes the page of a command and of those below it.
func (w manWriter) command(c *cobra.Command) error {
	m := w.page(c)
	c.InitDefaultHelpFlag()
	c.InitDefaultVersionFlag()
	option := func(f *pflag.Flag) {
		value, usage := pflag.UnquoteUsage(f)
		m.Options = append(m.Options, manOption{f.Shorthand, f.Name, value, usage})
	}
	c.NonInheritedFlags().VisitAll(option)
	c.InheritedFlags().VisitAll(option)
	if c.HasParent() {
		m.See = append(m.See, w.page(c.Parent()).Page)
	} else {
		sections, err := manFiles.ReadFile("man/sections.roff")
		if err != nil {
			return err
		}
		m.Sections = string(sections)
	}
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			m.Commands = append(m.Commands, w.page(sub))
			if err := w.command(sub); err != nil {
				return err
			}
		}
	}
	return w.write(m.Page+".8", "command.roff", m)
}

// manSetting is a section of the configuration or a key in it.
type manSetting struct {
	Section      string
	Key, Default string
	Comment      []string
}

// manSettings are the settings of a daemon that the system runs. They come out
// of the configuration itself, so that none is missing.
func manSettings() ([]manSetting, error) {
	c := config.Default()
	c.Listen.Socketmap = []string{config.SystemSocketmap}
	c.Listen.Admin = config.SystemAdmin
	c.Cache.Path = config.SystemDatabase
	var toml bytes.Buffer
	if err := c.WriteTOML(&toml); err != nil {
		return nil, err
	}
	var all []manSetting
	var comment []string
	for line := range strings.Lines(toml.String()) {
		line = strings.TrimSuffix(line, "\n")
		text, isComment := strings.CutPrefix(line, "# ")
		key, value, isSetting := strings.Cut(line, " = ")
		switch {
		case isComment:
			comment = append(comment, text)
		case isSetting:
			all = append(all, manSetting{Key: key, Default: value, Comment: comment})
			comment = nil
		case line != "":
			all = append(all, manSetting{Section: line})
		default: // a section without keys has a comment of its own
			all[len(all)-1].Comment = append(all[len(all)-1].Comment, comment...)
			comment = nil
		}
	}
	return all, nil
}

// roffLine escapes a line for roff, so that quotes and dashes can be copied from
// the page, and so that it is not taken for a request.
func roffLine(s string) string {
	s = strings.NewReplacer(`\`, `\e`, `-`, `\-`, `"`, `\(dq`, `'`, `\(aq`, "`", `\(ga`, `^`, `\(ha`, `~`, `\(ti`).Replace(s)
	if strings.HasPrefix(s, ".") {
		return `\&` + s
	}
	return s
}

// roffParagraphs turns a text into paragraphs; indented lines stay as they are.
func roffParagraphs(s string) string {
	var b strings.Builder
	verbatim := false
	for line := range strings.Lines(strings.Trim(s, "\n") + "\n") {
		line = strings.TrimRight(strings.ReplaceAll(line, "\t", "  "), " \n")
		if indented := strings.HasPrefix(line, " "); indented != verbatim && line != "" {
			b.WriteString(map[bool]string{true: ".EX\n", false: ".EE\n"}[indented])
			verbatim = indented
		}
		switch {
		case line == "" && !verbatim:
			b.WriteString(".PP\n")
		default:
			b.WriteString(roffLine(strings.TrimPrefix(line, "  ")) + "\n")
		}
	}
	if verbatim {
		b.WriteString(".EE\n")
	}
	return b.String()
}
