package policy

import (
	"errors"
	"slices"
	"strings"
	"time"

	"tlspolicyd/internal/dane"
	"tlspolicyd/internal/dnsclient"
	"tlspolicyd/internal/printable"
	"tlspolicyd/store"
)

// DANEFacts is the DANE side of the decision table: what the evidence about the
// mail hosts comes to. The zero value stands for no evidence.
type DANEFacts struct {
	State     dane.State
	MX        dane.MXAnswer
	NullMX    bool // the domain takes no mail (7505)
	HasTLSA   bool // a host has a secure TLSA record
	HasUsable bool // a host has a secure TLSA record that SMTP can use

	// Failing: the TLSA records of a host are unknown, because their lookup fails
	// and there is no proof, or it is too old. Proved are the other hosts then, if
	// they are proved to have no usable record.
	Failing bool
	Proved  []string

	// Stale: part of this is as last known, because a lookup fails now. Age is the
	// age of the oldest part.
	Stale bool
	Age   time.Duration

	Reason string // the step that fails, for the TEMP reply
}

// merge adds a new evaluation to the evidence, which may be nil. What is proved
// replaces what was known; a host whose lookup fails keeps its last proof for 24
// hours at most. It returns false where the MX lookup failed, which teaches
// nothing. unvalidated says that the AD bits of the resolver may not have counted.
func merge(old *store.DANE, hop NextHop, res dane.Result, unvalidated bool, now time.Time) (store.DANE, bool) {
	if res.MX.Answer == dane.MXFailed {
		return store.DANE{}, false
	}
	d := store.DANE{
		Literal: hop.Literal, Port: hop.Port,
		MX: uint8(res.MX.Answer), NullMX: res.MX.Null, NoDomain: res.MX.NoDomain, Omitted: res.MX.Omitted,
		KnownAt: now, ExpiresAt: now.Add(ClampTTL(res.TTL)), Unvalidated: unvalidated,
	}
	for i := range res.Hosts {
		h := mergeHost(old, &res.Hosts[i].Evidence, now)
		d.Hosts = append(d.Hosts, h)
		if res.Hosts[i].Verdict.HasTLSA() {
			d.Unvalidated = false
		}
	}
	return d, true
}

func mergeHost(old *store.DANE, e *dane.Evidence, now time.Time) store.Host {
	h := store.Host{Name: e.Name, Preference: e.Preference, Verdict: uint8(e.Verdict), KnownAt: now}
	if !e.Verdict.Failed() {
		return h
	}
	h.KnownAt, h.Failure, h.Error = time.Time{}, uint8(e.Verdict), ReasonOf(e.Err)
	verdict, at, ok := lastProof(old, e.Name, now)
	if e.Verdict == dane.TLSAFailed && verdict == dane.NoAddress {
		ok = false // it has addresses now, and nothing is known of its TLSA records
	}
	if ok {
		h.Verdict, h.KnownAt = uint8(verdict), at
	}
	return h
}

// lastProof returns what was last proved about a host, if it is at most 24 hours
// old.
func lastProof(old *store.DANE, name string, now time.Time) (dane.Verdict, time.Time, bool) {
	if old == nil {
		return 0, time.Time{}, false
	}
	if old.MX == 0 { // of a version that kept the state alone
		known := now.Sub(NotFuture(old.KnownAt, now)) <= LastKnownFor
		switch dane.State(old.State) {
		case dane.Full:
			return dane.Usable, old.KnownAt, known
		case dane.None:
			return dane.NoTLSA, old.KnownAt, known
		}
		return 0, time.Time{}, false
	}
	for i := range old.Hosts {
		if h := &old.Hosts[i]; h.Name == name {
			return dane.Verdict(h.Verdict), h.KnownAt, proved(h, now)
		}
	}
	return 0, time.Time{}, false
}

func proved(h *store.Host, now time.Time) bool {
	return !h.KnownAt.IsZero() && now.Sub(NotFuture(h.KnownAt, now)) <= LastKnownFor
}

// readDANE derives the table's input from evidence; nil stands for none. fresh
// says that it need not be looked up again yet. After that it is as last known,
// for 24 hours.
func readDANE(d *store.DANE, now time.Time) (f DANEFacts, fresh bool) {
	if d == nil {
		return DANEFacts{}, false
	}
	f.Age = now.Sub(NotFuture(d.KnownAt, now))
	if f.Age > LastKnownFor {
		return DANEFacts{}, false
	}
	fresh = now.Before(DANEExpiry(d, now))
	f.Stale = !fresh
	f.NullMX = d.NullMX && fresh
	if d.MX == 0 {
		f.State, f.MX = dane.State(d.State), dane.MXSecure
		f.HasUsable = Strength(f.State) > 0
		f.HasTLSA = f.HasUsable || d.SomeTLSA
		return f, fresh
	}
	f.MX = dane.MXAnswer(d.MX)
	hosts := make([]dane.Evidence, len(d.Hosts))
	for i := range d.Hosts {
		hosts[i] = f.readHost(&d.Hosts[i], now)
	}
	f.State = dane.Derive(dane.MX{Answer: f.MX, Null: d.NullMX, NoDomain: d.NoDomain, Omitted: d.Omitted}, hosts).State
	if f.Failing {
		for _, h := range hosts {
			if h.Verdict.None() || h.Verdict == dane.Unusable {
				f.Proved = append(f.Proved, h.Name)
			}
		}
	}
	return f, fresh
}

