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
	locks [256]domainLock // by domain: one writer for a record

	mu        sync.Mutex
	unsaved   map[string]store.Record
	probe     string // the domain whose record is tried on a disk that hangs; "": none
	overtaken bool   // that record was changed or removed meanwhile

	hung atomic.Bool // the last write did not end in time: nobody waits for another until one does
}

var errHung = errors.New("the database does not finish writing")

// domainLock is a mutex made of a channel: who holds it may wait for the disk,
// and in a synctest bubble time goes on while others wait for a channel only.
type domainLock chan struct{}

func (d domainLock) Lock()   { d <- struct{}{} }
func (d domainLock) Unlock() { <-d }

func (d domainLock) TryLock() bool {
	select {
	case d <- struct{}{}:
		return true
	default:
		return false
	}
}

func newLedger(s store.Store) *ledger {
	l := &ledger{store: s, seed: maphash.MakeSeed(), unsaved: make(map[string]store.Record)}
	for i := range l.locks {
		l.locks[i] = make(domainLock, 1)
	}
	return l
}

func (l *ledger) lock(domain string) domainLock {
	return l.locks[maphash.String(l.seed, domain)%uint64(len(l.locks))]
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
			l.overtake(rec.Domain)
		}
		l.mu.Unlock()
		if !waiting {
			l.store.PutLater(rec)
		}
		return nil
	}
	if l.hung.Load() || l.probed(rec.Domain) {
		return l.keep(rec, errHung)
	}
	return l.keep(rec, l.write(rec))
}

// overtake notes that the record of a domain is another one than is tried just
// now. mu is held.
func (l *ledger) overtake(domain string) {
	if domain == l.probe {
		l.overtaken = true
	}
}

func (l *ledger) probed(domain string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return domain == l.probe
}

// keep has a record wait if it could not be written. It returns err.
func (l *ledger) keep(rec store.Record, err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		delete(l.unsaved, rec.Domain)
	} else if _, waiting := l.unsaved[rec.Domain]; waiting || len(l.unsaved) < maxUnsaved {
		l.unsaved[rec.Domain] = rec
		l.overtake(rec.Domain)
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
func (l *ledger) flush(contain func(string, func()) error) {
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
		room := true
		_ = contain(domain, func() {
			room = (!l.hung.Load() || l.tryDisk(domain)) && l.writeWaiting(domain) == nil
		})
		if !room {
			return
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

// tryDisk writes the record of a domain to see whether the disk that hung takes
// it. The lock is not held meanwhile: whoever changes a record that has the same
// one leaves the change in memory and does not wait.
func (l *ledger) tryDisk(domain string) bool {
	mu := l.lock(domain)
	if !mu.TryLock() {
		return false // by one who waits for the disk
	}
	l.mu.Lock()
	rec, ok := l.unsaved[domain]
	if ok {
		l.probe, l.overtaken = domain, false
	}
	l.mu.Unlock()
	mu.Unlock()
	if !ok {
		return true
	}
	defer func() { // until here nobody else writes the record
		l.mu.Lock()
		defer l.mu.Unlock()
		l.probe = ""
	}()
	err := l.write(rec)
	l.mu.Lock()
	_, waits := l.unsaved[domain]
	if err == nil && !l.overtaken {
		delete(l.unsaved, domain)
	}
	l.mu.Unlock()
	if err == nil && !waits { // removed, perhaps before it was written
		ctx, cancel := context.WithTimeout(context.Background(), putTimeout)
		defer cancel()
		err = l.store.Delete(ctx, domain)
	}
	return err == nil
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

// remove waits for a durable removal, but not for a disk that hangs.
func (l *ledger) remove(ctx context.Context, domains ...string) error {
	if l.hung.Load() {
		return errHung
	}
	l.mu.Lock()
	for _, d := range domains {
		delete(l.unsaved, d)
		l.overtake(d)
	}
	l.mu.Unlock()
	err := l.store.Delete(ctx, domains...)
	if errors.Is(err, context.DeadlineExceeded) {
		l.hung.Store(true)
	}
	return err
}
