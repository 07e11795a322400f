package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"tlspolicyd/cmd/tlspolicyd/internal/audit"
	"tlspolicyd/cmd/tlspolicyd/internal/audit/check"
)

// checkText is how findings are written to an output.
func checkText(out io.Writer) audit.Text {
	t := audit.Text{}
	if !isTerminal(out) {
		return t
	}
	t.Colour = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	if width, _, err := term.GetSize(int(out.(*os.File).Fd())); err == nil && width >= 40 {
		t.Width = min(width, 98)
	}
	return t
}

// writeText writes the report on one domain: all of it when there is only one,
// else what is not as it should be.
func (c *checking) writeText(r check.Report) error {
	topics := r.Topics
	if nothingSeen(r) && len(c.domains) > 1 {
		if c.toldDark {
			return nil // once is enough, the table has the others
		}
		c.toldDark = true
	}
	if len(c.domains) > 1 && !c.all {
		topics = worthTelling(topics)
		if len(topics) == 0 {
			return nil
		}
	}
	if _, err := fmt.Fprintf(c.out, "== %s: %s\n\n", r.Domain, gradeText(r)); err != nil {
		return err
	}
	return checkText(c.out).Write(c.out, topics)
}

// worthTelling leaves out what is as it should be.
func worthTelling(topics []audit.Topic) (some []audit.Topic) {
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

// gradeText sums a report up in a few words.
func gradeText(r check.Report) string {
	n := gradeCounts(r)
	var parts []string
	for _, p := range []struct {
		count int
		one   string
		many  string
	}{
		{n[audit.Fail], "1 failure", "%d failures"},
		{n[audit.Unknown], "1 thing could not be told", "%d things could not be told"},
		{n[audit.Warn], "1 warning", "%d warnings"},
	} {
		switch {
		case p.count == 1:
			parts = append(parts, p.one)
		case p.count > 1:
			parts = append(parts, fmt.Sprintf(p.many, p.count))
		}
	}
	if len(parts) == 0 {
		return "all well"
	}
	return strings.Join(parts, ", ")
}

func gradeCounts(r check.Report) map[audit.Grade]int {
	n := map[audit.Grade]int{}
	for _, t := range r.Topics {
		for _, f := range t.Findings {
			n[f.Grade]++
		}
	}
	return n
}

// writeTable writes a line for each domain.
func (c *checking) writeTable(reports []check.Report) error {
	wide := len("DOMAIN")
	for _, r := range reports {
		wide = max(wide, len(r.Domain))
	}
	wide = min(wide, 40)
	format := fmt.Sprintf("%%-%ds  %%-7s  %%-8s %%-12s %%-8s %%10s  %%s\n", wide)
	var b strings.Builder
	fmt.Fprintf(&b, format, "DOMAIN", "RESULT", "MTA-STS", "DANE", "TLSRPT", "CERT DAYS", "FIRST OF WHAT IS WRONG")
	for _, r := range reports {
		days := "-"
		if left, ok := fewestDays(r); ok {
			days = fmt.Sprint(left)
		}
		result := map[audit.Grade]string{audit.OK: "ok", audit.Warn: "warn", audit.Fail: "FAIL", audit.Unknown: "?"}[r.Grade]
		line := fmt.Sprintf(format, r.Domain, result, r.MTASTS, r.DANE, r.TLSRPT, days, firstWrong(r))
		b.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	_, err := io.WriteString(c.out, b.String())
	return err
}

// fewestDays is how long the certificate that ends first is good for.
func fewestDays(r check.Report) (days int, ok bool) {
	for _, cert := range r.Certificates {
		if !ok || cert.DaysLeft < days {
			days, ok = cert.DaysLeft, true
		}
	}
	return days, ok
}

// firstWrong names the first of the worst findings.
func firstWrong(r check.Report) string {
	f, ok := worstFinding(r)
	switch {
	case !ok:
		return ""
	case f.Subject != "":
		return f.Code + ": " + f.Subject
	}
	return f.Code
}

func worstFinding(r check.Report) (worst audit.Finding, ok bool) {
	if r.Grade == audit.OK {
		return worst, false
	}
	for _, t := range r.Topics {
		for _, f := range t.Findings {
			if f.Grade == r.Grade {
				return f, true
			}
		}
	}
	return worst, false
}
