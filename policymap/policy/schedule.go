package policy

import (
	"hash/crc32"
	"time"

	"tlspolicyd/internal/mtasts"
	"tlspolicyd/store"
)

// This file says when what is known is looked up again, as functions of times.

const (
	TXTRetry     = time.Minute      // how long a failed TXT lookup counts as "no record"
	fetchRetry   = 5 * time.Minute  // a failed fetch is not repeated for the same id within this
	fetchBackoff = 6 * time.Hour    // the longest pause between failing fetches
	MinPause     = 5 * time.Second  // between two refreshes of a record: no busy loop
	shortLived   = 10 * time.Minute // policies with a shorter max_age are refreshed only while in use
	UsedGrain    = 15 * time.Second // the last use is exact to this
)

// Occasion is why a policy domain is looked up.
type Occasion uint8

const (
	OnLookup   Occasion = iota // for a message
	OnSchedule                 // for the refresher
	OnRequest                  // for the operator
)

// WantsFetch says whether the policy file is fetched now, after a TXT lookup.
//
// Following the id and renewing the policy are two clocks. A new id is fetched
// whenever it is seen. A policy in force is renewed on schedule, by what is left
// of its life and whatever became of the TXT lookup: dropping TXT answers is the
// cheapest interference (8461 §10). Only an absence that DNSSEC proves ends the
// renewals. A failed fetch is not repeated for the same id within 5 minutes,
// except for the operator, and to save a policy that is about to end.
func WantsFetch(s *store.STS, txt mtasts.RecordResult, now time.Time, why Occasion) bool {
	inForce := ReadSTS(s, now).Policy != nil
	switch {
	case !txt.Found:
		return why != OnLookup && inForce && !Gone(txt) && !(s.TXTGone && txt.Failed)
	case s == nil, why == OnRequest, why == OnSchedule && inForce:
		return true
	case s.FailedID == txt.Record.ID && now.Sub(NotFuture(s.FailedAt, now)) < fetchRetry:
		return false
	}
	return !inForce || txt.Record.ID != s.PolicyID
}

// Gone reports whether DNSSEC proves that a domain has no valid TXT record.
func Gone(txt mtasts.RecordResult) bool { return !txt.Found && !txt.Failed && txt.Answer.Authentic }

// Schedule says when facts are refreshed.
type Schedule struct {
	Interval  time.Duration // refresh.interval, with Jitter
	UnusedFor time.Duration // refresh.unused_for

	VerifyAfter time.Duration // share.verify_after, with Jitter; 0: nothing is shared
}

// Jitter shortens a pause by up to a tenth, by the domain's name: what was
// learned together is not refreshed together, and the time stays the same
// however often it is computed.
func Jitter(domain string, d time.Duration) time.Duration {
	return d - time.Duration(crc32.ChecksumIEEE([]byte(domain))%1000)*(d/10_000)
}

// STSDue returns when the MTA-STS facts are due for a refresh, or the zero time
// for never. f is what ReadSTS made of s, used the last lookup of the domain.
func (c Schedule) STSDue(s *store.STS, f STSFacts, now, used time.Time) time.Time {
	if s == nil || now.Sub(used) > c.UnusedFor {
		return time.Time{}
	}
	if f.Policy == nil {
		return absentDue(s, f, now)
	}
	life := f.Policy.MaxAge
	if life < shortLived && now.Sub(used) > time.Hour {
		return time.Time{}
	}
	fetched := NotFuture(s.FetchedAt, now)
	due := fetched.Add(min(c.Interval, life/2))
	if s.Unchanged > 0 { // the file follows its id later, as on a CDN
		due = Earliest(due, fetched.Add(unchangedRetry(s.Unchanged)))
	}
	if at := c.verifyAt(s, now); !at.IsZero() {
		due = Earliest(due, at)
	}
	if s.Failures > 0 || s.FailedID != "" {
		failed := NotFuture(s.FailedAt, now)
		due = notBefore(due, failed.Add(min(backoff(s.Failures), max(f.Expires.Sub(failed)/4, time.Minute))))
		if last := ahead(fetched, f.Expires); last.After(failed) {
			due = Earliest(due, last) // one last try before the end
		}
	}
	if s.TXTGone {
		due = notBefore(due, NotFuture(s.CheckedAt, now).Add(c.Interval))
	}
	return due
}

// verifyAt is when this host fetches a policy itself that others fetched for it,
// or the zero time.
func (c Schedule) verifyAt(s *store.STS, now time.Time) time.Time {
	if s == nil || s.SharedSince.IsZero() || c.VerifyAfter == 0 {
		return time.Time{}
	}
	return NotFuture(s.SharedSince, now).Add(c.VerifyAfter)
}

// Own reports whether a fetch that is called for now is this host's own business,
// whatever others fetched: they have done so for long, or the file is one that is
// known to follow its id late.
func (c Schedule) Own(s *store.STS, now time.Time) bool {
	at := c.verifyAt(s, now)
	return s != nil && s.Unchanged > 0 || !at.IsZero() && !now.Before(at)
}

// Young reports whether a policy that was fetched that long ago is not due to be
// fetched again.
func (c Schedule) Young(maxAge, age time.Duration) bool { return age < min(c.Interval, maxAge/2) }

// unchangedRetry is the pause before the nth fetch again of a file that did not
// change with its id; 0 and more than three: none is made for that.
func unchangedRetry(n int) time.Duration {
	return [...]time.Duration{5 * time.Minute, 15 * time.Minute, time.Hour}[min(n, 3)-1]
}

