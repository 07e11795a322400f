package admin

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"tlspolicyd/policymap/policy"
	"tlspolicyd/store"
	"tlspolicyd/testing/lab"
	"tlspolicyd/testing/load"
)

// pages reads all pages of a query and returns the domains, and on how many pages
// they were.
func (d *daemon) pages(t *testing.T, q Query) (names []string, pages int) {
	t.Helper()
	for {
		p, err := d.client.Page(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		for _, dom := range p.Domains {
			names = append(names, dom.Domain)
		}
		pages++
		if q.After = p.Next; p.Next == "" {
			return names, pages
		}
	}
}

func TestPages(t *testing.T) {
	d := start(t)
	if err := load.Fill(t.Context(), d.store, 1000, time.Now()); err != nil {
		t.Fatal(err)
	}
	all := d.list(t, Filter{})
	reversed := func(s []string) (r []string) {
		for _, one := range s {
			r = append([]string{one}, r...)
		}
		return r
	}
	byUse := make([]string, 1000) // load.Record: the last one was used last
	for i := range byUse {
		byUse[i] = load.Domain(i)
	}
	var secure, withA9 []string
	for _, name := range all {
		if strings.HasSuffix(name, ".sts.test") {
			secure = append(secure, name)
		}
		if strings.Contains(name, "a9") {
			withA9 = append(withA9, name)
		}
	}
	for _, tt := range []struct {
		query Query
		want  []string
		pages int
	}{
		{Query{}, all, 10},
		{Query{Sort: "domain", Limit: 300}, all, 4},
		{Query{Sort: "-domain"}, reversed(all), 10},
		{Query{Sort: "used"}, byUse, 10},
		{Query{Sort: "-used", Limit: 1000}, reversed(byUse), 1},
		{Query{Filter: Filter{Policy: "secure"}}, secure, 3},
		{Query{Search: "*A9"}, withA9, 1},
		{Query{Search: all[500]}, all[500:501], 1},
		{Query{Search: strings.ToUpper(all[500])}, all[500:501], 1},
		{Query{Search: "[" + all[500] + "]:587"}, all[500:501], 1},
		{Query{Search: "d"}, all, 10},
		{Query{Search: "d", Sort: "-domain"}, reversed(all), 10},
		{Query{Search: "c"}, nil, 1},
		{Query{Search: "e", Sort: "-domain"}, nil, 1},
		{Query{Search: "z", Sort: "used"}, nil, 1},
	} {
		names, pages := d.pages(t, tt.query)
		if strings.Join(names, " ") != strings.Join(tt.want, " ") || pages != tt.pages {
			t.Errorf("%+v: %d domains on %d pages, want %d on %d", tt.query, len(names), pages, len(tt.want), tt.pages)
		}
	}
	if names, _ := d.pages(t, Query{Sort: "refresh"}); len(names) != 1000 {
		t.Errorf("%d domains in order of refresh", len(names))
	}
	for _, q := range []Query{{Sort: "policy"}, {Limit: 5000}, {After: "x"}, {After: "1/" + strings.Repeat("a", 256)}, {Filter: Filter{State: "x"}}} {
		_, err := d.client.Page(t.Context(), q)
		if refused, ok := errors.AsType[*StatusError](err); !ok || refused.Status != 400 {
			t.Errorf("%+v: %v", q, err)
		}
	}
}

// A request that finds nothing examines a bounded number of domains, and the next
// one goes on behind them.
func TestAPageIsBoundedWork(t *testing.T) {
	d := start(t)
	const n = 8000
	if err := load.Fill(t.Context(), d.store, n, time.Now()); err != nil {
		t.Fatal(err)
	}
	q := Query{Filter: Filter{Policy: "temp"}}
	first, err := d.client.Page(t.Context(), q)
	if err != nil || len(first.Domains) != 0 || first.Next == "" || first.Examined != maxWork/5 {
		t.Fatalf("%d domains, %d examined, next %q: %v", len(first.Domains), first.Examined, first.Next, err)
	}
	q.After = first.Next
	rest, err := d.client.Page(t.Context(), q)
	if err != nil || rest.Next != "" || first.Examined+rest.Examined != n {
		t.Errorf("%d and %d examined, next %q: %v", first.Examined, rest.Examined, rest.Next, err)
	}
}

func TestAttention(t *testing.T) {
	d := start(t)
	ph := d.PolicyHost("plain.test", enforce)
	d.ask(t, "plain.test", secure)
	d.Fault("broken.test", "MX", lab.ServFail)
	d.ask(t, "broken.test", "TEMP MX lookup of broken.test: SERVFAIL")
	ph.Fault(lab.HostFault{Refuse: true})
	if err := d.client.Refresh(t.Context(), Names{Names: []string{"plain.test"}}, func(Progress) error { return nil }); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	if err := d.store.Put(t.Context(), store.Record{
		Domain: "ending.test", LastUsed: now, Class: store.Positive, Due: now.Add(time.Hour),
		STS: &store.STS{Policy: []byte(enforce), FetchedAt: now.Add(-6*24*time.Hour - 23*time.Hour), TXTID: "1", PolicyID: "1", CheckedAt: now, TXTTTL: time.Hour},
	}); err != nil {
		t.Fatal(err)
	}
	d.changes.Changed(policy.Change{Key: "was.test:587", What: "DANE", Old: "full", New: "none", Weaker: true})
	d.changes.Changed(policy.Change{Key: "now.test", What: "DANE", Old: "none", New: "full"})

	a, err := d.client.Attention(t.Context())
	for err == nil && a.Counted.IsZero() { // go test ends a hang
		a, err = d.client.Attention(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	one := func(c Concerns, domain, reason string) {
		t.Helper()
		if c.Count != 1 || len(c.Domains) != 1 || c.Domains[0].Domain != domain || !strings.Contains(c.Domains[0].Reason, reason) {
			t.Errorf("%+v: want one of %s, %q", c, domain, reason)
		}
	}
	one(a.Failing, "plain.test", "connection refused")
	one(a.Ending, "ending.test", "")
	one(a.Deferred, "broken.test", "SERVFAIL")
	one(a.Weaker, "was.test", "DANE: none, was full")
	if left := a.Ending.Domains[0].Ends.Sub(now); left > time.Hour+time.Second || left < time.Hour-time.Second {
		t.Errorf("ends in %v", left)
	}
	states := ""
	for _, c := range a.Checks {
		states += c.Name + " " + c.State + ", "
	}
	if states != "socket ok, store ok, resolver ok, trust store ok, " || a.Counted.IsZero() {
		t.Errorf("%s counted %v", states, a.Counted)
	}
	d.listening.Store(false)
	if a, err = d.client.Attention(t.Context()); err != nil || a.Checks[0].State != "failing" || a.Checks[0].Text != "not open" {
		t.Errorf("%+v, %v", a.Checks, err)
	}

	list, err := d.client.Changes(t.Context(), "WAS.test")
	if err != nil || len(list) != 1 || list[0].New != "none" || !list[0].Weaker {
		t.Errorf("%+v, %v", list, err)
	}
	if list, err = d.client.Changes(t.Context(), ""); err != nil || len(list) != 2 || list[0].Key != "now.test" {
		t.Errorf("%+v, %v", list, err)
	}
	if _, err := d.client.Changes(t.Context(), "[192.0.2.1]"); err == nil {
		t.Error("an address has changes")
	}
}

func TestSchedule(t *testing.T) {
	d := start(t)
	now := time.Now()
	for i, due := range []time.Duration{2 * time.Minute, 3 * time.Minute, 57 * time.Minute, 61 * time.Minute} {
		rec := load.Record(i, now)
		rec.Due = now.Add(due)
		if err := d.store.Put(t.Context(), rec); err != nil {
			t.Fatal(err)
		}
	}
	got, err := d.client.Schedule(t.Context())
	if want := "{0 300 [2 0 0 0 0 0 0 0 0 0 0 1]}"; err != nil || fmt.Sprint(got) != want {
		t.Errorf("%v, %v; want %s", got, err, want)
	}
}
