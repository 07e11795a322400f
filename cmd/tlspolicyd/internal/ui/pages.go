package ui

import (
	"bytes"
	"cmp"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"tlspolicyd/cmd/tlspolicyd/internal/admin"
	"tlspolicyd/internal/mtasts"
	"tlspolicyd/internal/printable"
)

const (
	maxLines = 500  // of a policy file
	maxText  = 2000 // bytes of a line or a reply
)

func funcs() template.FuncMap {
	return template.FuncMap{
		"ago":   admin.Ago,
		"stamp": func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") },
		"iso":   func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
		"raw":   raw,
		"plain": plain,
		"count": count,
		"tone":  tone,
		"proof": proof,
		"list":  func(all ...any) []any { return all },
	}
}

// raw makes what others wrote one line of printable ASCII, with all else escaped.
func raw(s string) string {
	if len(s) > maxText {
		return printable.Line(s, maxText) + fmt.Sprintf(" (%d bytes)", len(s))
	}
	return printable.Line(s, 4*maxText)
}

// plain is for texts of the daemon, in which all else is escaped already.
func plain(s string) string {
	if len(s) > maxText {
		return s[:maxText] + "..."
	}
	return s
}

// count writes a number with its thousands apart.
func count(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

type concern struct {
	ID, Title, About string
	admin.Concerns
	At, Ends bool // columns
}

type frontData struct {
	Checks   []admin.Check
	Checked  string // the worst state of them
	Counted  time.Time
	Concerns []concern
	Quiet    bool
}

func (s *Server) front(r *http.Request) (view, error) {
	v := view{Title: "Attention", Page: "front", Nav: "/"}
	a, err := s.opt.Client.Attention(r.Context())
	if err != nil {
		return v, err
	}
	d := frontData{Checks: a.Checks, Counted: a.Counted, Concerns: []concern{
		{ID: "deferred", Title: "Mail deferred", About: "Next hops that Postfix was answered TEMP for within the last hour: their mail waits.", Concerns: a.Deferred, At: true},
		{ID: "ending", Title: "Policies about to end", About: "Enforced, and over within a day unless a fetch succeeds before: after that mail is sent without them.", Concerns: a.Ending, Ends: true},
		{ID: "failing", Title: "Fetches that fail", About: "A policy is in force, and its renewal fails. The policy stays until it ends.", Concerns: a.Failing, Ends: true},
		{ID: "weaker", Title: "Got weaker", About: "Policies and DANE states that protect less than before, in the last seven days.", Concerns: a.Weaker, At: true},
	}}
	d.Checked = "ok"
	for _, c := range d.Checks {
		if c.State == "failing" || d.Checked == "ok" {
			d.Checked = c.State
		}
	}
	d.Quiet = d.Checked == "ok" && !d.Counted.IsZero()
	for _, c := range d.Concerns {
		d.Quiet = d.Quiet && c.Count == 0
	}
	v.Data = d
	return v, nil
}

// column is a column of the cache that can be sorted by, or not.
type column struct {
	Name, Key string // Key "": the cache has no index for it
	Sorted    string // aria-sort
	Link      string
}

type cacheData struct {
	Query             url.Values
	Columns           []column
	Policies, States  []string
	Ages              []string
	Domains           []admin.Domain
	Examined          int
	Next, First, Sort string
}

func (s *Server) cache(r *http.Request) (view, error) {
	v := view{Title: "Cache", Page: "cache", Nav: "/cache"}
	q := r.URL.Query()
	query := admin.Query{
		Filter: admin.Filter{Policy: q.Get("policy"), State: q.Get("state")},
		Search: q.Get("search"), Sort: cmp.Or(q.Get("sort"), "domain"), After: q.Get("after"),
	}
	searched := query.Search != "" && !strings.HasPrefix(query.Search, "*")
	if searched && query.Sort != "-domain" {
		query.Sort = "domain" // the only order that has them side by side
	}
	q.Set("sort", query.Sort)
	var err error
	for name, age := range map[string]*time.Duration{"older": &query.Older, "unused": &query.Unused} {
		if q.Get(name) != "" {
			if *age, err = admin.ParseAge(q.Get(name)); err != nil {
				return v, &admin.StatusError{Status: http.StatusBadRequest, Reason: name + ": " + err.Error()}
			}
		}
	}
	p, err := s.opt.Client.Page(r.Context(), query)
	if err != nil {
		return v, err
	}
	d := cacheData{
		Query: q, Policies: admin.Policies(), States: admin.States(), Ages: []string{"1h", "12h", "1d", "7d", "30d"},
		Domains: p.Domains, Examined: p.Examined, Sort: query.Sort,
	}
	with := func(name, value string) string {
		next := url.Values{}
		for _, key := range []string{"search", "policy", "state", "older", "unused", "sort"} {
			if q.Get(key) != "" {
				next.Set(key, q.Get(key))
			}
		}
		if name != "" {
			next.Set(name, value)
		}
		return "/cache?" + next.Encode()
	}
	if p.Next != "" {
		d.Next = with("after", p.Next)
	}
	if query.After != "" {
		d.First = with("", "")
	}
	for _, c := range []column{
		{Name: "Next hop", Key: "domain"},
		{Name: "Policy"},
		{Name: "DANE"},
		{Name: "MTA-STS"},
		{Name: "Last used", Key: "used"},
		{Name: "Next refresh", Key: "refresh"},
	} {
		if searched && c.Key != "domain" {
			c.Key = ""
		}
		if c.Key != "" {
			c.Link = with("sort", c.Key)
			switch query.Sort {
			case c.Key:
				c.Sorted, c.Link = "ascending", with("sort", "-"+c.Key)
			case "-" + c.Key:
				c.Sorted = "descending"
			}
		}
		d.Columns = append(d.Columns, c)
	}
	v.Data = d
	return v, nil
}

type domainData struct {
	admin.Details
	Lines    []mtasts.PolicyLine
	Omitted  int // lines
	Missing  string
	Size     int // of the policy file, bytes
	Changes  []admin.Change
	Explains bool
}

func (s *Server) domain(r *http.Request) (view, error) {
	name := r.PathValue("domain")
	v := view{Title: raw(name), Page: "domain", Nav: "/cache"}
	d := domainData{Explains: s.opt.Explain != nil}
	var err error
	if d.Details, err = s.opt.Client.Show(r.Context(), name); err != nil {
		return v, err
	}
	v.Title = d.Domain.Domain
	if d.Changes, err = s.opt.Client.Changes(r.Context(), name); err != nil {
		return v, err
	}
	if sts := d.Facts.STS; sts != nil {
		file := sts.PolicyRaw
		if sts.Policy != nil {
			file = []byte(*sts.Policy)
		}
		d.Size = len(file)
		if file != nil {
			d.Lines, d.Missing = mtasts.PolicyLines(file)
		}
		d.Omitted = max(len(d.Lines)-maxLines, 0)
		d.Lines = d.Lines[:len(d.Lines)-d.Omitted]
	}
	v.Data = d
	return v, nil
}

type afreshData struct {
	Key, Text string
}

// explain shows what `tlspolicyd explain` prints.
func (s *Server) explain(r *http.Request) (view, error) {
	key := r.URL.Query().Get("key")
	v := view{Title: "Resolved afresh", Page: "afresh", Nav: "/cache"}
	if s.opt.Explain == nil || key == "" {
		return v, &admin.StatusError{Status: http.StatusNotFound, Reason: "no next hop to resolve"}
	}
	select {
	case s.afresh <- struct{}{}:
		defer func() { <-s.afresh }()
	default:
		return v, &admin.StatusError{Status: http.StatusServiceUnavailable, Reason: "other next hops are being resolved: try again in a minute"}
	}
	var text bytes.Buffer
	if err := s.opt.Explain(r.Context(), key, &text); err != nil {
		return v, err
	}
	v.Data = afreshData{Key: raw(key), Text: text.String()}
	return v, nil
}

type refresherData struct {
	Overdue, Total int
	Bars           []bar
	Domains        []admin.Domain
}

type bar struct {
	X, Y, Height, N int
	From, To        string
}

const barHeight = 100

func (s *Server) refresher(r *http.Request) (view, error) {
	v := view{Title: "Refresher", Page: "refresher", Nav: "/refresher"}
	plan, err := s.opt.Client.Schedule(r.Context())
	if err != nil {
		return v, err
	}
	p, err := s.opt.Client.Page(r.Context(), admin.Query{Sort: "refresh"})
	if err != nil {
		return v, err
	}
	hour := time.Now().Add(time.Hour)
	d := refresherData{Overdue: plan.Overdue, Domains: slices.DeleteFunc(p.Domains, func(d admin.Domain) bool { return d.NextRefresh.After(hour) })}
	most := max(slices.Max(append(plan.Due, 1)), 1)
	now, step := time.Now().UTC(), time.Duration(plan.Step)*time.Second
	for i, n := range plan.Due {
		h := n * barHeight / most
		d.Total += n
		d.Bars = append(d.Bars, bar{
			X: i * 50, Y: barHeight - h, Height: h, N: n,
			From: now.Add(time.Duration(i) * step).Format("15:04"), To: now.Add(time.Duration(i+1) * step).Format("15:04"),
		})
	}
	v.Data = d
	return v, nil
}

func (s *Server) counters(*http.Request) (view, error) {
	v := view{Title: "Counters", Page: "counters", Nav: "/counters"}
	charts := s.series.charts()
	if len(charts) == 0 {
		return v, &admin.StatusError{Status: http.StatusServiceUnavailable, Reason: "The daemon's counters were not read yet: reload this page in some seconds."}
	}
	v.Data = charts
	return v, nil
}

// tone is how good an answer or a state is, for its colour; the text says it too.
func tone(name string) string {
	switch name {
	case "dane-only", "secure", "enforce", "ok":
		return "good"
	case "dane", "testing", "override", "degraded":
		return "fair"
	case "temp", "failing":
		return "bad"
	}
	return "plain"
}

// proof says in words what is known of a mail host.
func proof(verdict string) string {
	return map[string]string{
		"usable":          "usable TLSA records",
		"partly-insecure": "usable TLSA records, but some addresses are insecure",
		"unusable":        "TLSA records, none of them usable",
		"no-tlsa":         "no TLSA record",
		"insecure":        "addresses are insecure: no TLSA lookup",
		"no-address":      "no address",
		"tlsa-failed":     "unknown: the TLSA lookup fails",
		"address-failed":  "unknown: the address lookup fails",
	}[verdict]
}
