package bolt

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"go.etcd.io/bbolt"

	"tlspolicyd/store"
)

// Info is what Inspect found.
type Info struct {
	Records int
	Schema  int
}

// Inspect reads a database that is not in use and changes nothing; a file that Open
// would set aside is an error.
//
// If a daemon has the file open, the error wraps store.ErrLocked. Others wrap
// store.ErrDamaged or store.ErrNewerSchema. A daemon that starts waits for Inspect,
// which takes less than a second even for a large file on a slow disk.
func Inspect(path string) (Info, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe would wait for a writer
	if err != nil {
		return Info{}, err
	}
	// A shared lock, which several readers can hold but not beside a daemon's
	// exclusive one.
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = fmt.Errorf("%s: %w", path, store.ErrLocked)
	}
	if err != nil {
		f.Close()
		return Info{}, err
	}
	info, err := inspect(f)
	f.Close() // bbolt may have done so
	return info, err
}

func inspect(f *os.File) (Info, error) {
	stat, err := f.Stat()
	if err != nil {
		return Info{}, err
	}
	if !stat.Mode().IsRegular() {
		return Info{}, fmt.Errorf("%s is not a regular file", f.Name())
	}
	if stat.Size() == 0 {
		return Info{Schema: schemaVersion}, nil // Open creates a database in it
	}
	seen, err := checkPages(f, stat.Size(), checkedLeaves)
	if err != nil {
		return Info{}, err
	}
	var records int
	err = guard(func() error {
		records, err = inspectSchema(f)
		return err
	})
	if err == nil {
		records -= seen.missing(records)
	}
	return Info{Records: records, Schema: schemaVersion}, err
}

// inspectSchema calls checkSchema in a read-only bbolt. It may panic, see guard; then
// nothing is closed, as bbolt may hold its locks for ever.
func inspectSchema(f *os.File) (records int, err error) {
	db, err := openBolt(f, true)
	if err != nil {
		return 0, err
	}
	err = db.View(func(tx *bbolt.Tx) error {
		if first, _ := tx.Cursor().First(); first == nil {
			return nil // killed while it was created: Open finishes that
		}
		t, known, err := checkSchema(tx)
		if err == nil && !known {
			t = measure(tx.Bucket([]byte(bucketRecords)))
		}
		records = t.records
		return err
	})
	return records, errors.Join(err, db.Close())
}
