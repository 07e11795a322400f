package admin

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"tlspolicyd/internal/dane"
	"tlspolicyd/policymap"
	"tlspolicyd/policymap/policy"
	"tlspolicyd/store"
)

// This file is the JSON of the control socket, as docs/control.md has it. Times
// are RFC 3339 in UTC; one that is not known is left out.

// Domain is what is known of one policy domain.
type Domain struct {
	Domain      string    `json:"domain"`
	MTASTS      string    `json:"mta_sts"` // mode in force: enforce, testing, none; or absent
	Expires     time.Time `json:"mta_sts_expires,omitzero"`
	Why         string    `json:"mta_sts_why,omitempty"` // absent: why
	Answers     []Answer  `json:"answers"`
	Learned     time.Time `json:"learned,omitzero"` // the last time that anything was looked up
	LastUsed    time.Time `json:"last_used,omitzero"`
	NextRefresh time.Time `json:"next_refresh,omitzero"`
	LastError   string    `json:"last_error,omitempty"`
	SharedBy    string    `json:"shared_by,omitempty"`   // host that fetched the policy for this one
	SharedSince time.Time `json:"shared_since,omitzero"` // other hosts have
}

// Answer is what one next hop of the domain gets now.
type Answer struct {
	NextHop     string    `json:"next_hop"`
	Policy      string    `json:"policy"` // dane-only, dane, secure, notfound, temp or override
	Row         string    `json:"row"`    // of the decision table
	Why         string    `json:"why"`
	DANE        string    `json:"dane"` // full, partial, insecure-mx, none or unknown
	DANEFresh   bool      `json:"dane_fresh"`
	DANEExpires time.Time `json:"dane_expires,omitzero"`
	Postfix     string    `json:"postfix"`        // the reply for the map "postfix"
	TLSRPT      string    `json:"postfix_tlsrpt"` // the reply for the map "postfix-tlsrpt"
}

// Details are a domain with the facts beneath.
type Details struct {
	Domain
	Facts Record `json:"facts"`
}

// Filter picks domains. The zero value picks all.
type Filter struct {
	Policy string        // of an answer
	State  string        // see ParseState
	Older  time.Duration // there was no refresh for so long
	Unused time.Duration // there was no lookup for so long
}

// daneStates are the states by the names they have in JSON.
func daneStates() map[string]dane.State {
	all := make(map[string]dane.State)
	for s := dane.Unknown; s <= dane.InsecureMX; s++ {
		all[s.String()] = s
	}
	return all
}

// Policies are the names of the kinds of answers.
func Policies() []string {
	var names []string
	for level := range levels {
		names = append(names, level.String())
	}
	return names
}

// ParsePolicy checks the name of a kind of answer.
func ParsePolicy(s string) error {
	if !slices.Contains(Policies(), s) {
		return fmt.Errorf("policy %q: want one of %s", s, strings.Join(Policies(), ", "))
	}
	return nil
}

// States are the names of MTA-STS modes and DANE states, as ParseState takes
// them. "none" is both, so it has "mta-sts:" or "dane:" before it.
func States() []string {
	return []string{"enforce", "testing", "mta-sts:none", "absent", "full", "partial", "insecure-mx", "dane:none", "unknown"}
}

// ParseState checks the name of a state: an MTA-STS mode or a DANE state.
// "none" is both, so it wants "mta-sts:" or "dane:" before it.
func ParseState(s string) error {
	kind, name, found := strings.Cut(s, ":")
	if !found {
		kind, name = "", s
	}
	sts := name == "enforce" || name == "testing" || name == "none" || name == "absent"
	_, isDANE := daneStates()[name]
	switch {
	case kind == "" && name == "none":
		return fmt.Errorf("state %q: want mta-sts:none or dane:none", s)
	case kind == "" && (sts || isDANE), kind == "mta-sts" && sts, kind == "dane" && isDANE:
		return nil
	}
	return fmt.Errorf("state %q: want one of %s", s, strings.Join(States(), ", "))
}

// ParseAge reads a duration, days included: "30d", "12h".
func ParseAge(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, errors.New("want a duration such as 30d, 12h or 90m")
	}
	return d, nil
}

// Matches reports whether the filter picks a domain.
func (f Filter) Matches(d *Domain, now time.Time) bool {
	if f.Older > 0 && now.Sub(d.Learned) < f.Older || f.Unused > 0 && now.Sub(d.LastUsed) < f.Unused {
		return false
	}
	if f.Policy != "" && !d.any(func(a *Answer) bool { return a.Policy == f.Policy }) {
		return false
	}
	if f.State == "" {
		return true
	}
	kind, name, found := strings.Cut(f.State, ":")
	if !found {
		kind, name = "", f.State
	}
	return kind != "dane" && d.MTASTS == name ||
		kind != "mta-sts" && d.any(func(a *Answer) bool { return a.DANE == name })
}

func (d *Domain) any(is func(*Answer) bool) bool {
	for i := range d.Answers {
		if is(&d.Answers[i]) {
			return true
		}
	}
	return false
}

