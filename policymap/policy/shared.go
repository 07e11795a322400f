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
// news.
const renewGrain = time.Minute

// Adopt takes over a policy of another host where that fills a void, or renews the
// age of the identical file, and reports whether it did. So no other host, whatever
// it says, takes a policy away or exchanges it.
func Adopt(s *store.STS, p share.Policy, now time.Time) bool {
	parsed, err := mtasts.ParsePolicy(p.File)
	if err != nil || p.Age >= parsed.MaxAge {
		return false
	}
	fetched := now.Add(-max(p.Age, 0))
	known := ReadSTS(s, now).Policy != nil
	if known && (!bytes.Equal(s.Policy, p.File) || fetched.Sub(s.FetchedAt) < renewGrain) {
		return false
	}
	if s.SharedSince.IsZero() {
		if s.SharedSince = now; known {
			s.SharedSince = s.FetchedAt
		}
	}
	if p.ID != "" || !known {
		s.PolicyID = p.ID
	}
	s.Policy, s.FetchedAt, s.SharedBy = p.File, fetched, p.Host
	s.EndReported, s.Moved = false, 0
	return true
}

// Hints reports whether a policy of another host that was not adopted is a reason to
// fetch the policy again: it is another one than ours, of another id and younger,
// and this host has not tried to for some minutes. So hosts that are shown different
// files do not drive each other.
func Hints(s *store.STS, p share.Policy, now time.Time) bool {
	own := s.SharedSince
	if own.IsZero() {
		own = s.FetchedAt
	}
	return ReadSTS(s, now).Policy != nil && !bytes.Equal(s.Policy, p.File) && p.ID != s.PolicyID && now.Add(-p.Age).After(s.FetchedAt) &&
		now.Sub(NotFuture(Latest(own, s.FailedAt), now)) >= fetchRetry
}
