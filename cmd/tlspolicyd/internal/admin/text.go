package admin

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"time"

	"tlspolicyd/internal/printable"
)

// This file is what the cache commands show to people.

const rowFormat = "%-32s %-10s %-12s %-8s %-9s %s\n"

// WriteHeading writes the first line of a table of domains.
func WriteHeading(w io.Writer) {
	fmt.Fprintf(w, rowFormat, "NEXT HOP", "POLICY", "DANE", "MTA-STS", "LAST USED", "REFRESH")
}

// WriteRows writes a line for each next hop of a domain.
func (d *Domain) WriteRows(w io.Writer, now time.Time) error {
	used, next := Ago(d.LastUsed, now), Ago(d.NextRefresh, now)
	if len(d.Answers) == 0 {
		_, err := fmt.Fprintf(w, rowFormat, printable.Text(d.Domain), "-", "-", d.MTASTS, used, next)
		return err
	}
	for _, a := range d.Answers {
		dane := a.DANE
		if !a.DANEFresh {
			dane += " (old)"
		}
		if _, err := fmt.Fprintf(w, rowFormat, printable.Text(a.NextHop), a.Policy, dane, d.MTASTS, used, next); err != nil {
			return err
		}
	}
	return nil
}

// WriteText writes a domain and its facts, a line each.
func (d Details) WriteText(w io.Writer, now time.Time) error {
	out := bufio.NewWriter(w)
	line := func(name, format string, args ...any) {
		text := printable.Clean(fmt.Sprintf(format, args...))
		fmt.Fprintln(out, strings.TrimRight(fmt.Sprintf("  %-14s %s", name, text), " "))
	}
	at := func(t time.Time) string {
		if t.IsZero() {
			return "-"
		}
		return fmt.Sprintf("%s (%s)", t.Format(time.RFC3339), Ago(t, now))
	}
	fmt.Fprintln(out, printable.Text(d.Domain.Domain))
	line("last used", "%s", at(d.LastUsed))
	line("next refresh", "%s", at(d.NextRefresh))
	if d.LastError != "" {
		line("last error", "%s", d.LastError)
	}
	d.writeSTS(line, at)
	for i, a := range d.Answers {
		fmt.Fprintf(out, "\nnext hop %s\n", printable.Text(a.NextHop))
		line("policy", "%s", a.Policy)
		line("why", "%s", a.Why)
		line("DANE", "%s", a.DANE)
		if i < len(d.Facts.DANE) {
			if detail := d.Facts.DANE[i].Detail; detail != "" {
				line("", "%s", detail)
			}
			line("learned", "%s", at(d.Facts.DANE[i].KnownAt))
		}
		line("expires", "%s", at(a.DANEExpires))
		line("postfix", "%s", a.Postfix)
		line("postfix-tlsrpt", "%s", a.TLSRPT)
	}
	return out.Flush()
}

func (d Details) writeSTS(line func(string, string, ...any), at func(time.Time) string) {
	state := d.MTASTS
	if d.Why != "" {
		state += ": " + d.Why
	}
	line("MTA-STS", "%s", state)
	s := d.Facts.STS
	if s == nil {
		return
	}
	if s.TXTID != "" {
		line("TXT id", "%s", s.TXTID)
	}
	line("TXT looked up", "%s", at(s.CheckedAt))
	if s.Policy == nil {
		return
	}
	line("fetched", "%s, id %s", at(s.FetchedAt), s.PolicyID)
	if !d.SharedSince.IsZero() {
		line("fetched by", "%s; by other hosts since %s", d.SharedBy, at(d.SharedSince))
	}
	line("expires", "%s", at(d.Expires))
	name := "policy file"
	for _, text := range strings.Split(strings.TrimRight(*s.Policy, "\r\n"), "\n") {
		line(name, "%s", strings.TrimSuffix(text, "\r"))
		name = ""
	}
}

// String is the result for one name, in one line.
func (p Progress) String() string {
	text := p.Policy
	switch {
	case p.Error != "" && p.Policy != "":
		text += " (" + p.Error + ")"
	case p.Error != "":
		text = p.Error
	}
	return printable.Text(p.Name) + ": " + printable.Clean(text)
}

// Ago says how far a time is from now, in one unit.
func Ago(t, now time.Time) string {
	if t.IsZero() {
		return "-"
	}
	if d := t.Sub(now); d > 0 {
		return "in " + inOneUnit(d)
	}
	return inOneUnit(now.Sub(t)) + " ago"
}

func inOneUnit(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dd", d/(24*time.Hour))
}