// absentDue is STSDue where no policy is in force.
func absentDue(s *store.STS, f STSFacts, now time.Time) time.Time {
	if f.Until.IsZero() {
		return time.Time{}
	}
	if s.FailedID != "" && s.FailedID == s.TXTID {
		failed := NotFuture(s.FailedAt, now)
		return notBefore(ahead(failed, f.Until), failed.Add(backoff(s.Failures)))
	}
	return ahead(NotFuture(s.CheckedAt, now), f.Until)
}

// daneDue returns when the DANE facts are due for a refresh, or the zero time. A
// long TTL is cut short: facts that are a day old could not be used when the
// lookup fails then.
func (c Schedule) daneDue(d *store.DANE, now, used time.Time) time.Time {
	if now.Sub(used) > c.UnusedFor {
		return time.Time{}
	}
	known := NotFuture(d.KnownAt, now)
	return Earliest(ahead(known, DANEExpiry(d, now)), known.Add(LastKnownFor/2))
}

// DueNow returns what is to be looked up again now: the MTA-STS facts, and of
// the DANE facts those at the indexes returned. Absences and DANE facts are
// refreshed only if the domain was asked for within their last TTL.
func (c Schedule) DueNow(rec *store.Record, f STSFacts, now, used time.Time) (sts bool, endpoints []int) {
	isDue := func(t time.Time) bool { return !t.IsZero() && !t.After(now) }
	sts = isDue(c.STSDue(rec.STS, f, now, used)) && (f.Policy != nil || wanted(rec.STS.CheckedAt, used, now))
	for i := range rec.DANE {
		d := &rec.DANE[i]
		if isDue(c.daneDue(d, now, used)) && c.inUse(d, now, used) {
			endpoints = append(endpoints, i)
		}
	}
	return sts, endpoints
}

// inUse reports whether DANE evidence that has not ended was asked for within its
// TTL.
func (c Schedule) inUse(d *store.DANE, now, used time.Time) bool {
	return now.Before(DANEExpiry(d, now)) && now.Sub(used) <= daneTTL(d)+UsedGrain
}

// wanted reports whether facts that are due now and were learned at from were
// asked for within their last TTL.
func wanted(from, used, now time.Time) bool { return now.Sub(used) <= now.Sub(from)+UsedGrain }

// Next returns when a record is due: at the earliest refresh in it, or else when
// nothing in it can be used any more. What was due before now and was not wanted
// is left to expire.
func (c Schedule) Next(rec *store.Record, f STSFacts, now, used time.Time) time.Time {
	policy := c.STSDue(rec.STS, f, now, used)
	if !policy.IsZero() && !policy.After(now) && f.Policy != nil {
		return now.Add(MinPause) // overdue: a policy in force is not given up
	}
	dues := []time.Time{policy}
	if f.Policy != nil {
		dues = append(dues, f.Expires) // its end is reported
	}
	for i := range rec.DANE {
		d := &rec.DANE[i]
		due := c.daneDue(d, now, used)
		if !due.IsZero() && !due.After(now) && c.inUse(d, now, used) {
			due = now.Add(fetchRetry) // it was tried and failed
		}
		dues = append(dues, due)
		if now.Sub(used) <= c.UnusedFor { // not wanted after half a day, it may be by its end
			dues = append(dues, ahead(NotFuture(d.KnownAt, now), DANEExpiry(d, now)))
		}
	}
	var due time.Time
	for _, t := range dues {
		if t.After(now) && (due.IsZero() || t.Before(due)) {
			due = t
		}
	}
	if due.IsZero() {
		due = KeepUntil(rec, f, now)
	}
	return notBefore(due, now.Add(MinPause))
}

// KeepUntil is when a record that is no longer asked for can be deleted: when no
// DANE state in it can be used for a failing lookup any more (LastKnownFor is
// never less than a TTL). An expired policy stays a day longer: an operator whose
// clock ran ahead gets it back.
func KeepUntil(rec *store.Record, f STSFacts, now time.Time) time.Time {
	keep := Latest(now, f.Until)
	if !f.Expires.IsZero() {
		keep = notBefore(keep, f.Expires.Add(LastKnownFor))
	}
	for i := range rec.DANE {
		// None too: that a domain had no DANE an hour ago keeps its mail going
		// when the lookup fails now.
		keep = notBefore(keep, NotFuture(rec.DANE[i].KnownAt, now).Add(LastKnownFor))
	}
	return keep
}

// ahead returns a moment shortly before the end of what was learned at from.
func ahead(from, until time.Time) time.Time {
	lead := min(max(until.Sub(from)/10, 5*time.Second), time.Minute)
	return until.Add(-lead)
}

// backoff is the pause after the refresher failed n times in a row: 5 minutes,
// doubled up to 6 hours.
func backoff(n int) time.Duration {
	return min(fetchRetry<<min(max(n-1, 0), 10), fetchBackoff)
}

// ClassOf says what may be evicted: records that hold only absences go first.
func ClassOf(rec *store.Record) store.Class {
	if rec.STS != nil && rec.STS.Policy != nil {
		return store.Positive
	}
	for i := range rec.DANE {
		if d := &rec.DANE[i]; HasTLSA(d) || failing(d) {
			return store.Positive // Postfix is given dane
		}
	}
	return store.Negative
}
