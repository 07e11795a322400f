package bolt

import (
	"bytes"
	"errors"
	"slices"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"tlspolicyd/store"
)

// Get returns the record of a domain, also one that waits in PutLater. For a stored
// record that is damaged the error wraps store.ErrDamaged, and the record is removed
// in the background.
func (s *Store) Get(domain string) (store.Record, error) {
	if s.closed() {
		return store.Record{}, store.ErrClosed
	}
	if o := s.later.get(domain); o != nil {
		return store.DecodeRecord(domain, o.value)
	}
	var rec store.Record
	err := s.viewTx(func(tx *bbolt.Tx) (err error) {
		records := tx.Bucket([]byte(bucketRecords)) // a lookup needs no other bucket
		if records == nil {
			return damagef("a bucket is missing")
		}
		v := records.Get([]byte(domain))
		if v == nil {
			return store.ErrNotFound
		}
		if rec, err = store.DecodeRecord(domain, v); err != nil {
			s.repair(domain, nil)
		}
		return err
	})
	if err == nil && rec.Domain == "" { // no file
		err = store.ErrNotFound
	}
	return rec, err
}

// Due returns records whose Due is not after t, earliest first, at most limit.
func (s *Store) Due(t time.Time, limit int) ([]store.Record, error) {
	if limit <= 0 {
		return nil, nil
	}
	// Records that wait replace those on disk. They are read first: one that is
	// written meanwhile is then found twice rather than not at all.
	later := s.laterByDomain()
	due := make([]store.Record, 0, min(limit, 64))
	err := s.view(func(b buckets) error {
		s.eachDue(b, t, later, func(rec store.Record) bool {
			due = append(due, rec)
			return len(due) < limit
		})
		return nil
	})
	if err != nil {
		return nil, err
	}
	for domain, o := range later {
		if o.dueKey == nil || o.due.After(t) {
			continue
		}
		rec, err := store.DecodeRecord(domain, o.value)
		if err != nil {
			return nil, err
		}
		due = append(due, rec)
	}
	slices.SortFunc(due, func(a, b store.Record) int {
		return bytes.Compare(dueKey(&a), dueKey(&b))
	})
	return due[:min(limit, len(due))], nil
}

// CountDue returns how many records have a Due that is not after t. It reads the due
// bucket up to there, which takes some hundredths of a second for 100,000 records.
func (s *Store) CountDue(t time.Time) (int, error) {
	later := s.laterByDomain()
	n := 0
	err := s.view(func(b buckets) error {
		c := b.due.Cursor()
		for k, _ := c.First(); k != nil; k, _ = c.Next() {
			at, domain, ok := parseDueKey(k)
			if !ok || later[domain] != nil {
				continue
			}
			if at.After(t) {
				return nil
			}
			n++
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	for _, o := range later {
		if o.dueKey != nil && !o.due.After(t) {
			n++
		}
	}
	return n, nil
}

func (s *Store) laterByDomain() map[string]*op {
	ops := s.later.some(maxLater)
	m := make(map[string]*op, len(ops))
	for _, o := range ops {
		m[o.domain] = o
	}
	return m
}

// eachDue calls fn for the records that are due until t and not in except, in
// order, until fn returns false. An entry of the due bucket that does not match a
// record, which only damage can cause, is skipped and removed in the background.
func (s *Store) eachDue(b buckets, t time.Time, except map[string]*op, fn func(store.Record) bool) {
	c := b.due.Cursor()
	for k, _ := c.First(); k != nil; k, _ = c.Next() {
		at, domain, ok := parseDueKey(k)
		if ok && at.After(t) {
			return
		}
		if except[domain] != nil {
			continue
		}
		rec, err := store.DecodeRecord(domain, b.records.Get([]byte(domain)))
		if !ok || err != nil || !rec.Due.Equal(at) {
			s.repair(domain, k)
			continue
		}
		if !fn(rec) {
			return
		}
	}
}

// readFrom reads some records from key on and returns the key of the next one, nil
// at the end. It calls damaged for each that it cannot decode.
func readFrom(b buckets, key []byte, most, mostBytes int, damaged func(domain string)) (chunk []store.Record, next []byte) {
	c := b.records.Cursor()
	size := 0
	for k, v := c.Seek(key); k != nil; k, v = c.Next() {
		if len(chunk) == most || size >= mostBytes {
			return chunk, bytes.Clone(k)
		}
		domain := string(k[:min(len(k), store.MaxDomain+1)])
		rec, err := store.DecodeRecord(domain, v)
		if err != nil {
			damaged(domain)
			continue
		}
		chunk = append(chunk, rec)
		size += len(v)
	}
	return chunk, nil
}

// Latest returns a time that no time in a record is later than.
func (s *Store) Latest() (time.Time, error) {
	var latest time.Time
	for _, o := range s.later.some(maxLater) {
		latest = later(latest, o.latest)
	}
	err := s.view(func(b buckets) error {
		written, _ := readLatest(b.meta)
		latest = later(latest, written)
		return nil
	})
	return latest, err
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// view runs fn in a read transaction of the file in use. If there is none, it does
// not call fn and returns nil.
func (s *Store) view(fn func(buckets) error) error {
	return s.viewTx(func(tx *bbolt.Tx) error {
		b, err := openBuckets(tx)
		if err != nil {
			return damagef("%v", err)
		}
		return fn(b)
	})
}

func (s *Store) viewTx(fn func(*bbolt.Tx) error) error {
	for {
		if s.closed() {
			return store.ErrClosed
		}
		f := s.file.Load()
		if f.db == nil {
			return nil
		}
		err := f.view(fn)
		if f.damage.Load() != nil {
			s.wake()
		}
		if !errors.Is(err, berrors.ErrDatabaseNotOpen) {
			return err
		}
		if s.file.Load() == f { // not replaced but closed
			return store.ErrClosed
		}
	}
}
