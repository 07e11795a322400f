package bolt

import (
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"tlspolicyd/store"
)

// damageError says why a file cannot be trusted.
type damageError struct{ reason string }

func (e *damageError) Error() string { return e.reason }

func (e *damageError) Is(target error) bool { return target == store.ErrDamaged }

// damagef returns a *damageError in printable ASCII of bounded length: the
// reason may quote what stands in the file.
func damagef(format string, args ...any) *damageError {
	const longest = 300
	reason := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, fmt.Sprintf(format, args...))
	return &damageError{reason[:min(len(reason), longest)]}
}

// guard runs fn, which reads pages that bbolt has mapped. bbolt believes what
// stands in them: on a damaged page it panics, or follows an offset out of the
// file, and a file that was cut short while it is open faults. All of that is
// damage here, not the end of the process.
func guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = damagef("%v", p)
		}
	}()
	return fn()
}

// view runs fn in a read transaction.
func (f *file) view(fn func(*bbolt.Tx) error) error {
	return f.transact(func() error { return f.db.View(fn) })
}

// update runs fn in a write transaction. Of the two rounds of fsync that it
// takes, the second makes it durable.
func (f *file) update(fn func(*bbolt.Tx) error) error {
	return f.transact(func() error { return f.db.Update(fn) })
}

func (f *file) transact(run func() error) error {
	if damage := f.damage.Load(); damage != nil {
		return damage
	}
	err := guard(run)
	var damage *damageError
	if errors.As(err, &damage) {
		f.damage.CompareAndSwap(nil, damage)
	}
	return err
}

// close closes the file in good order, which waits for transactions, or
// abandons it when it is damaged.
func (f *file) close() error {
	if f.damage.Load() != nil {
		f.abandon()
		return nil
	}
	return f.db.Close()
}

// abandon gives up the lock without waiting for transactions: a panic inside
// bbolt can leave its locks taken. The pages stay mapped until the process
// ends, so a reader that is still under way reads what it would have read.
func (f *file) abandon() { _ = f.os.Close() }

// view runs fn in a read transaction of the file in use.
func (s *Store) view(fn func(buckets) error) error {
	if s.closed() {
		return store.ErrClosed
	}
	f := s.file.Load()
	err := f.view(func(tx *bbolt.Tx) error {
		b, err := openBuckets(tx)
		if err != nil {
			return damagef("%v", err)
		}
		return fn(b)
	})
	if f.damage.Load() != nil {
		s.nudge()
	}
	if errors.Is(err, berrors.ErrDatabaseNotOpen) { // closed since we looked
		return store.ErrClosed
	}
	return err
}

// replaceEvery bounds how often a file is set aside while running. Where that
// is not enough the disk is at fault, and files would only fill it.
const replaceEvery = time.Hour

// replacer puts an empty file in the place of a damaged one. It belongs to the
// writer goroutine.
type replacer struct{ last time.Time }

// replace does so if the file in use is damaged, and returns an error if it
// still is afterwards.
func (r *replacer) replace(s *Store) error {
	f := s.file.Load()
	damage := f.damage.Load()
	if damage == nil {
		return nil
	}
	if !r.last.IsZero() && time.Since(r.last) < replaceEvery {
		return fmt.Errorf("%w, for the second time within an hour", damage)
	}
	// Someone may have moved it away himself, or put another in its place.
	if isAt(f.os, s.path) {
		aside, err := setAside(s.path)
		if err != nil {
			return fmt.Errorf("%w; set it aside: %w", damage, err)
		}
		s.reportAside(s.path, aside, damage)
	}
	next, records, err := openFile(s.path, s.reportAside)
	if err != nil {
		return fmt.Errorf("%w; start another: %w", damage, err)
	}
	r.last = time.Now()
	s.file.Store(next)
	s.stats.records.Store(int64(records))
	s.reportFound(next)
	f.abandon()
	return nil
}
