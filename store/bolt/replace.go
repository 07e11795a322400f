package bolt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"go.etcd.io/bbolt"

	"tlspolicyd/store"
)

const (
	// checkEvery is how often the writer checks that the file is at its path.
	checkEvery = time.Minute

	// replaceEvery bounds how often a damaged file is set aside while running. If
	// that is not enough, the disk is at fault and files would only fill it.
	replaceEvery = time.Hour
)

// checkFile replaces the file in use if it is damaged, cannot be written or is not
// at its path any more. It returns an error if the next transaction would not be
// durable.
func (w *writer) checkFile() error {
	f := w.file.Load()
	err := w.replace(f)
	if err != nil || w.file.Load() != f {
		w.report(err)
	}
	return err
}

func (w *writer) replace(f *file) error {
	switch {
	case f.damage.Load() != nil:
		return w.replaceDamaged(f)
	case f.fault != nil:
		return w.reopen(f)
	case !isAt(f.os, w.path):
		return w.writeAnew(f)
	}
	return nil
}

// replaceDamaged puts an empty file in the place of a damaged one.
func (w *writer) replaceDamaged(f *file) error {
	damage := f.damage.Load()
	if w.recentlySetAside() {
		return fmt.Errorf("%w, for the second time within an hour", damage)
	}
	// The operator may have moved it away, or put another in its place.
	if isAt(f.os, w.path) {
		aside, err := setAside(w.path)
		if err != nil {
			return fmt.Errorf("%w; set it aside: %w", damage, err)
		}
		w.reportAside(w.path, aside, damage)
	}
	next, err := openFile(w.path, w.reportAside)
	if err != nil {
		return fmt.Errorf("%w; create another: %w", damage, err)
	}
	w.setAsideAt = time.Now()
	w.use(next)
	return nil
}

func (w *writer) recentlySetAside() bool {
	return !w.setAsideAt.IsZero() && time.Since(w.setAsideAt) < replaceEvery
}

// reopen tries to open the file that could not be opened for writing.
func (w *writer) reopen(f *file) error {
	if errors.Is(f.fault, store.ErrDamaged) && w.recentlySetAside() {
		return f.fault
	}
	next, err := openFile(w.path, func(path, aside string, reason error) {
		w.setAsideAt = time.Now()
		w.reportAside(path, aside, reason)
	})
	if err != nil {
		f.fault = fmt.Errorf("%w: %w", store.ErrUnavailable, err)
		return f.fault
	}
	w.use(next)
	return nil
}

// writeAnew creates a file at the path that the file in use is not at any more,
// and copies all records to it. If another file is there, its records are kept
// unless the file in use has the same domains.
func (w *writer) writeAnew(f *file) error {
	if !w.missing {
		w.missing = true
		reason := "removed or moved away"
		if _, err := os.Stat(w.path); err == nil {
			reason = "another file took its place"
		}
		w.log.Error("database file is gone, writing a new one", slog.String("path", w.path), slog.String("reason", reason))
	}
	next, err := openFile(w.path, w.reportAside)
	if err != nil {
		return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
	}
	err = copyRecords(f, next)
	if f.damage.Load() != nil {
		w.missing = false
		return errors.Join(next.close(), w.replaceDamaged(f))
	}
	if err != nil {
		return fmt.Errorf("%w: copy records: %w", store.ErrUnavailable, errors.Join(err, next.close()))
	}
	w.use(next)
	w.missing = false
	w.log.Info("database written anew", slog.String("path", w.path), slog.Int("records", next.totals.records))
	return nil
}

// copyRecords writes the records of one file into another. It leaves out damaged
// ones.
func copyRecords(from, to *file) error {
	for next := []byte{}; next != nil; {
		var recs []store.Record
		err := from.view(func(tx *bbolt.Tx) error {
			b, err := openBuckets(tx)
			if err == nil {
				recs, next = readFrom(b, next, batchOps, batchBytes, func(string) {})
			}
			return err
		})
		if err != nil {
			return err
		}
		err = to.update(func(tx *bbolt.Tx) error {
			c, err := newChange(tx)
			if err != nil {
				return err
			}
			for i := range recs {
				o, err := newOp(0, &recs[i])
				if err == nil {
					err = c.apply(o)
				}
				if err != nil {
					return err
				}
			}
			to.totals = c.totals
			return c.finish()
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// use makes f the file in use and closes the one before, which is of no use any more.
func (s *Store) use(f *file) {
	if before := s.file.Swap(f); before != nil {
		_ = before.close()
	}
	s.setTotals(f.totals)
	for _, domain := range f.suspects {
		s.repair(domain, nil)
	}
	if f.missing != 0 {
		s.stats.damaged.Add(uint64(max(f.missing, 0)))
		s.log.Warn("records are missing from the database", slog.String("path", s.path), slog.Int("records", f.missing))
	}
}

// openAnyway opens the database for writing, or if the disk does not allow that,
// for reading, or none: then nothing is stored until it can be. It returns an error
// only if the operator has to change something before the daemon can start.
func (s *Store) openAnyway() (*file, error) {
	f, err := openFile(s.path, s.reportAside)
	var fault *diskError
	if !errors.As(err, &fault) {
		return f, err
	}
	f, readErr := openReadOnly(s.path)
	if errors.Is(readErr, store.ErrNewerSchema) || errors.Is(readErr, store.ErrLocked) {
		return nil, readErr
	}
	if readErr != nil {
		f = new(file)
		if errors.Is(readErr, store.ErrDamaged) {
			err = fmt.Errorf("%w; read it: %w", err, readErr)
		}
	}
	f.fault = fmt.Errorf("%w: %w", store.ErrUnavailable, err)
	s.health.Store(&health{f.fault})
	s.log.LogAttrs(context.Background(), slog.LevelError, "database cannot be opened for writing: new records are in memory only",
		slog.String("path", s.path), slog.Int("records", f.totals.records), slog.Any("error", err))
	return f, nil
}
