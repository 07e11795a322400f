package policymap

import (
	"hash/crc32"
	"time"

	"tlspolicyd/internal/dane"
	"tlspolicyd/internal/mtasts"
	"tlspolicyd/store"
)

// This file reads stored facts: what they mean now, and when they want to be
// refreshed. All of it is pure.

const (
	minTTL       = time.Minute      // docs/behaviour.md §6
	maxTTL       = 24 * time.Hour   // docs/behaviour.md §6
	txtRetry     = time.Minute      // how long a failed TXT lookup counts as "no record"
	fetchRetry   = 5 * time.Minute  // a failed fetch is not repeated for the same id within this
	fetchBackoff = 6 * time.Hour    // longest pause between failing fetches
	shortest     = 5 * time.Second  // between two refreshes of a record: no busy loop
	attended     = 10 * time.Minute // policies that live shorter are refreshed only while they are asked for
)

func clampTTL(d time.Duration) time.Duration { return min(max(d, minTTL), maxTTL) }

// notFuture makes a stored time that lies in the future count as now, so that
// a clock set back makes no policy immortal.
func notFuture(t, now time.Time) time.Time {
	if t.After(now) {
		return now
	}
	return t
}

// stsFacts is what stored MTA-STS facts mean now.
type stsFacts struct {
	state   STSState
	policy  *mtasts.Policy // in force; nil for STSAbsent
	known   bool           // an answer can be given without asking the network
	until   time.Time      // known: until then
	recheck time.Time      // from then on a hit looks at the TXT record again
	reason  string         // STSAbsent: why
	once    bool           // max_age 0: for this answer only
}

func readSTS(s *store.STS, now time.Time) stsFacts {
	if s == nil {
		return stsFacts{reason: "not looked up"}
	}
	checked := notFuture(s.CheckedAt, now)
	f := stsFacts{recheck: checked.Add(clampTTL(s.TXTTTL))}
	if s.Policy != nil {
		p, err := mtasts.ParsePolicy(s.Policy)
		expires := notFuture(s.FetchedAt, now).Add(p.MaxAge)
		if err == nil && now.Before(expires) {
			f.policy, f.known, f.until = &p, true, expires
			f.state = stateOf(p.Mode)
			return f
		}
	}
	switch {
	case s.TXTError != "":
		f.known, f.until, f.reason = now.Before(f.recheck), f.recheck, s.TXTError
	case s.FailedID != "" && s.FailedID == s.TXTID:
		f.until = notFuture(s.FailedAt, now).Add(fetchRetry)
		f.known, f.reason = now.Before(f.until), s.Error
	default:
		f.reason = "no policy fetched"
	}
	return f
}

// endedPolicy returns the stored policy if its max_age is over, else nil.
func endedPolicy(s *store.STS, now time.Time) *mtasts.Policy {
	if s == nil || s.Policy == nil {
		return nil
	}
	p, err := mtasts.ParsePolicy(s.Policy)
	if err != nil || now.Before(notFuture(s.FetchedAt, now).Add(p.MaxAge)) {
		return nil
	}
	return &p
}

// endpoint returns the DANE facts for a way of asking, or nil.
func endpoint(rec *store.Record, hop NextHop) *store.DANE {
	for i := range rec.DANE {
		if d := &rec.DANE[i]; d.Port == hop.Port && d.Literal == hop.Literal {
			return d
		}
	}
	return nil
}

func hopOf(domain string, d *store.DANE) NextHop {
	return NextHop{Domain: domain, Literal: d.Literal, Port: d.Port}
}

// daneExpiry is the end of the DANE facts' TTL, whatever the clock did.
func daneExpiry(d *store.DANE, now time.Time) time.Time {
	return notFuture(d.KnownAt, now).Add(daneTTL(d))
}

func daneTTL(d *store.DANE) time.Duration { return clampTTL(d.ExpiresAt.Sub(d.KnownAt)) }

