package records

import "context"

// Flush tries again to write what could not be written. After a write that did
// not end in time only Flush tries: lookups do not wait meanwhile.
func (b *Book) Flush() {
	for _, domain := range b.disk.unsavedDomains() {
		room := true
		_ = b.guard(domain, func() {
			room = (!b.disk.hung.Load() || b.tryDisk(domain)) && b.writeUnsaved(domain) == nil
		})
		if !room {
			return
		}
	}
}

// writeUnsaved tries again to write one record.
func (b *Book) writeUnsaved(domain string) error {
	mu := b.lock(domain)
	mu.Lock()
	defer mu.Unlock()
	rec, ok, _ := b.disk.waiting(domain)
	if !ok {
		return nil
	}
	return b.disk.keep(rec, b.disk.write(rec))
}

// tryDisk writes the record of a domain to see whether the disk that hung takes
// it. The domain is not locked meanwhile: a change of a record with the same
// lock stays in memory and does not wait.
func (b *Book) tryDisk(domain string) bool {
	d := &b.disk
	mu := b.lock(domain)
	if !mu.TryLock() {
		return false // its holder waits for the disk
	}
	d.mu.Lock()
	rec, ok := d.unsaved[domain]
	if ok {
		d.probe, d.overtaken = domain, false
	}
	d.mu.Unlock()
	mu.Unlock()
	if !ok {
		return true
	}
	defer func() { // until here nothing else writes the record
		d.mu.Lock()
		defer d.mu.Unlock()
		d.probe = ""
	}()
	err := d.write(rec)
	d.mu.Lock()
	_, waits := d.unsaved[domain]
	if err == nil && !d.overtaken {
		delete(d.unsaved, domain)
	}
	d.mu.Unlock()
	if err == nil && !waits { // removed, maybe before it was written
		ctx, cancel := context.WithTimeout(context.Background(), LongestWrite)
		defer cancel()
		err = d.store.Delete(ctx, domain)
	}
	return err == nil
}
