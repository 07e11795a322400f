// Package store defines how facts about policy domains are kept: by domain, and by
// the time they are due for a refresh. It decides nothing about policy and does not
// use the network. store/bolt is the implementation.
package store

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"time"
)

// Record is all that is known about one policy domain. It holds facts, never
// rendered replies: these are made anew on load, because bytes on disk outlive the
// code that wrote them.
type Record struct {
	Domain   string    // A-labels, lower case, no final dot; the key
	STS      *STS      // nil: nothing known
	DANE     []DANE    // one for each way the domain was asked for
	LastUsed time.Time // last lookup, to within about an hour; zero: longest ago
	Due      time.Time // next refresh; zero: none, the record expires
	Class    Class     // what is evicted first
}

// Latest returns the latest time at which something in the record was learned or it
// was used. Times at which something expires or is due do not count.
func (r *Record) Latest() time.Time {
	latest := r.LastUsed
	note := func(t time.Time) {
		if t.After(latest) {
			latest = t
		}
	}
	if r.STS != nil {
		note(r.STS.FetchedAt)
		note(r.STS.CheckedAt)
		note(r.STS.FailedAt)
		note(r.STS.SharedSince)
	}
	for i := range r.DANE {
		note(r.DANE[i].KnownAt)
		for j := range r.DANE[i].Hosts {
			note(r.DANE[i].Hosts[j].KnownAt)
		}
	}
	return latest
}

// STS are the MTA-STS facts.
type STS struct {
	Policy    []byte    // policy file of the last successful fetch, unchanged; nil: none
	PolicyID  string    // TXT id under which it was fetched
	FetchedAt time.Time // of the last successful fetch; its max_age counts from here (8461 §3.3)

	TXTID     string    // id of the last TXT answer; empty: not a valid record
	CheckedAt time.Time // when TXT was last looked up
	TXTTTL    time.Duration
	TXTError  string // why there was not a valid record

	TXTFailed bool // the last TXT lookup failed; TXTID is the one before
	TXTGone   bool // DNSSEC proves that there is no valid record: renewals end

	FailedID string    // id whose fetch failed last
	FailedAt time.Time // when
	Failures int       // fetches of the refresher that failed in a row
	Error    string    // of the last failure

	Unchanged int // fetches in a row that brought the old file for a new id

	// Not part of an export:
	SharedSince time.Time     // since when other hosts have fetched Policy for this one; zero: it did itself
	SharedBy    string        // the host that did last; empty: this one
	Moved       time.Duration // by how much FetchedAt was changed after steps of this host's clock
	EndReported bool          // the end of Policy has been logged
}

// DANE is the evidence about DANE for one way of asking for the domain. States
// and answers are derived from it each time it is read.
type DANE struct {
	Literal bool // "[host]": no MX lookup
	Port    uint16

	MX          uint8     // dane.MXAnswer; 0: written by a version that kept State alone
	NullMX      bool      // the domain accepts no mail (RFC 7505): its policy host is not asked
	NoDomain    bool      // NXDOMAIN
	Omitted     int       // mail hosts that were not evaluated
	Unvalidated bool      // learned while no AD bit counted: an absence is ignored once they do
	KnownAt     time.Time // when the MX answer was learned
	ExpiresAt   time.Time // when all of this is to be looked up again
	Hosts       []Host    // the mail hosts of the MX answer

	State    uint8 // dane.State, where MX is 0
	SomeTLSA bool  // State 0 (unknown): one host had a secure TLSA record, the lookup of another failed
}

// Host is the evidence about one mail host.
type Host struct {
	Name       string // A-labels, lower case, no final dot
	Preference uint16
	Verdict    uint8     // dane.Verdict of the last proof; without one that of the failure
	KnownAt    time.Time // when it was proved; zero: never
	Failure    uint8     // dane.Verdict of the lookup that fails now, where Error is set
	Error      string    // why; empty: none fails
}

// Class orders eviction: records of a lower class are evicted first.
type Class uint8

const (
	Negative Class = iota // nothing but negative answers
	Positive              // holds a policy, TLSA records, or a host that may have some
)

