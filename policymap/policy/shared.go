package policy

import (
	"bytes"
	"time"

	"tlspolicyd/internal/mtasts"
	"tlspolicyd/share"
	"tlspolicyd/store"
)

// This file says which policies of other hosts are taken over.

// renewGrain is by how much a policy of another host must be younger to count as
// news, and not as what this host knows or offered itself.
const renewGrain = MinPause

// Adoption is what becomes of a policy of another host.
type Adoption uint8

const (
	Ignored Adoption = iota
	Adopted          // it fills a void, or renewed the age of the identical file
	SameAge          // it is what is known already
	Hint             // it is a reason to fetch the policy
)

// Adopt takes over a policy of another host where that fills a void, or renews the
// age of the identical file. So no other host, whatever it says, takes a policy away
// or exchanges it. txtID is the id that the TXT record has now; empty: unknown. A
// policy that is not enforced fills a void only with that id: else it could keep the
// first message from what this host would find itself.
func Adopt(s *store.STS, p share.Policy, txtID string, now time.Time) Adoption {
	parsed, err := mtasts.ParsePolicy(p.File)
	if err != nil || p.Age >= parsed.MaxAge {
		return Ignored
	}
	fetched := now.Add(-max(p.Age, 0))
	known := ReadSTS(s, now).Policy != nil
	news := fetched.Sub(s.FetchedAt)
	switch {
	case known && !bytes.Equal(s.Policy, p.File):
		return otherFile(s, p, fetched, now)
	case known && news.Abs() < renewGrain:
		return SameAge
	case known && news < 0:
		return Ignored
	case !known && parsed.Mode != mtasts.Enforce && (txtID == "" || txtID != p.ID):
		return Ignored
	case !known:
		s.PolicyID = p.ID // else a host could claim that we have followed an id that we have not
		s.SharedSince = orElse(s.SharedSince, now)
	default:
		s.SharedSince = orElse(s.SharedSince, s.FetchedAt)
	}
	s.Policy, s.FetchedAt, s.SharedBy = p.File, fetched, p.Host
	s.EndReported, s.Moved = false, 0
	return Adopted
}

// otherFile says what another file than ours is: a reason to fetch the policy where
// it is of another id and younger, and this host has not tried for some minutes. So
// hosts that are shown different files do not drive each other.
func otherFile(s *store.STS, p share.Policy, fetched, now time.Time) Adoption {
	own := orElse(s.SharedSince, s.FetchedAt)
	if p.ID == s.PolicyID || !fetched.After(s.FetchedAt) || now.Sub(NotFuture(Latest(own, s.FailedAt), now)) < fetchRetry {
		return Ignored
	}
	return Hint
}

func orElse(t, other time.Time) time.Time {
	if t.IsZero() {
		return other
	}
	return t
}
