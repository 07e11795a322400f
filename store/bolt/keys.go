package bolt

import (
	"encoding/binary"
	"errors"
	"math"
	"time"

	"go.etcd.io/bbolt"

	"tlspolicyd/store"
)

// schemaVersion is what this version writes, and the newest that it reads.
const schemaVersion = 1

const applicationName = "tlspolicyd"

// Names of buckets and of keys in the meta bucket.
const (
	bucketMeta    = "meta"
	bucketRecords = "records"
	bucketDue     = "due"
	bucketUse     = "use"
	bucketLarge   = "large"

	keyApplication = "application"
	keySchema      = "schema"
	keyTotals      = "totals"
	keyLatest      = "latest"
)

// buckets are the buckets within one transaction.
type buckets struct {
	meta, records, due, use *bbolt.Bucket
	large                   *bbolt.Bucket // nil: totals are unknown too
}

func openBuckets(tx *bbolt.Tx) (buckets, error) {
	b := buckets{
		meta:    tx.Bucket([]byte(bucketMeta)),
		records: tx.Bucket([]byte(bucketRecords)),
		due:     tx.Bucket([]byte(bucketDue)),
		use:     tx.Bucket([]byte(bucketUse)),
		large:   tx.Bucket([]byte(bucketLarge)),
	}
	if b.meta == nil || b.records == nil || b.due == nil || b.use == nil {
		return b, errors.New("a bucket is missing")
	}
	return b, nil
}

// totals returns the totals, if they can be relied on.
func (b *buckets) totals() (totals, bool) {
	t, ok := readTotals(b.meta)
	return t, ok && b.large != nil
}

const timeSize = 8

// appendTime appends t such that byte order is order in time, years before 1970
// (the zero time) included.
func appendTime(b []byte, t time.Time) []byte {
	return binary.BigEndian.AppendUint64(b, uint64(t.UnixMilli())^1<<63)
}

// endOfTime is the last time that a key can hold.
func endOfTime() time.Time { return time.UnixMilli(math.MaxInt64) }

func parseTime(b []byte) time.Time {
	return time.UnixMilli(int64(binary.BigEndian.Uint64(b) ^ 1<<63)).UTC()
}

// dueKey is the key in the due bucket, nil for a record that is never due.
func dueKey(r *store.Record) []byte {
	if r.Due.IsZero() {
		return nil
	}
	return append(appendTime(make([]byte, 0, timeSize+len(r.Domain)), r.Due), r.Domain...)
}

func parseDueKey(k []byte) (t time.Time, domain string, ok bool) {
	if domain, ok = domainAfter(k, timeSize); !ok {
		return time.Time{}, "", false
	}
	return parseTime(k), domain, true
}

// useKey is the key in the use bucket.
func useKey(r *store.Record) []byte {
	b := append(make([]byte, 0, useDomain+len(r.Domain)), byte(r.Class))
	return append(appendTime(b, r.LastUsed), r.Domain...)
}

// largeRecord is the size from which a record is in the large bucket: most have
// some hundred bytes.
const largeRecord = 4 << 10

// largeKey is the key in the large bucket, nil for a smaller record.
func largeKey(r *store.Record, size int64) []byte {
	if size < largeRecord {
		return nil
	}
	b := append(make([]byte, 0, largeDomain+len(r.Domain)), byte(r.Class))
	return append(binary.BigEndian.AppendUint32(b, ^uint32(size)), r.Domain...) // the largest first
}

// Where the domain begins in a key.
const (
	useDomain   = 1 + timeSize
	largeDomain = 1 + 4
)

func domainAfter(k []byte, n int) (domain string, ok bool) {
	if len(k) <= n || len(k) > n+store.MaxDomain {
		return "", false
	}
	return string(k[n:]), true
}
