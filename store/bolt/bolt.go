// Package bolt keeps the records of package store in one bbolt file: a B+tree
// of pages, written copy-on-write, so that after SIGKILL or power loss the
// file holds exactly the transactions that were committed.
//
// The file has four buckets:
//
//	meta     "application" and "schema", and the number of records under "count"
//	records  domain -> encoded record (store.EncodeRecord)
//	due      time of the next refresh, domain -> nothing
//	use      class, time of the last use, domain -> nothing: first is evicted first
//
// Times in keys are milliseconds, eight bytes, ordered as bytes. due and use
// hold nothing that records does not; they are changed in the same transaction.
//
// All writing is done by one goroutine (write.go), which puts whatever waits
// into one transaction. A file that cannot be trusted is never repaired: it is
// set aside, an empty one takes its place (open.go, check.go, damage.go).
package bolt

import (
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"tlspolicyd/store"
)

// DefaultMaxEntries is what a zero Options.MaxEntries means.
const DefaultMaxEntries = 1_000_000

// Options of a Store. The zero value is ready for use.
type Options struct {
	// MaxEntries bounds the number of records. 0: DefaultMaxEntries.
	MaxEntries int

	// Log is told of what an operator must know: a file set aside, writes
	// that begin to fail and that work again. nil: nobody is. Lines are
	// written between transactions, so a handler that blocks delays Put.
	Log *slog.Logger
}

// Store is a store.Store in a bbolt file. Open makes one.
type Store struct {
	path       string // with symbolic links resolved
	maxEntries int
	log        *slog.Logger

	file  atomic.Pointer[file] // changed by the writer goroutine alone
	later laterQueue
	seq   atomic.Uint64 // orders calls, whichever method they came through
	stats counters

	requests chan *request
	wake     chan struct{} // something is in later, in repairs, or the file is damaged
	stop     chan struct{} // closed by Close
	stopOnce sync.Once
	finished chan struct{} // closed by the writer goroutine when it is through
	closeErr error         // valid after finished

	repairs repairList
}

var _ store.Store = (*Store)(nil)

// Open opens the database at path, or creates it with mode 0600. The directory
// must exist.
//
// A file that is damaged or is no database of ours is renamed to
// path.damaged-TIME with one warning in the log, and an empty one is started.
// A file with a newer schema stays as it is and the error wraps
// store.ErrNewerSchema; when another process has the file open for more than a
// second the error wraps store.ErrLocked.
func Open(path string, opts Options) (*Store, error) {
	s, err := newStore(path, opts)
	if err != nil {
		return nil, err
	}
	go s.run()
	return s, nil
}

// newStore is Open up to where the writer goroutine is started.
func newStore(path string, opts Options) (*Store, error) {
	if opts.MaxEntries <= 0 {
		opts.MaxEntries = DefaultMaxEntries
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	// A damaged file is set aside beside itself, not beside a link to it.
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	s := &Store{
		path:       path,
		maxEntries: opts.MaxEntries,
		log:        opts.Log,
		requests:   make(chan *request),
		wake:       make(chan struct{}, 1),
		stop:       make(chan struct{}),
		finished:   make(chan struct{}),
	}
	f, records, err := openFile(path, s.reportAside)
	if err != nil {
		return nil, err
	}
	s.file.Store(f)
	s.stats.records.Store(int64(records))
	s.reportFound(f)
	if records > s.maxEntries {
		s.nudge() // the limit was lowered
	}
	return s, nil
}

// Close writes what waits and closes the file. It returns the error of that
// last write, if any. It is safe to call it again, and at once.
func (s *Store) Close() error {
	s.stopOnce.Do(func() { close(s.stop) })
	<-s.finished
	return s.closeErr
}

// Len returns the number of records that have been written. What PutLater was
// handed within the last second may not be among them.
func (s *Store) Len() int { return int(s.stats.records.Load()) }

// Size returns the size of the database file in bytes, or 0 after Close.
func (s *Store) Size() int64 {
	info, err := s.file.Load().os.Stat()
	if err != nil {
		return 0
	}
	return info.Size()
}

// Stats are figures for metrics; the counts are since Open.
type Stats struct {
	Records     int    // as Len
	Waiting     int    // handed to PutLater and not yet written
	Commits     uint64 // transactions
	WriteErrors uint64 // transactions that failed
	Evicted     uint64 // records that made room
	Dropped     uint64 // records that PutLater dropped
	Damaged     uint64 // records dropped and files set aside as damaged
	Failing     bool   // the last transaction failed: answers come from memory
}

// Stats returns the figures of the moment.
func (s *Store) Stats() Stats {
	return Stats{
		Records:     s.Len(),
		Waiting:     s.later.len(),
		Commits:     s.stats.commits.Load(),
		WriteErrors: s.stats.writeErrors.Load(),
		Evicted:     s.stats.evicted.Load(),
		Dropped:     s.stats.dropped.Load(),
		Damaged:     s.stats.damaged.Load(),
		Failing:     s.stats.failing.Load(),
	}
}

// Failing reports that the last transaction failed; see store.Failing.
func (s *Store) Failing() bool { return s.stats.failing.Load() }

type counters struct {
	records                                         atomic.Int64
	commits, writeErrors, evicted, dropped, damaged atomic.Uint64
	failing                                         atomic.Bool
}

// nudge lets the writer goroutine look for work that is not a request.
func (s *Store) nudge() {
	select {
	case s.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// reportAside tells of a file that was set aside.
func (s *Store) reportAside(path, aside string, reason error) {
	s.stats.damaged.Add(1)
	s.log.Warn("database file set aside, starting with an empty one",
		slog.String("path", path), slog.String("aside", aside), slog.Any("reason", reason))
}

// reportFound sees to what was found in a file on opening it.
func (s *Store) reportFound(f *file) {
	for _, domain := range f.suspects {
		s.repair(domain, nil)
	}
	if f.missing != 0 {
		s.stats.damaged.Add(uint64(max(f.missing, 0)))
		s.log.Warn("records are missing from the database", slog.String("path", s.path), slog.Int("records", f.missing))
	}
}

// closed reports whether Close has been called.
func (s *Store) closed() bool {
	select {
	case <-s.stop:
		return true
	default:
		return false
	}
}

const (
	// flushAfter is how long a record handed to PutLater waits for company.
	flushAfter = time.Second
	// retryAfter is how long such records wait when the last write failed.
	retryAfter = 10 * time.Second
)
