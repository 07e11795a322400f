package policy

import (
	"time"

	"tlspolicyd/internal/mtasts"
	"tlspolicyd/store"
)

// STSFacts is what stored MTA-STS facts mean at one moment.
type STSFacts struct {
	State   STSState
	Policy  *mtasts.Policy // in force; nil for STSAbsent
	Ended   *mtasts.Policy // stored, but its max_age is over; else nil
	Expires time.Time      // of Policy or Ended: the last fetch and max_age (8461 §3.2)
	Reason  string         // STSAbsent: why

	Known   bool      // the answer needs no lookup of TXT and policy
	Until   time.Time // Known: until then
	Recheck time.Time // from then on a hit has the TXT record looked up again
	Once    bool      // max_age 0: for this answer only (8461 §3.2)
	Fault   string    // this host could not look it up, which says nothing about the domain; empty: it could
}

// ReadSTS reads stored MTA-STS facts; nil stands for none. The policy file is
// parsed here and nowhere else.
func ReadSTS(s *store.STS, now time.Time) STSFacts {
	if s == nil {
		return STSFacts{Reason: "not looked up"}
	}
	checked := NotFuture(s.CheckedAt, now)
	f := STSFacts{Recheck: checked.Add(ClampTTL(s.TXTTTL))}
	if s.Policy != nil {
		if p, err := mtasts.ParsePolicy(s.Policy); err == nil {
			f.Expires = NotFuture(s.FetchedAt, now).Add(p.MaxAge)
			if now.Before(f.Expires) {
				f.State, f.Policy, f.Known, f.Until = StateOf(p.Mode), &p, true, f.Expires
				return f
			}
			f.Ended = &p
		}
	}
	switch {
	case s.TXTError != "":
		f.Known, f.Until, f.Reason = now.Before(f.Recheck), f.Recheck, s.TXTError
	case s.FailedID != "" && s.FailedID == s.TXTID:
		f.Until = NotFuture(s.FailedAt, now).Add(fetchRetry)
		f.Known, f.Reason = now.Before(f.Until), s.Error
	default:
		f.Reason = "no policy fetched"
	}
	return f
}

// OncePolicy is a policy with max_age 0: for the answer at hand, and kept
// nowhere.
func OncePolicy(p *mtasts.Policy) STSFacts {
	return STSFacts{State: StateOf(p.Mode), Policy: p, Once: true}
}

// StateOf returns the state that a policy of a mode puts a domain in.
func StateOf(m mtasts.Mode) STSState {
	switch m {
	case mtasts.Enforce:
		return STSEnforce
	case mtasts.Testing:
		return STSTesting
	case mtasts.None:
		return STSNone
	}
	return STSAbsent
}

// String describes the policy in force in one line: mode and mx patterns.
func (f STSFacts) String() string {
	if f.Policy == nil {
		return STSAbsent.String()
	}
	return DescribePolicy(f.Policy)
}

// DescribePolicy describes a policy in one line: mode and mx patterns.
func DescribePolicy(p *mtasts.Policy) string {
	s := StateOf(p.Mode).String()
	for _, mx := range p.MX {
		if len(s) > 400 {
			return s + " …"
		}
		s += " " + mx
	}
	return s
}
