package policymap

import (
	"context"
	"time"

	"tlspolicyd/policymap/policy"
	"tlspolicyd/store"
)

// Tally is what the store holds, in numbers.
type Tally struct {
	Both     int // domains with an MTA-STS policy in force and TLSA records at a mail host
	DANE     int // with the latter only
	STS      int // with the former only
	Negative int // with neither

	Modes    [policy.STSEnforce + 1]int // policies in force, by mode; [policy.STSAbsent] stays 0
	Expiring int                        // of these, those in danger: see Tally
}

// Tally counts the records. A policy is in danger that ends within soon and has
// less than a third of its lifetime left: it is wanted, and should have been
// fetched again at half of it or sooner. Tally reads all of them, some seconds' work for a
// million, and ends early with the error of ctx.
func (m *Map) Tally(ctx context.Context, soon time.Duration) (Tally, error) {
	var t Tally
	now := m.clock.Now()
	err := m.book.Each(func(rec store.Record) bool {
		sts := policy.ReadSTS(rec.STS, now)
		t.add(&rec, sts)
		if m.inDanger(&rec, sts, now, soon) {
			t.Expiring++
		}
		return ctx.Err() == nil && m.ctx.Err() == nil
	})
	if err == nil {
		err = ctx.Err()
	}
	if err == nil && m.ctx.Err() != nil {
		err = errStopping
	}
	return t, err
}

func (m *Map) inDanger(rec *store.Record, sts policy.STSFacts, now time.Time, soon time.Duration) bool {
	if sts.Policy == nil || rec.STS.TXTGone { // one that was withdrawn may end
		return false
	}
	used := policy.Latest(rec.LastUsed, m.usedInMemory(rec.Domain))
	return sts.Expires.Sub(now) < min(soon, sts.Policy.MaxAge/3) && now.Sub(used) <= m.config.Load().UnusedFor
}

func (t *Tally) add(rec *store.Record, sts policy.STSFacts) {
	if sts.Policy != nil {
		t.Modes[sts.State]++
	}
	hasTLSA := false // whatever port was asked for
	for i := range rec.DANE {
		hasTLSA = hasTLSA || policy.HasTLSA(&rec.DANE[i])
	}
	switch {
	case hasTLSA && sts.Policy != nil:
		t.Both++
	case hasTLSA:
		t.DANE++
	case sts.Policy != nil:
		t.STS++
	default:
		t.Negative++
	}
}
