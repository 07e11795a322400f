package admin

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"tlspolicyd/policymap"
	"tlspolicyd/policymap/policy"
	"tlspolicyd/store"
)

// This file is what `tlspolicyd ui` reads. No request here walks over the whole
// cache.

const (
	defaultLimit = 100
	maxLimit     = 1000
	maxWork      = 25000 // of one request for a page: a domain costs 1, one held against a filter 5
	deferredFor  = time.Hour
	weakerFor    = 7 * 24 * time.Hour
)

// orders are the orders in which a page can be had: those that the store has an
// index for.
func orders() map[string]store.Order {
	return map[string]store.Order{"domain": store.ByDomain, "refresh": store.ByDue, "used": store.ByLastUsed}
}

// listing is a Query as the store understands it.
type listing struct {
	scan   store.Scan
	prefix string
	within string // the name has this in it
	filter Filter
	limit  int
}

func parseQuery(r *http.Request) (l listing, err error) {
	q := r.URL.Query()
	if l.filter, err = parseFilter(q); err != nil {
		return l, err
	}
	name, backward := strings.CutPrefix(cmp.Or(q.Get("sort"), "domain"), "-")
	order, ok := orders()[name]
	if !ok {
		return l, fmt.Errorf("sort %s: want domain, refresh or used", quoted(name))
	}
	l.scan, l.limit = store.Scan{Order: order, Backward: backward}, defaultLimit
	if text := q.Get("limit"); text != "" {
		if l.limit, err = strconv.Atoi(text); err != nil || l.limit < 1 || l.limit > maxLimit {
			return l, fmt.Errorf("limit: want 1 to %d", maxLimit)
		}
	}
	search, within := strings.CutPrefix(searchedName(q.Get("search")), "*")
	if within {
		l.within = search
	} else {
		l.prefix = search
	}
	if after := q.Get("after"); after != "" {
		at, domain, _ := strings.Cut(after, "/")
		ms, err := strconv.ParseInt(at, 10, 64)
		if err != nil || domain == "" || len(domain) > store.MaxDomain {
			return l, errors.New("after: want what the page before has as next")
		}
		l.scan.After = store.Position{At: time.UnixMilli(ms), Domain: domain}
	} else if l.prefix != "" && order == store.ByDomain {
		// Just before the first name that begins with the prefix, or behind the last.
		last := len(l.prefix) - 1
		l.scan.After.Domain = l.prefix[:last] + string([]byte{l.prefix[last] - 1, 0xff})
		if backward {
			l.scan.After.Domain = l.prefix + "\xff"
		}
	}
	return l, nil
}

// searchedName is a search in the form that domains have in the cache.
func searchedName(s string) string {
	s = strings.ToLower(strings.TrimSpace(s))
	if strings.ContainsFunc(s, func(r rune) bool { return r > '~' || strings.ContainsRune("[]:", r) }) {
		if hop, ok := policy.ParseNextHop(s); ok {
			return hop.Domain
		}
	}
	return s
}

func (s *Server) page(w http.ResponseWriter, r *http.Request) {
	l, err := parseQuery(r)
	if err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	page, now, last, work := Page{Domains: []Domain{}}, time.Now(), store.Position{}, 0
	more := func() bool {
		page.Next = "0/" + last.Domain
		if l.scan.Order != store.ByDomain {
			page.Next = strconv.FormatInt(last.At.UnixMilli(), 10) + "/" + last.Domain
		}
		return false
	}
	err = s.opt.Map.Walk(l.scan, func(at store.Position, info func() policymap.Info) bool {
		if l.scan.Order == store.ByDomain && !strings.HasPrefix(at.Domain, l.prefix) {
			return false
		}
		if work >= maxWork || r.Context().Err() != nil {
			return more()
		}
		if strings.HasPrefix(at.Domain, l.prefix) && strings.Contains(at.Domain, l.within) {
			work += 4
			if d := domainOf(info()); l.filter.Matches(&d, now) {
				if len(page.Domains) == l.limit {
					return more()
				}
				page.Domains = append(page.Domains, d)
			}
		}
		page.Examined++
		work++
		last = at
		return true
	})
	if err != nil {
		fail(w, http.StatusInternalServerError, err)
		return
	}
	reply(w, page)
}

