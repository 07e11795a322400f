// Package share is what the hosts of a fleet give each other: MTA-STS policies
// that one of them fetched (RFC 8461). It defines the engine between them, what an
// entry there is, and which entries are believed. share/valkey is the engine.
//
// The engine is a layer above the cache of each host and never part of it. Without
// it every host works as though it were alone, and nothing that it says weakens
// what a host knows:
//
//  1. Only policy files that a host fetched itself are shared, and they are parsed
//     again on arrival. DANE rests on a host's own resolver and is never shared,
//     nor are absences, failures and TXT records.
//  2. A shared policy fills a void, or renews the age of the identical file. A
//     different file is a hint to fetch, no more. A void is filled by mode enforce,
//     and by others only with the id of the TXT record (policy.Adopt).
//  3. A policy is used for max_age from its fetch at most, and one with max_age 0
//     is never shared.
//  4. What was adopted and is in use is fetched by the host itself every now and
//     then (share.verify_after).
//  5. Entries are signed with a key of the fleet ([Keys]).
package share

import (
	"context"
	"errors"
	"time"
)

// Policy is a policy that a host fetched.
type Policy struct {
	File []byte        // the policy file, unchanged
	ID   string        // TXT id under which it was fetched; empty: unknown
	Age  time.Duration // since the fetch
	Host string        // that fetched it; printable ASCII
}

// Lease is the right to fetch a policy for the fleet. The zero value is none.
type Lease struct {
	Token   string
	Fence   int64     // time of the grant by the engine's clock, microseconds since 1970
	Granted time.Time // the same moment by this host's monotonic clock
}

// Fleet is the engine. It is safe for concurrent use. Its errors say that this
// once the host is alone; none of them says anything about a domain.
type Fleet interface {
	// Ask returns the policy of a domain (A-labels, lower case), or ErrNone. It
	// takes no longer than share.timeout, and returns ErrDown at once while the
	// engine is known not to answer.
	Ask(ctx context.Context, domain string) (Policy, error)

	// Claim is Ask that asks for the lease of the domain too. The lease is returned
	// with a policy or an error of Ask; it is the zero value while another host has
	// it. It ends by Offer, Release or by itself, after the time of a fetch.
	Claim(ctx context.Context, domain string) (Lease, Policy, error)

	// Offer gives a policy to the fleet and ends the lease. It never waits: where
	// too much waits already, the policy is dropped and counted. A policy that
	// the entry in the engine is newer than is not written.
	Offer(domain string, p Policy, lease Lease)

	// Release ends a lease whose fetch came to nothing. It never waits.
	Release(domain string, lease Lease)

	// Watch calls changed for every policy in the engine and then for each one
	// that another host offers, until ctx ends; one call at a time.
	Watch(ctx context.Context, changed func(domain string, p Policy))

	// Each calls fn for every policy in the engine, in no order, until fn returns
	// an error, which it returns.
	Each(ctx context.Context, fn func(domain string, p Policy) error) error

	// Delete removes the policies of domains from the engine, and returns how many
	// were there. An error ends it half done.
	Delete(ctx context.Context, domains ...string) (deleted int, err error)

	Stats() Stats
}

// Stats counts since the start.
type Stats struct {
	Up       bool // the engine answered when it was last asked
	Watching bool // changes of other hosts are seen

	Hits, Misses, Errors uint64 // of Ask
	Stored               uint64 // policies that were offered and written
	Dropped              uint64 // policies that were offered and could not be written
	Fenced               uint64 // policies that were offered and are older than the entry
	Refused              uint64 // entries that are not believed
}

var (
	// ErrNone means that the engine has no policy of the domain that is not over.
	ErrNone = errors.New("no shared policy")
	// ErrDown means that the engine did not answer recently and was not asked. It
	// is tried again in the background.
	ErrDown = errors.New("the shared cache is not reachable")
)
