package policymap

import (
	"context"
	"fmt"
	"hash/maphash"
	"sync"
	"time"

	"tlspolicyd/internal/dane"
	"tlspolicyd/store"
)

// Every change of a record goes through learn, whoever found out: the cold
// lookup, a background look or the refresher.

const (
	maxEndpoints = 16              // ways to ask for one domain that are kept: ports, with and without brackets
	maxUnsaved   = 10_000          // records kept in memory while the store cannot write
	putTimeout   = 5 * time.Second // a disk that hangs longer counts as one that fails
)

// ledger is the store, and what the store could not take.
type ledger struct {
	store store.Store
	seed  maphash.Seed
	locks [256]sync.Mutex // by domain: one writer for a record

	mu      sync.Mutex
	unsaved map[string]store.Record
}

func newLedger(s store.Store) *ledger {
	return &ledger{store: s, seed: maphash.MakeSeed(), unsaved: make(map[string]store.Record)}
}

func (l *ledger) lock(domain string) *sync.Mutex {
	return &l.locks[maphash.String(l.seed, domain)%uint64(len(l.locks))]
}

// get returns the record of a domain, or an empty one. A record that cannot be
// read counts as none: it is learned again.
func (l *ledger) get(domain string) store.Record {
	l.mu.Lock()
	rec, ok := l.unsaved[domain]
	l.mu.Unlock()
	if ok {
		return rec
	}
	rec, err := l.store.Get(domain)
	if err != nil {
		return store.Record{Domain: domain}
	}
	return rec
}

// waiting returns the record of a domain that the store could not take, and
// whether there are any such.
func (l *ledger) waiting(domain string) (rec store.Record, ok, any bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	rec, ok = l.unsaved[domain]
	return rec, ok, len(l.unsaved) > 0
}

// put writes a record, at once if told to. A record that cannot be written is
// kept in memory and goes out with a later one.
func (l *ledger) put(rec store.Record, durable bool) error {
	if !durable {
		l.mu.Lock()
		_, waiting := l.unsaved[rec.Domain]
		if waiting {
			l.unsaved[rec.Domain] = rec
		}
		l.mu.Unlock()
		if !waiting {
			l.store.PutLater(rec)
		}
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), putTimeout)
	defer cancel()
	err := l.store.Put(ctx, rec)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		delete(l.unsaved, rec.Domain)
	} else if _, waiting := l.unsaved[rec.Domain]; waiting || len(l.unsaved) < maxUnsaved {
		l.unsaved[rec.Domain] = rec
	}
	return err
}

// flush tries again to write what could not be written.
func (l *ledger) flush() {
	l.mu.Lock()
	waiting := make([]string, 0, len(l.unsaved))
	for domain := range l.unsaved {
		waiting = append(waiting, domain)
	}
	l.mu.Unlock()
	for _, domain := range waiting {
		mu := l.lock(domain)
		mu.Lock()
		l.mu.Lock()
		rec, ok := l.unsaved[domain]
		l.mu.Unlock()
		var err error
		if ok {
			err = l.put(rec, true)
		}
		mu.Unlock()
		if err != nil {
			return // still no room
		}
	}
}

func (l *ledger) remove(ctx context.Context, domains ...string) error {
	l.mu.Lock()
	for _, d := range domains {
		delete(l.unsaved, d)
	}
	l.mu.Unlock()
	return l.store.Delete(ctx, domains...)
}

// update is a change of one record.
type update struct {
	change func(*store.Record) // nil: none but to the times of use and refresh
	used   time.Time           // of the lookup that wanted to know; zero: none did

	durable   bool      // must be on disk at once, whatever the record holds
	minor     bool      // nothing that must be on disk at once
	notBefore time.Time // earliest next refresh
	onlyIfDue bool      // leave a record alone that is not due any more
}

