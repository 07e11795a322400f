package policy

import (
	"errors"
	"time"

	"tlspolicyd/internal/dane"
	"tlspolicyd/internal/dnsclient"
	"tlspolicyd/internal/printable"
	"tlspolicyd/store"
)

// DANEFacts is the DANE side of the decision table.
type DANEFacts struct {
	State      dane.State
	NullMX     bool // State None: the domain takes no mail (7505)
	MXInsecure bool // State Unknown: the MX answer was seen, and is insecure
	SomeTLSA   bool // State Unknown: another host has a secure TLSA record
	SomeNone   bool // State Unknown: another host is proved to have none

	// Last is the last state that was known before this one, Unknown for none,
	// and LastAge the time since it was learned.
	Last    dane.State
	LastAge time.Duration

	Reason string // State Unknown: the failing step, for the TEMP reply
}

// HasLast reports whether the last known state may be used while lookups fail.
func (f DANEFacts) HasLast() bool { return f.Last != dane.Unknown && f.LastAge <= LastKnownFor }

// With adds a new evaluation to what was last known.
func (f DANEFacts) With(res dane.Result) DANEFacts {
	f.State = res.State
	f.MXInsecure = res.MX.Answer == dane.MXInsecure
	f.SomeTLSA = f.SomeTLSA || res.SomeTLSA
	f.SomeNone = res.SomeNone
	f.NullMX = res.MX.Null
	if res.State == dane.Unknown {
		f.Reason = ReasonOf(res.Err)
	}
	return f
}

// ReasonOf writes a failure as the one line that Postfix logs.
func ReasonOf(err error) string {
	var failed *dnsclient.Error
	switch {
	case err == nil:
		return "DANE lookup failed"
	case errors.As(err, &failed):
		return printable.Line(failed.Reason(), MaxReason) // without the resolver's address
	}
	return printable.Line(err.Error(), MaxReason)
}

// readDANE turns stored DANE facts into the table's input: the state itself
// within its TTL, after that the last known one. nil stands for no facts.
func readDANE(d *store.DANE, now time.Time) (f DANEFacts, fresh bool) {
	if d == nil {
		return DANEFacts{}, false
	}
	f = DANEFacts{Last: dane.State(d.State), LastAge: now.Sub(NotFuture(d.KnownAt, now))}
	f.SomeTLSA = d.SomeTLSA && f.LastAge <= LastKnownFor
	if now.Before(DANEExpiry(d, now)) {
		f.State, f.NullMX = f.Last, d.NullMX
		return f, true
	}
	return f, false
}

// Endpoint returns the DANE facts of a next hop, or nil.
func Endpoint(rec *store.Record, hop NextHop) *store.DANE {
	for i := range rec.DANE {
		if d := &rec.DANE[i]; d.Port == hop.Port && d.Literal == hop.Literal {
			return d
		}
	}
	return nil
}

// HopOf returns the next hop that DANE facts of a domain are about.
func HopOf(domain string, d *store.DANE) NextHop {
	return NextHop{Domain: domain, Literal: d.Literal, Port: d.Port}
}

// DANEExpiry is the end of the DANE facts' TTL, whatever the clock did.
func DANEExpiry(d *store.DANE, now time.Time) time.Time {
	return NotFuture(d.KnownAt, now).Add(daneTTL(d))
}

func daneTTL(d *store.DANE) time.Duration { return ClampTTL(d.ExpiresAt.Sub(d.KnownAt)) }

// Strength orders DANE states by what they make Postfix insist on.
func Strength(s dane.State) int {
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

// HasTLSA reports whether a mail host had TLSA records when the facts were
// learned.
func HasTLSA(d *store.DANE) bool { return d.SomeTLSA || Strength(dane.State(d.State)) > 0 }
