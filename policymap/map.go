// Package policymap answers Postfix's question which TLS policy to use for a
// next hop (postconf(5), smtp_tls_policy_maps), from a durable cache that it
// keeps fresh by itself.
//
// What a key means, which answer the facts call for and how Postfix reads it is
// package policy. Package records is the only writer of what is known. This
// package connects the two with the network:
//
//   - map.go is the hot path. An answer in memory (cache.go) is given without
//     allocation, lock or disk.
//   - lookup.go looks up what memory and store do not know: DANE and MTA-STS
//     (stslookup.go) side by side; shared.go asks other hosts before a fetch.
//   - refresh.go looks everything up again before it ends.
//   - operate.go and tally.go are for the operator.
package policymap

import (
	"context"
	"fmt"
	"time"

	"tlspolicyd/internal/printable"
	"tlspolicyd/policymap/policy"
	"tlspolicyd/policymap/records"
	"tlspolicyd/share"
	"tlspolicyd/store"
)

// Options are the parts a Map is built from. Store and Config are required; the
// caller closes the store after the map.
type Options struct {
	Store  store.Store
	Config Config

	Fleet       share.Fleet      // hosts that share policies with this one; nil: none do
	Observer    Observer         // nil: events are dropped
	MemorySize  int              // answers kept in memory; 0: 65,536
	MemoryBytes int              // bytes of replies kept in memory; 0: 32 MiB
	Concurrency int              // refreshes at a time; 0: 32
	Wall        func() time.Time // the wall clock; nil: time.Now

	// Client identifies the client of a lookup by its context: at most 512 lookups
	// are under way for each. nil: all are one.
	Client func(context.Context) string
}

// Map answers lookups. It is safe for concurrent use.
type Map struct {
	*lookups
	clock *records.Clock // of the book
}

// New makes a map and starts its refresher.
func New(o Options) *Map {
	c := &core{observer: o.Observer, wake: wake{up: make(chan struct{}, 1)}}
	if c.observer == nil {
		c.observer = Observers(nil)
	}
	if o.Concurrency == 0 {
		o.Concurrency = 32
	}
	if o.MemorySize == 0 {
		o.MemorySize = 65536
	}
	if o.MemoryBytes == 0 {
		o.MemoryBytes = 32 << 20
	}
	if o.Client == nil {
		o.Client = func(context.Context) string { return "" }
	}
	c.cache = newCache(o.MemorySize, o.MemoryBytes)
	cfg := o.Config.withDefaults()
	c.config.Store(&cfg)
	c.ctx, c.cancel = context.WithCancel(context.Background())
	clock := records.NewClock(o.Wall)
	c.book = records.New(c.ctx, o.Store, clock, records.Hooks{
		Schedule:      func(domain string) policy.Schedule { return c.config.Load().schedule(domain) },
		LastUsed:      c.usedInMemory,
		Written:       c.follow,
		Forgotten:     c.forget,
		DropAnswers:   c.cache.clear,
		Due:           c.wake.due,
		ClockStepping: func() { c.noteUse(policy.UsedGrain) }, // while memory still knows
		Changed:       c.observer.Changed,
		StoreFailed:   c.observer.StoreFailed,
		Defect:        c.panicked,
	})
	m := &Map{clock: clock, lookups: &lookups{
		core: c, sts: newSTSLookups(c, o.Fleet), client: o.Client, places: places{clients: make(map[string]*clientPlaces)},
	}}
	r := newRefresher(m.lookups, o.Concurrency)
	m.start(r.run)
	if o.Fleet != nil {
		m.start(m.sts.watch)
	}
	return m
}

// Reconfigure changes the settings; answers follow at once. Lookups under way
// end by the old ones.
func (m *Map) Reconfigure(c Config) {
	cfg := c.withDefaults()
	m.config.Store(&cfg)
	m.cache.clear()
}

// Reread drops the answers in memory; facts stay. It is for when what they are
// read by has changed, as when Resolver found other servers. It does not block.
func (m *Map) Reread() { m.edit(func(*Config) {}) }

// SetOverrides is Reconfigure for the operator's own answers alone.
func (m *Map) SetOverrides(o policy.Overrides) { m.edit(func(c *Config) { c.Overrides = o }) }

func (m *Map) edit(change func(*Config)) {
	for old := m.config.Load(); ; old = m.config.Load() {
		next := *old
		change(&next)
		if m.config.CompareAndSwap(old, &next) {
			break // so that keep drops what was made before
		}
	}
	m.cache.clear()
}

