package doctor

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"tlspolicyd/cmd/tlspolicyd/internal/audit"
)

// Script makes a shell script of what mends main.cf: one postconf line for each
// finding, with the finding above it. What is no setting of main.cf stands in it
// as a comment. Nothing runs it; it changes nothing but main.cf.
func Script(topics []audit.Topic, p Postfix) string {
	var settings, others []mending
	for _, t := range topics {
		for _, f := range t.Findings {
			if f.Grade != audit.Fail && f.Grade != audit.Warn {
				continue
			}
			if strings.HasPrefix(f.Fix, p.postconf("-e ")) {
				settings = addMending(settings, f.Fix, f)
			} else {
				others = addMending(others, "# "+comment(cmp.Or(f.Fix, f.Advice)), f)
			}
		}
	}
	var b strings.Builder
	b.WriteString("#!/bin/sh\n# Made by tlspolicyd doctor --fix. Read it, then run it as root. It changes main.cf only.\nset -e\n")
	if len(settings) == 0 {
		b.WriteString("\n# Nothing in main.cf needs to be changed.\n")
	} else {
		writeMendings(&b, settings)
		b.WriteString("\n" + p.reload() + "\n")
	}
	if len(others) > 0 {
		b.WriteString("\n# What is not in main.cf, for you to do:\n")
		writeMendings(&b, others)
	}
	return b.String()
}

// mending is a line and the findings that it mends.
type mending struct {
	line  string
	about []audit.Finding
}

func addMending(list []mending, line string, f audit.Finding) []mending {
	i := slices.IndexFunc(list, func(m mending) bool { return m.line == line })
	if i < 0 {
		return append(list, mending{line, []audit.Finding{f}})
	}
	list[i].about = append(list[i].about, f)
	return list
}

func writeMendings(b *strings.Builder, list []mending) {
	for _, m := range list {
		b.WriteByte('\n')
		for _, f := range m.about {
			text := f.Text
			if f.Subject != "" {
				text = f.Subject + ": " + text
			}
			fmt.Fprintf(b, "# %s %s: %s\n", f.Grade, f.Code, comment(text))
			if f.Evidence != "" {
				fmt.Fprintf(b, "#   seen: %s\n", comment(f.Evidence))
			}
		}
		b.WriteString(m.line + "\n")
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
