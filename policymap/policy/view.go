package policy

import (
	"bytes"
	"slices"
	"time"

	"tlspolicyd/internal/dane"
	"tlspolicyd/internal/mtasts"
	"tlspolicyd/store"
)

// pendingFor is how long an answer is kept that a fetch under way may still
// change.
const pendingFor = time.Minute

// View is what the facts about one next hop mean at one moment. It is made once
// and handed on.
type View struct {
	Hop   NextHop
	Now   time.Time
	STS   STSFacts
	DANE  DANEFacts
	Fresh bool // the DANE state is within its TTL

	stored *store.DANE // what DANE was read from; nil: nothing that counts
}

// Look reads a record for one next hop. sts is what ReadSTS made of it. trusted
// says that the resolver's AD bits count now: an absence that was learned while
// they did not count is ignored then, because without AD bits a signed domain
// looks like an unsigned one (7672 §2.1.3).
func Look(rec *store.Record, sts STSFacts, hop NextHop, trusted bool, now time.Time) View {
	v := View{Hop: hop, Now: now, STS: sts}
	if d := Endpoint(rec, hop); d != nil && !(d.Unvalidated && trusted) {
		v.stored = d
	}
	v.DANE, v.Fresh = readDANE(v.stored, now)
	return v
}

// Afresh is the view of what was just looked up, with nothing known before. The
// policy may be nil.
func Afresh(hop NextHop, res dane.Result, p *mtasts.Policy, now time.Time) View {
	v := View{Hop: hop, Now: now}
	v.DANE, _, _ = Evaluated(nil, hop, res, false, now)
	if p != nil {
		v.STS = STSFacts{State: StateOf(p.Mode), Policy: p}
	}
	return v
}

// Answer is what Postfix gets for a next hop, and for how long. What a cached
// answer is read for comes first.
type Answer struct {
	Until    time.Time // the answer is good before this
	Recheck  time.Time // from then on a hit starts a lookup in the background; zero: never
	Replies  Replies
	Decision Decision
	DANE     DANEFacts // that the decision rests on
	STS      STSState
	STSWhy   string    // STSAbsent: why
	TXTUntil time.Time // from then on the TXT record is to be looked up, as far as the record knows
	Pending  bool      // given while MTA-STS was still unknown: kept for a minute at most
}

// Enough reports whether the facts are enough for an answer without a lookup.
func (v View) Enough(set Settings) bool {
	return v.Fresh && (v.STS.Known || v.DANE.NullMX || DANEAlone(v.DANE, set)) && v.Decide(set).Level != Temporary
}

// Decide picks the row of the decision table.
func (v View) Decide(set Settings) Decision {
	if v.STS.Fault != "" && !DANEAlone(v.DANE, set) {
		return Decision{
			Level: Temporary, Row: RowUnknown, Reason: v.STS.Fault, KeepAtMost: KeepFailure,
			Why: "this host could not look up MTA-STS",
		}
	}
	d := Decide(v.DANE, v.STS.State, set)
	if d.Hosts == nil || v.STS.Policy == nil {
		return d
	}
	allowed := func(host string) bool {
		return slices.ContainsFunc(v.STS.Policy.MX, func(pattern string) bool { return mtasts.MatchMX(pattern, host) })
	}
	var hosts []string
	for _, h := range d.Hosts {
		if safe(h) && !keyword(h) && allowed(h) {
			hosts = append(hosts, h)
		}
	}
	if hosts == nil {
		return Decision{
			Level: Temporary, Row: RowUnknown, Reason: d.Reason, KeepAtMost: KeepFailure,
			Why: "the TLSA lookup of a mail host fails, and the policy allows none of the others",
		}
	}
	d.Hosts = hosts
	return d
}

// Answer decides, renders, and says how long the answer is good.
func (v View) Answer(set Settings) Answer {
	if v.DANE.NullMX {
		v.STS = STSFacts{Known: true, Until: v.Now.Add(maxTTL), Reason: "null MX: the domain takes no mail"}
	}
	d := v.Decide(set)
	alone := DANEAlone(v.DANE, set)
	a := Answer{
		Decision: d, DANE: v.DANE, STS: v.STS.State, STSWhy: v.STS.Reason,
		Replies: Render(d, v.Hop.Domain, v.STS.Policy, ""), TXTUntil: v.STS.Recheck,
		Pending: !v.STS.Known && !v.STS.Once && !alone,
	}
	until, recheck := v.hold(d, alone)
	// Times read from disk have no monotonic reading: the answer ends by how much
	// is left, not by the wall clock.
	a.Until, a.Recheck = v.Now.Add(until.Sub(v.Now)), recheck
	return a
}

// hold says how long an answer is good, and from when on a hit starts a lookup
// in the background (zero: never). alone says that MTA-STS cannot change it.
func (v View) hold(d Decision, alone bool) (until, recheck time.Time) {
	recheck = v.STS.Recheck
	switch {
	case d.Stale:
		// Served until the evidence is too old to be used, looked up again soon.
		// Not for long: without lookups in between, the next one tries DNS first.
		until, recheck = v.Now.Add(min(LastKnownFor-v.DANE.Age, keepIncomplete)), v.Now.Add(KeepFailure)
		if v.Fresh {
			recheck = DANEExpiry(v.stored, v.Now)
		}
	case !v.Fresh, d.Level == Temporary:
		until = v.Now.Add(max(d.KeepAtMost, KeepFailure))
	default:
		until = DANEExpiry(v.stored, v.Now)
		if d.KeepAtMost > 0 {
			until = Earliest(until, v.Now.Add(d.KeepAtMost))
		}
	}
	switch {
	case v.STS.Once:
		return v.Now, time.Time{}
	case d.Stale && v.STS.Policy == nil:
	case v.STS.Known:
		until = Earliest(until, v.STS.Until)
	case alone:
		recheck = Latest(v.Now, v.STS.Recheck) // in the background: no lookup waits for it
	default:
		until, recheck = Earliest(until, v.Now.Add(pendingFor)), time.Time{}
	}
	return until, recheck
}

// Unknown reports whether the answer was given while DANE was unknown.
func (a Answer) Unknown() bool { return a.DANE.State == dane.Unknown }

// Same reports whether two answers have the same effect.
func (a Answer) Same(b Answer) bool {
	return a.STS == b.STS && bytes.Equal(a.Replies.TLSRPT, b.Replies.TLSRPT)
}

// Failure is the answer to a lookup that could not be made.
func Failure(hop NextHop, reason string) Answer {
	d := Decision{Level: Temporary, Row: RowUnknown, Reason: reason, Why: reason}
	return Answer{Decision: d, Replies: Render(d, hop.Domain, nil, "")}
}

// OverrideAnswer is the answer that the operator's override stands for.
func OverrideAnswer(hop NextHop, line OverrideLine, now time.Time) Answer {
	d := line.Decision()
	return Answer{Decision: d, Replies: Render(d, hop.Domain, nil, line.Policy), Until: now.Add(maxTTL)}
}
