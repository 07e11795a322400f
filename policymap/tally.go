package policymap

import (
	"cmp"
	"context"
	"slices"
	"strings"
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

	Failing Concerns // a policy is in force, and the last fetch of a newer one failed
	Ending  Concerns // enforce policies in danger
}

// Concerns are the policies that have one thing wrong with them: how many there
// are, and those of them that end first.
type Concerns struct {
	Count int
	First []Concern
}

// Concern is a policy that needs the operator's attention.
type Concern struct {
	Domain string
	Ends   time.Time
	Error  string // of the last fetch; may be empty
}

// maxConcerns is how many of a kind are kept.
const maxConcerns = 100

func (c *Concerns) add(one Concern) {
	c.Count++
	c.First = append(c.First, one)
	if len(c.First) >= 2*maxConcerns {
		c.cut()
	}
}

// cut sorts, and leaves those that end first.
func (c *Concerns) cut() {
	slices.SortFunc(c.First, func(a, b Concern) int {
		return cmp.Or(a.Ends.Compare(b.Ends), strings.Compare(a.Domain, b.Domain))
	})
	c.First = c.First[:min(len(c.First), maxConcerns)]
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
		concern := Concern{Domain: rec.Domain, Ends: sts.Expires}
		if sts.Policy != nil && !rec.STS.TXTGone {
			concern.Error = rec.STS.Error
		}
		if m.inDanger(&rec, sts, now, soon) {
			t.Expiring++
			if sts.State == policy.STSEnforce {
				t.Ending.add(concern)
			}
		}
		if concern.Error != "" && sts.State != policy.STSNone {
			t.Failing.add(concern)
		}
		return ctx.Err() == nil && m.ctx.Err() == nil
	})
	t.Failing.cut()
	t.Ending.cut()
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
