package bolt

import "sync/atomic"

// bbolt maps the file, so the pages that were read lately count as memory of
// the process, although the kernel may take them back at any time. With a
// million domains that is half a GiB within minutes: an operator who bounds the
// service's memory would be misled, and so would who plans it. So of a large
// file what is mapped is given back every so many reads. The pages stay in the
// kernel's cache; reading one again costs a microsecond and no disk.
const (
	smallFile   = 64 << 20 // bytes: up to here all of it may stay
	readsMapped = 512      // after these the pages go; each read maps some 64 KiB
)

// resident counts the records that were read since pages were given back.
type resident struct{ reads atomic.Int64 }

// note counts n records read, outside of a transaction, and gives pages back
// when it is time.
func (f *file) note(n int) {
	reads := f.resident.reads.Add(int64(n))
	if reads < readsMapped || !f.resident.reads.CompareAndSwap(reads, 0) {
		return // or somebody else is at it
	}
	f.release()
}
