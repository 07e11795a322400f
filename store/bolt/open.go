package bolt

import (
	"errors"
	"fmt"
	"io/fs"
	"math/bits"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"go.etcd.io/bbolt"

	"tlspolicyd/store"
)

const (
	// lockWait is how long a file in use is waited for: a restart may overlap
	// with the end of the process before it.
	lockWait  = time.Second
	lockRetry = 50 * time.Millisecond

	// growBy is how much the file grows at a time: bbolt's 16 MiB would be
	// most of the file for the many who send to a few hundred domains.
	growBy = 1 << 20
)

// file is an open database file.
type file struct {
	db *bbolt.DB
	os *os.File // the one that db uses, which carries the lock

	// damage is set once and for all when the file turned out to be damaged.
	// No transaction may begin after that: bbolt may hold its locks for ever.
	damage atomic.Pointer[damageError]

	// Found on opening.
	suspects []string // domains whose record is damaged
	missing  int      // records that are gone without a trace
}

// openFile opens or creates the database and returns its number of records. A
// damaged or foreign file is set aside, which is told to report.
func openFile(path string, report func(path, aside string, reason error)) (*file, int, error) {
	for again := false; ; again = true {
		f, err := lockFile(path)
		if err != nil {
			return nil, 0, fmt.Errorf("open database: %w", err)
		}
		opened, records, err := openLocked(f)
		if err == nil {
			return opened, records, nil
		}
		var damage *damageError
		if !errors.As(err, &damage) || again { // an empty one too: it is the disk
			f.Close()
			return nil, 0, fmt.Errorf("open database %s: %w", path, err)
		}
		// Still locked, and whoever waits for the lock looks again at what path
		// leads to: the file is set aside once.
		aside, err := setAside(path)
		f.Close()
		if err != nil {
			return nil, 0, fmt.Errorf("open database: %w (%w): move it away", err, damage)
		}
		report(path, aside, damage)
	}
}

// lockFile opens path, or creates it, and takes the lock that bbolt uses.
func lockFile(path string) (*os.File, error) {
	deadline := time.Now().Add(lockWait)
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, explainOpen(path, err)
		}
		info, err := f.Stat()
		if err == nil && !info.Mode().IsRegular() {
			err = fmt.Errorf("%s is not a regular file", path)
		}
		if err == nil {
			err = flock(f)
		}
		switch {
		case err == nil && isAt(f, path):
			return f, nil
		case err == nil: // set aside by another process in between
			err = syscall.EWOULDBLOCK
		}
		f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, err
		}
		if !time.Now().Before(deadline) {
			return nil, fmt.Errorf("%s: %w", path, store.ErrLocked)
		}
		time.Sleep(lockRetry)
	}
}

func explainOpen(path string, err error) error {
	dir := filepath.Dir(path)
	if _, statErr := os.Stat(dir); errors.Is(err, fs.ErrNotExist) && errors.Is(statErr, fs.ErrNotExist) {
		return fmt.Errorf("directory %s does not exist: create it for the user the daemon runs as, or name another path", dir)
	}
	return err
}

func flock(f *os.File) error {
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
}

// isAt reports whether path still leads to f.
func isAt(f *os.File, path string) bool {
	here, err := f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Stat(path)
	return err == nil && os.SameFile(here, there)
}

// openLocked opens the database in a locked file. An error that is a
// *damageError means that the file should be set aside. In that
// case f is still open and locked; after another error it may be closed.
func openLocked(f *os.File) (*file, int, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	fresh := info.Size() == 0
	var seen contents
	if !fresh {
		if seen, err = checkPages(f, info.Size(), leavesOf(info.Size())); err != nil {
			return nil, 0, err
		}
	}
	opened := &file{os: f, suspects: seen.suspects}
	if opened.db, err = openBolt(f); err != nil {
		if fresh {
			// The disk is full: half of an empty database must not pass for a
			// damaged one at the next start. bbolt has closed f.
			_ = os.Truncate(f.Name(), 0)
		}
		return nil, 0, err
	}
	records, err := opened.prepare()
	if err == nil && !fresh {
		opened.missing = seen.missing(records)
		records, err = opened.recount(records - opened.missing)
	}
	if err != nil {
		if opened.damage.Load() == nil {
			_ = opened.close()
		}
		return nil, 0, err
	}
	return opened, records, nil
}

