// Package policymap turns a next hop into the TLS policy that Postfix is to
// use for it (postconf(5), smtp_tls_policy_maps).
//
// A key is parsed (nexthop.go), answered from memory (cache.go) or from what
// the store knows (facts.go), or else looked up (cold.go): DANE and MTA-STS
// side by side. What was found is kept (learn.go), the decision table
// (decide.go) picks the answer, and render.go writes it in Postfix's words.
// refresh.go repeats all of that before it gets old.
package policymap

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"tlspolicyd/internal/dnsclient"
	"tlspolicyd/internal/mtasts"
	"tlspolicyd/store"
)

// Fetcher gets policy files. *mtasts.Fetcher is the one that asks the network.
type Fetcher interface {
	Fetch(ctx context.Context, domain string) (*mtasts.Fetched, error)
}

// Config is what can change while the map works. Resolver and Fetcher are
// required; other zero fields stand for the defaults named here.
type Config struct {
	Resolver dnsclient.Resolver
	Fetcher  Fetcher

	Settings  Settings
	Overrides Overrides

	FetchWait       time.Duration // how long a first lookup waits for a policy host; 5 s
	RefreshInterval time.Duration // how often a policy is fetched again; 24 h
	UnusedFor       time.Duration // after this without a lookup a domain is left to expire; 30 days
}

func (c Config) withDefaults() Config {
	if c.FetchWait == 0 {
		c.FetchWait = 5 * time.Second
	}
	if c.RefreshInterval == 0 {
		c.RefreshInterval = 24 * time.Hour
	}
	if c.UnusedFor == 0 {
		c.UnusedFor = 30 * 24 * time.Hour
	}
	return c
}

// Options are the parts a Map is built from. Store and Config are required; the
// caller closes the store after the map.
type Options struct {
	Store  store.Store
	Config Config

	Observer    Observer         // nil: nobody is told
	MemorySize  int              // answers kept in memory; 0: 65,536
	Concurrency int              // refreshes at a time; 0: 32
	Wall        func() time.Time // the wall clock; nil: time.Now
}

// Map answers lookups. It is safe for concurrent use.
type Map struct {
	observer    Observer
	ledger      *ledger
	cache       *cache
	clock       *clock
	alarm       alarm
	concurrency int
	config      atomic.Pointer[Config]

	// One flight for each next hop, each DANE evaluation and each policy
	// domain, however many want the same.
	cold, dane singleflight.Group
	looking    map[string]*stsFlight // mu

	// One token for each fetch under way for a lookup, while that waits and
	// when it does not wait any more.
	fetches, lateFetches chan struct{}

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	mu     sync.Mutex
	closed bool
	work   sync.WaitGroup // flights and background looks
}

// New makes a map and starts its refresher.
func New(o Options) *Map {
	m := &Map{
		observer:    o.Observer,
		ledger:      newLedger(o.Store),
		clock:       newClock(o.Wall),
		concurrency: o.Concurrency,
		alarm:       alarm{ring: make(chan struct{}, 1)},
		fetches:     make(chan struct{}, maxFetches),
		lateFetches: make(chan struct{}, maxFetches),
		looking:     make(map[string]*stsFlight),
	}
	if m.observer == nil {
		m.observer = silent{}
	}
	if m.concurrency == 0 {
		m.concurrency = 32
	}
	size := o.MemorySize
	if size == 0 {
		size = 65536
	}
	m.cache = newCache(size)
	cfg := o.Config.withDefaults()
	m.config.Store(&cfg)
	m.ctx, m.cancel = context.WithCancel(context.Background())
	m.start(m.refresher)
	return m
}

// Reconfigure changes the settings; answers follow at once. Lookups under way
// end by the old ones.
func (m *Map) Reconfigure(c Config) {
	cfg := c.withDefaults()
	m.config.Store(&cfg)
	m.cache.clear()
}

// Reread forgets the answers in memory; facts stay. It is for when what they are
// read by has changed, as when Resolver found other servers. It does not block.
func (m *Map) Reread() {
	for old := m.config.Load(); ; old = m.config.Load() {
		same := *old
		if m.config.CompareAndSwap(old, &same) {
			break // so that keep drops what was made before
		}
	}
	m.cache.clear()
}

// keep puts an answer into memory, unless the settings it was made by have gone.
func (m *Map) keep(e *entry, cfg *Config) {
	key := e.hop.String()
	m.cache.put(key, e)
	if m.config.Load() != cfg {
		m.cache.remove(key)
	}
}

