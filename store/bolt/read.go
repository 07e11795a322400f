package bolt

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"tlspolicyd/store"
)

// Get returns the record of a domain, first of all one that PutLater was
// handed. A stored record that cannot be trusted is an error that wraps
// store.ErrDamaged; it is removed in the background.
func (s *Store) Get(domain string) (store.Record, error) {
	if s.closed() {
		return store.Record{}, store.ErrClosed
	}
	if o := s.later.get(domain); o != nil {
		return store.DecodeRecord(domain, o.value)
	}
	var rec store.Record
	err := s.view(func(b buckets) (err error) {
		v := b.records.Get([]byte(domain))
		if v == nil {
			return store.ErrNotFound
		}
		if rec, err = store.DecodeRecord(domain, v); err != nil {
			s.repair(domain, nil)
		}
		return err
	})
	return rec, err
}

// Due returns records whose Due is not after t, earliest first, at most limit.
func (s *Store) Due(t time.Time, limit int) ([]store.Record, error) {
	if limit <= 0 {
		return nil, nil
	}
	// What waits counts instead of what is on disk. It is looked at first: what
	// is written in between then shows up twice and not never.
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

// CountDue returns how many records have a Due that is not after t. It reads
// the due bucket up to there, some hundredths of a second for 100,000 records.
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
// order, until it returns false. An entry of the due bucket that no record
// bears out, which only damage can bring about, is passed over and removed in
// the background.
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

const (
	// Bounds of one read transaction of Each: while one is open the pages that
	// writers leave behind cannot be used again, and the file grows.
	eachRecords = 256
	eachBytes   = 1 << 20
)

// Each calls fn for every record in order of domain until it returns false. It
// reads in short transactions and calls fn outside of them. What PutLater was
// handed is written first, if the disk can be written at all. Records that
// cannot be trusted are left out.
func (s *Store) Each(fn func(store.Record) bool) error {
	s.flush()
	var next []byte
	for {
		var chunk []store.Record
		err := s.view(func(b buckets) error {
			chunk, next = s.readFrom(b, next)
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
		if next == nil {
			return nil
		}
	}
}

// readFrom reads records from key on, and returns the key to go on with, nil
// at the end.
func (s *Store) readFrom(b buckets, key []byte) (chunk []store.Record, next []byte) {
	c := b.records.Cursor()
	size := 0
	for k, v := c.Seek(key); k != nil; k, v = c.Next() {
		if len(chunk) == eachRecords || size >= eachBytes {
			return chunk, bytes.Clone(k)
		}
		domain := string(k[:min(len(k), store.MaxDomain+1)])
		rec, err := store.DecodeRecord(domain, v)
		if err != nil {
			s.repair(domain, nil)
			continue
		}
		chunk = append(chunk, rec)
		size += len(v)
	}
	return chunk, nil
}
