package policymap

import (
	"fmt"
	"time"

	"tlspolicyd/internal/dane"
	"tlspolicyd/internal/mtasts"
	"tlspolicyd/store"
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

// Observer is told what the map does. Methods are called on the path of
// lookups: they must not block, and Answered must not allocate. A nil
// Observer in Options is told nothing.
type Observer interface {
	// Answered is called for every lookup.
	Answered(tlsrpt bool, level Level, origin Origin)
	// Resolved is called once for each fresh resolution of a next hop.
	Resolved(Resolution)
	// Changed is called when a known policy or DANE state became another one.
	Changed(Change)
	// Fetched is called after each fetch of a policy file, err nil on success.
	Fetched(domain string, background bool, took time.Duration, err error)
	// Refreshed is called when the refresher is done with a domain.
	Refreshed(domain string, outcome Outcome)
	// StoreFailed is called when facts could not be written: answers go on
	// from memory, but would not survive a restart.
	StoreFailed(domain string, err error)
	// ClockStepped is called when the wall clock was set by more than a minute.
	ClockStepped(by time.Duration)
}

// Resolution is one fresh look at a next hop.
type Resolution struct {
	Key      string // canonical
	Decision Decision
	STS      STSState
	STSWhy   string // STSAbsent: why there is no policy
	Reply    string // for the map "postfix"
	Took     time.Duration
	DNS      time.Duration // of this, until DANE was decided; 0: it was known
}

// Outcome says what became of a refresh.
type Outcome uint8

const (
	Refreshed     Outcome = iota // everything that was due was learned again
	RefreshFailed                // something was not: it is tried again
	Expired                      // nothing was wanted any more, and the domain was forgotten
)

func (o Outcome) String() string { return [...]string{"ok", "failed", "expired"}[o] }

// Change is a policy or a DANE state that is not what it was.
type Change struct {
	Key      string // domain, or canonical key for DANE
	What     string // "MTA-STS" or "DANE"
	Old, New string
	Weaker   bool
}

type silent struct{}

func (silent) Answered(bool, Level, Origin)               {}
func (silent) Resolved(Resolution)                        {}
func (silent) Changed(Change)                             {}
func (silent) Fetched(string, bool, time.Duration, error) {}
func (silent) Refreshed(string, Outcome)                  {}
func (silent) StoreFailed(string, error)                  {}
func (silent) ClockStepped(time.Duration)                 {}

var _ Observer = silent{}

// changeOfSTS compares what applied before with what applies now.
func changeOfSTS(domain string, before, after stsFacts) (Change, bool) {
	was, is := describeSTS(before), describeSTS(after)
	if before.policy == nil || was == is {
		return Change{}, false
	}
	return Change{Key: domain, What: "MTA-STS", Old: was, New: is, Weaker: after.state < before.state}, true
}

// endOfSTS is a policy that nothing took the place of. Where nobody asked for
// the domain any more, or the domain gives its policy minutes at a time, that
// is how it should be.
func endOfSTS(domain string, p *mtasts.Policy, wanted bool) Change {
	was := stsFacts{state: stateOf(p.Mode), policy: p}
	return Change{
		Key: domain, What: "MTA-STS", Old: describeSTS(was), New: "absent: max_age is over",
		Weaker: wanted && p.Mode != mtasts.None && p.MaxAge >= attended,
	}
}

func describeSTS(f stsFacts) string {
	if f.policy == nil {
		return "absent"
	}
	s := f.state.String()
	for _, mx := range f.policy.MX {
		if len(s) > 400 {
			return s + " …"
		}
		s += " " + mx
	}
	return s
}

// changeOfDANE compares two DANE states of one next hop.
func changeOfDANE(hop NextHop, before *store.DANE, after store.DANE) (Change, bool) {
	if before == nil || before.State == after.State {
		return Change{}, false
	}
	was, is := dane.State(before.State), dane.State(after.State)
	return Change{
		Key: hop.String(), What: "DANE", Old: fmt.Sprint(was), New: fmt.Sprint(is),
		Weaker: strength(is) < strength(was),
	}, true
}

// strength orders DANE states by what they make Postfix insist on.
func strength(s dane.State) int {
	switch s {
	case dane.Full:
		return 3
	case dane.Partial:
		return 2
	case dane.InsecureMX:
		return 1
	}
	return 0
}
