package bolt

import (
	"sync"
	"sync/atomic"
	"time"

	"tlspolicyd/store"
)

// op is one record to be written, or removed.
type op struct {
	seq    uint64 // of the call: of one domain the highest remains
	domain string
	value  []byte    // encoded; nil: remove the record
	due    time.Time // as the record's Due after a round trip
	dueKey []byte    // nil: none
	useKey []byte
	large  []byte    // key in the large bucket; nil: none
	latest time.Time // as the record's Latest
}

// newOp encodes a record. The op shares no memory with it.
func newOp(seq uint64, r *store.Record) (*op, error) {
	value, err := store.EncodeRecord(*r)
	if err != nil {
		return nil, err
	}
	o := &op{seq: seq, domain: r.Domain, value: value, dueKey: dueKey(r), useKey: useKey(r), latest: r.Latest()}
	o.large = largeKey(r, recordSize(r.Domain, value))
	if o.dueKey != nil {
		o.due = parseTime(o.dueKey)
	}
	return o, nil
}

const (
	maxLater      = 1 << 16  // records
	maxLaterBytes = 32 << 20 // encoded
)

// laterQueue holds the records of PutLater until they are written, one for each
// domain.
type laterQueue struct {
	mu    sync.Mutex
	ops   map[string]*op
	bytes int
}

// add queues a record and numbers it, or reports that there is no room.
func (q *laterQueue) add(o *op, seq *atomic.Uint64) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	size := len(o.value)
	if before := q.ops[o.domain]; before != nil {
		size -= len(before.value)
	} else if len(q.ops) >= maxLater {
		return false
	}
	if q.bytes+size > maxLaterBytes {
		return false
	}
	if q.ops == nil {
		q.ops = make(map[string]*op)
	}
	o.seq = seq.Add(1)
	q.ops[o.domain] = o
	q.bytes += size
	return true
}

func (q *laterQueue) get(domain string) *op {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.ops[domain]
}

func (q *laterQueue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.ops)
}

// some returns at most n of the queued records, which stay queued.
func (q *laterQueue) some(n int) []*op {
	q.mu.Lock()
	defer q.mu.Unlock()
	ops := make([]*op, 0, min(n, len(q.ops)))
	for _, o := range q.ops {
		if len(ops) == n {
			break
		}
		ops = append(ops, o)
	}
	return ops
}

// remove removes records that have been written, or older ones of the same domain.
func (q *laterQueue) remove(written []*op) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, w := range written {
		if o := q.ops[w.domain]; o != nil && o.seq <= w.seq {
			delete(q.ops, w.domain)
			q.bytes -= len(o.value)
		}
	}
}

// PutLater queues a record for the next transaction, which begins within about a
// second. At most 65,536 records or 32 MiB wait, which happens only while the disk
// cannot be written. Records above that, and those that cannot be encoded, are
// counted in Stats.Dropped.
func (s *Store) PutLater(rec store.Record) {
	o, err := newOp(0, &rec)
	if err != nil || s.closed() || !s.later.add(o, &s.seq) {
		s.stats.dropped.Add(1)
		return
	}
	s.wake()
}
