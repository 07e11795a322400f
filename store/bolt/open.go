package bolt

import (
	"errors"
	"fmt"
	"io/fs"
	"math/bits"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"go.etcd.io/bbolt"

	"tlspolicyd/store"
)

const (
	// lockWait is how long to wait for a file in use: a restart may overlap with
	// the end of the process before it.
	lockWait  = time.Second
	lockRetry = 50 * time.Millisecond

	// growBy is how much the file grows at a time. bbolt's 16 MiB would be most of
	// the file on a host that sends to a few hundred domains.
	growBy = 1 << 20
)

// diskError means that the disk does not let the daemon write the database, for a
// reason that it should outlive: a read-only file system, no space, an I/O error.
type diskError struct{ err error }

func (e *diskError) Error() string { return e.err.Error() }

func (e *diskError) Unwrap() error { return e.err }

// ofDisk makes a *diskError of an error of opening a file that is not the
// operator's mistake.
func ofDisk(err error) error {
	for _, errno := range []syscall.Errno{
		syscall.EROFS, syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG, syscall.EIO,
		syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM,
	} {
		if errors.Is(err, errno) {
			return &diskError{err}
		}
	}
	return err
}

// openFile opens or creates the database. A damaged or foreign file is set aside
// and reported.
func openFile(path string, report func(path, aside string, reason error)) (*file, error) {
	for again := false; ; again = true {
		f, err := lockFile(path)
		if err != nil {
			return nil, fmt.Errorf("open database: %w", err)
		}
		opened, err := openLocked(f)
		if err == nil {
			return opened, nil
		}
		var damage *damageError
		if !errors.As(err, &damage) || again { // a new file too: the disk is at fault
			f.Close()
			err = fmt.Errorf("open database %s: %w", path, err)
			if !errors.Is(err, store.ErrNewerSchema) {
				err = &diskError{err}
			}
			return nil, err
		}
		// The lock is still held, and a process that waits for it then opens path
		// again: the file is set aside once.
		aside, err := setAside(path)
		f.Close()
		if err != nil {
			return nil, &diskError{fmt.Errorf("open database: %w (%w): move it away", err, damage)}
		}
		report(path, aside, damage)
	}
}

