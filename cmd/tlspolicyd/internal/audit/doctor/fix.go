package doctor

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"tlspolicyd/cmd/tlspolicyd/internal/audit"
)

// Fixable reports whether Script has a line that changes main.cf.
func Fixable(topics []audit.Topic, p Postfix) bool {
	return slices.ContainsFunc(topics, func(t audit.Topic) bool {
		return slices.ContainsFunc(t.Findings, func(f audit.Finding) bool { return p.isSetting(f.Fix) })
	})
}

// isSetting reports whether a command only changes a setting of main.cf.
func (p Postfix) isSetting(fix string) bool { return strings.HasPrefix(fix, p.postconf("-e ")) }

// Script is a shell script that fixes main.cf: one postconf line for each
// finding, with the finding above it. What is not a setting of main.cf is in it
// as a comment. Only the operator runs it; it changes nothing but main.cf.
func Script(topics []audit.Topic, p Postfix) string {
	var settings, others []fixLine
	for _, t := range topics {
		for _, f := range t.Findings {
			if f.Grade != audit.Fail && f.Grade != audit.Warn {
				continue
			}
			if p.isSetting(f.Fix) {
				settings = addLine(settings, f.Fix, f)
			} else {
				others = addLine(others, "# "+comment(cmp.Or(f.Fix, f.Advice)), f)
			}
		}
	}
	var b strings.Builder
	b.WriteString("#!/bin/sh\n# Made by tlspolicyd doctor --fix. Read it, then run it as root. It changes main.cf only.\nset -e\n")
	if len(settings) == 0 {
		b.WriteString("\n# Nothing in main.cf needs to be changed.\n")
	} else {
		writeLines(&b, settings)
		b.WriteString("\n" + p.reload() + "\n")
	}
	if len(others) > 0 {
		b.WriteString("\n# What is not in main.cf, for you to do:\n")
		writeLines(&b, others)
	}
	return b.String()
}

// fixLine is a line and the findings that it fixes.
type fixLine struct {
	line  string
	about []audit.Finding
}

func addLine(list []fixLine, line string, f audit.Finding) []fixLine {
	i := slices.IndexFunc(list, func(l fixLine) bool { return l.line == line })
	if i < 0 {
		return append(list, fixLine{line, []audit.Finding{f}})
	}
	list[i].about = append(list[i].about, f)
	return list
}

func writeLines(b *strings.Builder, list []fixLine) {
	for _, l := range list {
		b.WriteByte('\n')
		for _, f := range l.about {
			text := f.Text
			if f.Subject != "" {
				text = f.Subject + ": " + text
			}
			fmt.Fprintf(b, "# %s %s: %s\n", f.Grade, f.Code, comment(text))
			if f.Evidence != "" {
				fmt.Fprintf(b, "#   seen: %s\n", comment(f.Evidence))
			}
		}
		b.WriteString(l.line + "\n")
	}
}

func (p Postfix) reload() string { return p.command("postfix", "reload") }

// comment keeps a text on the one line of its comment.
func comment(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}
