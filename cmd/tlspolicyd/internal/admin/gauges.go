package admin

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tlspolicyd/policymap"
	"tlspolicyd/policymap/policy"
)

// Counting what the store holds reads all of it, so a scrape gets what was
// counted last. Counting begins anew, in the background, when that is older than
// scanEvery and than a hundred times what counting took: it never takes more
// than a hundredth of one processor, however large the cache and however
// frequent the scrapes.
const (
	scanEvery  = 15 * time.Second
	scanShare  = 100
	firstScan  = 2 * time.Second        // how long the first scrape waits for it
	firstLook  = 100 * time.Millisecond // how long an operator does
	expireSoon = 24 * time.Hour
)

// scan is what was counted.
type scan struct {
	tally policymap.Tally
	ended time.Time // zero: never
	took  time.Duration
}

// gauges reads the current state whenever metrics are collected.
type gauges struct {
	server *Server
	ctx    context.Context
	spawn  func(func())

	mu      sync.Mutex
	last    scan
	failed  time.Time     // when counting did not work; zero: never
	running chan struct{} // closed at the end of the scan under way; nil: none
}

func newGauges(s *Server) *gauges { return &gauges{server: s, ctx: s.ctx, spawn: s.work.Go} }

// Describe implements prometheus.Collector. It names nothing in advance, which
// makes this an unchecked collector: each metric is in Collect alone.
func (g *gauges) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (g *gauges) Collect(ch chan<- prometheus.Metric) {
	send := func(kind prometheus.ValueType, name, help string, v float64, label ...string) {
		labels := prometheus.Labels{}
		if len(label) == 2 {
			labels[label[0]] = label[1]
		}
		ch <- prometheus.MustNewConstMetric(prometheus.NewDesc(namespace+"_"+name, help, nil, labels), kind, v)
	}
	gauge := func(name, help string, v float64, label ...string) {
		send(prometheus.GaugeValue, name, help, v, label...)
	}
	counter := func(name, help string, v uint64) { send(prometheus.CounterValue, name, help, float64(v)) }
	if s := g.scan(firstScan); !s.ended.IsZero() {
		for kind, n := range map[string]int{"dane+mta-sts": s.tally.Both, "dane": s.tally.DANE, "mta-sts": s.tally.STS, "negative": s.tally.Negative} {
			gauge("cache_entries", "Domains in the cache, by what is known of them.", float64(n), "kind", kind)
		}
		for _, mode := range []policy.STSState{policy.STSEnforce, policy.STSTesting, policy.STSNone} {
			gauge("cache_policies", "MTA-STS policies in force, by mode.", float64(s.tally.Modes[mode]), "mode", mode.String())
		}
		gauge("policies_expiring_soon", "Policies in force, of domains in use, that end within a day and have less than a third of their lifetime left.", float64(s.tally.Expiring))
		gauge("cache_scan_timestamp_seconds", "When the cache was last counted.", unix(s.ended))
		gauge("cache_scan_duration_seconds", "How long the last count took.", s.took.Seconds())
	}
	opt := g.server.opt
	gauge("database_records", "Records in the database.", float64(opt.Store.Len()))
	gauge("database_size_bytes", "Size of the database file.", float64(opt.Store.Size()))

	c := opt.Connections()
	for state, n := range map[string]int{"idle": c.Idle, "busy": c.Connections - c.Idle, "waiting": c.Waiting} {
		gauge("connections", "Open connections of lookup clients, by state.", float64(n), "state", state)
	}
	counter("connections_accepted_total", "Connections accepted.", c.Accepted)
	counter("connections_evicted_total", "Connections without a complete request that were closed at the limit.", c.Evicted)
	counter("connections_refused_total", "Connections closed because too many of the same client are waiting.", c.Refused)
	counter("connections_malformed_total", "Connections closed for a malformed or half-sent request.", c.Malformed)
	counter("lookup_panics_total", "Lookups, refreshes and control requests that panicked: a defect of this program.", c.Panics+opt.Metrics.panics.Load())

	gauge("resolver_ad_trusted", "Whether AD bits count: resolvers on loopback, or dns.trust_ad.", number(opt.Resolver().Trusted()))
	if t := g.server.health.latest(); !t.at.IsZero() {
		gauge("resolver_answering", "Whether the resolver answered when it was last tested.", number(t.err == nil))
		gauge("resolver_validating", "Whether that answer about a signed name was validated and may be trusted.", number(t.validates))
		gauge("resolver_test_timestamp_seconds", "When the resolver was last tested.", unix(t.at))
		gauge("ready", "Whether /readyz says so: socket and store open, resolver answering.", number(t.err == nil && g.server.checkSocket().OK() && g.server.checkStore().OK()))
	}
	g.collectShare(send)
	counter("log_lines_lost_total", "Log lines lost because they were not read fast enough.", opt.LinesLost())
}

// collectShare sends what came of sharing policies, where they are.
func (g *gauges) collectShare(send func(prometheus.ValueType, string, string, float64, ...string)) {
	if g.server.opt.Fleet == nil {
		return
	}
	s, m := g.server.opt.Fleet.Stats(), g.server.opt.Map.Shared()
	send(prometheus.GaugeValue, "share_up", "Whether lookups ask the shared cache: it answered recently.", number(s.Up))
	send(prometheus.GaugeValue, "share_watching", "Whether changes of other hosts are seen.", number(s.Watching))
	for result, n := range map[string]uint64{"hit": s.Hits, "miss": s.Misses, "error": s.Errors} {
		send(prometheus.CounterValue, "share_requests_total", "Questions of lookups to the shared cache, by result.", float64(n), "result", result)
	}
	for result, n := range map[string]uint64{"stored": s.Stored, "dropped": s.Dropped, "outdated": s.Fenced} {
		send(prometheus.CounterValue, "share_offers_total", "Fetched policies given to the shared cache, by result.", float64(n), "result", result)
	}
	send(prometheus.CounterValue, "share_refused_total", "Entries of the shared cache that were not believed.", float64(s.Refused))
	send(prometheus.CounterValue, "share_adopted_total", "Policies taken over that other hosts fetched.", float64(m.Adopted))
	send(prometheus.CounterValue, "share_hints_total", "Fetches because another host had another policy file.", float64(m.Hints))
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func unix(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

// scan returns what was counted last, and has it counted again if that is old.
// While nothing was counted yet the caller waits, so long at most.
func (g *gauges) scan(wait time.Duration) scan {
	g.mu.Lock()
	if g.stale() && g.running == nil && g.ctx.Err() == nil {
		g.running = make(chan struct{})
		g.spawn(g.count)
	}
	last, running := g.last, g.running
	g.mu.Unlock()
	if !last.ended.IsZero() || running == nil {
		return last
	}
	select {
	case <-running:
	case <-time.After(wait):
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.last
}

// stale reports whether it is time to count again. g.mu is held.
func (g *gauges) stale() bool {
	return time.Since(later(g.last.ended, g.failed)) > max(scanEvery, scanShare*g.last.took)
}

func (g *gauges) count() {
	began := time.Now()
	tally, err := g.server.opt.Map.Tally(g.ctx, expireSoon)
	g.mu.Lock()
	defer g.mu.Unlock()
	if err == nil {
		g.last = scan{tally: tally, ended: time.Now(), took: time.Since(began)}
	} else {
		g.server.log.Warn("cannot count the cache entries", "reason", err)
		g.failed = time.Now() // not again at once
	}
	close(g.running)
	g.running = nil
}
