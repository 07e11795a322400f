package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"tlspolicyd/cmd/tlspolicyd/internal/audit"
	"tlspolicyd/cmd/tlspolicyd/internal/audit/check"
	"tlspolicyd/cmd/tlspolicyd/internal/audit/output"
)

// watch repeats until it is interrupted, and prints changes only.
func (c *checking) watch(ctx context.Context, interval time.Duration) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	return c.repeat(ctx, interval)
}

// repeat audits every interval until ctx ends. An audit that is cut short is
// dropped.
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
		status = check.Worst(reports)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return gradeStatus(status)
		}
	}
}

// watched is what is known of a domain from the audits before.
type watched struct {
	seen  []audit.Finding // by the last audit that saw anything
	blind bool            // the last audit saw nothing: what was known before is kept
}

// watchKey identifies a finding. Evidence is not in it: days left and digests
// change all the time.
type watchKey struct{ code, subject, text string }

func keyOf(f audit.Finding) watchKey { return watchKey{f.Code, f.Subject, f.Text} }

func (w *watched) update(r check.Report) {
	if w.blind = r.NothingSeen(); w.blind && w.seen != nil {
		return
	}
	w.seen = []audit.Finding{}
	for _, t := range r.Topics {
		w.seen = append(w.seen, t.Findings...)
	}
}

// change is one line of what changed.
type change struct {
	gone bool
	audit.Finding
}

// changes compares a report with what was known. What is new is reported whatever
// its grade, what is gone only if it was a problem.
func (w *watched) changes(r check.Report) (list []change) {
	if r.NothingSeen() {
		if !w.blind {
			list = append(list, change{Finding: r.Topics[0].Findings[0]})
		}
		return list
	}
	if w.blind {
		list = append(list, change{gone: true, Finding: audit.Finding{
			Code: "dns-down", Grade: audit.Unknown, Text: "This host gets answers from DNS again.",
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
		if !now[keyOf(f)] && f.Grade != audit.OK && !check.IsNothingSeen(f.Code) {
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
		return output.Table(c.out, reports)
	}
	return nil
}

// writeChanges prints a line for each change; with --json the whole object of
// each domain that has any.
func (c *checking) writeChanges(before []watched, reports []check.Report) error {
	for i, r := range reports {
		list := before[i].changes(r)
		if c.json && len(list) > 0 {
			if err := c.writeJSON(r); err != nil {
				return err
			}
			continue
		}
		for _, ch := range list {
			if err := output.Change(c.out, r.At, r.Domain, ch.Finding, ch.gone); err != nil {
				return err
			}
		}
	}
	return nil
}