func (s *Server) attention(w http.ResponseWriter, r *http.Request) {
	last := s.gauges.scan(firstLook)
	a := Attention{
		Counted: last.ended.UTC(),
		Failing: concernsOf(last.tally.Failing), Ending: concernsOf(last.tally.Ending),
		Deferred: s.deferred(time.Now()), Weaker: s.weaker(time.Now()),
	}
	for _, c := range []check{s.checkSocket(), s.checkStore(), s.checkResolver(r.Context()), s.checkRoots()} {
		one := Check{Name: c.Name, State: "ok", Text: c.Note}
		switch {
		case c.Err != nil:
			one.State, one.Text = "failing", c.Err.Error()
		case c.Degraded:
			one.State = "degraded"
		}
		a.Checks = append(a.Checks, one)
	}
	reply(w, a)
}

func concernsOf(c policymap.Concerns) Concerns {
	out := Concerns{Count: c.Count, Domains: []Concern{}}
	for _, one := range c.First {
		out.Domains = append(out.Domains, Concern{Domain: one.Domain, Ends: one.Ends.UTC(), Reason: one.Error})
	}
	return out
}

// deferred are the next hops whose mail Postfix held back when it asked last.
func (s *Server) deferred(now time.Time) Concerns {
	out := Concerns{Domains: []Concern{}}
	s.opt.Map.Deferred(func(hop policy.NextHop, reason string, used time.Time) {
		if now.Sub(used) < deferredFor {
			out.Domains = append(out.Domains, Concern{Domain: hop.Domain, NextHop: hop.String(), At: used.UTC(), Reason: reason})
		}
	})
	out.newestFirst()
	return out
}

func (s *Server) weaker(now time.Time) Concerns {
	out := Concerns{Domains: []Concern{}}
	for _, c := range s.opt.Changes.List("") {
		if c.Weaker && now.Sub(c.At) < weakerFor {
			out.Domains = append(out.Domains, Concern{
				Domain: domainOfKey(c.Key), NextHop: c.Key, At: c.At, Reason: fmt.Sprintf("%s: %s, was %s", c.What, c.New, c.Old),
			})
		}
	}
	out.newestFirst()
	return out
}

// newestFirst counts, sorts, and leaves the newest.
func (c *Concerns) newestFirst() {
	c.Count = len(c.Domains)
	slices.SortStableFunc(c.Domains, func(a, b Concern) int {
		return cmp.Or(b.At.Compare(a.At), strings.Compare(a.NextHop, b.NextHop))
	})
	c.Domains = c.Domains[:min(len(c.Domains), defaultLimit)]
}

func (s *Server) changes(w http.ResponseWriter, r *http.Request) {
	domain := r.URL.Query().Get("domain")
	if domain != "" {
		var err error
		if domain, err = domainOfName(domain); err != nil {
			fail(w, http.StatusBadRequest, err)
			return
		}
	}
	list := s.opt.Changes.List(domain)
	l := newLines(w)
	var err error
	for i := len(list) - 1; i >= 0 && err == nil; i-- {
		err = l.send(list[i], false)
	}
	s.end(r, l, err)
}

func (s *Server) schedule(w http.ResponseWriter, r *http.Request) {
	const step = 5 * time.Minute
	out := Schedule{Step: int(step / time.Second)}
	before, now := 0, time.Now()
	for i := range time.Hour/step + 1 {
		n, err := s.opt.Store.CountDue(now.Add(i * step))
		if err != nil {
			fail(w, http.StatusInternalServerError, err)
			return
		}
		if i == 0 {
			out.Overdue = n
		} else {
			out.Due = append(out.Due, n-before)
		}
		before = n
	}
	reply(w, out)
}
