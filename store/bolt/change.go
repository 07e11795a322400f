package bolt

import (
	"bytes"
	"errors"
	"time"

	"go.etcd.io/bbolt"

	"tlspolicyd/store"
)

// change is one write transaction. It keeps the buckets consistent.
type change struct {
	buckets
	totals, before   totals
	evicted, dropped int
	latest           time.Time // of what is written
}

func newChange(tx *bbolt.Tx) (*change, error) {
	b, err := openBuckets(tx)
	if err != nil {
		return nil, damagef("%v", err)
	}
	t, known := b.totals()
	if !known {
		return nil, damagef("the number of records is damaged")
	}
	b.records.FillPercent = fillPercent
	b.due.FillPercent = fillPercent
	b.use.FillPercent = fillPercent
	b.large.FillPercent = fillPercent
	return &change{buckets: b, totals: t, before: t}, nil
}

// fillPercent is how full a page is left when it is split. If keys arrive in order
// (an import, times of use), all pages stay that full, and more would be better; if
// they arrive in any order, 0.5 gives pages that are 69 % full, 0.65 still 66 %, 0.9
// only 38 %.
const fillPercent = 0.65

// finish writes the figures in the meta bucket.
func (t *change) finish() error {
	if before, known := readLatest(t.meta); known && t.latest.After(before) {
		if err := writeLatest(t.meta, t.latest); err != nil {
			return err
		}
	}
	if t.totals == t.before {
		return nil
	}
	return writeTotals(t.meta, t.totals)
}

// apply writes or removes one record.
func (t *change) apply(o *op) error {
	key := []byte(o.domain)
	old := t.records.Get(key)
	if old != nil {
		t.totals.add(-1, recordSize(o.domain, old))
		if err := t.unindex(o, old); err != nil {
			return err
		}
	}
	if o.value == nil {
		if old == nil {
			return nil
		}
		return t.records.Delete(key)
	}
	t.latest = later(t.latest, o.latest)
	t.totals.add(1, recordSize(o.domain, o.value))
	if err := t.records.Put(key, o.value); err != nil {
		return err
	}
	return errors.Join(index(t.due, o.dueKey), index(t.use, o.useKey), index(t.large, o.large))
}

func index(b *bbolt.Bucket, key []byte) error {
	if key == nil {
		return nil
	}
	return b.Put(key, nil)
}

// unindex removes the index entries of the record that o replaces, unless they stay
// the same. Those of a record that cannot be decoded are removed when they are read.
func (t *change) unindex(o *op, old []byte) error {
	rec, err := store.DecodeRecord(o.domain, old)
	if err != nil {
		t.dropped++
		return nil
	}
	return errors.Join(
		unindex(t.due, dueKey(&rec), o.dueKey),
		unindex(t.use, useKey(&rec), o.useKey),
		unindex(t.large, largeKey(&rec, recordSize(o.domain, old)), o.large),
	)
}

func unindex(b *bbolt.Bucket, key, next []byte) error {
	if key == nil || bytes.Equal(key, next) {
		return nil
	}
	return b.Delete(key)
}
