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

	keyApplication = "application"
	keySchema      = "schema"
	keyCount       = "count"
	keyLatest      = "latest"
)

// buckets are the four buckets within one transaction.
type buckets struct {
	meta, records, due, use *bbolt.Bucket
}

func openBuckets(tx *bbolt.Tx) (buckets, error) {
	b := buckets{
		meta:    tx.Bucket([]byte(bucketMeta)),
		records: tx.Bucket([]byte(bucketRecords)),
		due:     tx.Bucket([]byte(bucketDue)),
		use:     tx.Bucket([]byte(bucketUse)),
	}
	if b.meta == nil || b.records == nil || b.due == nil || b.use == nil {
		return b, errors.New("a bucket is missing")
	}
	return b, nil
}

const timeSize = 8

// appendTime appends t so that byte order is order in time, years before 1970
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
	if len(k) <= timeSize || len(k) > timeSize+store.MaxDomain {
		return time.Time{}, "", false
	}
	return parseTime(k), string(k[timeSize:]), true
}

// useKey is the key in the use bucket.
func useKey(r *store.Record) []byte {
	b := append(make([]byte, 0, 1+timeSize+len(r.Domain)), byte(r.Class))
	return append(appendTime(b, r.LastUsed), r.Domain...)
}

func parseUseKey(k []byte) (domain string, ok bool) {
	if len(k) <= 1+timeSize || len(k) > 1+timeSize+store.MaxDomain {
		return "", false
	}
	return string(k[1+timeSize:]), true
}