func domainOf(info policymap.Info) Domain {
	rec := info.Record
	d := Domain{
		Domain: rec.Domain, MTASTS: info.STS.String(), Expires: info.STSExpires.UTC(),
		Answers:  make([]Answer, 0, len(info.Answers)),
		LastUsed: rec.LastUsed.UTC(), NextRefresh: rec.Due.UTC(),
	}
	if info.STS == policy.STSAbsent {
		d.Why = info.STSReason
	}
	if s := rec.STS; s != nil {
		d.Learned = later(s.CheckedAt, s.FetchedAt)
		d.LastError = lastError(s)
		d.SharedBy, d.SharedSince = s.SharedBy, s.SharedSince.UTC()
	}
	for _, a := range info.Answers {
		d.Answers = append(d.Answers, Answer{
			NextHop: a.Key, Policy: a.Decision.Level.String(), Row: string(a.Decision.Row), Why: a.Decision.Why,
			DANE: a.DANE.String(), DANEFresh: a.DANEFresh, DANEExpires: a.DANEExpires.UTC(),
			Postfix: a.Reply, TLSRPT: a.TLSRPT,
		})
		if d.LastError == "" {
			d.LastError = a.Decision.Reason
		}
	}
	for _, fact := range rec.DANE {
		d.Learned = later(d.Learned, fact.KnownAt)
	}
	d.Learned = d.Learned.UTC()
	return d
}

// lastError is what went wrong last. That a domain has no TXT record is no error.
func lastError(s *store.STS) string {
	switch {
	case s.Error != "":
		return s.Error
	case s.TXTError != "" && s.FailedAt.Equal(s.CheckedAt) && !s.FailedAt.IsZero():
		return s.TXTError
	case s.TXTError != "" && s.TXTID != "": // a missing record has no id
		return s.TXTError
	}
	return ""
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// Query asks for a page of the cache.
type Query struct {
	Filter
	Search string // names that begin with it or, after "*", have it in them
	Sort   string // "domain", "refresh" or "used"; after "-" the last one first
	After  string // Page.Next of the page before
	Limit  int    // domains on a page; 0: 100
}

// Page is a part of the cache. It may have fewer domains than were asked for and
// still have a next page: a request examines a bounded number of domains.
type Page struct {
	Domains  []Domain `json:"domains"`
	Next     string   `json:"next,omitempty"` // absent at the end
	Examined int      `json:"examined"`       // domains that the filter was held against
}

// Attention is what the operator should know of.
type Attention struct {
	Checks   []Check   `json:"checks"`
	Counted  time.Time `json:"counted,omitzero"` // when Failing and Ending were; absent: not yet
	Failing  Concerns  `json:"failing"`          // a policy is in force, and fetching a newer one fails
	Ending   Concerns  `json:"ending"`           // enforce policies that end within a day unless a fetch succeeds
	Deferred Concerns  `json:"deferred"`         // next hops that were answered TEMP within the last hour
	Weaker   Concerns  `json:"weaker"`           // policies that got weaker in the last seven days
}

// Check is one line of /readyz.
type Check struct {
	Name  string `json:"name"`
	State string `json:"state"` // "ok", "degraded" or "failing"
	Text  string `json:"text,omitempty"`
}

// Concerns are how many domains have one thing wrong with them, and up to 100.
type Concerns struct {
	Count   int       `json:"count"`
	Domains []Concern `json:"domains"`
}

// Concern is a domain that needs attention.
type Concern struct {
	Domain  string    `json:"domain"`
	NextHop string    `json:"next_hop,omitempty"`
	At      time.Time `json:"at,omitzero"` // of the last lookup, or of the change
	Ends    time.Time `json:"ends,omitzero"`
	Reason  string    `json:"reason,omitempty"`
}

// Change is a policy or DANE state that became another one.
type Change struct {
	At     time.Time `json:"at"`
	Key    string    `json:"next_hop"` // for MTA-STS the domain
	What   string    `json:"what"`     // "MTA-STS" or "DANE"
	Old    string    `json:"old"`
	New    string    `json:"new"`
	Weaker bool      `json:"weaker,omitempty"`
}

// Schedule is how many domains are refreshed, and when.
type Schedule struct {
	Overdue int   `json:"overdue"`
	Step    int   `json:"step_seconds"`
	Due     []int `json:"due"` // in each step of the next hour
}

// Progress is one line of the answer to a long request.
type Progress struct {
	Total  int    `json:"total,omitempty"`  // in the first line: how many will follow
	Name   string `json:"name,omitempty"`   // of a domain or a next hop that is done
	Policy string `json:"policy,omitempty"` // that it gets now
	Error  string `json:"error,omitempty"`  // what did not work
	// Unknown: nothing is known of the domain, so that nothing was done.
	Unknown bool `json:"unknown,omitempty"`
}

// Names is the body of a request about domains or next hops.
type Names struct {
	Names []string `json:"names,omitempty"`
	All   bool     `json:"all,omitempty"`
}

// Count is the answer of a request that does one thing many times.
type Count struct {
	Count  int `json:"count"`
	Shared int `json:"shared,omitempty"` // of a purge: policies deleted from the shared cache
}

// Failure is the body of every answer with a status of 400 or more.
type Failure struct {
	Error string `json:"error"`
}
