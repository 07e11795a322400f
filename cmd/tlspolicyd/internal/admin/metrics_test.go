package admin

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tlspolicyd/internal/defect"
	"tlspolicyd/internal/mtasts"
	"tlspolicyd/policymap"
	"tlspolicyd/policymap/policy"
	"tlspolicyd/store"
	"tlspolicyd/testing/lab"
)

// documented are the lines of the table in docs/metrics.md.
func documented(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("../../../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]string)
	line := regexp.MustCompile("(?m)^\\| `(\\w+)` \\| (\\w+) \\|([^|]*)\\|")
	for _, m := range line.FindAllStringSubmatch(string(text), -1) {
		var labels []string
		for _, l := range regexp.MustCompile("`(\\w+)`").FindAllStringSubmatch(m[3], -1) {
			labels = append(labels, l[1])
		}
		slices.Sort(labels)
		all[m[1]] = m[2] + " " + strings.Join(labels, ",")
	}
	return all
}

// docs/metrics.md has every metric with its type and labels, and no other.
func TestMetricsAreDocumented(t *testing.T) {
	d := start(t)
	d.server.health.test(t.Context())
	families, err := d.metrics.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]string)
	others := make(map[string]bool)
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "tlspolicyd_") {
			others[strings.SplitN(f.GetName(), "_", 2)[0]] = true
			continue
		}
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		slices.Sort(labels)
		got[f.GetName()] = strings.ToLower(f.GetType().String()) + " " + strings.Join(labels, ",")
		if f.GetHelp() == "" {
			t.Errorf("%s has no help", f.GetName())
		}
		if counter := f.GetType().String() == "COUNTER"; counter != strings.HasSuffix(f.GetName(), "_total") {
			t.Errorf("%s: only counters end in _total", f.GetName())
		}
	}
	if diff := cmp.Diff(documented(t), got); diff != "" {
		t.Errorf("docs/metrics.md (-) and the registry (+):\n%s", diff)
	}
	if want := map[string]bool{"go": true, "process": true}; !maps.Equal(others, want) {
		t.Errorf("beside ours there are metrics of %v", others)
	}
}

// sample returns the value of a series as /metrics shows it.
func (d *daemon) sample(t testing.TB, series string) string {
	t.Helper()
	_, text := d.get(t, "GET", "/metrics")
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), series+" "); ok {
			return value
		}
	}
	return "absent"
}

func (d *daemon) wantSamples(t testing.TB, want map[string]string) {
	t.Helper()
	for series, value := range want {
		if got := d.sample(t, series); got != value {
			t.Errorf("%s is %s, want %s", series, got, value)
		}
	}
}

func TestMetricsTellWhatHappens(t *testing.T) {
	d := start(t)
	d.PolicyHost("plain.test", enforce)
	broken := d.PolicyHost("xn--bcher-kva.test", enforce)
	broken.Fault(lab.HostFault{Status: 404})
	d.ask(t, "plain.test", secure)
	d.ask(t, "plain.test", secure)
	d.ask(t, "full.test", "OK dane-only")
	d.ask(t, "bücher.test", "NOTFOUND ")
	d.ask(t, ".plain.test", "NOTFOUND ")
	d.Lookup(context.Background(), []byte("postfix-tlsrpt"), []byte("plain.test"))
	d.server.health.test(t.Context())

	lookups := func(labels string) string { return "tlspolicyd_lookups_total{" + labels + "}" }
	d.wantSamples(t, map[string]string{
		lookups(`answer="secure",map="postfix",origin="cold"`):                  "1",
		lookups(`answer="secure",map="postfix",origin="cached"`):                "1",
		lookups(`answer="secure",map="postfix-tlsrpt",origin="cached"`):         "1",
		lookups(`answer="dane-only",map="postfix",origin="cold"`):               "1",
		lookups(`answer="notfound",map="postfix",origin="cold"`):                "1",
		lookups(`answer="notfound",map="postfix",origin="static"`):              "1",
		`tlspolicyd_fetches_total{trigger="lookup"}`:                            "2",
		`tlspolicyd_fetch_failures_total{reason="status"}`:                      "1",
		`tlspolicyd_fetch_failures_total{reason="timeout"}`:                     "0",
		`tlspolicyd_lookup_duration_seconds_count`:                              "3",
		`tlspolicyd_phase_duration_seconds_count{phase="dns"}`:                  "3",
		`tlspolicyd_phase_duration_seconds_count{phase="https"}`:                "2",
		`tlspolicyd_cache_entries{kind="mta-sts"}`:                              "1",
		`tlspolicyd_cache_entries{kind="dane"}`:                                 "1",
		`tlspolicyd_cache_entries{kind="negative"}`:                             "1",
		`tlspolicyd_cache_policies{mode="enforce"}`:                             "1",
		`tlspolicyd_database_records`:                                           "3",
		`tlspolicyd_connections{state="idle"}`:                                  "3",
		`tlspolicyd_connections{state="busy"}`:                                  "2",
		`tlspolicyd_connections_accepted_total`:                                 "7",
		`tlspolicyd_log_lines_lost_total`:                                       "4",
		`tlspolicyd_resolver_answering`:                                         "1",
		`tlspolicyd_resolver_validating`:                                        "1",
		`tlspolicyd_resolver_ad_trusted`:                                        "1",
		`tlspolicyd_ready`:                                                      "1",
		`tlspolicyd_build_info{goversion="go1",revision="abc",version="1.2.3"}`: "1",
	})
}