// daneFacts turns stored DANE facts into the table's input: the state itself
// within its TTL, later only the last known one.
func daneFacts(d *store.DANE, now time.Time) (f DANEFacts, fresh bool) {
	if d == nil {
		return DANEFacts{}, false
	}
	known := notFuture(d.KnownAt, now)
	f = DANEFacts{Last: dane.State(d.State), LastAge: now.Sub(known)}
	f.SomeTLSA = d.SomeTLSA && f.LastAge <= lastKnownFor
	if now.Before(daneExpiry(d, now)) {
		f.State, f.NullMX = f.Last, d.NullMX
		return f, true
	}
	return f, false
}

// hold says how long an answer is good, and from when on a hit has somebody
// look again (zero: never). dn are the stored DANE facts of its next hop, nil
// where there are none; alone tells that MTA-STS has no say.
func hold(d Decision, facts DANEFacts, dn *store.DANE, sts stsFacts, alone bool, now time.Time) (until, recheck time.Time) {
	recheck = sts.recheck
	switch {
	case d.Stale:
		// Served until the state is too old to stand in, looked at again soon.
		until, recheck = now.Add(lastKnownFor-facts.LastAge), now.Add(keepFailure)
	case facts.State == dane.Unknown && (dn == nil || !now.Before(daneExpiry(dn, now))), dn == nil:
		until = now.Add(max(d.KeepAtMost, keepFailure))
	default:
		until = daneExpiry(dn, now)
	}
	switch {
	case sts.once:
		return now, time.Time{}
	case d.Stale && sts.policy == nil:
	case sts.known:
		until = earliest(until, sts.until)
	case alone:
		recheck = latest(now, sts.recheck) // somebody is to look, but nobody waits
	default:
		until, recheck = earliest(until, now.Add(pendingFor)), time.Time{}
	}
	return until, recheck
}

// classOf says what may make room: records that hold nothing but absences go first.
func classOf(rec *store.Record) store.Class {
	if rec.STS != nil && rec.STS.Policy != nil {
		return store.Positive
	}
	for i := range rec.DANE {
		if d := &rec.DANE[i]; d.SomeTLSA || dane.State(d.State) != dane.None && dane.State(d.State) != dane.Unknown {
			return store.Positive
		}
	}
	return store.Negative
}

// schedule says when things are refreshed.
type schedule struct {
	interval  time.Duration // refresh.interval
	unusedFor time.Duration // refresh.unused_for
}

// stsDue returns when the MTA-STS facts are to be refreshed, or the zero time
// for never. used is the last lookup of the domain.
func (c schedule) stsDue(s *store.STS, now, used time.Time) time.Time {
	if s == nil || now.Sub(used) > c.unusedFor {
		return time.Time{}
	}
	f := readSTS(s, now)
	if f.policy == nil {
		return c.absentDue(s, f, now)
	}
	life := f.policy.MaxAge
	if life < attended && now.Sub(used) > time.Hour {
		return time.Time{}
	}
	due := notFuture(s.FetchedAt, now).Add(min(c.interval, life/2))
	if s.Failures > 0 || s.FailedID != "" {
		due = atLeast(due, notFuture(s.FailedAt, now).Add(backoff(s.Failures)))
	}
	if s.TXTError != "" && s.TXTID == "" {
		// A record that is gone ends the fetching, not the policy.
		due = atLeast(due, notFuture(s.CheckedAt, now).Add(c.interval))
	}
	return due
}

// absentDue is stsDue where no policy is in force.
func (c schedule) absentDue(s *store.STS, f stsFacts, now time.Time) time.Time {
	if f.until.IsZero() {
		return time.Time{}
	}
	if s.FailedID != "" && s.FailedID == s.TXTID {
		failed := notFuture(s.FailedAt, now)
		return atLeast(ahead(failed, f.until), failed.Add(backoff(s.Failures)))
	}
	return ahead(notFuture(s.CheckedAt, now), f.until)
}