// lockFile opens path, or creates it and its directory, and takes the lock that
// bbolt uses.
func lockFile(path string) (*os.File, error) {
	deadline := time.Now().Add(lockWait)
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if errors.Is(err, fs.ErrNotExist) {
			if err = os.MkdirAll(filepath.Dir(path), 0o700); err == nil {
				f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
			}
		}
		if err != nil {
			return nil, ofDisk(err)
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

func flock(f *os.File) error {
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
}

// isAt reports whether f is the file at path.
func isAt(f *os.File, path string) bool {
	here, err := f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Stat(path)
	return err == nil && os.SameFile(here, there)
}

// openLocked opens the database in a locked file. After a *damageError, for which
// the file should be set aside, f is still open and locked; after another error it
// may be closed.
func openLocked(f *os.File) (*file, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	fresh := info.Size() == 0
	var seen contents
	if !fresh {
		if seen, err = checkPages(f, info.Size(), leavesOf(info.Size())); err != nil {
			return nil, err
		}
	}
	opened := &file{os: f, suspects: seen.suspects}
	if opened.db, err = openBolt(f, false); err != nil {
		if fresh {
			// The disk is full: the next start must not take half of an empty
			// database for a damaged one. bbolt has closed f.
			_ = os.Truncate(f.Name(), 0)
		}
		return nil, err
	}
	known, err := opened.prepare()
	if err == nil && !fresh {
		if known {
			opened.missing = seen.missing(opened.totals.records)
		}
		if !known || opened.missing != 0 {
			err = opened.recount()
		}
	}
	if err != nil {
		if opened.damage.Load() == nil {
			_ = opened.close()
		}
		return nil, err
	}
	opened.noteSize()
	return opened, nil
}

// openReadOnly opens a database that cannot be written. It keeps no lock, so that
// openFile can take it as soon as the file can be written.
func openReadOnly(path string) (*file, error) {
	f, err := lockShared(path)
	if err == nil {
		err = f.readOnly()
	}
	if err == nil {
		err = syscall.Flock(int(f.os.Fd()), syscall.LOCK_UN)
	}
	return f, err
}

// lockShared opens a file for reading. It takes a lock that several readers can hold,
// but not beside that of a daemon.
func lockShared(path string) (*file, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe would wait for a writer
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = fmt.Errorf("%s: %w", path, store.ErrLocked)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &file{os: f}, nil
}

// readOnly opens the database in a file of lockShared. After an error the file is
// closed. errEmpty means that Open would create a database in it.
func (f *file) readOnly() (err error) {
	defer func() {
		if err != nil {
			_ = f.close()
		}
	}()
	info, err := f.os.Stat()
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a regular file", f.os.Name())
	case info.Size() == 0:
		return errEmpty
	}
	seen, err := checkPages(f.os, info.Size(), leavesOf(info.Size()))
	if err != nil {
		return err
	}
	if f.db, err = openBolt(f.os, true); err != nil {
		return err // bbolt may have closed the file
	}
	f.suspects = seen.suspects
	f.size.Store(info.Size())
	return f.view(func(tx *bbolt.Tx) error {
		t, known, err := checkSchema(tx)
		if known {
			f.missing = seen.missing(t.records)
		}
		if err == nil && (!known || f.missing != 0) {
			t = measure(tx.Bucket([]byte(bucketRecords)))
		}
		f.totals = t
		return err
	})
}

// openBolt lets bbolt map the file, after checkPages has found nothing that
// would make it panic in a goroutine of its own.
func openBolt(f *os.File, readOnly bool) (db *bbolt.DB, err error) {
	opts := &bbolt.Options{
		ReadOnly: readOnly,
		// The file is locked already, which the same descriptor may do again.
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
	if bits.UintSize == 64 && !readOnly {
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

// prepare checks that the database is ours and of a known schema, or creates the
// buckets in an empty one. known reports whether the totals are.
func (f *file) prepare() (known bool, err error) {
	err = f.view(func(tx *bbolt.Tx) (err error) {
		f.totals, known, err = checkSchema(tx)
		return err
	})
	if !errors.Is(err, errEmpty) {
		return known, err
	}
	if err := f.update(createSchema); err != nil {
		return false, err
	}
	return true, syncDir(filepath.Dir(f.os.Name()))
}

// recount finds the totals again and writes them. If the disk takes nothing, the
// next start does that.
func (f *file) recount() error {
	err := f.update(func(tx *bbolt.Tx) (err error) {
		f.totals, err = recount(tx)
		return err
	})
	if f.damage.Load() != nil || err == nil {
		return err
	}
	return f.view(func(tx *bbolt.Tx) error {
		f.totals = measure(tx.Bucket([]byte(bucketRecords)))
		return nil
	})
}

// errEmpty means that a file has no bucket: the process that created it was killed.
var errEmpty = errors.New("database is empty")

// checkSchema returns the totals of a database that is ours, if they are known.
func checkSchema(tx *bbolt.Tx) (t totals, known bool, err error) {
	if first, _ := tx.Cursor().First(); first == nil {
		return totals{}, false, errEmpty
	}
	meta := tx.Bucket([]byte(bucketMeta))
	if meta == nil || string(meta.Get([]byte(keyApplication))) != applicationName {
		return totals{}, false, damagef("a database of another program")
	}
	schema, err := strconv.ParseUint(string(meta.Get([]byte(keySchema))), 10, 32)
	if err != nil || schema == 0 {
		return totals{}, false, damagef("no schema version")
	}
	if schema > schemaVersion {
		return totals{}, false, fmt.Errorf("%w: it has version %d, known are versions up to %d: upgrade, or name another path",
			store.ErrNewerSchema, schema, schemaVersion)
	}
	b, err := openBuckets(tx)
	if err != nil {
		return totals{}, false, damagef("%v", err)
	}
	t, known = b.totals()
	return t, known, nil
}

func createSchema(tx *bbolt.Tx) error {
	for _, name := range []string{bucketMeta, bucketRecords, bucketDue, bucketUse, bucketLarge} {
		if _, err := tx.CreateBucket([]byte(name)); err != nil {
			return err
		}
	}
	meta := tx.Bucket([]byte(bucketMeta))
	return errors.Join(
		meta.Put([]byte(keyApplication), []byte(applicationName)),
		meta.Put([]byte(keySchema), strconv.AppendUint(nil, schemaVersion, 10)),
		writeTotals(meta, totals{}),
		writeLatest(meta, time.Time{}),
	)
}

// setAside renames path to a name that is not in use.
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

// syncDir makes a name in a directory durable: a new file whose name is not on disk
// is lost.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
