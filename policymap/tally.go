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
	Expiring int                 // of these, those that end within the time asked for
}

// Tally counts the records. It reads all of them, some seconds' work for a
// million, and returns early with the error of ctx.
func (m *Map) Tally(ctx context.Context, soon time.Duration) (Tally, error) {
	var t Tally
	now := m.clock.now()
	err := m.ledger.store.Each(func(rec store.Record) bool {
		t.add(&rec, now, soon)
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

func (t *Tally) add(rec *store.Record, now time.Time, soon time.Duration) {
	sts := readSTS(rec.STS, now)
	if sts.policy != nil {
		t.Modes[sts.state]++
		if sts.until.Sub(now) < soon {
			t.Expiring++
		}
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
