package bolt

import (
	"encoding/binary"
	"hash/crc32"
	"time"

	"go.etcd.io/bbolt"
)

// The latest time in any record is kept in the meta bucket, with a checksum, and
// only ever moves on. A database in which it cannot be read counts as one in
// which anything may stand.
const latestSize = timeSize + 4

func readLatest(meta *bbolt.Bucket) (time.Time, bool) {
	v := meta.Get([]byte(keyLatest))
	if len(v) != latestSize || crc32.ChecksumIEEE(v[:timeSize]) != binary.BigEndian.Uint32(v[timeSize:]) {
		return endOfTime(), false
	}
	return parseTime(v), true
}

func writeLatest(meta *bbolt.Bucket, t time.Time) error {
	v := appendTime(make([]byte, 0, latestSize), t)
	v = binary.BigEndian.AppendUint32(v, crc32.ChecksumIEEE(v))
	return meta.Put([]byte(keyLatest), v)
}

// Latest returns a time that none in a record is later than.
func (s *Store) Latest() (time.Time, error) {
	var latest time.Time
	for _, o := range s.later.some(maxLater) {
		latest = later(latest, o.latest)
	}
	err := s.view(func(b buckets) error {
		written, _ := readLatest(b.meta)
		latest = later(latest, written)
		return nil
	})
	return latest, err
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
