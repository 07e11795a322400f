package policymap

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"tlspolicyd/internal/defect"
	"tlspolicyd/policymap/policy"
	"tlspolicyd/policymap/records"
	"tlspolicyd/store"
)

// core is what all parts of a map work with: settings, records, answers in
// memory, and the count of what runs in the background.
type core struct {
	observer Observer
	config   atomic.Pointer[Config]
	book     *records.Book
	cache    *cache
	wake     wake // the refresher

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	mu     sync.Mutex
	closed bool
	work   sync.WaitGroup // flights and background lookups
}

// start runs fn in the background unless the map is closed.
func (c *core) start(fn func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.work.Go(fn)
	return true
}

// during runs fn as work that Close waits for, unless the map is closed.
func (c *core) during(fn func()) bool {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return false
	}
	c.work.Add(1)
	c.mu.Unlock()
	defer c.work.Done()
	growStack()
	fn()
	return true
}

// growStack has the stack of a new goroutine grow once, while there is little on it.
// It begins with 2 KiB, of which a lookup needs three times as much, and is doubled
// as often as needed by moving all frames.
//
//go:noinline
func growStack() byte {
	var room [6 << 10]byte
	return room[len(noText)]
}

var noText string // a constant would leave no room

// close ends background work and waits for it.
func (c *core) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel()
	c.work.Wait()
}

// panicked reports what work on a key recovered from, and returns it as an error.
func (c *core) panicked(key string, recovered any) error {
	err := defect.From(recovered)
	c.observer.Panicked(key, err)
	return err
}

// guard runs work on what is known of a domain. A defect that it meets is
// reported and returned, and the work on other domains goes on.
func (c *core) guard(domain string, work func()) (met error) {
	defer func() {
		if r := recover(); r != nil {
			met = c.panicked(domain, r)
		}
	}()
	work()
	return nil
}

// view reads a record for one next hop.
func (c *core) view(cfg *Config, rec *store.Record, hop policy.NextHop, now time.Time) policy.View {
	return policy.Look(rec, policy.ReadSTS(rec.STS, now), hop, cfg.trusted(), now)
}

// keep puts an answer into memory, unless the settings it was made by have gone.
func (c *core) keep(e *entry, cfg *Config) {
	key := e.hop.String()
	c.cache.put(key, e)
	if c.config.Load() != cfg {
		c.cache.remove(key)
	}
}

// follow makes the answers in memory that rest on a record anew. The domain is
// locked.
func (c *core) follow(rec *store.Record, sts policy.STSFacts, now time.Time) {
	cfg := c.config.Load()
	for _, old := range c.cache.ofDomain(rec.Domain) {
		if old.answer.Decision.Row == policy.RowOverride {
			continue
		}
		v := policy.Look(rec, sts, old.hop, cfg.trusted(), now)
		switch answer, changed := next(v, old, cfg.Settings); {
		case changed:
			e := &entry{hop: old.hop, answer: answer, noted: rec.LastUsed}
			e.lastUsed.Store(old.lastUsed.Load())
			c.keep(e, cfg)
		case v.Fresh && !old.answer.Pending && !v.Enough(cfg.Settings) && old.answer.Decision.Level != policy.Temporary:
			c.cache.remove(old.hop.String()) // its policy has gone: the next lookup asks for a new one
		}
	}
}

// next returns the answer that takes the place of an old one, or false where the
// record says nothing new. An answer that was given while DANE was unknown, or as
// last known, stays so, and no longer.
func next(v policy.View, old *entry, set policy.Settings) (policy.Answer, bool) {
	if v.Enough(set) {
		return v.Answer(set), true
	}
	if !old.answer.Unknown() && !old.answer.Decision.Stale || !v.STS.Known {
		return policy.Answer{}, false
	}
	v.DANE = old.answer.DANE
	a := v.Answer(set)
	a.Until = policy.Earliest(a.Until, old.answer.Until)
	return a, !a.Same(old.answer)
}

// forget drops the answers in memory that rest on the record of a domain.
func (c *core) forget(domain string) {
	for _, e := range c.cache.ofDomain(domain) {
		c.cache.remove(e.hop.String())
	}
}

// usedInMemory is the last lookup of a domain that memory knows of.
func (c *core) usedInMemory(domain string) time.Time {
	var used time.Time
	for _, e := range c.cache.ofDomain(domain) {
		used = policy.Latest(used, e.used())
	}
	return used
}

// noteUse writes down when domains were last asked for, where the record is
// behind by more than grain.
func (c *core) noteUse(grain time.Duration) {
	c.cache.each(func(e *entry) {
		if e.answer.Decision.Row == policy.RowOverride || e.used().Sub(e.noted) <= grain {
			return
		}
		_ = c.guard(e.hop.Domain, func() { _ = c.book.Learn(e.hop.Domain, e.used(), records.Soon, nil) })
	})
}

// wake wakes the refresher when something is due before it meant to look.
type wake struct {
	up    chan struct{}
	until atomic.Int64 // when it means to look, Unix nanoseconds of the book's clock
}

func (w *wake) due(t time.Time) {
	if t.UnixNano() < w.until.Load() {
		select {
		case w.up <- struct{}{}:
		default:
		}
	}
}
