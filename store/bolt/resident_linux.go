package bolt

import (
	"syscall"

	"go.etcd.io/bbolt"
)

// release gives the pages back that the file is mapped to. Whoever reads there
// at the same time gets them again: the mapping is shared and never written to.
// The transaction keeps bbolt from mapping the file anew meanwhile.
func (f *file) release() {
	_ = f.view(func(tx *bbolt.Tx) error {
		if size := tx.Size(); size > smallFile {
			_, _, _ = syscall.Syscall(syscall.SYS_MADVISE, f.db.Info().Data, uintptr(size), syscall.MADV_DONTNEED)
		}
		return nil
	})
}
