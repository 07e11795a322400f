package bolt

import "errors"

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
	f, err := lockShared(path)
	if err == nil {
		err = f.readOnly()
	}
	switch {
	case errors.Is(err, errEmpty):
		return Info{Schema: schemaVersion}, nil
	case err != nil:
		return Info{}, err
	}
	return Info{Records: f.totals.records, Schema: schemaVersion}, f.close()
}
