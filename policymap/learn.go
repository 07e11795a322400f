package policymap

import (
	"bytes"
	"fmt"
	"time"

	"tlspolicyd/internal/dane"
	"tlspolicyd/internal/dnsclient"
	"tlspolicyd/store"
)

// Every change of a record goes through this file, whoever found out: the cold
// lookup, a background look, the refresher or the operator.

// maxEndpoints bounds the ways to ask for one domain that are kept: ports, with
// and without brackets.
const maxEndpoints = 16

// urgency is when a change has to be on disk.
type urgency uint8

const (
	asNeeded urgency = iota // at once where the record holds or held a policy, else soon
	soon
	atOnce
)

// learn changes the record of a domain and has the answers in memory follow.
// What Postfix may be told to insist on is on disk when it returns (8461 §10);
// mere absences are written soon. used is the lookup that wanted to know, zero
// for none. An error means that the record is in memory only; the observer has
// been told.
func (m *Map) learn(domain string, used time.Time, when urgency, change func(*store.Record)) error {
	mu := m.ledger.lock(domain)
	mu.Lock()
	defer mu.Unlock()
	rec := cloneRecord(m.ledger.get(domain))
	held := rec.Class == store.Positive
	if change != nil {
		change(&rec)
	}
	rec.Domain = domain
	rec.Class = classOf(&rec)
	now := m.clock.now()
	m.tellEnd(&rec, now)
	rec.LastUsed = latest(notFuture(rec.LastUsed, now), used, m.usedInMemory(&rec))
	rec.Due = m.schedule(domain).next(&rec, now, rec.LastUsed)
	if when == asNeeded && (held || rec.Class == store.Positive) {
		when = atOnce
	}
	err := m.ledger.put(rec, when == atOnce)
	if err != nil {
		m.observer.StoreFailed(domain, err)
	}
	m.republish(&rec, now)
	m.alarm.due(rec.Due)
	switch {
	case err != nil:
		m.alarm.due(now.Add(retryUnsaved))
	case when == atOnce && m.ledger.behind():
		m.alarm.due(now) // the disk works again: what waits goes out too
	}
	return err
}

// tellEnd tells, once, of a policy that is over: its max_age ended and no newer
// one could be had.
func (m *Map) tellEnd(rec *store.Record, now time.Time) {
	over := endedPolicy(rec.STS, now)
	if rec.STS == nil || rec.STS.EndTold == (over != nil) {
		return
	}
	sts := *rec.STS
	sts.EndTold = over != nil // back in force: the clock had run ahead
	rec.STS = &sts
	if over != nil {
		wanted := now.Sub(latest(rec.LastUsed, m.usedInMemory(rec))) <= m.config.Load().UnusedFor
		m.observer.Changed(endOfSTS(rec.Domain, over, wanted))
	}
}

// postpone makes a record that is due after all was done for it due later.
func (m *Map) postpone(domain string, pause time.Duration) {
	mu := m.ledger.lock(domain)
	mu.Lock()
	defer mu.Unlock()
	rec := m.ledger.get(domain)
	now := m.clock.now()
	if rec.Due.IsZero() || rec.Due.After(now) {
		return
	}
	rec.Due = atLeast(m.schedule(domain).next(&rec, now, rec.LastUsed), now.Add(pause))
	_ = m.ledger.put(rec, false) // what is written later cannot fail now
}

// putOff makes a record due later without a look at what stands in it.
func (m *Map) putOff(domain string, pause time.Duration) {
	mu := m.ledger.lock(domain)
	mu.Lock()
	defer mu.Unlock()
	rec := m.ledger.get(domain)
	if rec.Due.IsZero() {
		return // it has gone
	}
	rec.Due = m.clock.now().Add(pause)
	_ = m.ledger.put(rec, false)
}

