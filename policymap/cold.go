package policymap

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/singleflight"

	"tlspolicyd/internal/dane"
	"tlspolicyd/internal/dnsclient"
	"tlspolicyd/internal/mtasts"
	"tlspolicyd/store"
)

const (
	lookupTimeout = 15 * time.Second // no lookup takes longer, whatever is silent
	daneTimeout   = 14 * time.Second // leaves a second to decide, write and reply
	knownWait     = 2 * time.Second  // how long a lookup waits where a last known state can stand in
	stsTimeout    = 90 * time.Second // TXT lookup and fetch; the fetch has its own 60 s
	maxFetches    = 512              // at a time, that lookups wait for; and as many that they do not any more
	pendingFor    = time.Minute      // how long an answer stands that a running fetch may still change
)

var errStopping = errors.New("tlspolicyd is stopping")

// flight runs fn once for all who want the same at the same time. It counts as
// work that Close waits for, and a defect in it ends one lookup, not the
// service of all others.
func (m *Map) flight(g *singleflight.Group, key string, fn func() any) <-chan singleflight.Result {
	return g.DoChan(key, func() (any, error) {
		done := make(chan any, 1)
		if !m.start(func() {
			defer func() {
				if r := recover(); r != nil {
					done <- m.panicked(key, r)
				}
			}()
			done <- fn()
		}) {
			return nil, errStopping
		}
		v := <-done
		if err, ok := v.(error); ok {
			return nil, err
		}
		return v, nil
	})
}

// resolve looks a next hop up: DANE and MTA-STS side by side, as far as the
// store does not know them already.
func (m *Map) resolve(hop NextHop) *entry {
	began := m.clock.now()
	cfg := m.config.Load()
	rec := m.ledger.get(hop.Domain)
	facts, fresh := daneFacts(m.counting(endpoint(&rec, hop)), began)
	blind := !adCounts(cfg.Resolver)

	var policy *stsFlight
	switch sts := readSTS(rec.STS, began); {
	case !sts.known && !(fresh && facts.NullMX):
		policy = m.startSTS(hop.Domain, began, onLookup)
	case sts.known && began.After(sts.recheck):
		m.startSTS(hop.Domain, began, onLookup) // the policy in force answers meanwhile
	}
	var res dane.Result
	var dns time.Duration
	if !fresh {
		facts, res = m.awaitDANE(hop, facts, began)
		dns = m.clock.now().Sub(began)
	}
	landed := false
	switch {
	case policy == nil:
	case res.MX.Null:
		m.abandon(policy) // 7505: no mail will go there
	case !daneAlone(facts, cfg.Settings):
		landed = policy.wait(m.ctx, min(cfg.FetchWait, daneTimeout)-m.clock.now().Sub(began))
	}

	rec = m.ledger.get(hop.Domain)
	if rec.Class == store.Positive && res.State != dane.Unknown && endpoint(&rec, hop) == nil &&
		m.clock.now().Sub(began) < lookupTimeout-2*putTimeout {
		// When DANE was done nothing called for writing it at once, and then
		// something took its place: it goes to disk with the policy.
		m.learnDANE(hop, res, began, blind || !adCounts(m.config.Load().Resolver))
	}
	e := m.conclude(cfg, hop, facts, policy, landed)
	m.observer.Resolved(Resolution{
		Key: hop.String(), Decision: e.decision, STS: e.sts, STSWhy: e.stsWhy,
		Reply: string(e.replies.postfix), Took: m.clock.now().Sub(began), DNS: dns,
	})
	return e
}

// conclude makes the answer of a cold lookup and keeps it. policy is the flight
// that the lookup waited for, nil for none, and landed tells that it ended in
// time. The lock of the domain is held: what is learned meanwhile is either in
// the answer, or finds it in memory and has it follow.
func (m *Map) conclude(cfg *Config, hop NextHop, facts DANEFacts, policy *stsFlight, landed bool) *entry {
	mu := m.ledger.lock(hop.Domain)
	mu.Lock()
	defer mu.Unlock()
	rec := m.ledger.get(hop.Domain)
	now := m.clock.now()
	if known, fresh := daneFacts(m.counting(endpoint(&rec, hop)), now); fresh && known.State != dane.Unknown {
		facts = known // perhaps learned while we waited for the policy host
	}
	sts := readSTS(rec.STS, now)
	switch {
	case landed && policy.once != nil:
		sts = stsFacts{state: stateOf(policy.once.Mode), policy: policy.once, once: true}
	case landed && policy.learned != nil && !sts.known:
		sts = readSTS(policy.learned, now) // the store could not take it
	case policy != nil && !landed && !sts.known:
		sts.reason = "not waited for"
	}
	e := m.assemble(cfg, hop, &rec, facts, sts, now)
	e.lastUsed.Store(now.Unix())
	if e.until.After(now) {
		m.keep(e, cfg)
	}
	return e
}

