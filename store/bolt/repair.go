package bolt

import (
	"bytes"
	"sync"

	"tlspolicyd/store"
)

// suspect is a record that could not be decoded, or an entry of the due bucket that
// does not match a record.
type suspect struct {
	domain string
	dueKey string // may be empty
}

// repair removes a suspect, if it still is one.
func (t *change) repair(s suspect) error {
	v := t.records.Get([]byte(s.domain))
	rec, err := store.DecodeRecord(s.domain, v)
	if k := []byte(s.dueKey); len(k) > 0 && (err != nil || !bytes.Equal(dueKey(&rec), k)) {
		if err := t.due.Delete(k); err != nil {
			return err
		}
	}
	if v == nil || err == nil {
		return nil
	}
	return t.apply(&op{domain: s.domain}) // it counts the record as dropped
}

// repairList holds the suspects that readers found, for the writer.
type repairList struct {
	mu       sync.Mutex
	suspects map[suspect]struct{}
}

const maxRepairs = 4096 // the next reader finds the others again

func (l *repairList) add(s suspect) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.suspects == nil {
		l.suspects = make(map[suspect]struct{})
	}
	if len(l.suspects) < maxRepairs {
		l.suspects[s] = struct{}{}
	}
}

func (l *repairList) take() []suspect {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []suspect
	for s := range l.suspects {
		all = append(all, s)
	}
	clear(l.suspects)
	return all
}

func (l *repairList) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.suspects)
}

// repair makes the writer check a record, and an entry of the due bucket that led to
// it.
func (s *Store) repair(domain string, dueKey []byte) {
	s.repairs.add(suspect{domain, string(dueKey)})
	s.wake()
}
