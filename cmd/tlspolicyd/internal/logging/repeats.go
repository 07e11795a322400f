package logging

import (
	"context"
	"hash/maphash"
	"log/slog"
	"strings"
	"sync"
	"time"
)

const (
	detailed    = 5                // lines about one cause in each period
	firstPeriod = time.Minute      // until the first summary; each period is twice as long as the one before
	longPeriod  = 10 * time.Minute // but no longer than this
	forgetAfter = time.Hour        // without such a failure it counts as a new one again
	maxCauses   = 64               // distinguished at a time
	maxSubjects = 4096             // distinguished for each cause
)

// repeats writes lines about failures so that nothing that goes on and on fills
// the log: neither one domain that fails again and again nor one outage that
// affects thousands of them. Of each cause the first few subjects get a line
// each. The other failures are counted and reported in one line at the end of
// the period: how often, since when, and the last one in full.
type repeats struct {
	log  *slog.Logger
	seed maphash.Seed

	mu     sync.Mutex
	causes map[string]*cause
	closed bool
}

// failure is something that went wrong.
type failure struct {
	Level   slog.Level
	Message string // what failed; the same for all failures of a kind
	Cause   string // why; causes that differ in names and addresses only are the same
	Subject string // what it concerns, as a rule a domain
	Attrs   []slog.Attr
}

// cause is one reason for which something fails.
type cause struct {
	level         slog.Level
	message, text string
	since         time.Time // of the first failure
	seen          time.Time // of the last one

	known map[string]struct{} // subjects that had a line
	left  int                 // lines that are left in this period

	count    int                 // failures without a line in this period
	subjects map[uint64]struct{} // their subjects, hashed
	last     []slog.Attr         // the last of them
	period   time.Duration
	began    time.Time // of the period or, without one, zero
	timer    *time.Timer
	expires  time.Time // when the timer is meant to ring
}

// newRepeats returns a repeats that writes to a log. It must be closed.
func newRepeats(log *slog.Logger) *repeats {
	return &repeats{log: log, seed: maphash.MakeSeed(), causes: make(map[string]*cause)}
}

// add writes a line about a failure, or counts it.
func (r *repeats) add(f failure) {
	if !r.log.Enabled(context.Background(), f.Level) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	now := time.Now()
	c := r.cause(f, now)
	c.seen = now
	if c.began.IsZero() {
		c.began = now
		r.ring(c, c.period)
	}
	if _, known := c.known[f.Subject]; !known && c.left > 0 {
		if len(c.known) >= maxSubjects {
			clear(c.known)
		}
		c.known[f.Subject] = struct{}{}
		c.left--
		r.log.LogAttrs(context.Background(), f.Level, f.Message, f.Attrs...)
		return
	}
	c.count++
	c.last = f.Attrs
	if len(c.subjects) < maxSubjects {
		c.subjects[maphash.String(r.seed, f.Subject)] = struct{}{}
	}
}

// cause finds the cause of a failure. Above maxCauses the rest counts as one.
func (r *repeats) cause(f failure, now time.Time) *cause {
	text := causeOf(f.Cause)
	key := f.Message + "\x00" + text
	if r.causes[key] == nil && len(r.causes) >= maxCauses {
		text = "many"
		key = f.Message + "\x00" + text
	}
	c := r.causes[key]
	if c == nil {
		c = &cause{
			message: f.Message, text: text, since: now, left: detailed, period: firstPeriod,
			known: make(map[string]struct{}), subjects: make(map[uint64]struct{}),
		}
		c.timer = time.AfterFunc(time.Hour, func() { r.ended(key) })
		r.causes[key] = c
	}
	c.level = f.Level
	return c
}

// ring sets the timer of a cause.
func (r *repeats) ring(c *cause, in time.Duration) {
	c.expires = time.Now().Add(in)
	c.timer.Reset(in)
}

// ended ends the period of a cause, or forgets the cause.
func (r *repeats) ended(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.causes[key]
	now := time.Now()
	if c == nil || r.closed || now.Before(c.expires) {
		return // the timer fired while it was being reset
	}
	if c.began.IsZero() {
		delete(r.causes, key)
		return
	}
	again := c.count > 0
	r.sum(c)
	c.left, c.began = detailed, time.Time{}
	if again {
		c.period = min(2*c.period, longPeriod)
		c.began = now
		r.ring(c, c.period)
		return
	}
	r.ring(c, forgetAfter-now.Sub(c.seen))
}

// sum writes the line about what had none.
func (r *repeats) sum(c *cause) {
	if c.count == 0 {
		return
	}
	last := make([]any, len(c.last))
	for i, a := range c.last {
		last[i] = a
	}
	r.log.LogAttrs(context.Background(), c.level, c.message+" (repeated)",
		slog.Int("times", c.count), slog.Int("domains", len(c.subjects)),
		slog.Duration("within", time.Since(c.began).Round(time.Second)),
		slog.String("cause", c.text), slog.Time("since", c.since), slog.Group("last", last...))
	c.count, c.last = 0, nil
	clear(c.subjects)
}

// close logs what was only counted so far. Nothing is logged afterwards.
func (r *repeats) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	for _, c := range r.causes {
		c.timer.Stop()
		r.sum(c)
	}
	clear(r.causes)
}

// causeOf leaves out of a reason what differs from one domain to the next:
// names, addresses, durations, anything with a dot or a colon inside, and what
// is quoted.
func causeOf(reason string) string {
	const most = 200
	var b strings.Builder
	quoted := false
	for word := range strings.FieldsSeq(reason) {
		if b.Len() > most {
			break
		}
		quotes := strings.Count(word, `"`)
		if wasQuoted := quoted; quotes%2 == 1 {
			quoted = !quoted
			if wasQuoted {
				continue // the end of what a star stands for already
			}
		} else if quoted {
			continue
		}
		inner := strings.TrimRight(word, ".,:;)")
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		if quotes > 0 || strings.ContainsAny(inner, ".:") {
			b.WriteByte('*')
			b.WriteString(strings.Trim(word[len(inner):], ".)"))
			continue
		}
		b.WriteString(word)
	}
	return b.String()
}
