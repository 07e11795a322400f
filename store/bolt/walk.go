package bolt

import (
	"bytes"
	"fmt"

	"go.etcd.io/bbolt"

	"tlspolicyd/store"
)

const (
	// Bounds of one read transaction of Walk: while it is open, pages that writers
	// no longer need cannot be used again, and the file grows.
	walkRecords = 256
	walkBytes   = 1 << 20
)

// Walk calls fn for every record in the order of a scan until fn returns false. It
// reads in short transactions and calls fn outside of them. Records that wait in
// PutLater are written first, if the disk can be written. Damaged records are left
// out.
func (s *Store) Walk(scan store.Scan, fn func(store.Record) bool) error {
	s.flush()
	for {
		var chunk []store.Record
		more := false
		err := s.view(func(b buckets) error {
			chunk, more = s.readInOrder(b, &scan)
			return nil
		})
		if err != nil {
			return fmt.Errorf("list records: %w", err)
		}
		for _, rec := range chunk {
			if !fn(rec) {
				return nil
			}
		}
		if !more {
			return nil
		}
	}
}

// readInOrder reads some records and moves scan behind them. more is false at the
// end. An entry of an index that does not match its record is left out.
func (s *Store) readInOrder(b buckets, scan *store.Scan) (chunk []store.Record, more bool) {
	ranges := b.ranges(*scan)
	for read, size := 0, 0; read < walkRecords && size < walkBytes; read++ {
		var next *indexRange
		for _, r := range ranges {
			if r.more && (next == nil || scan.Compare(r.at, next.at) < 0) {
				next = r
			}
		}
		if next == nil {
			return chunk, false
		}
		scan.After = next.at
		v := next.value
		if scan.Order != store.ByDomain {
			v = b.records.Get([]byte(next.at.Domain))
		}
		rec, err := store.DecodeRecord(next.at.Domain, v)
		switch {
		case err != nil:
			s.repair(next.at.Domain, nil)
		case scan.Compare(scan.PositionOf(&rec), next.at) == 0:
			chunk = append(chunk, rec)
		}
		size += len(v)
		next.move()
	}
	return chunk, true
}

// indexRange reads a part of a bucket in which keys are in the order of a scan.
type indexRange struct {
	cursor   *bbolt.Cursor
	prefix   []byte
	backward bool
	timed    bool // a time comes before the domain

	at    store.Position
	value []byte // of the key
	more  bool   // at is the position of a record
}

// ranges returns the parts of the buckets that have the order of a scan: that of
// the last use is kept apart for each class. Each is where the scan goes on.
func (b *buckets) ranges(scan store.Scan) (all []*indexRange) {
	bucket, prefixes := b.records, [][]byte{nil}
	switch scan.Order {
	case store.ByDue:
		bucket = b.due
	case store.ByLastUsed:
		bucket, prefixes = b.use, [][]byte{{byte(store.Negative)}, {byte(store.Positive)}}
	}
	for _, prefix := range prefixes {
		r := &indexRange{cursor: bucket.Cursor(), prefix: prefix, backward: scan.Backward, timed: scan.Order != store.ByDomain}
		r.seek(scan.After)
		all = append(all, r)
	}
	return all
}

// seek goes to the first key after a position.
func (r *indexRange) seek(after store.Position) {
	key := bytes.Clone(r.prefix)
	switch {
	case after.Domain != "":
		if r.timed {
			key = appendTime(key, after.At)
		}
		key = append(key, after.Domain...)
		if !r.backward {
			key = append(key, 0) // the next key there can be
		}
	case r.backward:
		key = append(key, bytes.Repeat([]byte{0xff}, timeSize+1)...) // behind all
	}
	k, v := r.cursor.Seek(key)
	if r.backward {
		if k == nil {
			k, v = r.cursor.Last()
		} else {
			k, v = r.cursor.Prev()
		}
	}
	r.take(k, v)
}

func (r *indexRange) move() { r.take(r.step()) }

func (r *indexRange) step() (k, v []byte) {
	if r.backward {
		return r.cursor.Prev()
	}
	return r.cursor.Next()
}

// take reads a key, and passes over those that only damage can have made.
func (r *indexRange) take(k, v []byte) {
	start := len(r.prefix)
	if r.timed {
		start += timeSize
	}
	for ; k != nil && bytes.HasPrefix(k, r.prefix); k, v = r.step() {
		domain, ok := domainAfter(k, start)
		if !ok {
			continue
		}
		r.at, r.value, r.more = store.Position{Domain: domain}, v, true
		if r.timed {
			r.at.At = parseTime(k[len(r.prefix):])
		}
		return
	}
	r.more = false
}
