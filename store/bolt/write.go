package bolt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"go.etcd.io/bbolt"

	"tlspolicyd/store"
)

// request is what a call of Put or Delete sends to the writer goroutine. One without
// ops asks for a write of the records that wait.
type request struct {
	ops  []*op
	done chan error // has room for the answer
}

// Put writes records durably. See store.Store.
func (s *Store) Put(ctx context.Context, recs ...store.Record) error {
	if len(recs) == 0 {
		return nil
	}
	seq := s.seq.Add(1)
	ops := make([]*op, len(recs))
	for i := range recs {
		o, err := newOp(seq, &recs[i])
		if err != nil {
			return err // before it could fail the writes of other calls
		}
		ops[i] = o
	}
	return s.write(ctx, ops)
}

// Delete removes records durably. See store.Store.
func (s *Store) Delete(ctx context.Context, domains ...string) error {
	if len(domains) == 0 {
		return nil
	}
	seq := s.seq.Add(1)
	ops := make([]*op, len(domains))
	for i, domain := range domains {
		ops[i] = &op{seq: seq, domain: domain}
	}
	return s.write(ctx, ops)
}

// flush writes the records that wait, if the disk can be written.
func (s *Store) flush() {
	if s.later.len() > 0 {
		_ = s.write(context.Background(), nil)
	}
}

