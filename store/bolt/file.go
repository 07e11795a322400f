package bolt

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"syscall"

	"go.etcd.io/bbolt"

	"tlspolicyd/store"
)

// file is an open database file.
type file struct {
	db *bbolt.DB // nil: no file can be used, and nothing is stored
	os *os.File  // the one that db uses, which carries the lock

	// fault says why the file cannot be written, nil if it can. It belongs to the
	// writer goroutine.
	fault error

	// damage is set when the file turns out to be damaged. No transaction may
	// begin after that: bbolt may hold its locks for ever.
	damage atomic.Pointer[damageError]

	size atomic.Int64 // after the last transaction that wrote

	// Found on opening.
	totals   totals
	suspects []string // domains whose record is damaged
	missing  int      // records fewer than the file says it has
}

// damageError says why a file cannot be trusted.
type damageError struct{ reason string }

func (e *damageError) Error() string { return e.reason }

func (e *damageError) Is(target error) bool { return target == store.ErrDamaged }

// damagef returns a *damageError in printable ASCII of bounded length: the reason
// may quote bytes of the file.
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

// guard runs fn, which reads pages that bbolt has mapped. bbolt trusts these: on a
// damaged page it panics or follows an offset out of the file, and a read beyond
// the end of a file that was cut short faults. guard turns all of that into a
// *damageError.
func guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		p := recover()
		if _, fault := p.(interface{ Addr() uintptr }); fault {
			err = damagef("a page of the file cannot be read")
		} else if p != nil {
			err = damagef("%v", p)
		}
	}()
	return fn()
}

// view runs fn in a read transaction.
func (f *file) view(fn func(*bbolt.Tx) error) error {
	return f.transact(func() error { return f.db.View(fn) })
}

// update runs fn in a write transaction. Of its two rounds of fsync, the second
// makes it durable.
func (f *file) update(fn func(*bbolt.Tx) error) error {
	err := f.transact(func() error { return f.db.Update(fn) })
	if err == nil {
		f.noteSize()
	}
	return err
}

func (f *file) transact(run func() error) error {
	if damage := f.damage.Load(); damage != nil {
		return damage
	}
	err := guard(run)
	var damage *damageError
	if errors.As(err, &damage) {
		if info, statErr := f.os.Stat(); statErr == nil && info.Size() < f.size.Load() {
			damage = damagef("the file was cut short to %d of %d bytes", info.Size(), f.size.Load())
			err = damage
		}
		f.damage.CompareAndSwap(nil, damage)
	}
	return err
}

func (f *file) noteSize() {
	if info, err := f.os.Stat(); err == nil {
		f.size.Store(info.Size())
	}
}

// close closes the file after waiting for transactions, or abandons it if it is
// damaged or bbolt could not open it.
func (f *file) close() error {
	switch {
	case f.os == nil:
		return nil
	case f.db == nil || f.damage.Load() != nil:
		f.abandon()
		return nil
	}
	return f.db.Close()
}

// abandon releases the lock without waiting for transactions: a panic inside bbolt
// can leave its locks taken. The pages stay mapped until the process ends, so a
// reader can go on; a mapped file stays locked until it is unlocked.
func (f *file) abandon() {
	_ = syscall.Flock(int(f.os.Fd()), syscall.LOCK_UN)
	_ = f.os.Close()
}