// awaitDANE evaluates DANE and waits for it; where a last known state can stand
// in, not for long. The result is zero where the wait was in vain.
func (m *Map) awaitDANE(hop NextHop, last DANEFacts, began time.Time) (DANEFacts, dane.Result) {
	wait := lookupTimeout - 500*time.Millisecond
	if last.SomeTLSA || last.Last != dane.Unknown && last.LastAge <= lastKnownFor {
		wait = knownWait
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case r := <-m.startDANE(hop, began):
		if res, ok := r.Val.(dane.Result); ok {
			return withResult(last, res), res
		}
		last.Reason = reasonOf(r.Err)
	case <-timer.C:
		last.Reason = fmt.Sprintf("DNS lookups for %s: no answer within %s", hop.Domain, wait)
	case <-m.ctx.Done():
		last.Reason = errStopping.Error()
	}
	return last, dane.Result{}
}

// withResult adds a fresh evaluation to what was last known.
func withResult(f DANEFacts, res dane.Result) DANEFacts {
	f.State = res.State
	f.MXInsecure = res.MX.Answer == dane.MXInsecure
	f.SomeTLSA = f.SomeTLSA || res.SomeTLSA
	f.SomeNone = res.SomeNone
	f.NullMX = res.MX.Null
	if res.State == dane.Unknown {
		f.Reason = reasonOf(res.Err)
	}
	return f
}

// reasonOf puts a failure into the one line that Postfix logs.
func reasonOf(err error) string {
	var failed *dnsclient.Error
	switch {
	case err == nil:
		return "DANE lookup failed"
	case errors.As(err, &failed):
		return printable(failed.Reason(), maxReason) // without the resolver's address
	}
	return printable(err.Error(), maxReason)
}

// startDANE evaluates a next hop, once however many ask, and keeps the result.
func (m *Map) startDANE(hop NextHop, used time.Time) <-chan singleflight.Result {
	return m.flight(&m.dane, hop.String(), func() any {
		rec := m.ledger.get(hop.Domain)
		last := endpoint(&rec, hop)
		bound := readSTS(rec.STS, m.clock.now()).policy != nil && (last == nil || !last.NullMX)
		ctx, cancel := context.WithTimeout(m.ctx, daneTimeout)
		defer cancel()
		r := m.config.Load().Resolver
		blind := !adCounts(r)
		res := dane.Lookup(ctx, r, dane.Target{Domain: hop.Domain, Literal: hop.Literal, Port: hop.Port})
		if bound {
			// A null MX means that MTA-STS has no say, and it can be forged: it
			// ends no policy that was in force before it was seen.
			res.MX.Null = false
		}
		if m.ctx.Err() == nil {
			m.learnDANE(hop, res, used, blind || !adCounts(r))
		}
		return res
	})
}

// fromFacts makes an answer of what is stored, or nil where that is not enough.
func (m *Map) fromFacts(cfg *Config, hop NextHop, rec *store.Record, now time.Time) *entry {
	facts, fresh := daneFacts(m.counting(endpoint(rec, hop)), now)
	if !fresh {
		return nil
	}
	sts := readSTS(rec.STS, now)
	if !sts.known && !facts.NullMX && !daneAlone(facts, cfg.Settings) {
		return nil
	}
	return m.assemble(cfg, hop, rec, facts, sts, now)
}

// assemble decides, renders, and says how long the answer is good.
func (m *Map) assemble(cfg *Config, hop NextHop, rec *store.Record, facts DANEFacts, sts stsFacts, now time.Time) *entry {
	if facts.NullMX {
		sts = stsFacts{known: true, until: now.Add(maxTTL), reason: "null MX: no mail goes there"}
	}
	d := Decide(facts, sts.state, cfg.Settings)
	alone := daneAlone(facts, cfg.Settings)
	e := &entry{
		hop: hop, facts: facts, decision: d, sts: sts.state, stsWhy: sts.reason, noted: rec.LastUsed,
		replies: render(d, hop.Domain, sts.policy, ""),
		pending: !sts.known && !sts.once && !alone,
	}
	e.until, e.recheck = hold(d, facts, m.counting(endpoint(rec, hop)), sts, alone, now)
	// Times read from disk have no monotonic reading: hold the answer by how
	// much is left, not by the wall clock.
	e.until = now.Add(e.until.Sub(now))
	return e
}

func stateOf(m mtasts.Mode) STSState {
	switch m {
	case mtasts.Enforce:
		return STSEnforce
	case mtasts.Testing:
		return STSTesting
	case mtasts.None:
		return STSNone
	}
	return STSAbsent
}

func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// lookAgain starts what a hit on an ageing answer calls for: the TXT record,
// and for a stale answer the DANE evaluation that failed. The hit does not wait.
func (m *Map) lookAgain(e *entry) {
	m.start(func() {
		defer e.checking.Store(false) // where nothing was learned the next hit tries again
		policy := m.startSTS(e.hop.Domain, m.clock.now(), onLookup)
		if !e.decision.Stale {
			<-policy.done
			return
		}
		<-m.flight(&m.cold, e.hop.String(), func() any { return m.resolve(e.hop) })
	})
}