var (
	// ErrNotFound means that there is no record of the domain.
	ErrNotFound = errors.New("no record")
	// ErrNewerSchema means that a newer version wrote the database, which is left as
	// it is. The operator must upgrade or name another file.
	ErrNewerSchema = errors.New("database schema is newer than this version understands")
	// ErrLocked means that another process has the database open. The operator must
	// stop that process or name another file.
	ErrLocked = errors.New("database is in use by another process")
	// ErrDamaged means that a record or the file is damaged. The caller goes on as
	// though there were no record; the next Put replaces it.
	ErrDamaged = errors.New("database is damaged")
	// ErrUnavailable means that there is no database file that can be written at the
	// configured path. Nothing is durable until the operator has repaired that.
	ErrUnavailable = errors.New("database file is not available")
	// ErrClosed means that the store has been closed.
	ErrClosed = errors.New("store is closed")
)

// Order is an order in which a store can list its records without reading all of
// them. Records that are equal in it are in order of domain.
type Order uint8

const (
	ByDomain   Order = iota
	ByDue            // leaves out records without a Due
	ByLastUsed       // as on disk: to within about an hour
)

// Position is a place in an order: that of a record, whether or not it is still
// there. The zero value is before the first one.
type Position struct {
	At     time.Time // Due or LastUsed, to the millisecond; not used by ByDomain
	Domain string
}

// Scan says in which order records are listed, and after which position.
type Scan struct {
	Order    Order
	Backward bool
	After    Position
}

// PositionOf returns where a record is in the order.
func (s Scan) PositionOf(r *Record) Position {
	switch s.Order {
	case ByDue:
		return Position{r.Due, r.Domain}
	case ByLastUsed:
		return Position{r.LastUsed, r.Domain}
	}
	return Position{Domain: r.Domain}
}

// Compare returns a negative number where a comes before b in the scan.
func (s Scan) Compare(a, b Position) int {
	n := cmp.Or(cmp.Compare(a.At.UnixMilli(), b.At.UnixMilli()), strings.Compare(a.Domain, b.Domain))
	if s.Order == ByDomain {
		n = strings.Compare(a.Domain, b.Domain)
	}
	if s.Backward {
		return -n
	}
	return n
}

// Store keeps records. It is safe for concurrent use.
type Store interface {
	// Get returns the record of a domain, or ErrNotFound. A record given to PutLater
	// is found at once. The caller owns the result.
	Get(domain string) (Record, error)

	// Put writes records and returns when they are durable: after nil they survive
	// SIGKILL and power loss. Concurrent calls share one disk write (group commit).
	// After an error nothing of this call may be on disk; the caller goes on from
	// memory and may try again later.
	//
	// ctx bounds the waiting only: a write may still happen after ctx ended. One
	// call is one transaction, so an import makes calls of some hundred records.
	// Put does not keep recs.
	//
	// A full store evicts records in the same write: those of the lowest Class, of
	// these large ones if the store is full by size, and then those not used for
	// longest. If no record ranks lower, the one just put is evicted.
	Put(ctx context.Context, recs ...Record) error

	// PutLater writes a record with the next disk write, or within about a second.
	// It never waits for the disk; if too much waits already, the record is dropped.
	// Of several writes of one domain, by any method, the last call wins.
	PutLater(rec Record)

	// Delete removes records durably. A domain without a record is not an error.
	Delete(ctx context.Context, domains ...string) error

	// Due returns records whose Due is not after t, earliest first, at most
	// limit. Due and CountDue take into account what PutLater was given.
	Due(t time.Time, limit int) ([]Record, error)

	// CountDue returns how many records have a Due that is not after t.
	CountDue(t time.Time) (int, error)

	// Latest returns a time that Record.Latest of no record is after, and the zero
	// time if there never was a record. It may be later than all of them. It is
	// cheap: a caller that looks for times in the future need not read all records.
	Latest() (time.Time, error)

	// Walk calls fn for every record in the order of a scan until fn returns false.
	// It does not block writers for long, and fn may call the store. A record that
	// changes meanwhile is passed in one state or the other; one that moves in that
	// order may be passed twice or not at all.
	Walk(scan Scan, fn func(Record) bool) error

	// Len returns the number of records.
	Len() int

	// Size returns the bytes the store occupies on disk.
	Size() int64

	// Close writes the records that wait and closes the store. Later calls return
	// ErrClosed; another Close returns what the first did.
	Close() error
}

// HealthChecker is a Store that reports whether records reach the disk.
type HealthChecker interface {
	// Health returns nil if the last write succeeded, and otherwise its error:
	// records are in memory only until a write succeeds. The error wraps
	// ErrUnavailable if there is no file to write to.
	Health() error
}
