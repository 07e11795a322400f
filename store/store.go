// Package store keeps what was learned about policy domains: facts by domain
// and by the time they are due for a refresh. It decides nothing about policy
// and never uses the network. store/bolt is the embedded default.
package store

import (
	"context"
	"errors"
	"time"
)

// Record is all that is known about one policy domain. It holds facts, never
// rendered replies: they are parsed again on load, because bytes on disk
// outlive the code that wrote them.
type Record struct {
	Domain   string    // A-labels, lower case, no final dot; the key
	STS      *STS      // nil: nothing known
	DANE     []DANE    // one for each way the domain was asked for
	LastUsed time.Time // last lookup, to about an hour; zero counts as longest ago
	Due      time.Time // next refresh; zero: none, the record is left to expire
	Class    Class     // what may be evicted first
}

// Latest is the latest time at which something in the record was learned, or it
// was used. When something ends or is due is no such time.
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
	Policy    []byte    // raw policy file of the last successful fetch; nil: none
	PolicyID  string    // TXT id under which it was fetched
	FetchedAt time.Time // of the last successful fetch: its lifetime counts from here (8461 §3.3)

	TXTID     string    // id of the last TXT answer; empty: no valid record
	CheckedAt time.Time // when TXT was last looked up
	TXTTTL    time.Duration
	TXTError  string // why there was no valid record

	TXTFailed bool // the last TXT lookup failed; TXTID is the one before
	TXTGone   bool // DNSSEC proves that there is no valid record: renewals end

	FailedID string    // id whose fetch failed last
	FailedAt time.Time // when
	Failures int       // fetches of the refresher that failed in a row
	Error    string    // reason of the last failure

	Unchanged int // fetches in a row that brought the old file for a new id

	Moved       time.Duration // by how much FetchedAt was moved along with steps of this host's clock; not exported
	EndReported bool          // the end of Policy was reported on this host; not exported
}

// DANE is the evidence about DANE for one way of asking for the domain. States
// and answers are derived from it each time it is read.
type DANE struct {
	Literal bool // "[host]": no MX lookup
	Port    uint16

	MX          uint8     // dane.MXAnswer; 0: written by a version that kept State alone
	NullMX      bool      // the domain takes no mail (RFC 7505): its policy host is left alone
	NoDomain    bool      // NXDOMAIN
	Omitted     int       // mail hosts that were not evaluated
	Unvalidated bool      // learned while no AD bit counted: an absence says nothing once they do
	KnownAt     time.Time // when the MX answer was learned
	ExpiresAt   time.Time // when all of this is to be looked up again
	Hosts       []Host    // the mail hosts of the MX answer

	State    uint8 // dane.State, where MX is 0
	SomeTLSA bool  // State 0 (unknown): a host had a secure TLSA record, the lookup of another failed
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

// Class orders eviction: a lower class goes first, within a class the one not
// asked for longest.
type Class uint8

const (
	Negative Class = iota // nothing but negative answers
	Positive              // holds a policy
)

var (
	// ErrNotFound: there is no record of the domain.
	ErrNotFound = errors.New("no record")
	// ErrNewerSchema: the database was written by a newer version; it is left
	// untouched. The operator must upgrade or name another file.
	ErrNewerSchema = errors.New("database schema is newer than this version understands")
	// ErrLocked: another process has the database open. The operator must stop
	// that process or name another file.
	ErrLocked = errors.New("database is in use by another process")
	// ErrDamaged: what is stored cannot be trusted and was not returned. The
	// caller goes on as though there were no record; the next Put mends it.
	ErrDamaged = errors.New("database is damaged")
	// ErrClosed: the store was closed; the caller has outlived it.
	ErrClosed = errors.New("store is closed")
)

// Store keeps records. It is safe for concurrent use.
type Store interface {
	// Get returns the record of a domain, or ErrNotFound. A record handed to
	// PutLater is seen at once. The caller owns what it gets.
	Get(domain string) (Record, error)

	// Put writes records and returns when they are durable: after it returned
	// nil they survive SIGKILL and power loss. Concurrent calls share one disk
	// write (group commit). An error means that nothing of this call is known
	// to be on disk; the caller goes on from memory and may try again later.
	//
	// ctx bounds the waiting only: a write given up after it was queued may
	// still happen. One call is one transaction, so an import is cut into
	// calls of some hundred records. Nothing of recs is kept after the return.
	//
	// A full store makes room in the same write (Class, then LastUsed); when
	// nothing stored ranks lower, what makes room is the record just put.
	Put(ctx context.Context, recs ...Record) error

	// PutLater writes a record with the next disk write, or within about a
	// second. It never waits for the disk; when too much is waiting the record
	// is dropped. Of several writes of one domain the last call wins, whichever
	// method it went through.
	PutLater(rec Record)

	// Delete removes records durably. Domains without record are no error.
	Delete(ctx context.Context, domains ...string) error

	// Due returns records whose Due is not after t, earliest first, at most
	// limit. Due and CountDue take into account what PutLater was given.
	Due(t time.Time, limit int) ([]Record, error)

	// CountDue returns how many records have a Due that is not after t.
	CountDue(t time.Time) (int, error)

	// Latest returns a time that is not before any at which something in a
	// record was learned or used (Record.Latest), and the zero time where there
	// never was a record. It may lie later than all of them. It costs nothing:
	// who looks for times in the future need not read all records at each start.
	Latest() (time.Time, error)

	// Each calls fn for every record in order of domain until fn returns false.
	// It does not hold back writers for long, and fn may call the store. A
	// record that changes meanwhile is seen in one state or the other.
	Each(fn func(Record) bool) error

	// Len returns the number of records.
	Len() int

	// Size returns the bytes the store occupies on disk.
	Size() int64

	// Close writes what waits and closes the store. Later calls return
	// ErrClosed; closing again returns what the first Close did.
	Close() error
}

// Failing is a Store that can tell whether its last write failed. What is learned
// then is in memory only, and is written when there is room again.
type Failing interface{ Failing() bool }
