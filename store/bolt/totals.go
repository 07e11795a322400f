package bolt

import (
	"encoding/binary"
	"hash/crc32"
	"math"
	"time"

	"go.etcd.io/bbolt"

	"tlspolicyd/store"
)

// totals are the number of records and their size. They are kept in the meta
// bucket, because finding them takes reading the whole file, and with a checksum,
// because wrong ones would make the store evict what it should keep.
type totals struct {
	records int
	bytes   int64 // of keys and values in the records bucket
}

const totalsSize = 8 + 8 + crc32.Size

// recordSize is what a record adds to totals.bytes.
func recordSize(domain string, value []byte) int64 { return int64(len(domain) + len(value)) }

// add counts a record, or with n = -1 takes it out of the count.
func (t *totals) add(n int, size int64) {
	t.records += n
	t.bytes += int64(n) * size
}

func readTotals(meta *bbolt.Bucket) (t totals, ok bool) {
	v, ok := unsealed(meta.Get([]byte(keyTotals)), totalsSize)
	if !ok {
		return totals{}, false
	}
	records, size := binary.BigEndian.Uint64(v), binary.BigEndian.Uint64(v[8:])
	return totals{int(records), int64(size)}, records <= math.MaxInt && size <= math.MaxInt64
}

func writeTotals(meta *bbolt.Bucket, t totals) error {
	v := binary.BigEndian.AppendUint64(make([]byte, 0, totalsSize), uint64(t.records))
	v = binary.BigEndian.AppendUint64(v, uint64(t.bytes))
	return meta.Put([]byte(keyTotals), sealed(v))
}

// measure counts all records.
func measure(records *bbolt.Bucket) (t totals) {
	c := records.Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		t.add(1, int64(len(k)+len(v)))
	}
	return t
}

// recount counts all records, enters the large ones in their bucket and writes
// the totals.
func recount(tx *bbolt.Tx) (totals, error) {
	large, err := tx.CreateBucketIfNotExists([]byte(bucketLarge))
	if err != nil {
		return totals{}, err
	}
	b, err := openBuckets(tx)
	if err != nil {
		return totals{}, err
	}
	var t totals
	c := b.records.Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		t.add(1, int64(len(k)+len(v)))
		if len(k)+len(v) < largeRecord {
			continue
		}
		if rec, err := store.DecodeRecord(string(k[:min(len(k), store.MaxDomain+1)]), v); err == nil {
			if err := large.Put(largeKey(&rec, recordSize(rec.Domain, v)), nil); err != nil {
				return totals{}, err
			}
		}
	}
	return t, writeTotals(b.meta, t)
}

// The latest time in any record is kept in the meta bucket too. It never moves
// back. In a database in which it cannot be read, a record may have any time.
const latestSize = timeSize + crc32.Size

func readLatest(meta *bbolt.Bucket) (time.Time, bool) {
	v, ok := unsealed(meta.Get([]byte(keyLatest)), latestSize)
	if !ok {
		return endOfTime(), false
	}
	return parseTime(v), true
}

func writeLatest(meta *bbolt.Bucket, t time.Time) error {
	return meta.Put([]byte(keyLatest), sealed(appendTime(make([]byte, 0, latestSize), t)))
}

// sealed appends a checksum to b.
func sealed(b []byte) []byte { return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b)) }

// unsealed returns v without its checksum. ok is false if v has another size or
// the checksum does not match.
func unsealed(v []byte, size int) (_ []byte, ok bool) {
	if len(v) != size {
		return nil, false
	}
	b, sum := v[:size-crc32.Size], v[size-crc32.Size:]
	return b, crc32.ChecksumIEEE(b) == binary.BigEndian.Uint32(sum)
}
