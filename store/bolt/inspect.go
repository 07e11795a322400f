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

// Inspect looks into a database that nobody uses, and changes nothing: it is
// opened for reading, and what Open would set aside is only reported.
//
// A file that a daemon has open is left alone: the error wraps store.ErrLocked.
// Others wrap store.ErrDamaged or store.ErrNewerSchema. While it looks, which a
// second bounds even for a large file on a slow disk, a daemon that starts waits.
func Inspect(path string) (Info, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe would wait for a writer
	if err != nil {
		return Info{}, err
	}
	// A shared lock: two that look do not disturb each other, and a daemon's
	// exclusive one is noticed.
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
		return Info{Schema: schemaVersion}, nil // Open makes a database of it
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

// inspectSchema is checkSchema by a bbolt that only reads. It may panic, see
// guard: then nothing is closed, as bbolt may hold its locks for ever.
func inspectSchema(f *os.File) (records int, err error) {
	db, err := bbolt.Open(f.Name(), 0, &bbolt.Options{
		ReadOnly: true,
		OpenFile: func(string, int, os.FileMode) (*os.File, error) { return f, nil },
		Timeout:  lockWait,
	})
	if err != nil {
		return 0, err
	}
	err = db.View(func(tx *bbolt.Tx) error {
		if first, _ := tx.Cursor().First(); first == nil {
			return nil // killed while it was made: Open goes on from there
		}
		records, err = checkSchema(tx)
		return err
	})
	return records, errors.Join(err, db.Close())
}
