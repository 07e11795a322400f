package main

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"tlspolicyd/policymap"
	"tlspolicyd/socketmap"
)

// journal tells the operator what the map learns: one line for each fresh
// resolution and each change of a policy. The logger behind it never blocks.
type journal struct {
	log *slog.Logger

	storeFailed atomic.Int64 // Unix seconds of the last line about it
}

// Answered says nothing: a line for every lookup would cost more than the
// lookup.
func (j *journal) Answered(bool, policymap.Level, policymap.Origin) {}

// Resolved tells of a fresh resolution, at warn where mail is held back.
func (j *journal) Resolved(r policymap.Resolution) {
	level := slog.LevelInfo
	if r.Decision.Level == policymap.Temporary || r.Decision.Stale {
		level = slog.LevelWarn
	}
	sts := r.STS.String()
	if r.STSWhy != "" {
		sts += ": " + r.STSWhy
	}
	j.log.Log(context.Background(), level, "resolved", "next_hop", r.Key, "reply", shorten(r.Reply),
		"row", string(r.Decision.Row), "why", r.Decision.Why, "mta_sts", sts, "took", r.Took.Round(time.Microsecond))
}

// Changed tells of a policy that is not what it was.
func (j *journal) Changed(c policymap.Change) {
	if c.Weaker {
		j.log.Warn("policy got weaker", "of", c.Key, "what", c.What, "old", c.Old, "new", c.New)
		return
	}
	j.log.Info("policy changed", "of", c.Key, "what", c.What, "old", c.Old, "new", c.New)
}

// Fetched tells of policy hosts that fail; successes are part of Resolved.
func (j *journal) Fetched(domain string, background bool, took time.Duration, err error) {
	if err != nil {
		j.log.Warn("policy not fetched", "domain", domain, "reason", err, "background", background, "took", took.Round(time.Millisecond))
		return
	}
	j.log.Debug("policy fetched", "domain", domain, "background", background, "took", took.Round(time.Millisecond))
}

// StoreFailed tells once a minute that what is learned is in memory only.
func (j *journal) StoreFailed(domain string, err error) {
	now := time.Now().Unix()
	last := j.storeFailed.Load()
	if now-last < 60 || !j.storeFailed.CompareAndSwap(last, now) {
		return
	}
	j.log.Error("what was learned is in memory only and will be lost with a restart: the database cannot be written",
		"reason", err, "domain", domain)
}

// ClockStepped tells that the wall clock was set.
func (j *journal) ClockStepped(by time.Duration) {
	j.log.Warn("the clock was set; stored times were moved along, no policy ended or got longer", "by", by.Round(time.Second))
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
	v.log.Debug("answered", "map", string(name), "key", string(key), "reply", shorten(string(reply)), "took", brief(time.Since(began)))
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
