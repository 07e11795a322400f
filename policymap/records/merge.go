package records

import (
	"time"

	"tlspolicyd/policymap/policy"
	"tlspolicyd/store"
)

// Merge takes over a record of another store, durably. Where the domain is known
// already, what was learned later wins, for MTA-STS and each DANE state apart.
// Times that are in the future become the present. An error means that it is in
// memory only, or what the Defect hook made of a defect of this program.
func (b *Book) Merge(in store.Record) (err error) {
	met := b.guard(in.Domain, func() {
		err = b.Learn(in.Domain, time.Time{}, AtOnce, func(rec *store.Record) { b.merge(rec, clone(in)) })
	})
	if met != nil {
		return met
	}
	return err
}

// merge adds to rec what in knows better.
func (b *Book) merge(rec *store.Record, in store.Record) {
	now := b.Clock.Now()
	MoveTimes(&in, func(t time.Time) time.Time { return policy.NotFuture(t, now) })
	rec.LastUsed = policy.Latest(rec.LastUsed, in.LastUsed)
	bound := policy.ReadSTS(rec.STS, now).Policy != nil
	if in.STS != nil && (rec.STS == nil || laterSTS(in.STS, rec.STS)) {
		if c, ok := policy.ChangeOfSTS(rec.Domain, policy.ReadSTS(rec.STS, now), policy.ReadSTS(in.STS, now)); ok {
			b.hooks.Changed(c)
		}
		rec.STS = in.STS
	}
	for _, d := range in.DANE {
		hop := policy.HopOf(rec.Domain, &d)
		d.NullMX = d.NullMX && !bound // it ends no policy in force
		old := policy.Endpoint(rec, hop)
		switch {
		case old == nil && len(rec.DANE) < maxEndpoints:
			rec.DANE = append(rec.DANE, d)
		case old != nil && old.KnownAt.Before(d.KnownAt):
			if c, ok := policy.ChangeOfDANE(hop, old, d, now); ok {
				b.hooks.Changed(c)
			}
			*old = d
		}
	}
}

// laterSTS reports whether a was learned after b: by the fetch, because a policy
// counts more than a TXT lookup, then by that lookup.
func laterSTS(a, b *store.STS) bool {
	if !a.FetchedAt.Equal(b.FetchedAt) {
		return a.FetchedAt.After(b.FetchedAt)
	}
	return a.CheckedAt.After(b.CheckedAt)
}
