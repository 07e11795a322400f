package policy

import (
	"fmt"
	"time"

	"tlspolicyd/internal/dane"
	"tlspolicyd/internal/mtasts"
	"tlspolicyd/store"
)

// Change is a policy or a DANE state that became another one.
type Change struct {
	Key      string // domain, or canonical key for DANE
	What     string // "MTA-STS" or "DANE"
	Old, New string
	Weaker   bool
}

// ChangeOfSTS compares the policy in force before with the one in force now. It
// returns false where no policy was in force or it is the same.
func ChangeOfSTS(domain string, before, after STSFacts) (Change, bool) {
	was, is := before.String(), after.String()
	if before.Policy == nil || was == is {
		return Change{}, false
	}
	return Change{Key: domain, What: "MTA-STS", Old: was, New: is, Weaker: after.State < before.State}, true
}

// EndOfSTS is the end of a policy that no newer one replaced. It counts as
// weaker unless the domain is no longer in use, its mode was none, or it lived
// for less than 10 minutes.
func EndOfSTS(domain string, p *mtasts.Policy, inUse bool) Change {
	return Change{
		Key: domain, What: "MTA-STS", Old: DescribePolicy(p), New: "absent: max_age is over",
		Weaker: inUse && p.Mode != mtasts.None && p.MaxAge >= shortLived,
	}
}

// ChangeOfDANE compares the state that the evidence about one next hop came to
// when it was learned, nil for none, with the state that it comes to now.
func ChangeOfDANE(hop NextHop, before *store.DANE, after store.DANE, now time.Time) (Change, bool) {
	if before == nil {
		return Change{}, false
	}
	was, is := StateOfDANE(before, before.KnownAt), StateOfDANE(&after, now)
	if was == dane.Unknown || is == dane.Unknown || was == is {
		return Change{}, false
	}
	return Change{
		Key: hop.String(), What: "DANE", Old: fmt.Sprint(was), New: fmt.Sprint(is),
		Weaker: Strength(is) < Strength(was),
	}, true
}
