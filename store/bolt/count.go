package bolt

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"

	"go.etcd.io/bbolt"
)

// The number of records is kept in the meta bucket, because counting them
// reads every page of the file. It carries a checksum: a wrong number would
// make the store evict what it should keep.
const countSize = 8 + 4

func readCount(meta *bbolt.Bucket) (int, error) {
	v := meta.Get([]byte(keyCount))
	if len(v) != countSize {
		return 0, errors.New("no number of records")
	}
	n := binary.BigEndian.Uint64(v)
	if crc32.ChecksumIEEE(v[:8]) != binary.BigEndian.Uint32(v[8:]) || n > math.MaxInt {
		return 0, errors.New("checksum of the number of records does not match")
	}
	return int(n), nil
}

func writeCount(meta *bbolt.Bucket, n int) error {
	v := binary.BigEndian.AppendUint64(make([]byte, 0, countSize), uint64(n))
	v = binary.BigEndian.AppendUint32(v, crc32.ChecksumIEEE(v))
	return meta.Put([]byte(keyCount), v)
}
