package dnsclient

import (
	"context"
	"sync"
	"time"
)

// Recorder passes lookups on to another Resolver and remembers each of them,
// for a command that shows its work. Use NewRecorder.
type Recorder struct {
	resolver Resolver

	mu      sync.Mutex
	lookups []*Recorded
}

// Recorded is one lookup that has ended.
type Recorded struct {
	Name     string // as asked
	Type     uint16
	Answer   Answer // zero when Err is not nil
	Err      error
	Start    time.Time
	Duration time.Duration

	ended bool
}

// NewRecorder returns a Recorder in front of r.
func NewRecorder(r Resolver) *Recorder { return &Recorder{resolver: r} }

// Lookup implements Resolver.
func (r *Recorder) Lookup(ctx context.Context, name string, qtype uint16) (Answer, error) {
	entry := &Recorded{Name: name, Type: qtype, Start: time.Now()}
	r.mu.Lock()
	r.lookups = append(r.lookups, entry)
	r.mu.Unlock()

	answer, err := r.resolver.Lookup(ctx, name, qtype)

	r.mu.Lock()
	defer r.mu.Unlock()
	entry.Answer, entry.Err = answer, err
	entry.Duration = time.Since(entry.Start)
	entry.ended = true
	return answer, err
}

// Lookups returns the lookups that have ended so far, in order of their start.
func (r *Recorder) Lookups() []Recorded {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []Recorded
	for _, entry := range r.lookups {
		if entry.ended {
			list = append(list, *entry)
		}
	}
	return list
}
