// Package bolt keeps the records of package store in one bbolt file: a B+tree of
// pages, written copy-on-write. After SIGKILL or power loss at any moment the file
// holds the transactions that were committed, and nothing of others.
//
// The file has five buckets:
//
//	meta     "application", "schema", "totals" (number and bytes of records), "latest"
//	records  domain -> encoded record (store.EncodeRecord)
//	due      time of the next refresh, domain -> nothing
//	use      class, time of the last use, domain -> nothing: first is evicted first
//	large    class, size, domain -> nothing: records of 4 KiB and more, largest first
//
// Times in keys are milliseconds, eight bytes, ordered as bytes. The last three
// buckets are indexes of records and are changed in the same transaction.
//
// One goroutine writes (write.go). It puts all that waits into one transaction, and
// after each makes sure that the file in use is still at its path (replace.go). A damaged file is never repaired: it is set aside and an empty one
// takes its place (open.go, check.go). While no file can be written, records given
// to PutLater wait in memory.
package bolt

import (
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"tlspolicyd/store"
)

// What the zero values of Options mean.
const (
	DefaultMaxEntries       = 1_000_000
	DefaultMaxBytes   int64 = 1 << 30
)

// Options of a Store. The zero value is ready for use.
type Options struct {
	// MaxEntries bounds the number of records. 0: DefaultMaxEntries.
	MaxEntries int

	// MaxBytes bounds the size of all records, encoded and with their domains; the
	// file is up to twice as large. 0: DefaultMaxBytes.
	MaxBytes int64

	// Log gets what the operator must know: a file set aside, writes that begin to
	// fail or work again. Lines are written between transactions, so a handler that
	// blocks delays Put. nil: nothing is logged.
	Log *slog.Logger
}

// Store is a store.Store in a bbolt file. Open makes one.
type Store struct {
	path       string // with symbolic links resolved
	maxEntries int
	maxBytes   int64
	log        *slog.Logger

	file   atomic.Pointer[file] // changed by the writer goroutine only
	later  laterQueue
	seq    atomic.Uint64 // orders the calls of all methods that write
	stats  counters
	health atomic.Pointer[health] // of the last write; nil: it succeeded

	requests chan *request
	wakeup   chan struct{} // something is in later or in repairs, or the file is damaged
	stop     chan struct{} // closed by Close
	stopOnce sync.Once
	finished chan struct{} // closed by the writer goroutine when it ends
	closeErr error         // valid after finished

	repairs repairList
}

var _ store.Store = (*Store)(nil)

// Open opens the database at path, or creates it with mode 0600 and its directory
// with mode 0700.
//
// A file that is damaged or of another program is renamed to path.damaged-TIME,
// with a warning in the log, and an empty one is created. A file with a newer
// schema is left as it is and the error wraps store.ErrNewerSchema; if another
// process has the file open for more than a second, the error wraps
// store.ErrLocked.
//
// If the disk does not let it write, Open succeeds: records are read from the file,
// if that is possible, new ones are in memory only, and Health returns the error.
// The store tries again each minute and with each write.
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
	if opts.MaxBytes <= 0 {
		opts.MaxBytes = DefaultMaxBytes
	}
	// A damaged file is set aside in its own directory, not in that of a link.
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	s := &Store{
		path:       path,
		maxEntries: opts.MaxEntries,
		maxBytes:   opts.MaxBytes,
		log:        opts.Log,
		requests:   make(chan *request),
		wakeup:     make(chan struct{}, 1),
		stop:       make(chan struct{}),
		finished:   make(chan struct{}),
	}
	f, err := s.openAnyway()
	if err != nil {
		return nil, err
	}
	s.use(f)
	if s.overLimit() {
		s.wake() // the limit was lowered
	}
	return s, nil
}

// Close writes what waits and closes the file. It returns the error of that last
// write, if any. It may be called several times, also at the same time.
func (s *Store) Close() error {
	s.stopOnce.Do(func() { close(s.stop) })
	<-s.finished
	return s.closeErr
}

// Len returns the number of records that have been written. Those given to PutLater
// within the last second may not be among them.
func (s *Store) Len() int { return int(s.stats.records.Load()) }

// Size returns the size of the database file in bytes, or 0 after Close.
func (s *Store) Size() int64 {
	if f := s.file.Load(); f.db != nil {
		if info, err := f.os.Stat(); err == nil {
			return info.Size()
		}
	}
	return 0
}

// Stats are figures for metrics; counts begin with Open.
type Stats struct {
	Records     int    // as Len
	Bytes       int64  // of these records, as Options.MaxBytes counts them
	Waiting     int    // given to PutLater and not written yet
	Commits     uint64 // transactions
	WriteErrors uint64 // transactions that failed
	Evicted     uint64 // records that made room
	Dropped     uint64 // records that PutLater dropped
	Damaged     uint64 // records dropped and files set aside as damaged
	Failing     bool   // the last write failed, see Health
}

// Stats returns the current figures.
func (s *Store) Stats() Stats {
	return Stats{
		Records:     s.Len(),
		Bytes:       s.stats.bytes.Load(),
		Waiting:     s.later.len(),
		Commits:     s.stats.commits.Load(),
		WriteErrors: s.stats.writeErrors.Load(),
		Evicted:     s.stats.evicted.Load(),
		Dropped:     s.stats.dropped.Load(),
		Damaged:     s.stats.damaged.Load(),
		Failing:     s.Health() != nil,
	}
}

type health struct{ err error }

// Health returns the error of the last write, nil if it succeeded; see
// store.HealthChecker.
func (s *Store) Health() error {
	if h := s.health.Load(); h != nil {
		return h.err
	}
	return nil
}

type counters struct {
	records, bytes                                  atomic.Int64
	commits, writeErrors, evicted, dropped, damaged atomic.Uint64
}

func (s *Store) setTotals(t totals) {
	s.stats.records.Store(int64(t.records))
	s.stats.bytes.Store(t.bytes)
}

// overLimit reports whether records must be evicted.
func (s *Store) overLimit() bool {
	return s.Len() > s.maxEntries || s.stats.bytes.Load() > s.maxBytes
}

// wake makes the writer goroutine look for work that is not a request.
func (s *Store) wake() {
	select {
	case s.wakeup <- struct{}{}:
	default: // it is going to look
	}
}

// reportAside logs that a file was set aside.
func (s *Store) reportAside(path, aside string, reason error) {
	s.stats.damaged.Add(1)
	s.log.Warn("database file set aside, starting with an empty one",
		slog.String("path", path), slog.String("aside", aside), slog.Any("reason", reason))
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
	// flushAfter is how long a record given to PutLater waits for others.
	flushAfter = time.Second
	// retryAfter is how long such records wait after a write that failed.
	retryAfter = 10 * time.Second
)