func (s *Store) write(ctx context.Context, ops []*op) error {
	if s.closed() {
		return store.ErrClosed
	}
	r := &request{ops: ops, done: make(chan error, 1)}
	select {
	case s.requests <- r:
	case <-ctx.Done():
		return fmt.Errorf("gave up waiting to write: %w", context.Cause(ctx))
	case <-s.stop:
		return store.ErrClosed
	}
	select {
	case err := <-r.done:
		if err != nil {
			return fmt.Errorf("write database %s: %w", s.path, err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("gave up waiting for the write, which may still happen: %w", context.Cause(ctx))
	}
}

// Bounds of one transaction. The last call in it may exceed them, as no call is
// split.
const (
	batchOps   = 4096
	batchBytes = 8 << 20
)

// run is the writer goroutine. The first request is written at once, together with
// all that waits; requests that arrive meanwhile share the next transaction. So a
// single Put waits for its own fsync only, and a hundred at the same time for two.
func (s *Store) run() {
	defer close(s.finished)
	w := writer{Store: s, timer: time.NewTimer(0)}
	w.timer.Stop()
	check := time.NewTicker(checkEvery)
	defer check.Stop()
	for {
		select {
		case r := <-s.requests:
			w.commit(w.drain(r))
		case <-s.wakeup:
			w.prepare()
		case <-check.C:
			_ = w.checkFile() // it reports the error
		case <-w.timer.C:
			w.armed = false
			w.commit(nil)
		case <-s.stop:
			w.timer.Stop()
			s.closeErr = w.finish()
			return
		}
	}
}

// writer is the state of the writer goroutine.
type writer struct {
	*Store
	timer *time.Timer
	armed bool

	setAsideAt time.Time // when a damaged file was set aside last
	missing    bool      // the file is not at its path, which has been logged
}

// arm makes the timer fire after d, or sooner if it is set already.
func (w *writer) arm(d time.Duration) {
	if !w.armed || d == 0 {
		w.armed = true
		w.timer.Reset(d)
	}
}

// prepare plans a transaction for work that came without a request.
func (w *writer) prepare() {
	_ = w.checkFile() // it reports the error
	if w.Health() != nil {
		w.arm(retryAfter)
	} else {
		w.arm(flushAfter)
	}
}

// drain adds to r the requests that wait.
func (w *writer) drain(r *request) []*request {
	var reqs []*request
	ops, size := 0, 0
	for {
		if r != nil {
			reqs = append(reqs, r)
			ops += len(r.ops)
			for _, o := range r.ops {
				size += len(o.value)
			}
			if ops >= batchOps || size >= batchBytes {
				return reqs
			}
		}
		select {
		case r = <-w.requests:
		default:
			return reqs
		}
	}
}

// commit writes the requests and some of the records that wait in one transaction,
// answers the requests, and plans the next transaction.
func (w *writer) commit(reqs []*request) {
	err := w.transaction(reqs)
	answer(reqs, err)
	waiting := w.later.len()
	switch {
	case err != nil:
		w.arm(retryAfter)
	case waiting >= batchOps || w.overLimit():
		w.arm(0) // there was more than goes into one transaction
	case waiting > 0 || w.repairs.len() > 0:
		w.arm(flushAfter)
	}
}

// finish writes what waits and closes the file.
func (w *writer) finish() error {
	reqs := w.drain(nil)
	err := w.transaction(reqs)
	answer(reqs, err)
	for err == nil && w.later.len() > 0 {
		err = w.transaction(nil)
	}
	return errors.Join(err, w.file.Load().close())
}

func answer(reqs []*request, err error) {
	for _, r := range reqs {
		r.done <- err
	}
}

// transaction writes the requests and some of the records that wait, repairs, and
// evicts. If there is nothing to do, it does not touch the disk.
func (w *writer) transaction(reqs []*request) error {
	if f := w.file.Load(); f.damage.Load() != nil || f.fault != nil {
		if err := w.checkFile(); err != nil {
			return err
		}
	}
	ops := newest(reqs, w.later.some(batchOps))
	repairs := w.repairs.take()
	if len(ops) == 0 && len(repairs) == 0 && !w.overLimit() {
		return nil
	}
	apply := func(t *change) error {
		for _, r := range repairs {
			if err := t.repair(r); err != nil {
				return err
			}
		}
		for _, o := range ops {
			if err := t.apply(o); err != nil {
				return err
			}
		}
		return t.evict(w.maxEntries, w.maxBytes)
	}
	err := w.attempt(apply)
	if errors.Is(err, store.ErrDamaged) {
		if err = w.checkFile(); err == nil {
			err = w.attempt(apply)
		}
	}
	if err == nil {
		err = w.checkFile() // a file that is gone has no durable records: they are copied
	}
	w.report(err)
	if err != nil {
		return err
	}
	w.later.remove(ops)
	return nil
}

// attempt runs apply in a transaction and updates the figures.
func (w *writer) attempt(apply func(*change) error) error {
	var t *change
	err := w.file.Load().update(func(tx *bbolt.Tx) (err error) {
		if t, err = newChange(tx); err != nil {
			return err
		}
		if err = apply(t); err != nil {
			return err
		}
		return t.finish()
	})
	if err != nil {
		w.stats.writeErrors.Add(1)
		return err
	}
	w.stats.commits.Add(1)
	w.stats.evicted.Add(uint64(t.evicted))
	w.stats.damaged.Add(uint64(t.dropped))
	w.setTotals(t.totals)
	if t.dropped > 0 {
		w.log.Warn("damaged records removed from the database",
			slog.String("path", w.path), slog.Int("records", t.dropped))
	}
	return nil
}

// report logs when writes begin to fail and when they work again.
func (w *writer) report(err error) {
	failed := w.Health() != nil
	switch {
	case err == nil:
		w.health.Store(nil)
		if failed {
			w.log.Info("database can be written again", slog.String("path", w.path))
		}
	default:
		w.health.Store(&health{err})
		if !failed {
			w.log.Error("database cannot be written", slog.String("path", w.path), slog.Any("error", err))
		}
	}
}

// newest returns the last op of each domain, in order of domain, so that neighbours
// share pages.
func newest(reqs []*request, later []*op) []*op {
	byDomain := make(map[string]*op, len(later)+len(reqs))
	add := func(ops []*op) {
		for _, o := range ops {
			if before := byDomain[o.domain]; before == nil || before.seq <= o.seq {
				byDomain[o.domain] = o
			}
		}
	}
	add(later)
	for _, r := range reqs {
		add(r.ops)
	}
	ops := make([]*op, 0, len(byDomain))
	for _, o := range byDomain {
		ops = append(ops, o)
	}
	slices.SortFunc(ops, func(a, b *op) int { return strings.Compare(a.domain, b.domain) })
	return ops
}
