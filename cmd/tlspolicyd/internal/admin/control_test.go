package admin

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tlspolicyd/policymap/policy"
	"tlspolicyd/share"
	"tlspolicyd/testing/lab"
)

func (d *daemon) list(t testing.TB, f Filter) (names []string) {
	t.Helper()
	if err := d.client.List(t.Context(), f, func(dom Domain) error {
		names = append(names, dom.Domain)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return names
}

func TestList(t *testing.T) {
	d := start(t)
	d.PolicyHost("plain.test", enforce)
	d.ask(t, "plain.test", secure)
	d.ask(t, "full.test", "OK dane-only")
	d.ask(t, "bücher.test", "NOTFOUND ")
	for _, tt := range []struct {
		filter Filter
		want   string
	}{
		{Filter{}, "full.test plain.test xn--bcher-kva.test"},
		{Filter{Policy: "secure"}, "plain.test"},
		{Filter{Policy: "dane-only"}, "full.test"},
		{Filter{Policy: "temp"}, ""},
		{Filter{State: "enforce"}, "plain.test"},
		{Filter{State: "full"}, "full.test"},
		{Filter{State: "dane:none"}, "plain.test xn--bcher-kva.test"},
		{Filter{State: "mta-sts:none"}, ""},
		{Filter{State: "absent", Policy: "notfound"}, "xn--bcher-kva.test"},
		{Filter{Unused: time.Hour}, ""},
		{Filter{Older: time.Hour}, ""},
		{Filter{Older: time.Nanosecond, Policy: "secure"}, "plain.test"},
	} {
		if got := strings.Join(d.list(t, tt.filter), " "); got != tt.want {
			t.Errorf("%+v: %s, want %s", tt.filter, got, tt.want)
		}
	}
	for _, f := range []Filter{{Policy: "strong"}, {State: "none"}, {State: "dane:enforce"}, {State: "mta-sts:full"}, {State: "x:full"}} {
		err := d.client.List(t.Context(), f, func(Domain) error { return nil })
		if refused, ok := errors.AsType[*StatusError](err); !ok || refused.Status != 400 || !strings.Contains(err.Error(), "want") {
			t.Errorf("%+v: %v", f, err)
		}
	}
}

// Ages are those of the last use and of the last look, each for itself.
func TestFilterByAge(t *testing.T) {
	now := time.Now()
	d := &Domain{Learned: now.Add(-2 * time.Hour), LastUsed: now.Add(-48 * time.Hour)}
	never := &Domain{}
	for _, tt := range []struct {
		filter Filter
		want   bool
	}{
		{Filter{Older: time.Hour}, true},
		{Filter{Older: 3 * time.Hour}, false},
		{Filter{Unused: 47 * time.Hour}, true},
		{Filter{Unused: 49 * time.Hour}, false},
		{Filter{Older: time.Hour, Unused: 49 * time.Hour}, false},
	} {
		if got := tt.filter.Matches(d, now); got != tt.want {
			t.Errorf("%+v: %v", tt.filter, got)
		}
	}
	if !(Filter{Unused: 1000 * time.Hour}).Matches(never, now) {
		t.Error("what was never used is not unused")
	}
}

func TestShow(t *testing.T) {
	d := start(t)
	d.PolicyHost("plain.test", enforce)
	d.ask(t, "plain.test", secure)
	began := time.Now()
	got, err := d.client.Show(t.Context(), "PLAIN.test.")
	if err != nil {
		t.Fatal(err)
	}
	if got.Domain.Domain != "plain.test" || got.MTASTS != "enforce" || got.LastError != "" || len(got.Answers) != 1 {
		t.Fatalf("%+v", got)
	}
	a := got.Answers[0]
	if a.Postfix != secure || !strings.Contains(a.TLSRPT, "policy_type=sts") || a.Policy != "secure" || a.DANE != "none" || !a.DANEFresh || a.Row != "sts-enforce" {
		t.Errorf("%+v", a)
	}
	if f := got.Facts; f.STS == nil || f.STS.Policy == nil || *f.STS.Policy != enforce || f.STS.PolicyID != "1" || len(f.DANE) != 1 || f.DANE[0].State != "none" {
		t.Errorf("%+v", f)
	}
	if left := got.Expires.Sub(began); left < 6*24*time.Hour || got.NextRefresh.Before(began) || got.LastUsed.IsZero() {
		t.Errorf("expires %v, next refresh %v, last used %v", got.Expires, got.NextRefresh, got.LastUsed)
	}

	_, err = d.client.Show(t.Context(), "absent.test")
	if refused, ok := errors.AsType[*StatusError](err); !ok || refused.Status != http.StatusNotFound {
		t.Errorf("an unknown domain: %v", err)
	}
	_, err = d.client.Show(t.Context(), "192.0.2.1")
	if refused, ok := errors.AsType[*StatusError](err); !ok || refused.Status != http.StatusBadRequest {
		t.Errorf("an address: %v", err)
	}
}

func (d *daemon) refresh(t testing.TB, names Names) map[string]Progress {
	t.Helper()
	got := make(map[string]Progress)
	if err := d.client.Refresh(t.Context(), names, func(p Progress) error {
		got[p.Name] = p
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return got
}

func TestRefresh(t *testing.T) {
	d := start(t)
	ph := d.PolicyHost("plain.test", enforce)
	d.ask(t, "plain.test", secure)
	d.ask(t, "full.test", "OK dane-only")
	ph.SetPolicyKeepID("version: STSv1\nmode: none\nmax_age: 86400\n")

	got := d.refresh(t, Names{Names: []string{"Plain.TEST", "absent.test"}})
	if p := got["plain.test"]; p.Policy != "notfound" || p.Error != "" {
		t.Errorf("%+v", p)
	}
	if p := got["absent.test"]; !p.Unknown || p.Error == "" {
		t.Errorf("%+v", p)
	}
	if got[""].Total != 2 {
		t.Errorf("total %+v", got[""])
	}
	d.ask(t, "plain.test", "NOTFOUND ")

	n := d.Count("full.test", "MX")
	if got := d.refresh(t, Names{All: true}); len(got) != 3 || got["full.test"].Policy != "dane-only" {
		t.Errorf("all: %v", got)
	}
	if d.Count("full.test", "MX") != n+1 {
		t.Error("full.test was not looked up")
	}

	// A failure is reported, and what was known is kept.
	ph.Fault(lab.HostFault{Status: 500})
	if p := d.refresh(t, Names{Names: []string{"plain.test"}})["plain.test"]; !strings.Contains(p.Error, "500") || p.Policy != "notfound" {
		t.Errorf("a failing policy host: %+v", p)
	}
	d.Fault("full.test", "MX", lab.ServFail)
	if p := d.refresh(t, Names{Names: []string{"full.test"}})["full.test"]; !strings.Contains(p.Error, "DANE") || p.Policy != "dane-only" {
		t.Errorf("failing DNS: %+v", p)
	}
	d.ask(t, "full.test", "OK dane-only")
}

func TestPurge(t *testing.T) {
	d := start(t)
	d.ask(t, "plain.test", "NOTFOUND ")
	d.ask(t, "full.test", "OK dane-only")
	d.ask(t, "bücher.test", "NOTFOUND ")
	if n, err := d.client.Purge(t.Context(), Names{Names: []string{"BÜCHER.test", "absent.test"}}, false); n.Count != 1 || err != nil {
		t.Errorf("%v, %v", n, err)
	}
	if got := d.list(t, Filter{}); !slices.Equal(got, []string{"full.test", "plain.test"}) {
		t.Errorf("left: %v", got)
	}
	if n, err := d.client.Purge(t.Context(), Names{All: true}, false); n.Count != 2 || err != nil {
		t.Errorf("all: %v, %v", n, err)
	}
	if got := d.list(t, Filter{}); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
	n := d.Count("full.test", "MX")
	d.ask(t, "full.test", "OK dane-only")
	if d.Count("full.test", "MX") != n+1 {
		t.Error("answered from memory after a purge")
	}
}

func TestDiffAndPurgeOfWhatIsShared(t *testing.T) {
	d := start(t)
	d.PolicyHost("plain.test", enforce)
	d.PolicyHost("xn--bcher-kva.test", enforce)
	d.ask(t, "plain.test", secure)
	d.ask(t, "bücher.test", secure)
	d.ask(t, "full.test", "OK dane-only")
	diff := func() map[string]string {
		t.Helper()
		got := make(map[string]string)
		err := d.client.Diff(t.Context(), func(x Difference) error {
			got[x.Domain] = x.Kind
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		return got
	}
	if got := diff(); len(got) != 0 {
		t.Errorf("differences: %v", got)
	}
	other := d.engine.Member("other.test", nil)
	another := strings.Replace(enforce, "*.plain.test", "other.test", 1)
	other.Offer("plain.test", share.Policy{File: []byte(another)}, share.Lease{})
	if _, err := other.Delete(t.Context(), "xn--bcher-kva.test"); err != nil {
		t.Fatal(err)
	}
	if want := map[string]string{"plain.test": "differs", "xn--bcher-kva.test": "only-here"}; !maps.Equal(diff(), want) {
		t.Errorf("differences: %v", diff())
	}
	if n, err := d.client.Purge(t.Context(), Names{Names: []string{"plain.test", "absent.test"}}, true); n != (Count{1, 1}) || err != nil {
		t.Errorf("%v, %v", n, err)
	}
	if want := map[string]string{"xn--bcher-kva.test": "only-here"}; !maps.Equal(diff(), want) {
		t.Errorf("differences after a purge of both: %v", diff())
	}
	// What only the shared cache has; without enforce it fills no void here.
	other.Offer("plain.test", share.Policy{File: []byte(strings.Replace(enforce, "enforce", "testing", 1))}, share.Lease{})
	if n, err := d.client.Purge(t.Context(), Names{Names: []string{"plain.test"}}, true); n != (Count{0, 1}) || err != nil {
		t.Errorf("%v, %v", n, err)
	}
	d.engine.Fail(errors.New("no engine"), false)
	if err := d.client.Diff(t.Context(), func(Difference) error { return nil }); err == nil || !strings.Contains(err.Error(), "no engine") {
		t.Error(err)
	}
	if _, err := d.client.Purge(t.Context(), Names{All: true}, true); err == nil || !strings.Contains(err.Error(), "nothing was deleted on this host; deleted from the shared cache: 0; then: no engine") {
		t.Error(err)
	}
	if got := d.list(t, Filter{}); len(got) != 2 {
		t.Errorf("left: %v", got)
	}
	// A policy of another host says so.
	d.engine.Fail(nil, false)
	other.Offer("shared.test", share.Policy{File: []byte(enforce), ID: "7"}, share.Lease{})
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		if details, err := d.client.Show(t.Context(), "shared.test"); err == nil {
			var text strings.Builder
			_ = details.WriteText(&text, time.Now())
			if details.SharedBy != "other.test" || details.SharedSince.IsZero() || !strings.Contains(text.String(), "fetched by     other.test; by other hosts since ") {
				t.Errorf("%+v\n%s", details.Domain, &text)
			}
			return
		}
	}
	t.Error("shared.test was not adopted")
}

func TestWarm(t *testing.T) {
	d := start(t)
	d.PolicyHost("plain.test", enforce)
	d.Fault("down.test", "MX", lab.ServFail)
	got := make(map[string]Progress)
	keys := []string{"plain.test", "full.test", "absent.test", "down.test", "192.0.2.1"}
	if err := d.client.Warm(t.Context(), keys, func(p Progress) error {
		got[p.Name] = p
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"plain.test": "secure", "full.test": "dane-only", "absent.test": "notfound", "down.test": "temp", "192.0.2.1": ""} {
		if got[name].Policy != want {
			t.Errorf("%s: %+v", name, got[name])
		}
	}
	if !strings.Contains(got["down.test"].Error, "SERVFAIL") || got["192.0.2.1"].Error == "" || got["full.test"].Error != "" {
		t.Errorf("errors: %+v", got)
	}
	d.Down(true)
	d.ask(t, "plain.test", secure)
}

// Wrong requests change nothing and get the reason.
func TestBadRequests(t *testing.T) {
	d := start(t)
	d.ask(t, "full.test", "OK dane-only")
	for name, tt := range map[string]struct {
		path, body string
		status     int
		want       string
	}{
		"no JSON":          {"/v1/purge", "full.test", 400, "JSON"},
		"empty":            {"/v1/purge", "", 400, "cut short"},
		"nothing named":    {"/v1/purge", "{}", 400, "all"},
		"both":             {"/v1/purge", `{"names":["full.test"],"all":true}`, 400, "all"},
		"unknown field":    {"/v1/purge", `{"domains":["full.test"]}`, 400, "unknown field"},
		"two objects":      {"/v1/purge", `{"all":true}{}`, 400, "follows"},
		"an address":       {"/v1/purge", `{"names":["full.test","192.0.2.1"]}`, 400, "not a domain"},
		"control bytes":    {"/v1/purge", `{"names":["\u001b[31m"]}`, 400, `\x1b`},
		"too large":        {"/v1/purge", `{"names":["` + strings.Repeat("a", maxBody) + `"]}`, 413, "at most"},
		"warm all":         {"/v1/warm", `{"all":true}`, 400, "not possible"},
		"warm nothing":     {"/v1/warm", `{"names":["full.test",""]}`, 400, "empty name"},
		"broken import":    {"/v1/import", "{}\n", 400, "line 1"},
		"import twice":     {"/v1/import", goodLine + "\n" + goodLine + "\n", 400, "line 2: domain"},
		"too large import": {"/v1/import", strings.Repeat("\n", maxBody+1), 413, "at most"},
	} {
		_, err := d.client.do(t.Context(), "POST", tt.path, strings.NewReader(tt.body))
		refused, ok := errors.AsType[*StatusError](err)
		if !ok || refused.Status != tt.status || !strings.Contains(refused.Reason, tt.want) {
			t.Errorf("%s: %v", name, err)
		}
		if ok && strings.ContainsFunc(refused.Reason, func(r rune) bool { return r < ' ' }) {
			t.Errorf("%s: control bytes in %q", name, refused.Reason)
		}
	}
	if got := d.list(t, Filter{}); len(got) != 1 {
		t.Errorf("left: %v", got)
	}
	for _, path := range []string{"/v1/purge", "/v1/import", "/v1/refresh"} {
		_, err := d.client.do(t.Context(), "GET", path, nil)
		if refused, ok := errors.AsType[*StatusError](err); !ok || refused.Status != 405 {
			t.Errorf("GET %s: %v", path, err)
		}
	}
}

// Stopping ends what runs for an operator, and what was cut off does not look
// like a complete answer.
func TestStopCutsLongRequests(t *testing.T) {
	d := start(t)
	keys := make([]string, 100)
	for i := range keys {
		keys[i] = fmt.Sprintf("d%d.test", i)
	}
	d.Delay(time.Hour)
	began := make(chan struct{})
	result := make(chan error, 1)
	go func() {
		result <- d.client.Warm(context.Background(), keys, func(p Progress) error {
			if p.Total > 0 {
				close(began)
			}
			return nil
		})
	}()
	<-began
	if err := d.server.Shutdown(t.Context()); err != nil {
		t.Errorf("stop: %v", err)
	}
	if err := <-result; err == nil {
		t.Error("the answer looks complete")
	}
}

func TestNobodyThere(t *testing.T) {
	c := NewClient("/nonexistent/admin.sock")
	defer c.Close()
	if err := c.Ping(t.Context()); err == nil || strings.Contains(err.Error(), "http://") {
		t.Errorf("%v", err)
	}
}

// Who hangs is not waited for without end. The time is that of the bubble.
func TestPingOfADaemonThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &Client{http: &http.Client{Transport: silent{}}}
		if err := c.Ping(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := c.Ping(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("given up by the caller: %v", err)
		}
	})
}

// silent is a network where nobody answers.
type silent struct{}

func (silent) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

func TestEveryAnswerAndStateHasAName(t *testing.T) {
	for level := range levels {
		if err := ParsePolicy(level.String()); err != nil {
			t.Error(err)
		}
	}
	for _, s := range []policy.STSState{policy.STSAbsent, policy.STSTesting, policy.STSEnforce} {
		if err := ParseState(s.String()); err != nil {
			t.Error(err)
		}
	}
	for name := range daneStates() {
		if err := ParseState("dane:" + name); err != nil {
			t.Error(err)
		}
	}
}

// A defect in a handler cuts its connection, and is counted.
func TestADefectInAHandlerIsCounted(t *testing.T) {
	d := start(t)
	d.store.at.Store("readyz.invalid")
	if resp, err := http.Get("http://" + d.public + "/readyz"); err == nil {
		resp.Body.Close()
		t.Errorf("answered with %s", resp.Status)
	}
	if n := d.metrics.panics.Load(); n != 1 {
		t.Errorf("%d defects counted", n)
	}
	if status, _ := d.get(t, "GET", "/healthz"); status != http.StatusOK {
		t.Errorf("afterwards: status %d", status)
	}
}

// A defect that one record brings about costs an operator that one, and is
// counted; the rest of what was asked for is done.
func TestDefectCostsOneName(t *testing.T) {
	d := start(t)
	for _, domain := range []string{"full.test", "plain.test", "xn--bcher-kva.test"} {
		d.Lookup(t.Context(), []byte("postfix"), []byte(domain))
	}
	d.store.at.Store("plain.test")
	for verb, ask := range map[string]func(func(Progress) error) error{
		"refresh": func(fn func(Progress) error) error { return d.client.Refresh(t.Context(), Names{All: true}, fn) },
		"warm": func(fn func(Progress) error) error {
			return d.client.Warm(t.Context(), []string{"full.test", "plain.test:26", "xn--bcher-kva.test"}, fn)
		},
	} {
		got := map[string]string{}
		if err := ask(func(p Progress) error { got[p.Name] = p.Error; return nil }); err != nil {
			t.Errorf("%s: %v", verb, err)
		}
		delete(got, "") // how many there are
		for name, reason := range got {
			if stumbled := strings.HasPrefix(name, "plain.test"); stumbled != (reason == "internal error: cannot take plain.test") {
				t.Errorf("%s: %s: %q", verb, name, reason)
			}
		}
		if len(got) != 3 {
			t.Errorf("%s: %v", verb, got)
		}
	}
	if n := d.metrics.panics.Load(); n < 2 {
		t.Errorf("%d defects counted", n)
	}
	d.client.Purge(t.Context(), Names{All: true}, false)
	d.store.at.Store("")
	if left := d.list(t, Filter{}); len(left) != 0 {
		t.Errorf("left after the purge: %s", left)
	}
}
