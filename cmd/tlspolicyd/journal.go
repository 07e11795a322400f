package main

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"
	"tlspolicyd/policymap/policy"

	"tlspolicyd/cmd/tlspolicyd/internal/logging"
	"tlspolicyd/internal/defect"
	"tlspolicyd/internal/mtasts"
	"tlspolicyd/policymap"
	"tlspolicyd/socketmap"
)

// journal tells the operator what the map learns (docs/operations.md): one line
// for each fresh resolution and each change of a policy, and of failures no more
// than anybody wants to read. Every line about a domain has it in the attribute
// "domain". The logger behind it never blocks.
type journal struct {
	log      *slog.Logger
	failures *logging.Repeats
}

func newJournal(log *slog.Logger) *journal {
	return &journal{log: log, failures: logging.NewRepeats(log)}
}

// close tells of the failures that were only counted so far.
func (j *journal) close() { j.failures.Close() }

// Answered says nothing: see verbose.
func (j *journal) Answered(bool, policy.Level, policymap.Origin) {}

// Resolved tells of a fresh resolution, at warn where DNS failed.
func (j *journal) Resolved(r policymap.Resolution) {
	attrs := append(domainAttrs(r.Key), slog.String("answer", answerOf(r.Reply)))
	// A policy that cannot be told to Postfix ends in TEMP as well.
	waits := strings.HasPrefix(r.Reply, "TEMP ")
	reason := r.Decision.Reason
	if waits && reason == "" {
		reason = strings.TrimPrefix(r.Reply, "TEMP ")
	}
	if reason != "" {
		attrs = append(attrs, slog.String("reason", reason))
	}
	// Why there is no policy in force says it all: it need not be absent.
	sts := cmp.Or(r.STSWhy, r.STS.String())
	attrs = append(attrs, slog.String("row", string(r.Decision.Row)), slog.String("why", r.Decision.Why),
		slog.String("mta_sts", sts), slog.Duration("took", brief(r.Took)))

	message := ""
	switch {
	case waits:
		message = "not resolved, mail waits"
	case r.Decision.Stale:
		message = "not resolved, answered as last known"
	default:
		j.log.LogAttrs(context.Background(), slog.LevelInfo, "resolved", attrs...)
		return
	}
	j.failures.Tell(logging.Failure{
		Level: slog.LevelWarn, Message: message, Cause: reason, Subject: r.Key, Attrs: attrs,
	})
}

// Changed tells of a policy that is not what it was.
func (j *journal) Changed(c policy.Change) {
	level, message := slog.LevelInfo, "policy changed"
	if c.Weaker {
		level, message = slog.LevelWarn, "policy got weaker"
	}
	j.log.LogAttrs(context.Background(), level, message, append(domainAttrs(c.Key),
		slog.String("what", c.What), slog.String("old", c.Old), slog.String("new", c.New))...)
}

// Fetched tells of policy hosts that fail; successes are part of Resolved.
func (j *journal) Fetched(domain string, background bool, took time.Duration, err error) {
	attrs := []slog.Attr{slog.String("domain", domain)}
	after := []slog.Attr{slog.Bool("background", background), slog.Duration("took", brief(took))}
	if err == nil {
		j.log.LogAttrs(context.Background(), slog.LevelDebug, "policy fetched", append(attrs, after...)...)
		return
	}
	cause := err.Error()
	if failed, ok := errors.AsType[*mtasts.FetchError](err); ok {
		cause = string(failed.Stage)
		attrs = append(attrs, slog.String("stage", cause))
	}
	attrs = append(attrs, slog.String("reason", err.Error()))
	j.failures.Tell(logging.Failure{
		Level: slog.LevelWarn, Message: "policy not fetched", Cause: cause, Subject: domain, Attrs: append(attrs, after...),
	})
}

// Refreshed says nothing: what matters of it is Changed, Fetched or StoreFailed.
func (j *journal) Refreshed(string, policymap.Outcome) {}

// StoreFailed tells that what is learned is in memory only.
func (j *journal) StoreFailed(domain string, err error) {
	attrs := []slog.Attr{slog.String("reason", err.Error())}
	if domain != "" {
		attrs = append(attrs, slog.String("domain", domain))
	}
	j.failures.Tell(logging.Failure{
		Level:   slog.LevelError,
		Message: "the database cannot be written: what was learned is in memory only and will be lost with a restart",
		Cause:   err.Error(), Attrs: attrs, // one subject: the domains do not matter
	})
}

// ClockStepped tells that the wall clock was set.
func (j *journal) ClockStepped(by time.Duration) {
	j.log.Warn("the clock was set; stored times were moved along, no policy ended or got longer", "by", by.Round(time.Second))
}

// Panicked tells of a defect of this program.
func (j *journal) Panicked(key string, err *defect.Error) {
	j.failures.Tell(logging.Failure{
		Level: slog.LevelError, Message: "lookup panicked", Cause: err.Text, Subject: key,
		Attrs: append(domainAttrs(key), slog.String("panic", err.Text), slog.String("stack", err.Stack)),
	})
}

var _ policymap.Observer = (*journal)(nil)

// domainAttrs name the policy domain of a next hop, and the next hop where that
// is written differently.
func domainAttrs(key string) []slog.Attr {
	hop, ok := policy.ParseNextHop(key)
	if !ok || hop.Domain == key {
		return append(make([]slog.Attr, 0, 8), slog.String("domain", key))
	}
	return append(make([]slog.Attr, 0, 9), slog.String("domain", hop.Domain), slog.String("next_hop", key))
}

// answerOf is a reply as people read it.
func answerOf(reply string) string {
	return shorten(strings.TrimSpace(strings.TrimPrefix(reply, "OK ")))
}

func shorten(s string) string {
	if len(s) > 200 {
		return s[:200] + "…"
	}
	return s
}

// verbose tells of every lookup at debug, but those of the watchdog. While that
// level is off it costs one comparison.
type verbose struct {
	next socketmap.Handler
	log  *slog.Logger
}

func (v verbose) Lookup(ctx context.Context, name, key []byte) []byte {
	if !v.log.Enabled(ctx, slog.LevelDebug) || string(key) == probeKey {
		return v.next.Lookup(ctx, name, key)
	}
	began := time.Now()
	reply := v.next.Lookup(ctx, name, key)
	v.log.Debug("answered", "map", string(name), "key", string(key), "reply", shorten(strings.TrimSuffix(string(reply), " ")), "took", brief(time.Since(began)))
	return reply
}

// brief leaves about three digits of a duration: more tell nothing.
func brief(d time.Duration) time.Duration {
	for unit := time.Microsecond; unit < time.Second; unit *= 10 {
		if d < 1000*unit {
			return d.Round(unit)
		}
	}
	return d.Round(time.Second)
}
