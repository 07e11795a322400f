package admin

import (
	"fmt"
	"slices"
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
	Count int `json:"count"`
}

// Failure is the body of every answer with a status of 400 or more.
type Failure struct {
	Error string `json:"error"`
}