// learnDANE keeps the outcome of an evaluation that knew something. Unknown
// teaches nothing, the last known state stays; but where nothing is known yet,
// that one host has TLSA records is worth keeping. blind tells that the AD bits
// of the resolver that was asked may not have counted.
func (m *Map) learnDANE(hop NextHop, res dane.Result, used time.Time, blind bool) {
	now := m.clock.now()
	if res.State == dane.Unknown {
		rec := m.ledger.get(hop.Domain)
		last, _ := daneFacts(m.counting(endpoint(&rec, hop)), now)
		if !res.SomeTLSA || last.Last != dane.Unknown && last.LastAge <= lastKnownFor {
			return
		}
	}
	fact := store.DANE{
		Literal: hop.Literal, Port: hop.Port, State: uint8(res.State), Detail: detail(res),
		SomeTLSA: res.State == dane.Unknown && res.SomeTLSA, NullMX: res.MX.Null,
		KnownAt: now, ExpiresAt: now.Add(clampTTL(res.TTL)),
		Blind: res.State == dane.None && blind,
	}
	_ = m.learn(hop.Domain, used, asNeeded, func(rec *store.Record) {
		old := endpoint(rec, hop)
		if old != nil && sameMoment(old.KnownAt, fact.KnownAt) {
			// That it was looked up again must show.
			next := old.KnownAt.Add(time.Millisecond)
			fact.ExpiresAt = fact.ExpiresAt.Add(next.Sub(fact.KnownAt))
			fact.KnownAt = next
		}
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
	})
}

// sameMoment reports whether a lookup cannot be told from the one before by the
// milliseconds that a record keeps; those before it in the same one are a few
// ahead.
func sameMoment(before, now time.Time) bool {
	ahead := before.UnixMilli() - now.UnixMilli()
	return ahead >= 0 && ahead < 10
}

// counting returns the facts unless they are an absence that was seen through a
// resolver whose AD bits did not count, and now there is one whose do: a signed
// domain looks the same as an unsigned one without them (7672 §2.1.3).
func (m *Map) counting(d *store.DANE) *store.DANE {
	if d != nil && d.Blind && adCounts(m.config.Load().Resolver) {
		return nil
	}
	return d
}

// adCounts reports whether a resolver's AD bits count now. One that does not
// say is taken to be trusted.
func adCounts(r dnsclient.Resolver) bool {
	t, says := r.(interface{ Trusted() bool })
	return !says || t.Trusted()
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
	case res.MX.NoDomain:
		return "no such domain"
	case res.MX.Null:
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

// republish rebuilds the answers in memory that rest on a record. The lock of
// its domain is held.
func (m *Map) republish(rec *store.Record, now time.Time) {
	cfg := m.config.Load()
	for _, old := range m.cache.ofDomain(rec.Domain) {
		if old.decision.Row == RowOverride {
			continue
		}
		e := m.fromFacts(cfg, old.hop, rec, now)
		if e == nil && old.facts.State == dane.Unknown {
			e = m.afterFailure(cfg, old, rec, now)
		}
		if e != nil {
			e.lastUsed.Store(old.lastUsed.Load())
			m.keep(e, cfg)
		} else if _, fresh := daneFacts(m.counting(endpoint(rec, old.hop)), now); fresh && !old.pending {
			m.cache.remove(old.hop.String()) // its policy has gone: the next lookup asks for a new one
		}
	}
}

// afterFailure makes an answer anew that was given without DANE being known, or
// returns nil where the record says nothing else now. DANE is as unknown as it
// was, and no longer.
func (m *Map) afterFailure(cfg *Config, old *entry, rec *store.Record, now time.Time) *entry {
	sts := readSTS(rec.STS, now)
	if !sts.known {
		return nil
	}
	e := m.assemble(cfg, old.hop, rec, old.facts, sts, now)
	if e.sts == old.sts && bytes.Equal(e.replies.tlsrpt, old.replies.tlsrpt) {
		return nil
	}
	e.until = earliest(e.until, old.until)
	return e
}

// usedInMemory is the last lookup of a domain that the cache knows of.
func (m *Map) usedInMemory(rec *store.Record) time.Time {
	var used time.Time
	for _, e := range m.cache.ofDomain(rec.Domain) {
		used = latest(used, e.used())
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
