package bolt

import (
	"bytes"
	"sync"
	"time"

	"go.etcd.io/bbolt"

	"tlspolicyd/store"
)

// change is one write transaction. It keeps the buckets in step with each
// other.
type change struct {
	buckets
	before, count    int // number of records
	evicted, dropped int
	latest           time.Time // of what is written
}

func newChange(tx *bbolt.Tx) (*change, error) {
	b, err := openBuckets(tx)
	if err != nil {
		return nil, damagef("%v", err)
	}
	count, err := readCount(b.meta)
	if err != nil {
		return nil, damagef("%v", err)
	}
	b.records.FillPercent = fillPercent
	b.due.FillPercent = fillPercent
	b.use.FillPercent = fillPercent
	return &change{buckets: b, before: count, count: count}, nil
}

// fillPercent is how full a page is left that has become two. Where keys come in
// order (an import, times of use) that is how full all pages stay, and more
// would be better; where they come in any order 0.5 gives pages that are 69 %
// full, 0.65 still 66 %, 0.9 only 38 %.
const fillPercent = 0.65

// finish comes last.
func (t *change) finish() error {
	if before, known := readLatest(t.meta); known && t.latest.After(before) {
		if err := writeLatest(t.meta, t.latest); err != nil {
			return err
		}
	}
	if t.count == t.before {
		return nil
	}
	return writeCount(t.meta, t.count)
}

// apply writes or removes one record.
func (t *change) apply(o *op) error {
	key := []byte(o.domain)
	old := t.records.Get(key)
	if old != nil {
		if err := t.unindex(o, old); err != nil {
			return err
		}
	}
	if o.value == nil {
		if old == nil {
			return nil
		}
		t.count--
		return t.records.Delete(key)
	}
	t.latest = later(t.latest, o.latest)
	if old == nil {
		t.count++
	}
	if err := t.records.Put(key, o.value); err != nil {
		return err
	}
	if o.dueKey != nil {
		if err := t.due.Put(o.dueKey, nil); err != nil {
			return err
		}
	}
	return t.use.Put(o.useKey, nil)
}

// unindex removes the entries of the record that o takes the place of, as far
// as they change. Those of a record that cannot be read are found later by
// whoever stumbles over them.
func (t *change) unindex(o *op, old []byte) error {
	rec, err := store.DecodeRecord(o.domain, old)
	if err != nil {
		t.dropped++
		return nil
	}
	if k := dueKey(&rec); k != nil && !bytes.Equal(k, o.dueKey) {
		if err := t.due.Delete(k); err != nil {
			return err
		}
	}
	if k := useKey(&rec); !bytes.Equal(k, o.useKey) {
		return t.use.Delete(k)
	}
	return nil
}

// evictAtOnce bounds the work of one transaction when the limit was lowered.
// The rest follows in the next ones.
const evictAtOnce = 2 * batchOps

// evict removes records until there are no more than most: those of the lowest
// class first, and within it those that were not asked for longest. What was
// written in this very transaction takes part, so a negative answer never
// takes the place of a policy.
func (t *change) evict(most int) error {
	for budget := evictAtOnce; t.count > most && budget > 0; {
		n := min(t.count-most, budget)
		victims := make([][]byte, 0, n)
		c := t.use.Cursor()
		for k, _ := c.First(); k != nil && len(victims) < n; k, _ = c.Next() {
			victims = append(victims, bytes.Clone(k))
		}
		if len(victims) == 0 {
			return nil
		}
		budget -= len(victims)
		for _, k := range victims {
			if err := t.evictOne(k); err != nil {
				return err
			}
		}
	}
	return nil
}

// evictOne removes one entry of the use bucket and the record that bears it
// out, if there is one.
func (t *change) evictOne(k []byte) error {
	if err := t.use.Delete(k); err != nil {
		return err
	}
	domain, ok := parseUseKey(k)
	if !ok {
		return nil
	}
	v := t.records.Get([]byte(domain))
	rec, err := store.DecodeRecord(domain, v)
	if err != nil || !bytes.Equal(useKey(&rec), k) {
		return nil
	}
	t.evicted++
	return t.apply(&op{domain: domain})
}

// suspect is a record that could not be read, or an entry of the due bucket
// that no record bears out.
type suspect struct {
	domain string
	dueKey string // may be empty
}

// repair removes a suspect if it still is one.
func (t *change) repair(s suspect) error {
	v := t.records.Get([]byte(s.domain))
	rec, err := store.DecodeRecord(s.domain, v)
	if k := []byte(s.dueKey); len(k) > 0 && (err != nil || !bytes.Equal(dueKey(&rec), k)) {
		if err := t.due.Delete(k); err != nil {
			return err
		}
	}
	if v == nil || err == nil {
		return nil
	}
	return t.apply(&op{domain: s.domain}) // which counts it
}

// repairList is what readers found and the writer is to look at.
type repairList struct {
	mu       sync.Mutex
	suspects map[suspect]struct{}
}

const maxRepairs = 4096 // the next reader finds the rest again

func (l *repairList) add(s suspect) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.suspects == nil {
		l.suspects = make(map[suspect]struct{})
	}
	if len(l.suspects) < maxRepairs {
		l.suspects[s] = struct{}{}
	}
}

func (l *repairList) take() []suspect {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []suspect
	for s := range l.suspects {
		all = append(all, s)
	}
	clear(l.suspects)
	return all
}

func (l *repairList) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.suspects)
}

// repair has the writer look at a record, and at an entry of the due bucket
// that led to it.
func (s *Store) repair(domain string, dueKey []byte) {
	s.repairs.add(suspect{domain, string(dueKey)})
	s.nudge()
}
