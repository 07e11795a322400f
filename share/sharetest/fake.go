package sharetest

import (
	"context"
	"sync"
	"time"

	"tlspolicyd/internal/mtasts"
	"tlspolicyd/share"
)

// Engine is an engine in memory, for tests of what stands above it. It works in a
// synctest bubble.
type Engine struct {
	mu      sync.Mutex
	entries map[string]share.Entry
	leases  map[string]lease
	fence   int64
	news    map[*Member]chan string
	down    error
	silent  bool
	delay   time.Duration
}

type lease struct {
	token string
	until time.Time
}

// NewEngine makes an engine without entries.
func NewEngine() *Engine {
	return &Engine{entries: make(map[string]share.Entry), leases: make(map[string]lease), news: make(map[*Member]chan string)}
}

// Fail has every call fail with err, nil for none; silent has them wait for their
// context before.
func (e *Engine) Fail(err error, silent bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.down, e.silent = err, silent
}

// Slow has every call of a host take d, or as long as its context.
func (e *Engine) Slow(d time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.delay = d
}

// Put writes an entry as any program with access to the engine can.
func (e *Engine) Put(domain string, entry share.Entry) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.put(domain, entry, nil)
}

// Flush removes everything.
func (e *Engine) Flush() {
	e.mu.Lock()
	defer e.mu.Unlock()
	clear(e.entries)
	clear(e.leases)
}

func (e *Engine) put(domain string, entry share.Entry, by *Member) {
	e.entries[domain] = entry
	for m, news := range e.news {
		if m != by {
			select {
			case news <- domain:
			default:
			}
		}
	}
}

// Member is the share.Fleet of one host.
type Member struct {
	engine  *Engine
	host    string
	keys    share.Keys
	timeout time.Duration
	stats   share.Stats
}

var _ share.Fleet = (*Member)(nil)

// Member returns the engine as a host sees it.
func (e *Engine) Member(host string, keys share.Keys) *Member {
	return &Member{engine: e, host: host, keys: keys, timeout: 250 * time.Millisecond}
}

// enter locks the engine, or fails as it is told to.
func (m *Member) enter(ctx context.Context) error {
	m.engine.mu.Lock()
	err, silent, delay := m.engine.down, m.engine.silent, m.engine.delay
	m.engine.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, m.timeout)
	defer cancel()
	if silent {
		<-ctx.Done()
	} else if delay > 0 {
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err == nil {
		m.engine.mu.Lock()
	}
	return err
}

func (m *Member) leave() { m.engine.mu.Unlock() }

// Ask implements share.Fleet.
func (m *Member) Ask(ctx context.Context, domain string) (share.Policy, error) {
	if err := m.enter(ctx); err != nil {
		return share.Policy{}, err
	}
	defer m.leave()
	return m.get(domain)
}

func (m *Member) get(domain string) (share.Policy, error) {
	entry, ok := m.engine.entries[domain]
	if !ok {
		return share.Policy{}, share.ErrNone
	}
	p, err := m.keys.Open(domain, entry, time.Now())
	if err != nil && err != share.ErrNone {
		m.stats.Refused++
	}
	return p, err
}

// Claim implements share.Fleet.
func (m *Member) Claim(ctx context.Context, domain string) (share.Lease, share.Policy, error) {
	if err := m.enter(ctx); err != nil {
		return share.Lease{}, share.Policy{}, err
	}
	defer m.leave()
	p, err := m.get(domain)
	now := time.Now()
	if l, ok := m.engine.leases[domain]; ok && now.Before(l.until) {
		return share.Lease{}, p, err
	}
	m.engine.fence = max(m.engine.fence+1, now.UnixMicro())
	granted := share.Lease{Token: m.host + now.String(), Fence: m.engine.fence, Granted: now}
	m.engine.leases[domain] = lease{granted.Token, now.Add(75 * time.Second)}
	return granted, p, err
}

// Offer implements share.Fleet.
func (m *Member) Offer(domain string, p share.Policy, l share.Lease) {
	m.engine.mu.Lock()
	defer m.engine.mu.Unlock()
	if m.engine.down != nil {
		m.stats.Dropped++
		return
	}
	defer m.release(domain, l)
	fetched := time.Now().Add(-p.Age)
	if parsed, err := mtasts.ParsePolicy(p.File); err != nil || parsed.MaxAge <= p.Age {
		m.stats.Fenced++
		return
	}
	if l.Fence == 0 {
		l.Fence = fetched.UnixMicro()
	}
	if old, ok := m.engine.entries[domain]; ok && (old.Fence > l.Fence || old.Format > share.Format) {
		m.stats.Fenced++
		return
	}
	p.Host = m.host
	m.engine.put(domain, m.keys.Seal(domain, p, fetched, l.Fence), m)
	m.stats.Stored++
}

// Release implements share.Fleet.
func (m *Member) Release(domain string, l share.Lease) {
	m.engine.mu.Lock()
	defer m.engine.mu.Unlock()
	m.release(domain, l)
}

func (m *Member) release(domain string, l share.Lease) {
	if m.engine.leases[domain].token == l.Token {
		delete(m.engine.leases, domain)
	}
}

// Watch implements share.Fleet.
func (m *Member) Watch(ctx context.Context, changed func(string, share.Policy)) {
	news := make(chan string, 1000)
	m.engine.mu.Lock()
	m.engine.news[m] = news
	for domain := range m.engine.entries {
		news <- domain
	}
	m.engine.mu.Unlock()
	defer func() {
		m.engine.mu.Lock()
		defer m.engine.mu.Unlock()
		delete(m.engine.news, m)
	}()
	for {
		select {
		case domain := <-news:
			if p, err := m.Ask(ctx, domain); err == nil {
				changed(domain, p)
			}
		case <-ctx.Done():
			return
		}
	}
}

// Each implements share.Fleet.
func (m *Member) Each(ctx context.Context, fn func(string, share.Policy) error) error {
	if err := m.enter(ctx); err != nil {
		return err
	}
	found := make(map[string]share.Policy)
	for domain := range m.engine.entries {
		if p, err := m.get(domain); err == nil {
			found[domain] = p
		}
	}
	m.leave()
	for domain, p := range found {
		if err := fn(domain, p); err != nil {
			return err
		}
	}
	return nil
}

// Delete implements share.Fleet.
func (m *Member) Delete(ctx context.Context, domains ...string) (deleted int, err error) {
	if err := m.enter(ctx); err != nil {
		return 0, err
	}
	defer m.leave()
	for _, domain := range domains {
		if _, ok := m.engine.entries[domain]; ok {
			delete(m.engine.entries, domain)
			deleted++
		}
	}
	return deleted, nil
}

// Stats implements share.Fleet.
func (m *Member) Stats() share.Stats {
	m.engine.mu.Lock()
	defer m.engine.mu.Unlock()
	s := m.stats
	s.Up = m.engine.down == nil
	return s
}
