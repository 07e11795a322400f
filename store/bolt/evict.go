package bolt

import (
	"bytes"

	"go.etcd.io/bbolt"

	"tlspolicyd/store"
)

// evictAtOnce bounds the evictions of one transaction, for a limit that was
// lowered. The next transactions evict more.
const evictAtOnce = 2 * batchOps

// evict removes records while there are more than maxEntries or they have more than
// maxBytes: those of the lowest class first; within a class the largest if bytes are
// the reason and large ones are left, and otherwise those not used for longest.
// Records of this very transaction take part, so that a negative answer never takes
// the place of a policy.
func (t *change) evict(maxEntries int, maxBytes int64) error {
	use, large := t.use.Cursor(), t.large.Cursor()
	for range evictAtOnce {
		tooLarge := t.totals.bytes > maxBytes
		if t.totals.records <= maxEntries && !tooLarge {
			return nil
		}
		k, _ := use.First()
		if k == nil {
			return nil
		}
		var err error
		if l, _ := large.First(); tooLarge && l != nil && l[0] <= k[0] {
			err = t.evictEntry(t.large, l, largeDomain)
		} else {
			err = t.evictEntry(t.use, k, useDomain)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// evictEntry removes an entry of an index, in whose key the domain begins at n, and
// the record that it is of, if there is one.
func (t *change) evictEntry(index *bbolt.Bucket, k []byte, n int) error {
	k = bytes.Clone(k)
	if err := index.Delete(k); err != nil {
		return err
	}
	domain, ok := domainAfter(k, n)
	if !ok {
		return nil
	}
	v := t.records.Get([]byte(domain))
	rec, err := store.DecodeRecord(domain, v)
	if err != nil {
		return nil
	}
	if !bytes.Equal(k, useKey(&rec)) && !bytes.Equal(k, largeKey(&rec, recordSize(domain, v))) {
		return nil
	}
	t.evicted++
	return t.apply(&op{domain: domain})
}