func (f *DANEFacts) readHost(h *store.Host, now time.Time) dane.Evidence {
	e := dane.Evidence{Name: h.Name, Preference: h.Preference, Verdict: dane.Verdict(h.Verdict)}
	if h.Error != "" {
		if f.Reason == "" {
			f.Reason = h.Error
		}
		if proved(h, now) {
			f.Stale = true
			f.Age = max(f.Age, now.Sub(NotFuture(h.KnownAt, now)))
		} else {
			e.Verdict = dane.Verdict(h.Failure)
		}
	}
	f.HasTLSA = f.HasTLSA || e.Verdict.HasTLSA()
	f.HasUsable = f.HasUsable || e.Verdict.HasUsable()
	f.Failing = f.Failing || e.Verdict == dane.TLSAFailed
	return e
}

// Evaluated returns what an evaluation comes to beside the evidence before it,
// which may be nil. merged is the evidence to be kept, learned is false where
// the MX lookup failed, which teaches nothing.
func Evaluated(old *store.DANE, hop NextHop, res dane.Result, unvalidated bool, now time.Time) (f DANEFacts, merged store.DANE, learned bool) {
	if old != nil && old.Unvalidated && !unvalidated {
		old = nil // an absence without AD bits says nothing (7672 §2.1.3)
	}
	merged, learned = merge(old, hop, res, unvalidated, now)
	if learned {
		f, _ = readDANE(&merged, now)
		return f, merged, true
	}
	f, _ = readDANE(old, now)
	return f.Failed(ReasonOf(res.Err)), merged, false
}

// Failed returns the facts after an evaluation that failed altogether: they are
// as last known.
func (f DANEFacts) Failed(reason string) DANEFacts {
	f.Stale, f.NullMX, f.Reason = true, false, reason
	return f
}

// Evidence returns the verdict about each mail host as it counts now, in one
// line for the operator.
func Evidence(d *store.DANE, now time.Time) string {
	switch {
	case d.NoDomain:
		return "no such domain"
	case d.NullMX:
		return "null MX: takes no mail"
	}
	var b strings.Builder
	for i := range d.Hosts {
		if b.Len() > 300 {
			b.WriteString(", …")
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		h := &d.Hosts[i]
		b.WriteString(printable.Line(h.Name, 255) + " " + new(DANEFacts).readHost(h, now).Verdict.String())
		if h.Error != "" && proved(h, now) {
			b.WriteString(" (" + age(now.Sub(NotFuture(h.KnownAt, now))) + " ago; now: lookup failed)")
		}
	}
	return b.String()
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

// Endpoint returns the DANE evidence of a next hop, or nil.
func Endpoint(rec *store.Record, hop NextHop) *store.DANE {
	for i := range rec.DANE {
		if d := &rec.DANE[i]; d.Port == hop.Port && d.Literal == hop.Literal {
			return d
		}
	}
	return nil
}

// HopOf returns the next hop that DANE evidence of a domain is about.
func HopOf(domain string, d *store.DANE) NextHop {
	return NextHop{Domain: domain, Literal: d.Literal, Port: d.Port}
}

// DANEExpiry is when the DANE evidence is to be looked up again, whatever the
// clock did.
func DANEExpiry(d *store.DANE, now time.Time) time.Time {
	return NotFuture(d.KnownAt, now).Add(daneTTL(d))
}

func daneTTL(d *store.DANE) time.Duration { return ClampTTL(d.ExpiresAt.Sub(d.KnownAt)) }

// StateOfDANE returns the state that the evidence comes to now, fresh or as last
// known.
func StateOfDANE(d *store.DANE, now time.Time) dane.State {
	f, _ := readDANE(d, now)
	return f.State
}

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

// HasTLSA reports whether a mail host was last seen with TLSA records, however
// long ago.
func HasTLSA(d *store.DANE) bool {
	if d.MX == 0 {
		return d.SomeTLSA || Strength(dane.State(d.State)) > 0
	}
	for i := range d.Hosts {
		if dane.Verdict(d.Hosts[i].Verdict).HasTLSA() {
			return true
		}
	}
	return false
}

// failing reports whether the TLSA records of a host are unknown.
func failing(d *store.DANE) bool {
	return slices.ContainsFunc(d.Hosts, func(h store.Host) bool { return dane.Verdict(h.Verdict) == dane.TLSAFailed })
}