// Close ends background work, waits for it, and writes down what was last
// used. Lookups after Close are answered TEMP.
func (m *Map) Close() {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.cancel()
	m.work.Wait()
	m.noteUse(0)
	m.ledger.flush(m.contain)
}

// start runs fn in the background unless the map is closed.
func (m *Map) start(fn func()) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return false
	}
	m.work.Go(fn)
	return true
}

func (m *Map) schedule(domain string) schedule {
	c := m.config.Load()
	return schedule{interval: jitter(domain, c.RefreshInterval), unusedFor: c.UnusedFor}
}

type mapKind uint8

const (
	mapUnknown mapKind = iota
	mapPostfix
	mapTLSRPT
)

// kindOf knows our names and those of postfix-tlspol, so that an admin who
// moves changes an address only.
func kindOf(name []byte) mapKind {
	switch string(name) {
	case "postfix", "QUERY":
		return mapPostfix
	case "postfix-tlsrpt", "QUERYwithTLSRPT":
		return mapTLSRPT
	}
	return mapUnknown
}

// Lookup answers one socketmap request. A cached answer is given without
// allocation, lock or disk. The result must not be changed.
func (m *Map) Lookup(ctx context.Context, name, key []byte) []byte {
	kind := kindOf(name)
	if kind == mapUnknown {
		return fmt.Appendf(nil, "PERM unknown map %q: use postfix or postfix-tlsrpt", printable(string(name), 64))
	}
	if len(key) > 0 && key[0] == '.' {
		// Postfix walks up to the parents; their policies never cover a child
		// (8461 §3.4).
		m.observer.Answered(kind == mapTLSRPT, NoPolicy, Static)
		return notFound.of(kind)
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
	now := m.clock.now()
	if !now.Before(e.until) {
		return nil
	}
	e.touch(now)
	if !e.recheck.IsZero() && now.After(e.recheck) && e.checking.CompareAndSwap(false, true) {
		m.lookAgain(e)
	}
	m.observer.Answered(kind == mapTLSRPT, e.level, e.origin)
	return e.replies.of(kind)
}

// miss answers what memory does not know in this form.
func (m *Map) miss(ctx context.Context, kind mapKind, key string) []byte {
	hop, ok := ParseNextHop(key)
	if e := m.override(key, hop, ok); e != nil {
		m.observer.Answered(kind == mapTLSRPT, e.decision.Level, Static)
		return e.replies.of(kind)
	}
	if !ok {
		m.observer.Answered(kind == mapTLSRPT, NoPolicy, Static)
		return notFound.of(kind)
	}
	canonical := hop.String()
	if e := m.cache.getString(canonical); e != nil {
		if reply := m.hit(kind, e); reply != nil {
			return reply
		}
	}
	if e := m.stored(hop, canonical); e != nil {
		if reply := m.hit(kind, e); reply != nil {
			return reply
		}
	}
	e := m.lookup(ctx, hop, canonical)
	origin := Cold
	if e.decision.Stale {
		origin = Stale
	}
	m.observer.Answered(kind == mapTLSRPT, e.decision.Level, origin)
	return e.replies.of(kind)
}

// stored makes the answer of what the store knows, or returns nil where that is
// not enough. It goes into memory unless the record is being written just now:
// for that nobody waits, and what is learned then must not be overwritten.
func (m *Map) stored(hop NextHop, canonical string) *entry {
	mu := m.ledger.lock(hop.Domain)
	locked := mu.TryLock()
	if locked {
		defer mu.Unlock()
	}
	rec := m.ledger.get(hop.Domain)
	if rec.STS == nil && rec.DANE == nil {
		return nil
	}
	now, cfg := m.clock.now(), m.config.Load()
	e := m.fromFacts(cfg, hop, &rec, now)
	if e == nil {
		return nil
	}
	e.lastUsed.Store(now.Unix())
	if locked {
		m.keep(e, cfg)
	} else {
		e.prepare(canonical)
	}
	return e
}

// lookup waits for the one cold lookup of the next hop.
func (m *Map) lookup(ctx context.Context, hop NextHop, canonical string) *entry {
	reason := errStopping
	select {
	case r := <-m.flight(&m.cold, canonical, func() any { return m.resolve(hop) }):
		if r.Err == nil {
			return r.Val.(*entry)
		}
		reason = r.Err
	case <-ctx.Done():
	case <-m.ctx.Done():
	}
	return temporary(hop, reasonOf(reason))
}

func temporary(hop NextHop, reason string) *entry {
	d := Decision{Level: Temporary, Row: RowUnknown, Reason: reason, Why: reason}
	return &entry{hop: hop, decision: d, replies: render(d, hop.Domain, nil, "")}
}