// daneDue returns when the DANE facts are to be refreshed, or the zero time. A
// long TTL is not waited for: facts that ended a day old could not stand in for
// the lookup that fails then.
func (c schedule) daneDue(d *store.DANE, now, used time.Time) time.Time {
	if now.Sub(used) > c.unusedFor {
		return time.Time{}
	}
	known := notFuture(d.KnownAt, now)
	return earliest(ahead(known, daneExpiry(d, now)), known.Add(lastKnownFor/2))
}

// ahead returns a moment shortly before the end of what was learned at from.
func ahead(from, until time.Time) time.Time {
	lead := min(max(until.Sub(from)/10, 5*time.Second), time.Minute)
	return until.Add(-lead)
}

// wanted reports whether facts that are due now and were learned at from were
// asked for within their last TTL.
func wanted(from, used, now time.Time) bool {
	ttl := now.Sub(from)
	return now.Sub(used) <= ttl+usedGrain*time.Second
}

// next returns when the record wants attention: the earliest refresh, or else
// the time at which nothing in it can serve any more. What should have been
// refreshed before now and was not wanted is left to expire.
func (c schedule) next(rec *store.Record, now, used time.Time) time.Time {
	policy := c.stsDue(rec.STS, now, used)
	if !policy.IsZero() && !policy.After(now) && readSTS(rec.STS, now).policy != nil {
		return now.Add(shortest) // overdue: a policy in force is not given up
	}
	dues := []time.Time{policy}
	if sts := readSTS(rec.STS, now); sts.policy != nil {
		dues = append(dues, sts.until) // its end is told
	}
	for i := range rec.DANE {
		d := &rec.DANE[i]
		dues = append(dues, c.daneDue(d, now, used))
		if now.Sub(used) <= c.unusedFor { // not wanted at half a day, perhaps it is by its end
			dues = append(dues, ahead(notFuture(d.KnownAt, now), daneExpiry(d, now)))
		}
	}
	var due time.Time
	for _, t := range dues {
		if t.After(now) && (due.IsZero() || t.Before(due)) {
			due = t
		}
	}
	if due.IsZero() {
		due = keepUntil(rec, now)
	}
	return atLeast(due, now.Add(shortest))
}

// keepUntil is when a record that nobody asks for can be deleted: when no DANE
// state in it can stand in for a failing lookup any more (lastKnownFor is never
// less than a TTL). An expired policy stays a day longer: an operator whose
// clock ran ahead gets it back.
func keepUntil(rec *store.Record, now time.Time) time.Time {
	keep := now
	if s := rec.STS; s != nil {
		if f := readSTS(s, now); f.until.After(keep) {
			keep = f.until
		}
		if p, err := mtasts.ParsePolicy(s.Policy); s.Policy != nil && err == nil {
			keep = atLeast(keep, notFuture(s.FetchedAt, now).Add(p.MaxAge+lastKnownFor))
		}
	}
	for i := range rec.DANE {
		// None too: that a domain had no DANE an hour ago keeps its mail going
		// when the lookup fails now.
		keep = atLeast(keep, notFuture(rec.DANE[i].KnownAt, now).Add(lastKnownFor))
	}
	return keep
}

func atLeast(t, floor time.Time) time.Time {
	if t.Before(floor) && !t.IsZero() {
		return floor
	}
	return t
}

// backoff is the pause after the refresher failed n times in a row: 5 minutes,
// doubled up to 6 hours.
func backoff(n int) time.Duration {
	return min(fetchRetry<<min(max(n-1, 0), 10), fetchBackoff)
}

// jitter shortens a pause by up to a tenth, by the domain's name: what was
// learned together is not refreshed together, and the time stays the same
// however often it is computed.
func jitter(domain string, d time.Duration) time.Duration {
	return d - time.Duration(crc32.ChecksumIEEE([]byte(domain))%1000)*(d/10_000)
}
