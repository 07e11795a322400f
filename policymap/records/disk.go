package records

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"tlspolicyd/policymap/policy"
	"tlspolicyd/store"
)

const (
	maxUnsaved = 4096 // records kept in memory while the store cannot write
	// LongestWrite is how long a write is waited for. A disk that hangs longer
	// counts as one that fails.
	LongestWrite = 5 * time.Second
)

// disk is the store, and the records that it could not take.
type disk struct {
	store store.Store

	mu        sync.Mutex
	unsaved   map[string]store.Record
	probe     string // the domain whose record is tried on a disk that hangs; "": none
	overtaken bool   // that record was changed or removed meanwhile

	hung atomic.Bool // the last write did not end in time: no other waits until one does
}

// ErrHung: the disk does not finish writing, and another write was not tried.
var ErrHung = errors.New("the database does not finish writing")

// get returns the record of a domain, or an empty one. A record that cannot be
// read counts as none: it is learned again.
func (d *disk) get(domain string) store.Record {
	d.mu.Lock()
	rec, ok := d.unsaved[domain]
	d.mu.Unlock()
	if ok {
		return rec
	}
	rec, err := d.store.Get(domain)
	if err != nil {
		return store.Record{Domain: domain}
	}
	return rec
}

// waiting returns the record of a domain that the store could not take, and
// whether there are any such.
func (d *disk) waiting(domain string) (rec store.Record, ok, any bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	rec, ok = d.unsaved[domain]
	return rec, ok, len(d.unsaved) > 0
}

// behind reports whether there are records that the store could not take.
func (d *disk) behind() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.unsaved) > 0
}

// put writes a record, at once if told to. A record that cannot be written is
// kept in memory and goes out with a later one.
func (d *disk) put(rec store.Record, durable bool) error {
	if !durable {
		d.mu.Lock()
		_, waiting := d.unsaved[rec.Domain]
		if waiting {
			d.unsaved[rec.Domain] = rec
			d.overtake(rec.Domain)
		}
		d.mu.Unlock()
		if !waiting {
			d.store.PutLater(rec)
		}
		return nil
	}
	if d.hung.Load() || d.probed(rec.Domain) {
		return d.keep(rec, ErrHung)
	}
	return d.keep(rec, d.write(rec))
}

// overtake notes that the record of a domain is another one than is tried just
// now. mu is held.
func (d *disk) overtake(domain string) {
	if domain == d.probe {
		d.overtaken = true
	}
}

func (d *disk) probed(domain string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return domain == d.probe
}

// keep has a record wait if it could not be written, here and in the queue of the
// store: that one is written as soon as the disk works again, and must not bring an
// older record of the domain back. It returns err.
func (d *disk) keep(rec store.Record, err error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil {
		delete(d.unsaved, rec.Domain)
		return nil
	}
	d.store.PutLater(rec)
	if _, waiting := d.unsaved[rec.Domain]; waiting || len(d.unsaved) < maxUnsaved {
		d.unsaved[rec.Domain] = rec
		d.overtake(rec.Domain)
	}
	return err
}

// write waits for a durable write, as long as it may take.
func (d *disk) write(rec store.Record) error {
	ctx, cancel := context.WithTimeout(context.Background(), LongestWrite)
	defer cancel()
	err := d.store.Put(ctx, rec)
	d.hung.Store(errors.Is(err, context.DeadlineExceeded))
	return err
}

// unsavedDomains returns the domains whose records could not be written.
func (d *disk) unsavedDomains() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.unsaved) == 0 {
		d.hung.Store(false)
	}
	return slices.Collect(maps.Keys(d.unsaved))
}

// walk calls fn for every record in the order of a scan, those that the store
// could not take among them, until fn returns false.
func (d *disk) walk(scan store.Scan, fn func(store.Record) bool) error {
	d.mu.Lock()
	newer := maps.Clone(d.unsaved)
	d.mu.Unlock()
	unsaved := slices.DeleteFunc(slices.Collect(maps.Values(newer)), func(r store.Record) bool {
		return scan.Order == store.ByDue && r.Due.IsZero() ||
			scan.After.Domain != "" && scan.Compare(scan.PositionOf(&r), scan.After) <= 0
	})
	slices.SortFunc(unsaved, func(a, b store.Record) int { return scan.Compare(scan.PositionOf(&a), scan.PositionOf(&b)) })
	more := true
	err := d.store.Walk(scan, func(rec store.Record) bool {
		for more && len(unsaved) > 0 && scan.Compare(scan.PositionOf(&unsaved[0]), scan.PositionOf(&rec)) <= 0 {
			more = fn(unsaved[0])
			unsaved = unsaved[1:]
		}
		if _, replaced := newer[rec.Domain]; more && !replaced {
			more = fn(rec)
		}
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
func (d *disk) latest() (time.Time, error) {
	at, err := d.store.Latest()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, rec := range d.unsaved {
		at = policy.Latest(at, rec.Latest())
	}
	return at, err
}

// remove waits for a durable removal, but not for a disk that hangs.
func (d *disk) remove(ctx context.Context, domains ...string) error {
	if d.hung.Load() {
		return ErrHung
	}
	d.mu.Lock()
	for _, domain := range domains {
		delete(d.unsaved, domain)
		d.overtake(domain)
	}
	d.mu.Unlock()
	err := d.store.Delete(ctx, domains...)
	if errors.Is(err, context.DeadlineExceeded) {
		d.hung.Store(true)
	}
	return err
}