// openBolt lets bbolt map the file, after checkPages has found nothing that
// would make it panic in a goroutine of its own.
func openBolt(f *os.File) (db *bbolt.DB, err error) {
	opts := &bbolt.Options{
		// Ours is locked already, which the same descriptor may do again.
		OpenFile: func(string, int, os.FileMode) (*os.File, error) { return f, nil },
		Timeout:  lockWait,
		// One lookup instead of a scan over all free pages for each page that
		// is written.
		FreelistType: bbolt.FreelistMapType,
		// The list of free pages is written with each transaction: without it
		// bbolt reads the whole file at the next start, seconds at a million
		// records, and again after each write that failed.
		NoFreelistSync: false,
		NoStatistics:   true,
	}
	if bits.UintSize == 64 {
		// Address space, not memory. Below it the file grows without waiting
		// for readers to finish.
		opts.InitialMmapSize = 1 << 30
	}
	err = guard(func() error {
		db, err = bbolt.Open(f.Name(), 0o600, opts)
		return err
	})
	if err != nil {
		return nil, err
	}
	db.AllocSize = growBy
	return db, nil
}

// prepare checks that the database is ours and of a schema that we know, or
// makes an empty one ours. Only the latter writes.
func (f *file) prepare() (records int, err error) {
	empty := false
	err = f.view(func(tx *bbolt.Tx) error {
		if first, _ := tx.Cursor().First(); first == nil {
			empty = true
			return nil
		}
		records, err = checkSchema(tx)
		return err
	})
	if err != nil || !empty {
		return records, err
	}
	if err := f.update(createSchema); err != nil {
		return 0, err
	}
	return 0, syncDir(filepath.Dir(f.os.Name()))
}

// recount writes the number of records down where it is not what the file says.
// A disk that takes nothing is no reason not to start: the next start will try.
func (f *file) recount(records int) (int, error) {
	if f.missing == 0 {
		return records, nil
	}
	err := f.update(func(tx *bbolt.Tx) error {
		return writeCount(tx.Bucket([]byte(bucketMeta)), records)
	})
	if f.damage.Load() != nil {
		return 0, err
	}
	if err != nil {
		return records + f.missing, nil
	}
	return records, nil
}

func checkSchema(tx *bbolt.Tx) (records int, err error) {
	meta := tx.Bucket([]byte(bucketMeta))
	if meta == nil || string(meta.Get([]byte(keyApplication))) != applicationName {
		return 0, damagef("a database of another program")
	}
	schema, err := strconv.ParseUint(string(meta.Get([]byte(keySchema))), 10, 32)
	if err != nil || schema == 0 {
		return 0, damagef("no schema version")
	}
	if schema > schemaVersion {
		return 0, fmt.Errorf("%w: it has version %d, known are versions up to %d: upgrade, or name another path",
			store.ErrNewerSchema, schema, schemaVersion)
	}
	if _, err := openBuckets(tx); err != nil {
		return 0, damagef("%v", err)
	}
	if records, err = readCount(meta); err != nil {
		return 0, damagef("%v", err)
	}
	return records, nil
}

func createSchema(tx *bbolt.Tx) error {
	for _, name := range []string{bucketMeta, bucketRecords, bucketDue, bucketUse} {
		if _, err := tx.CreateBucket([]byte(name)); err != nil {
			return err
		}
	}
	meta := tx.Bucket([]byte(bucketMeta))
	return errors.Join(
		meta.Put([]byte(keyApplication), []byte(applicationName)),
		meta.Put([]byte(keySchema), strconv.AppendUint(nil, schemaVersion, 10)),
		writeCount(meta, 0),
		writeLatest(meta, time.Time{}),
	)
}

// setAside renames path to a name that is not in use yet.
func setAside(path string) (aside string, err error) {
	base := path + ".damaged-" + time.Now().UTC().Format("20060102T150405")
	aside = base
	for n := 2; ; n++ {
		if _, err := os.Lstat(aside); errors.Is(err, fs.ErrNotExist) {
			break
		} else if err != nil {
			return "", err
		}
		aside = fmt.Sprintf("%s-%d", base, n)
	}
	if err := os.Rename(path, aside); err != nil {
		return "", err
	}
	return aside, syncDir(filepath.Dir(path))
}

// syncDir makes a name in a directory durable: a new file that is on disk
// without its name is lost all the same.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
