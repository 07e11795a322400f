package policymap

import (
	"context"
	"errors"
	"hash/maphash"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"tlspolicyd/store"
)

const (
	maxUnsaved = 4096            // records kept in memory while the store cannot write
	putTimeout = 5 * time.Second // a disk that hangs longer counts as one that fails
)

// ledger is the store, and what the store could not take.
type ledger struct {
	store store.Store
	seed  maphash.Seed
	locks [256]sync.Mutex // by domain: one writer for a record

	mu      sync.Mutex
	unsaved map[string]store.Record

	hung atomic.Bool // the last write did not end in time: nobody waits for another until one does
}

var errHung = errors.New("the database does not finish writing")

func newLedger(s store.Store) *ledger {
	return &ledger{store: s, seed: maphash.MakeSeed(), unsaved: make(map[string]store.Record)}
}

func (l *ledger) lock(domain string) *sync.Mutex {
	return &l.locks[maphash.String(l.seed, domain)%uint64(len(l.locks))]
}

// get returns the record of a domain, or an empty one. A record that cannot be
// read counts as none: it is learned again.
func (l *ledger) get(domain string) store.Record {
	l.mu.Lock()
	rec, ok := l.unsaved[domain]
	l.mu.Unlock()
	if ok {
		return rec
	}
	rec, err := l.store.Get(domain)
	if err != nil {
		return store.Record{Domain: domain}
	}
	return rec
}

// waiting returns the record of a domain that the store could not take, and
// whether there are any such.
func (l *ledger) waiting(domain string) (rec store.Record, ok, any bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	rec, ok = l.unsaved[domain]
	return rec, ok, len(l.unsaved) > 0
}

// behind reports whether there are records that the store could not take.
func (l *ledger) behind() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.unsaved) > 0
}

// put writes a record, at once if told to. A record that cannot be written is
// kept in memory and goes out with a later one.
func (l *ledger) put(rec store.Record, durable bool) error {
	if !durable {
		l.mu.Lock()
		_, waiting := l.unsaved[rec.Domain]
		if waiting {
			l.unsaved[rec.Domain] = rec
		}
		l.mu.Unlock()
		if !waiting {
			l.store.PutLater(rec)
		}
		return nil
	}
	if l.hung.Load() {
		return l.keep(rec, errHung)
	}
	return l.keep(rec, l.write(rec))
}

// keep has a record wait if it could not be written. It returns err.
func (l *ledger) keep(rec store.Record, err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		delete(l.unsaved, rec.Domain)
	} else if _, waiting := l.unsaved[rec.Domain]; waiting || len(l.unsaved) < maxUnsaved {
		l.unsaved[rec.Domain] = rec
	}
	return err
}

// write waits for a durable write, as long as it may take.
func (l *ledger) write(rec store.Record) error {
	ctx, cancel := context.WithTimeout(context.Background(), putTimeout)
	defer cancel()
	err := l.store.Put(ctx, rec)
	l.hung.Store(errors.Is(err, context.DeadlineExceeded))
	return err
}

// flush tries again to write what could not be written. After a write that did
// not end, this is the one that tries: lookups do not wait meanwhile.
func (l *ledger) flush() {
	l.mu.Lock()
	waiting := make([]string, 0, len(l.unsaved))
	for domain := range l.unsaved {
		waiting = append(waiting, domain)
	}
	l.mu.Unlock()
	if len(waiting) == 0 {
		l.hung.Store(false)
	}
	for _, domain := range waiting {
		if l.writeWaiting(domain) != nil {
			return // still no room
		}
	}
}

// writeWaiting tries again to write one record.
func (l *ledger) writeWaiting(domain string) error {
	mu := l.lock(domain)
	mu.Lock()
	defer mu.Unlock()
	rec, ok, _ := l.waiting(domain)
	if !ok {
		return nil
	}
	return l.keep(rec, l.write(rec))
}

// each calls fn for every record in order of domain, those that the store could
// not take among them, until fn returns false.
func (l *ledger) each(fn func(store.Record) bool) error {
	l.mu.Lock()
	unsaved := slices.SortedFunc(maps.Values(l.unsaved), func(a, b store.Record) int {
		return strings.Compare(a.Domain, b.Domain)
	})
	l.mu.Unlock()
	more := true
	err := l.store.Each(func(rec store.Record) bool {
		for more && len(unsaved) > 0 && unsaved[0].Domain < rec.Domain {
			more = fn(unsaved[0])
			unsaved = unsaved[1:]
		}
		if len(unsaved) > 0 && unsaved[0].Domain == rec.Domain {
			rec, unsaved = unsaved[0], unsaved[1:]
		}
		more = more && fn(rec)
		return more
	})
	for err == nil && more && len(unsaved) > 0 {
		more = fn(unsaved[0])
		unsaved = unsaved[1:]
	}
	return err
}

// latest returns a time that none in a record is later than, those that the
// store could not take among them.
func (l *ledger) latest() (time.Time, error) {
	at, err := l.store.Latest()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, rec := range l.unsaved {
		at = latest(at, rec.Latest())
	}
	return at, err
}

func (l *ledger) remove(ctx context.Context, domains ...string) error {
	l.mu.Lock()
	for _, d := range domains {
		delete(l.unsaved, d)
	}
	l.mu.Unlock()
	return l.store.Delete(ctx, domains...)
}