func TestMetricsOfEvents(t *testing.T) {
	d := start(t)
	m := d.metrics
	m.Changed(policy.Change{What: "MTA-STS", Weaker: true})
	m.Changed(policy.Change{What: "MTA-STS"})
	m.Changed(policy.Change{What: "DANE"})
	m.Changed(policy.Change{What: "something new"})
	m.Fetched(policymap.Fetch{Domain: "a.test", Background: true, Took: time.Second, Err: errors.New("of another kind")})
	m.Fetched(policymap.Fetch{Domain: "a.test", Background: true, Took: time.Second, Err: &mtasts.FetchError{Stage: "something new"}})
	m.Refreshed("a.test", policymap.RefreshFailed)
	m.StoreFailed("a.test", errors.New("disk full"))
	m.ClockStepped(time.Hour)
	m.Panicked("a.test", &defect.Error{Text: "index out of range"})
	d.wantSamples(t, map[string]string{
		`tlspolicyd_policy_changes_total{kind="mta-sts"}`:    "2",
		`tlspolicyd_policy_weakenings_total{kind="mta-sts"}`: "1",
		`tlspolicyd_policy_changes_total{kind="dane"}`:       "1",
		`tlspolicyd_policy_weakenings_total{kind="dane"}`:    "0",
		`tlspolicyd_fetches_total{trigger="refresh"}`:        "2",
		`tlspolicyd_fetch_failures_total{reason="other"}`:    "2",
		`tlspolicyd_refreshes_total{result="failed"}`:        "1",
		`tlspolicyd_refreshes_total{result="ok"}`:            "0",
		`tlspolicyd_store_write_failures_total`:              "1",
		`tlspolicyd_clock_steps_total`:                       "1",
		`tlspolicyd_lookup_panics_total`:                     "1",
	})
}

