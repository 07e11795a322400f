package admin

import (
	"context"
	"sync"
	"time"
	"tlspolicyd/policymap/policy"

	"github.com/prometheus/client_golang/prometheus"

	"tlspolicyd/policymap"
)

// Counting what the store holds reads all of it, so a scrape gets what was
// counted last. Counting begins anew, in the background, when that is older than
// scanEvery and than a hundred times what counting took: it never takes more
// than a hundredth of one processor, however large the cache and however
// frequent the scrapes.
const (
	scanEvery  = 15 * time.Second
	scanShare  = 100
	firstScan  = 2 * time.Second // how long the first scrape waits for it
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

	entries, policies, expiring, scanned, scanTook *prometheus.Desc
	records, size                                  *prometheus.Desc
	connections, accepted, evicted, refused        *prometheus.Desc
	malformed, panics                              *prometheus.Desc
	resolverUp, validates, trusted, tested         *prometheus.Desc
	ready, linesLost                               *prometheus.Desc
}

func newGauges(s *Server) *gauges {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(prometheus.BuildFQName(namespace, "", name), help, labels, nil)
	}
	return &gauges{
		server: s, ctx: s.ctx, spawn: s.work.Go,

		entries:  desc("cache_entries", "Domains in the cache, by what is known of them.", "kind"),
		policies: desc("cache_policies", "MTA-STS policies in force, by mode.", "mode"),
		expiring: desc("policies_expiring_soon", "Policies in force, of domains in use, that end within a day and have less than a third of their lifetime left."),
		scanned:  desc("cache_scan_timestamp_seconds", "When the cache was last counted."),
		scanTook: desc("cache_scan_duration_seconds", "How long that took."),
		records:  desc("database_records", "Records in the database."),
		size:     desc("database_size_bytes", "Size of the database file."),

		connections: desc("connections", "Open connections of lookup clients, by state.", "state"),
		accepted:    desc("connections_accepted_total", "Connections accepted."),
		evicted:     desc("connections_evicted_total", "Connections without a complete request that were closed at the limit."),
		refused:     desc("connections_refused_total", "Connections closed because too many of the same client are waiting."),
		malformed:   desc("connections_malformed_total", "Connections closed for a malformed or half-sent request."),
		panics:      desc("lookup_panics_total", "Lookups and refreshes that panicked: a defect of this program."),

		resolverUp: desc("resolver_answering", "Whether the resolver answered when it was last tested."),
		validates:  desc("resolver_validating", "Whether that answer about a signed name was validated and may be trusted."),
		trusted:    desc("resolver_ad_trusted", "Whether AD bits count: resolvers on loopback, or dns.trust_ad."),
		tested:     desc("resolver_test_timestamp_seconds", "When the resolver was last tested."),
		ready:      desc("ready", "Whether /readyz says so: socket and store open, resolver answering."),
		linesLost:  desc("log_lines_lost_total", "Log lines lost because they were not read fast enough."),
	}
}

// Describe implements prometheus.Collector.
func (g *gauges) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		g.entries, g.policies, g.expiring, g.scanned, g.scanTook, g.records, g.size,
		g.connections, g.accepted, g.evicted, g.refused, g.malformed, g.panics,
		g.resolverUp, g.validates, g.trusted, g.tested, g.ready, g.linesLost,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (g *gauges) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v uint64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v))
	}
	if s := g.scan(); !s.ended.IsZero() {
		gauge(g.entries, float64(s.tally.Both), "dane+mta-sts")
		gauge(g.entries, float64(s.tally.DANE), "dane")
		gauge(g.entries, float64(s.tally.STS), "mta-sts")
		gauge(g.entries, float64(s.tally.Negative), "negative")
		for _, mode := range []policy.STSState{policy.STSEnforce, policy.STSTesting, policy.STSNone} {
			gauge(g.policies, float64(s.tally.Modes[mode]), mode.String())
		}
		gauge(g.expiring, float64(s.tally.Expiring))
		gauge(g.scanned, unix(s.ended))
		gauge(g.scanTook, s.took.Seconds())
	}
	opt := g.server.opt
	gauge(g.records, float64(opt.Store.Len()))
	gauge(g.size, float64(opt.Store.Size()))

	c := opt.Connections()
	gauge(g.connections, float64(c.Idle), "idle")
	gauge(g.connections, float64(c.Open-c.Idle), "busy")
	gauge(g.connections, float64(c.Waiting), "waiting")
	counter(g.accepted, c.Accepted)
	counter(g.evicted, c.Evicted)
	counter(g.refused, c.Refused)
	counter(g.malformed, c.Malformed)
	counter(g.panics, c.Panics+opt.Metrics.panics.Load())

	gauge(g.trusted, number(opt.Resolver().Trusted()))
	if t := g.server.health.latest(); !t.at.IsZero() {
		gauge(g.resolverUp, number(t.err == nil))
		gauge(g.validates, number(t.validates))
		gauge(g.tested, unix(t.at))
		gauge(g.ready, number(t.err == nil && g.server.checkSocket().OK() && g.server.checkStore().OK()))
	}
	counter(g.linesLost, opt.LinesLost())
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func unix(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

// scan returns what was counted last, and has it counted again if that is old.
// Only the first caller waits, and not for long.
func (g *gauges) scan() scan {
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
	case <-time.After(firstScan):
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
