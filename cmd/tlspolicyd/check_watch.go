package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"tlspolicyd/cmd/tlspolicyd/internal/audit"
	"tlspolicyd/cmd/tlspolicyd/internal/audit/check"
)

// watch repeats until it is told to end, and prints changes only.
func (c *checking) watch(ctx context.Context, interval time.Duration) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	return c.repeat(ctx, interval)
}

// repeat looks every interval until ctx ends. What was looked at half when it
// ends is dropped.
func (c *checking) repeat(ctx context.Context, interval time.Duration) error {
	var before []watched
	status := audit.OK
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		reports, _ := c.round(ctx, func(check.Report) error { return nil })
		if ctx.Err() != nil {
			return gradeStatus(status)
		}
		var err error
		if before == nil {
			err = c.writeFirst(reports)
			before = make([]watched, len(reports))
		} else {
			err = c.writeChanges(before, reports)
		}
		if err != nil {
			return outputError(err)
		}
		for i, r := range reports {
			before[i].update(r)
		}
		status = worstOf(reports)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return gradeStatus(status)
		}
	}
}

// watched is what is known of a domain from the looks before.
type watched struct {
	seen []audit.Finding // at the last look that saw anything
	dark bool            // the last look saw nothing: what was known before is kept
}

// watchKey is what makes a finding another one. Evidence is not in it: days
// left and digests change without anything having happened.
type watchKey struct{ code, subject, text string }

func keyOf(f audit.Finding) watchKey { return watchKey{f.Code, f.Subject, f.Text} }

func (w *watched) update(r check.Report) {
	if w.dark = nothingSeen(r); w.dark && w.seen != nil {
		return
	}
	w.seen = []audit.Finding{}
	for _, t := range r.Topics {
		w.seen = append(w.seen, t.Findings...)
	}
}

// nothingSeen reports whether a look told of this host only.
func nothingSeen(r check.Report) bool {
	return len(r.Topics) == 1 && len(r.Topics[0].Findings) == 1 && darkCode(r.Topics[0].Findings[0].Code)
}

// darkCode is the code of a look that could tell nothing of any domain.
func darkCode(code string) bool { return code == check.CodeDNSDown || code == check.CodeDNSIsolated }

// change is one line of what changed.
type change struct {
	gone bool
	audit.Finding
}

// changes compares a report with what was known. What is new is told whatever
// its grade, what is gone only if it was not as it should be.
func (w *watched) changes(r check.Report) (list []change) {
	if nothingSeen(r) {
		if !w.dark {
			list = append(list, change{Finding: r.Topics[0].Findings[0]})
		}
		return list
	}
	if w.dark {
		list = append(list, change{gone: true, Finding: audit.Finding{
			Code: check.CodeDNSDown, Grade: audit.Unknown, Text: "This host gets answers from DNS again.",
		}})
	}
	before, now := map[watchKey]audit.Grade{}, map[watchKey]bool{}
	for _, f := range w.seen {
		before[keyOf(f)] = f.Grade
	}
	for _, t := range r.Topics {
		for _, f := range t.Findings {
			now[keyOf(f)] = true
			if before[keyOf(f)] != f.Grade {
				list = append(list, change{Finding: f})
			}
		}
	}
	for _, f := range w.seen {
		if !now[keyOf(f)] && f.Grade != audit.OK && !darkCode(f.Code) {
			list = append(list, change{gone: true, Finding: f})
		}
	}
	return list
}

func (c *checking) writeFirst(reports []check.Report) error {
	for _, r := range reports {
		write := c.writeText
		if c.json {
			write = c.writeJSON
		}
		if err := write(r); err != nil {
			return err
		}
	}
	if !c.json && len(reports) > 1 {
		return c.writeTable(reports)
	}
	return nil
}

// writeChanges prints a line for each change; with --json the whole object of
// each domain that has any.
func (c *checking) writeChanges(before []watched, reports []check.Report) error {
	var b strings.Builder
	for i, r := range reports {
		list := before[i].changes(r)
		if c.json && len(list) > 0 {
			if err := c.writeJSON(r); err != nil {
				return err
			}
			continue
		}
		for _, ch := range list {
			mark := map[audit.Grade]string{audit.OK: "ok", audit.Warn: "warn", audit.Fail: "FAIL", audit.Unknown: "?"}[ch.Grade]
			if ch.gone {
				mark = "gone"
			}
			text := ch.Text
			if ch.Subject != "" {
				text = ch.Subject + ": " + text
			}
			fmt.Fprintf(&b, "%s  %s  %-4s  %s (%s)\n", r.At.Format(time.RFC3339), r.Domain, mark, text, ch.Code)
		}
	}
	_, err := fmt.Fprint(c.out, b.String())
	return err
}
