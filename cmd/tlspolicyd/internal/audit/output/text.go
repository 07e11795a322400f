// Package output writes the findings of audits: as text for people, as JSON, for
// Nagios and for Prometheus. check and doctor have it in common.
package output

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"tlspolicyd/cmd/tlspolicyd/internal/audit"
	"tlspolicyd/cmd/tlspolicyd/internal/audit/check"
	"tlspolicyd/internal/printable"
)

// marks have one width, so that what follows is in a column.
func marks() map[audit.Grade]string {
	return map[audit.Grade]string{audit.OK: "ok  ", audit.Warn: "warn", audit.Fail: "FAIL", audit.Unknown: "?   "}
}

const (
	colourOff = "\x1b[0m"
	indent    = "        " // under the sentence
	maxWidth  = 98
)

func colour(g audit.Grade) string {
	return map[audit.Grade]string{audit.OK: "\x1b[32m", audit.Warn: "\x1b[33m", audit.Fail: "\x1b[1;31m", audit.Unknown: "\x1b[36m"}[g]
}

// Text writes findings for people.
type Text struct {
	Colour bool // for a terminal
	Width  int  // columns to wrap at; 0: 98
}

// TextFor is how findings are written to an output: with colour and the width of
// the terminal where it is one.
func TextFor(out io.Writer) Text {
	file, ok := out.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return Text{}
	}
	t := Text{Colour: os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
	if width, _, err := term.GetSize(int(file.Fd())); err == nil && width >= 40 {
		t.Width = min(width, maxWidth)
	}
	return t
}

// Write writes a block for each topic that has findings: a mark and a sentence
// for each, and under it what shows it and what to do.
func (t Text) Write(out io.Writer, topics []audit.Topic) error {
	var b strings.Builder
	for _, topic := range topics {
		if len(topic.Findings) == 0 {
			continue
		}
		fmt.Fprintf(&b, "%s\n", topic.Name)
		for _, f := range topic.Findings {
			t.finding(&b, f)
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(out, b.String())
	return err
}

func (t Text) finding(b *strings.Builder, f audit.Finding) {
	mark := marks()[f.Grade]
	if t.Colour {
		mark = colour(f.Grade) + mark + colourOff
	}
	t.Wrap(b, "  "+mark+"  ", sentence(f))
	if f.Evidence != "" {
		t.Wrap(b, indent, "seen: "+f.Evidence)
	}
	if f.Advice != "" {
		t.Wrap(b, indent, "→ "+f.Advice)
	}
	if f.Fix != "" {
		fmt.Fprintf(b, "%s    %s\n", indent, f.Fix) // whole, so that it can be copied
	}
}

// sentence is the text of a finding, with what it is about.
func sentence(f audit.Finding) string {
	if f.Subject == "" {
		return f.Text
	}
	return f.Subject + ": " + f.Text
}

// Wrap writes a text after a lead, its further lines under the sentence.
func (t Text) Wrap(b *strings.Builder, lead, text string) {
	width := t.Width
	if width == 0 {
		width = maxWidth
	}
	b.WriteString(lead)
	column := len(indent)
	for i, word := range strings.Fields(text) {
		n := len([]rune(word))
		switch {
		case i == 0:
		case column+1+n > width:
			b.WriteString("\n" + indent)
			column = len(indent)
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += n
	}
	b.WriteByte('\n')
}

// Change writes a line for a finding of a domain that is new, or gone.
func Change(out io.Writer, at time.Time, domain string, f audit.Finding, gone bool) error {
	mark := marks()[f.Grade]
	if gone {
		mark = "gone"
	}
	_, err := fmt.Fprintf(out, "%s  %s  %s  %s (%s)\n", at.Format(time.RFC3339), domain, mark, sentence(f), f.Code)
	return err
}

// Problems leaves out what is ok.
func Problems(topics []audit.Topic) (some []audit.Topic) {
	for _, t := range topics {
		kept := audit.Topic{Name: t.Name}
		for _, f := range t.Findings {
			if f.Grade != audit.OK {
				kept.Findings = append(kept.Findings, f)
			}
		}
		if len(kept.Findings) > 0 {
			some = append(some, kept)
		}
	}
	return some
}

// Summary counts the problems in a few words.
func Summary(topics []audit.Topic) string {
	n := counts(topics)
	var parts []string
	for _, p := range []struct {
		count     int
		one, many string
	}{
		{n[audit.Fail], "failure", "failures"}, {n[audit.Unknown], "unknown", "unknown"}, {n[audit.Warn], "warning", "warnings"},
	} {
		switch {
		case p.count == 1:
			parts = append(parts, "1 "+p.one)
		case p.count > 1:
			parts = append(parts, fmt.Sprintf("%d %s", p.count, p.many))
		}
	}
	if len(parts) == 0 {
		return "all well"
	}
	return strings.Join(parts, ", ")
}

func counts(topics []audit.Topic) map[audit.Grade]int {
	n := map[audit.Grade]int{}
	for _, t := range topics {
		for _, f := range t.Findings {
			n[f.Grade]++
		}
	}
	return n
}

// worst is the first of the worst findings.
func worst(topics []audit.Topic) (f audit.Finding, found bool) {
	grade := audit.Worst(topics)
	for _, t := range Problems(topics) {
		for _, f := range t.Findings {
			if f.Grade == grade {
				return f, true
			}
		}
	}
	return f, false
}

// Table writes a line for each domain.
func Table(out io.Writer, reports []check.Report) error {
	wide := len("DOMAIN")
	for _, r := range reports {
		wide = max(wide, len(r.Domain))
	}
	format := fmt.Sprintf("%%-%ds  %%-7s  %%-8s %%-12s %%-8s %%10s  %%s\n", min(wide, 40))
	var b strings.Builder
	fmt.Fprintf(&b, format, "DOMAIN", "RESULT", "MTA-STS", "DANE", "TLSRPT", "CERT DAYS", "FIRST PROBLEM")
	for _, r := range reports {
		days, first := "-", ""
		if left, ok := r.FewestDays(); ok {
			days = fmt.Sprint(left)
		}
		if f, found := worst(r.Topics); found {
			first = strings.TrimSuffix(f.Code+": "+f.Subject, ": ")
		}
		line := fmt.Sprintf(format, r.Domain, strings.TrimSpace(marks()[r.Grade]), r.MTASTS, r.DANE, r.TLSRPT, days, first)
		b.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// JSON writes a value in ASCII: on a line of its own, or indented for people who
// read it too.
func JSON(out io.Writer, v any, indented bool) error {
	e := json.NewEncoder(printable.JSON(out))
	e.SetEscapeHTML(false)
	if indented {
		e.SetIndent("", "  ")
	}
	return e.Encode(v)
}