// A cached answer costs the observer one addition.
func TestCachedLookupDoesNotAllocate(t *testing.T) {
	d := start(t)
	d.ask(t, "full.test", "OK dane-only")
	observers := policymap.Observers{d.metrics, d.metrics}
	name, key := []byte("postfix"), []byte("full.test")
	if n := testing.AllocsPerRun(1000, func() {
		d.Lookup(context.Background(), name, key)
		observers.Answered(true, policy.Override, policymap.Static)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// However often somebody scrapes, the cache is not counted again at once.
func TestCacheIsNotCountedOnEveryScrape(t *testing.T) {
	d := start(t)
	first := d.sample(t, "tlspolicyd_cache_scan_timestamp_seconds")
	d.ask(t, "full.test", "OK dane-only")
	for range 5 {
		if got := d.sample(t, "tlspolicyd_cache_scan_timestamp_seconds"); got != first {
			t.Fatalf("counted at %s and again at %s", first, got)
		}
	}
	if got := d.sample(t, "tlspolicyd_database_records"); got != "1" {
		t.Errorf("%s records", got)
	}
	// Counting that took long is not repeated soon.
	g := d.server.gauges
	g.mu.Lock()
	defer g.mu.Unlock()
	g.last.ended = g.last.ended.Add(-time.Minute)
	if !g.stale() {
		t.Error("a quick count holds for more than a minute")
	}
	g.last.took = time.Second
	if g.stale() {
		t.Error("counting for a second is repeated after a minute")
	}
}

// Counting that fails is not tried again at once, the first time either, and is
// not told of as if it had worked.
func TestFailedCountIsNotRepeatedAtOnce(t *testing.T) {
	d := start(t)
	if err := d.store.Close(); err != nil {
		t.Fatal(err)
	}
	if got := d.sample(t, "tlspolicyd_cache_scan_timestamp_seconds"); got != "absent" {
		t.Errorf("counted at %s", got)
	}
	g := d.server.gauges
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.failed.IsZero() || g.stale() {
		t.Errorf("failed at %v, and is tried again at once", g.failed)
	}
}

func TestHealth(t *testing.T) {
	d := start(t)
	if status, text := d.get(t, "GET", "/readyz"); status != 200 || text != "socket: ok\nstore: ok\nresolver: ok, validates\ntrust store: ok\n" {
		t.Errorf("%d %s", status, text)
	}
	if status, text := d.get(t, "GET", "/healthz"); status != 200 || text != "lookups: ok\n" {
		t.Errorf("%d %s", status, text)
	}

	d.hangs.Store(true)
	if status, text := d.get(t, "GET", "/healthz"); status != 503 || text != "lookups: hang: no answer within a second\n" {
		t.Errorf("%d %s", status, text)
	}
	if status, _ := d.get(t, "GET", "/readyz"); status != 200 {
		t.Errorf("ready is not healthy: %d", status)
	}

	d.listening.Store(false)
	if status, text := d.get(t, "GET", "/readyz"); status != 503 || !strings.Contains(text, "socket: not open\n") {
		t.Errorf("%d %s", status, text)
	}
	if got := d.sample(t, "tlspolicyd_ready"); got != "0" {
		t.Errorf("ready is %s", got)
	}
	d.listening.Store(true)

	d.Down(true)
	d.server.health.test(t.Context())
	status, text := d.get(t, "GET", "/readyz")
	if status != 503 || !strings.Contains(text, "resolver: SOA lookup of .: ") {
		t.Errorf("%d %s", status, text)
	}
	d.wantSamples(t, map[string]string{
		"tlspolicyd_resolver_answering": "0", "tlspolicyd_resolver_validating": "0", "tlspolicyd_ready": "0",
	})
	d.Down(false)
	d.Insecure(".")
	d.server.health.test(t.Context())
	if status, text := d.get(t, "GET", "/readyz"); status != 200 || !strings.Contains(text, "resolver: ok, sets no AD bit") {
		t.Errorf("%d %s", status, text)
	}
	d.wantSamples(t, map[string]string{
		"tlspolicyd_resolver_answering": "1", "tlspolicyd_resolver_validating": "0", "tlspolicyd_ready": "1",
	})

	if err := d.store.Close(); err != nil {
		t.Fatal(err)
	}
	if status, text := d.get(t, "GET", "/readyz"); status != 503 || !strings.Contains(text, "store: store is closed") {
		t.Errorf("%d %s", status, text)
	}
}

// Without certificate authorities DANE still works, so the daemon is ready, and
// says what is missing.
func TestHealthWithoutAuthorities(t *testing.T) {
	d := start(t)
	d.server.opt.Roots = func() error { return mtasts.ErrNoRoots }
	if status, text := d.get(t, "GET", "/readyz"); status != 200 ||
		!strings.Contains(text, "trust store: ok, no MTA-STS policy can be fetched: this host has no certificate authorities: install") {
		t.Errorf("%d %s", status, text)
	}
}

// unwell is a store whose writes fail.
type unwell struct {
	store.Store
	err error
}

func (s unwell) Health() error { return s.err }

// A daemon that cannot write answers on, so it is ready, and says so.
func TestHealthOfFullDisk(t *testing.T) {
	d := start(t)
	d.server.opt.Store = unwell{d.store, syscall.ENOSPC}
	if status, text := d.get(t, "GET", "/readyz"); status != 200 || !strings.Contains(text, "store: ok, the last write failed: what is learned is in memory only\n") {
		t.Errorf("%d %s", status, text)
	}
	if got, err := d.client.Store(t.Context()); err != nil || got != "the last write failed: what is learned is in memory only" {
		t.Errorf("got %q, %v", got, err)
	}
}

// Without a database file the operator must act: the daemon is not ready.
func TestHealthWithoutDatabase(t *testing.T) {
	d := start(t)
	d.server.opt.Store = unwell{d.store, fmt.Errorf("%w: %w", store.ErrUnavailable, syscall.EROFS)}
	if status, text := d.get(t, "GET", "/readyz"); status != 503 || !strings.Contains(text, "store: database file is not available: read-only file system\n") {
		t.Errorf("%d %s", status, text)
	}
}

// The resolver is not asked for every scrape, page or readiness check.
func TestResolverIsTestedNowAndThen(t *testing.T) {
	d := start(t)
	for range 20 {
		d.get(t, "GET", "/readyz")
		d.get(t, "GET", "/metrics")
		d.get(t, "GET", "/")
	}
	if n := d.Count(".", "SOA"); n != 1 {
		t.Errorf("%d questions", n)
	}
}

func TestStatusPage(t *testing.T) {
	d := start(t)
	d.PolicyHost("plain.test", enforce)
	d.ask(t, "plain.test", secure)
	d.ask(t, "full.test", "OK dane-only")
	status, text := d.get(t, "GET", "/")
	if status != 200 {
		t.Fatal(status, text)
	}
	for _, want := range []string{
		"<h1>tlspolicyd 1.2.3</h1>", "<li>resolver: ok, validates</li>", "unix:/run/test.sock",
		`<th>secure<td class="n">1`, `<th>dane-only<td class="n">1`, `<th>domains<td class="n">2`,
		`mode enforce<td class="n">1`, `<th>with TLSA records<td class="n">1`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	d.listening.Store(false)
	if _, text = d.get(t, "GET", "/"); !strings.Contains(text, `<li class="bad">socket: not open</li>`) {
		t.Errorf("a closed socket is not seen:\n%s", text)
	}
}
