package logging

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	"tlspolicyd/internal/defect"
	"tlspolicyd/internal/mtasts"
	"tlspolicyd/internal/tlsrpt"
	"tlspolicyd/policymap"
	"tlspolicyd/policymap/policy"
	"tlspolicyd/socketmap"
)

// Observer logs what the map learns (docs/operations.md): one line for each fresh
// resolution and each change of a policy, and a bounded number about failures.
// Every line about a domain has it in the attribute "domain". The logger behind
// it must not block.
type Observer struct {
	log      *slog.Logger
	failures *repeats
}

// NewObserver returns an Observer that writes to a log. It must be closed.
func NewObserver(log *slog.Logger) *Observer {
	return &Observer{log: log, failures: newRepeats(log)}
}

// Close logs the failures that were only counted so far.
func (j *Observer) Close() { j.failures.close() }

// Answered logs nothing: see Lookups.
func (j *Observer) Answered(bool, policy.Level, policymap.Origin) {}

// Resolved logs a fresh resolution, at warn where DNS failed.
func (j *Observer) Resolved(r policymap.Resolution) {
	attrs := append(domainAttrs(r.Key), slog.String("answer", answerOf(r.Reply)))
	// A policy that cannot be written for Postfix ends in TEMP as well.
	waits := strings.HasPrefix(r.Reply, "TEMP ")
	reason := r.Decision.Reason
	if waits && reason == "" {
		reason = strings.TrimPrefix(r.Reply, "TEMP ")
	}
	if reason != "" {
		attrs = append(attrs, slog.String("reason", reason))
	}
	// The reason says more than the state: a policy need not be absent to be out of force.
	sts := cmp.Or(r.STSWhy, r.STS.String())
	attrs = append(attrs, slog.String("row", string(r.Decision.Row)), slog.String("why", r.Decision.Why),
		slog.String("mta_sts", sts), slog.Duration("took", brief(r.Took)))

	message := ""
	switch {
	case waits:
		message = "not resolved, mail is deferred"
	case r.Decision.Stale:
		message = "not resolved, answered from the last known facts"
	default:
		j.log.LogAttrs(context.Background(), slog.LevelInfo, "resolved", attrs...)
		return
	}
	j.failures.add(failure{
		Level: slog.LevelWarn, Message: message, Cause: reason, Subject: r.Key, Attrs: attrs,
	})
}

// Changed logs a policy that is not what it was.
func (j *Observer) Changed(c policy.Change) {
	level, message := slog.LevelInfo, "policy changed"
	if c.Weaker {
		level, message = slog.LevelWarn, "policy got weaker"
	}
	j.log.LogAttrs(context.Background(), level, message, append(domainAttrs(c.Key),
		slog.String("what", c.What), slog.String("old", c.Old), slog.String("new", c.New))...)
}

// Fetched logs policy hosts that fail; successes are part of Resolved.
func (j *Observer) Fetched(f policymap.Fetch) {
	attrs := []slog.Attr{slog.String("domain", f.Domain)}
	after := []slog.Attr{slog.Bool("background", f.Background), slog.Duration("took", brief(f.Took))}
	if f.Err == nil {
		j.log.LogAttrs(context.Background(), slog.LevelDebug, "policy fetched", append(attrs, after...)...)
		return
	}
	cause := f.Err.Error()
	if failed, ok := errors.AsType[*mtasts.FetchError](f.Err); ok {
		cause = string(failed.Stage)
		attrs = append(attrs, slog.String("stage", cause))
	}
	attrs = append(attrs, slog.String("reason", f.Err.Error()))
	j.failures.add(failure{
		Level: slog.LevelWarn, Message: "policy not fetched", Cause: cause, Subject: f.Domain, Attrs: append(attrs, after...),
	})
}

// Reported logs what became of the report of a failed fetch; err is nil for
// tlsrpt.Sent.
func (j *Observer) Reported(domain string, what tlsrpt.Outcome, err error) {
	attrs := []slog.Attr{slog.String("domain", domain)}
	if err == nil {
		j.log.LogAttrs(context.Background(), slog.LevelDebug, "failed fetch reported to the TLSRPT collector", attrs...)
		return
	}
	j.failures.add(failure{
		Level: slog.LevelWarn, Message: "failed fetch not reported to the TLSRPT collector", Cause: string(what), Subject: domain,
		Attrs: append(attrs, slog.String("result", string(what)), slog.String("reason", err.Error())),
	})
}

// Refreshed logs nothing: what matters of it is Changed, Fetched or StoreFailed.
func (j *Observer) Refreshed(string, policymap.Outcome) {}

// StoreFailed logs that what is learned is in memory only.
func (j *Observer) StoreFailed(domain string, err error) {
	attrs := []slog.Attr{slog.String("reason", err.Error())}
	if domain != "" {
		attrs = append(attrs, slog.String("domain", domain))
	}
	j.failures.add(failure{
		Level:   slog.LevelError,
		Message: "the database cannot be written: what was learned is in memory only and will be lost with a restart",
		Cause:   err.Error(), Attrs: attrs, // one subject: the domains do not matter
	})
}

// ClockStepped logs that the wall clock was set.
func (j *Observer) ClockStepped(by time.Duration) {
	j.log.Warn("the clock was set; stored times were adjusted, no policy was shortened or prolonged", "by", by.Round(time.Second))
}

// Panicked logs a defect of this program.
func (j *Observer) Panicked(key string, err *defect.Error) {
	j.failures.add(failure{
		Level: slog.LevelError, Message: "lookup panicked", Cause: err.Text, Subject: key,
		Attrs: append(domainAttrs(key), slog.String("panic", err.Text), slog.String("stack", err.Stack)),
	})
}

var _ policymap.Observer = (*Observer)(nil)

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

// Lookups is a handler that logs every lookup at debug, but those of one key, that
// of the watchdog. While that level is off it costs one comparison.
type Lookups struct {
	Next   socketmap.Handler
	Log    *slog.Logger
	Except string
}

// Lookup implements socketmap.Handler.
func (l Lookups) Lookup(ctx context.Context, name, key []byte) []byte {
	if !l.Log.Enabled(ctx, slog.LevelDebug) || string(key) == l.Except {
		return l.Next.Lookup(ctx, name, key)
	}
	began := time.Now()
	reply := l.Next.Lookup(ctx, name, key)
	l.Log.Debug("answered", "map", string(name), "key", string(key), "reply", shorten(strings.TrimSuffix(string(reply), " ")), "took", brief(time.Since(began)))
	return reply
}

// brief rounds a duration to about three digits.
func brief(d time.Duration) time.Duration {
	for unit := time.Microsecond; unit < time.Second; unit *= 10 {
		if d < 1000*unit {
			return d.Round(unit)
		}
	}
	return d.Round(time.Second)
}