// learn changes the record of a domain and has the answers in memory follow.
// What Postfix may be told to insist on is on disk when it returns (8461 §10);
// mere absences are written soon. An error means that the record is in memory
// only; the observer has been told.
func (m *Map) learn(domain string, u update) error {
	mu := m.ledger.lock(domain)
	mu.Lock()
	defer mu.Unlock()
	now := m.clock.now()
	rec := cloneRecord(m.ledger.get(domain))
	if u.onlyIfDue && rec.Due.After(now) {
		return nil
	}
	hadPolicy := rec.Class == store.Positive
	if u.change != nil {
		u.change(&rec)
	}
	rec.Domain = domain
	rec.LastUsed = latest(notFuture(rec.LastUsed, now), u.used, m.usedInMemory(&rec))
	rec.Class = classOf(&rec)
	rec.Due = atLeast(m.schedule(domain).next(&rec, now, rec.LastUsed), u.notBefore)
	durable := u.durable || (hadPolicy || rec.Class == store.Positive) && !u.minor
	err := m.ledger.put(rec, durable)
	if err != nil {
		m.observer.StoreFailed(domain, err)
	}
	m.republish(&rec, now)
	m.alarm.due(rec.Due)
	return err
}

// learnDANE keeps the outcome of an evaluation that knew something. Unknown
// teaches nothing, the last known state stays; but where nothing is known yet,
// that one host has TLSA records is worth keeping.
func (m *Map) learnDANE(hop NextHop, res dane.Result, used time.Time) {
	now := m.clock.now()
	if res.State == dane.Unknown {
		rec := m.ledger.get(hop.Domain)
		last, _ := daneFacts(endpoint(&rec, hop), now)
		if !res.SomeTLSA || last.Last != dane.Unknown && last.LastAge <= lastKnownFor {
			return
		}
	}
	fact := store.DANE{
		Literal: hop.Literal, Port: hop.Port, State: uint8(res.State), Detail: detail(res),
		SomeTLSA: res.State == dane.Unknown && res.SomeTLSA, NullMX: res.NullMX,
		KnownAt: now, ExpiresAt: now.Add(clampTTL(res.TTL)),
	}
	_ = m.learn(hop.Domain, update{used: used, change: func(rec *store.Record) {
		if res.NullMX && rec.STS != nil && !rec.STS.FetchedAt.Before(used) && !used.IsZero() {
			rec.STS = nil // its policy host was quicker than the MX answer; it has no say (7505)
		}
		old := endpoint(rec, hop)
		if change, ok := changeOfDANE(hop, old, fact); ok {
			m.observer.Changed(change)
		}
		if old != nil {
			*old = fact
			return
		}
		if len(rec.DANE) >= maxEndpoints {
			rec.DANE = dropOldest(rec.DANE)
		}
		rec.DANE = append(rec.DANE, fact)
	}})
}

func dropOldest(list []store.DANE) []store.DANE {
	oldest := 0
	for i := range list {
		if list[i].KnownAt.Before(list[oldest].KnownAt) {
			oldest = i
		}
	}
	return append(list[:oldest], list[oldest+1:]...)
}

// detail is one line about the hosts for the operator.
func detail(res dane.Result) string {
	switch {
	case res.NoDomain:
		return "no such domain"
	case res.NullMX:
		return "null MX: takes no mail"
	}
	var s string
	for _, h := range res.Hosts {
		if len(s) > 300 {
			return s + ", …"
		}
		if s != "" {
			s += ", "
		}
		s += h.Name + " " + fmt.Sprint(h.Verdict)
	}
	return s
}

// republish rebuilds the answers in memory that rest on a record.
func (m *Map) republish(rec *store.Record, now time.Time) {
	for i := range rec.DANE {
		hop := hopOf(rec.Domain, &rec.DANE[i])
		old := m.cache.getString(hop.String())
		if old == nil || old.decision.Row == RowOverride {
			continue
		}
		cfg := m.config.Load()
		if e := m.fromFacts(cfg, hop, rec, now); e != nil {
			e.lastUsed.Store(old.lastUsed.Load())
			m.keep(e, cfg)
		}
	}
}

// usedInMemory is the last lookup of a domain that the cache knows of.
func (m *Map) usedInMemory(rec *store.Record) time.Time {
	var used time.Time
	for i := range rec.DANE {
		if e := m.cache.getString(hopOf(rec.Domain, &rec.DANE[i]).String()); e != nil {
			used = latest(used, e.used())
		}
	}
	return used
}

func latest(times ...time.Time) time.Time {
	var out time.Time
	for _, t := range times {
		if t.After(out) {
			out = t
		}
	}
	return out
}
