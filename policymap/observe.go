package policymap

import (
	"time"

	"tlspolicyd/internal/defect"
	"tlspolicyd/internal/mtasts"
	"tlspolicyd/policymap/policy"
)

// Origin says where an answer came from.
type Origin uint8

const (
	Cached Origin = iota // memory, or the store
	Cold                 // looked up for this key
	Stale                // as last known, because a lookup fails now
	Static               // the form of the key, or an override
)

func (o Origin) String() string { return [...]string{"cached", "cold", "stale", "static"}[o] }

// Observer receives the events of a map. Methods are called on the path of
// lookups: they must not block, and Answered must not allocate.
type Observer interface {
	// Answered is called for every lookup.
	Answered(tlsrpt bool, level policy.Level, origin Origin)
	// Resolved is called once for each fresh resolution of a next hop.
	Resolved(Resolution)
	// Changed is called when a known policy or DANE state became another one.
	Changed(policy.Change)
	// Fetched is called after each fetch of a policy file.
	Fetched(Fetch)
	// Refreshed is called when the refresher has finished with a domain.
	Refreshed(domain string, outcome Outcome)
	// StoreFailed is called when facts could not be written: answers go on
	// from memory, but would not survive a restart.
	StoreFailed(domain string, err error)
	// ClockStepped is called when the wall clock was set by more than a minute.
	ClockStepped(by time.Duration)
	// Panicked is called when work on a next hop or domain ended in a defect of
	// this program; the key is empty where it was about no domain. The stack is
	// that of the goroutine where it happened.
	Panicked(key string, err *defect.Error)
}

// Resolution is one fresh look at a next hop.
type Resolution struct {
	Key      string // canonical
	Decision policy.Decision
	STS      policy.STSState
	STSWhy   string // STSAbsent: why there is no policy
	Reply    string // for the map "postfix"
	Took     time.Duration
	DNS      time.Duration // of this, until DANE was decided; 0: it was known
}

// Fetch is one fetch of a policy file.
type Fetch struct {
	Domain     string // A-labels
	Background bool   // no lookup asked for it
	Took       time.Duration
	Err        error          // nil: it succeeded; else a *mtasts.FetchError, or a defect
	InForce    *mtasts.Policy // Err: the cached policy that goes on applying; nil: none
}

// Outcome is the result of a refresh.
type Outcome uint8

const (
	Refreshed     Outcome = iota // everything that was due was learned again
	RefreshFailed                // something was not: it is tried again
	Expired                      // nothing in use was left, and the domain was forgotten
)

func (o Outcome) String() string { return [...]string{"ok", "failed", "expired"}[o] }

// Observers calls several observers, in order.
type Observers []Observer

// Answered implements Observer.
func (all Observers) Answered(tlsrpt bool, level policy.Level, origin Origin) {
	for _, o := range all {
		o.Answered(tlsrpt, level, origin)
	}
}

// Resolved implements Observer.
func (all Observers) Resolved(r Resolution) {
	for _, o := range all {
		o.Resolved(r)
	}
}

// Changed implements Observer.
func (all Observers) Changed(c policy.Change) {
	for _, o := range all {
		o.Changed(c)
	}
}

// Fetched implements Observer.
func (all Observers) Fetched(f Fetch) {
	for _, o := range all {
		o.Fetched(f)
	}
}

// Refreshed implements Observer.
func (all Observers) Refreshed(domain string, outcome Outcome) {
	for _, o := range all {
		o.Refreshed(domain, outcome)
	}
}

// StoreFailed implements Observer.
func (all Observers) StoreFailed(domain string, err error) {
	for _, o := range all {
		o.StoreFailed(domain, err)
	}
}

// ClockStepped implements Observer.
func (all Observers) ClockStepped(by time.Duration) {
	for _, o := range all {
		o.ClockStepped(by)
	}
}

// Panicked implements Observer.
func (all Observers) Panicked(key string, err *defect.Error) {
	for _, o := range all {
		o.Panicked(key, err)
	}
}
