package policymap

import (
	"context"
	"time"

	"tlspolicyd/internal/dane"
	"tlspolicyd/store"
)

// Tally is what the store holds, in numbers.
type Tally struct {
	Both     int // domains with an MTA-STS policy in force and TLSA records at a mail host
	DANE     int // with the latter only
	STS      int // with the former only
	Negative int // with neither

	Modes    [STSEnforce + 1]int // policies in force, by mode; [STSAbsent] stays 0
	Expiring int                 // of these, those in danger: see Tally
}

// Tally counts the records. A policy is in danger that ends within soon and has
// less than a third of its lifetime left: it is wanted, and should have been
// fetched again at half of it or sooner. Tally reads all of them, some seconds' work for a
// million, and ends early with the error of ctx.
func (m *Map) Tally(ctx context.Context, soon time.Duration) (Tally, error) {
	var t Tally
	now := m.clock.now()
	err := m.ledger.each(func(rec store.Record) bool {
		_ = m.contain(rec.Domain, func() {
			t.add(&rec, now)
			if m.inDanger(&rec, now, soon) {
				t.Expiring++
			}
		})
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

func (m *Map) inDanger(rec *store.Record, now time.Time, soon time.Duration) bool {
	sts := readSTS(rec.STS, now)
	if sts.policy == nil {
		return false
	}
	left := sts.until.Sub(now)
	used := latest(rec.LastUsed, m.usedInMemory(rec))
	return left < min(soon, sts.policy.MaxAge/3) && now.Sub(used) <= m.config.Load().UnusedFor
}

func (t *Tally) add(rec *store.Record, now time.Time) {
	sts := readSTS(rec.STS, now)
	if sts.policy != nil {
		t.Modes[sts.state]++
	}
	switch hasTLSA := anyTLSA(rec); {
	case hasTLSA && sts.policy != nil:
		t.Both++
	case hasTLSA:
		t.DANE++
	case sts.policy != nil:
		t.STS++
	default:
		t.Negative++
	}
}

// anyTLSA reports whether a mail host of the domain was last seen with TLSA
// records, whatever port was asked for.
func anyTLSA(rec *store.Record) bool {
	for i := range rec.DANE {
		if d := &rec.DANE[i]; d.SomeTLSA || strength(dane.State(d.State)) > 0 {
			return true
		}
	}
	return false
}