// Close ends background work, waits for it, and writes down what was last
// used. Lookups after Close are answered TEMP.
func (m *Map) Close() {
	m.close()
	m.noteUse(0)
	m.book.Flush()
}

// mapKind is one of the two maps that Postfix can name.
type mapKind uint8

const (
	mapUnknown mapKind = iota
	mapPostfix
	mapTLSRPT
)

// kindOf knows our names and those of postfix-tlspol, so that an admin who
// migrates changes an address only.
func kindOf(name []byte) mapKind {
	switch string(name) {
	case "postfix", "QUERY":
		return mapPostfix
	case "postfix-tlsrpt", "QUERYwithTLSRPT":
		return mapTLSRPT
	}
	return mapUnknown
}

// of returns the reply for a map.
func (k mapKind) of(r *policy.Replies) []byte {
	if k == mapTLSRPT {
		return r.TLSRPT
	}
	return r.Postfix
}

// Lookup answers one socketmap request. A cached answer is given without
// allocation, lock or disk. The result must not be changed.
func (m *Map) Lookup(ctx context.Context, name, key []byte) []byte {
	kind := kindOf(name)
	if kind == mapUnknown {
		return fmt.Appendf(nil, "PERM unknown map %s: use postfix or postfix-tlsrpt", printable.Quote(name, 64))
	}
	if len(key) > 0 && key[0] == '.' {
		// Postfix walks up to the parents; their policies never cover a child
		// (8461 §3.4).
		return m.notLookedUp(kind)
	}
	var buf [264]byte // a domain, brackets and a port
	if len(key) <= len(buf) {
		if e := m.cache.get(fold(&buf, key)); e != nil {
			if reply := m.hit(kind, e); reply != nil {
				return reply
			}
		}
	}
	return m.miss(ctx, kind, string(key))
}

// fold copies the key in lower case.
func fold(buf *[264]byte, key []byte) []byte {
	n := copy(buf[:], key)
	for i, c := range buf[:n] {
		if c >= 'A' && c <= 'Z' {
			buf[i] = c + 'a' - 'A'
		}
	}
	return buf[:n]
}

// hit answers from memory, or returns nil when the answer is too old.
func (m *Map) hit(kind mapKind, e *entry) []byte {
	now := m.clock.Now()
	if !now.Before(e.answer.Until) {
		return nil
	}
	e.touch(now)
	if next := e.next.Load(); next != 0 && now.UnixNano() > next && e.checking.CompareAndSwap(false, true) {
		m.recheck(e)
	}
	m.observer.Answered(kind == mapTLSRPT, e.level, e.origin)
	return kind.of(&e.answer.Replies)
}

// notLookedUp answers a key about which nothing can be known.
func (m *Map) notLookedUp(kind mapKind) []byte {
	m.observer.Answered(kind == mapTLSRPT, policy.NoPolicy, Static)
	return kind.of(&policy.NotFound)
}

// miss answers what memory does not know in this form.
func (m *Map) miss(ctx context.Context, kind mapKind, key string) []byte {
	hop, ok := policy.ParseNextHop(key)
	if e := m.override(key, hop); e != nil {
		m.observer.Answered(kind == mapTLSRPT, e.answer.Decision.Level, Static)
		return kind.of(&e.answer.Replies)
	}
	if !ok {
		return m.notLookedUp(kind)
	}
	if e := m.cache.getString(hop.String()); e != nil {
		if reply := m.hit(kind, e); reply != nil {
			return reply
		}
	}
	if e := m.stored(hop); e != nil {
		if reply := m.hit(kind, e); reply != nil {
			return reply
		}
	}
	e := m.await(ctx, hop)
	origin := Cold
	if e.answer.Decision.Stale {
		origin = Stale
	}
	m.observer.Answered(kind == mapTLSRPT, e.answer.Decision.Level, origin)
	return kind.of(&e.answer.Replies)
}

// override answers a key by the operator's override, or returns nil.
func (m *Map) override(key string, hop policy.NextHop) *entry {
	cfg := m.config.Load()
	line, ok := cfg.Overrides.For(key, hop)
	if !ok {
		return nil
	}
	now := m.clock.Now()
	e := &entry{hop: hop, answer: policy.OverrideAnswer(hop, line, now)}
	if hop.Domain != "" {
		e.lastUsed.Store(now.Unix())
		m.keep(e, cfg)
	}
	return e
}
