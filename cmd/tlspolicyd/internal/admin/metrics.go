package admin

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"tlspolicyd/internal/defect"
	"tlspolicyd/internal/mtasts"
	"tlspolicyd/internal/tlsrpt"
	"tlspolicyd/policymap"
	"tlspolicyd/policymap/policy"
)

const namespace = "tlspolicyd"

const (
	levels  = policy.Override + 1
	origins = policymap.Static + 1

	outcomes = policymap.Expired + 1
)

// Metrics counts what the map reports. No label has a domain name in it, so that
// no client can grow the number of series. docs/metrics.md says
// what each means.
type Metrics struct {
	registry *prometheus.Registry

	// Every series that a lookup may touch exists from the start: counting one
	// is a single atomic addition.
	lookups [2][levels][origins]prometheus.Counter

	resolution             prometheus.Histogram
	dnsPhase, httpsPhase   prometheus.Observer
	fetches                map[bool]prometheus.Counter // by background
	failures               map[mtasts.Stage]prometheus.Counter
	otherFailure           prometheus.Counter
	reports                map[tlsrpt.Outcome]prometheus.Counter
	refreshes              [outcomes]prometheus.Counter
	changes, weakenings    map[string]prometheus.Counter // by Change.What
	storeErrors, clockStep prometheus.Counter
	panics                 atomic.Uint64 // in flights; the lookup socket counts its own
}

// NewMetrics makes the metrics in a registry of their own, with those of the Go
// runtime and of the process.
func NewMetrics(b Build) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry()}
	m.registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	info := m.gaugeVec("build_info", "What runs, as labels; the value is 1.", "version", "revision", "goversion")
	info.WithLabelValues(b.Version, b.Revision, b.Go).Set(1)
	m.makeLookups()
	m.makeFetches()
	m.makeChanges()
	return m
}

func (m *Metrics) makeLookups() {
	lookups := m.counterVec("lookups_total", "Lookups answered, by map, answer and origin of the answer.", "map", "answer", "origin")
	for i, name := range []string{"postfix", "postfix-tlsrpt"} {
		for level := range levels {
			for origin := range origins {
				m.lookups[i][level][origin] = lookups.WithLabelValues(name, level.String(), origin.String())
			}
		}
	}
	buckets := []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 15, 30, 60}
	m.resolution = prometheus.NewHistogram(prometheus.HistogramOpts{
		Namespace: namespace, Name: "lookup_duration_seconds", Buckets: buckets,
		Help: "Time to resolve a next hop that memory had no answer for; lookups that wait for the same one count once.",
	})
	phases := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: namespace, Name: "phase_duration_seconds", Buckets: buckets,
		Help: "Time of the phases of a cold lookup, which run side by side.",
	}, []string{"phase"})
	m.registry.MustRegister(m.resolution, phases)
	m.dnsPhase, m.httpsPhase = phases.WithLabelValues("dns"), phases.WithLabelValues("https")
}

// stages are the reasons for which a fetch may fail. One that the caller gave up
// says nothing about the policy host and is not counted.
var stages = [...]mtasts.Stage{
	mtasts.StageDNS, mtasts.StageAddress, mtasts.StageConnect, mtasts.StageProxy, mtasts.StageTLS,
	mtasts.StageCertificate, mtasts.StageHTTP, mtasts.StageRedirect, mtasts.StageStatus, mtasts.StageMediaType,
	mtasts.StageEncoding, mtasts.StageSize, mtasts.StageTimeout, mtasts.StagePolicy,
}

func (m *Metrics) makeFetches() {
	fetches := m.counterVec("fetches_total", "Fetches of a policy file, by what asked for them.", "trigger")
	m.fetches = map[bool]prometheus.Counter{
		false: fetches.WithLabelValues("lookup"), true: fetches.WithLabelValues("refresh"),
	}
	failures := m.counterVec("fetch_failures_total", "Fetches of a policy file that failed, by reason.", "reason")
	m.failures = make(map[mtasts.Stage]prometheus.Counter)
	for _, stage := range stages {
		m.failures[stage] = failures.WithLabelValues(string(stage))
	}
	m.otherFailure = failures.WithLabelValues("other")
	reports := m.counterVec("tlsrpt_reports_total", "Failed fetches to be reported to the TLSRPT collector, by what became of the report.", "result")
	m.reports = make(map[tlsrpt.Outcome]prometheus.Counter)
	for _, what := range tlsrpt.Outcomes() {
		m.reports[what] = reports.WithLabelValues(string(what))
	}
	refreshes := m.counterVec("refreshes_total", "Refreshes of a domain that was due, by what became of them.", "result")
	for outcome := range outcomes {
		m.refreshes[outcome] = refreshes.WithLabelValues(outcome.String())
	}
}

func (m *Metrics) makeChanges() {
	changes := m.counterVec("policy_changes_total", "Changes of known policies and DANE states.", "kind")
	weakenings := m.counterVec("policy_weakenings_total", "Changes to a weaker policy or DANE state.", "kind")
	m.changes, m.weakenings = make(map[string]prometheus.Counter), make(map[string]prometheus.Counter)
	for what, kind := range map[string]string{"MTA-STS": "mta-sts", "DANE": "dane"} {
		m.changes[what], m.weakenings[what] = changes.WithLabelValues(kind), weakenings.WithLabelValues(kind)
	}
	m.storeErrors = m.counter("store_write_failures_total", "Failures to write what was learned to the database.")
	m.clockStep = m.counter("clock_steps_total", "Steps of the wall clock of more than a minute.")
}

func (m *Metrics) counter(name, help string) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help})
	m.registry.MustRegister(c)
	return c
}

func (m *Metrics) counterVec(name, help string, labels ...string) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
	m.registry.MustRegister(c)
	return c
}

func (m *Metrics) gaugeVec(name, help string, labels ...string) *prometheus.GaugeVec {
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help}, labels)
	m.registry.MustRegister(g)
	return g
}

// Answered implements policymap.Observer. It does not allocate.
func (m *Metrics) Answered(tlsrpt bool, level policy.Level, origin policymap.Origin) {
	kind := 0
	if tlsrpt {
		kind = 1
	}
	m.lookups[kind][level][origin].Inc()
}

// Resolved implements policymap.Observer.
func (m *Metrics) Resolved(r policymap.Resolution) {
	m.resolution.Observe(r.Took.Seconds())
	if r.DNS > 0 {
		m.dnsPhase.Observe(r.DNS.Seconds())
	}
}

// Changed implements policymap.Observer.
func (m *Metrics) Changed(c policy.Change) {
	if changes, ok := m.changes[c.What]; ok {
		changes.Inc()
		if c.Weaker {
			m.weakenings[c.What].Inc()
		}
	}
}

// Fetched implements policymap.Observer.
func (m *Metrics) Fetched(f policymap.Fetch) {
	m.fetches[f.Background].Inc()
	if !f.Background {
		m.httpsPhase.Observe(f.Took.Seconds())
	}
	if f.Err == nil {
		return
	}
	if failed, ok := errors.AsType[*mtasts.FetchError](f.Err); ok {
		if c, ok := m.failures[failed.Stage]; ok {
			c.Inc()
			return
		}
	}
	m.otherFailure.Inc()
}

// Reported counts what became of the report of a failed fetch.
func (m *Metrics) Reported(what tlsrpt.Outcome) { m.reports[what].Inc() }

// Refreshed implements policymap.Observer.
func (m *Metrics) Refreshed(_ string, outcome policymap.Outcome) { m.refreshes[outcome].Inc() }

// StoreFailed implements policymap.Observer.
func (m *Metrics) StoreFailed(string, error) { m.storeErrors.Inc() }

// ClockStepped implements policymap.Observer.
func (m *Metrics) ClockStepped(time.Duration) { m.clockStep.Inc() }

// Panicked implements policymap.Observer.
func (m *Metrics) Panicked(string, *defect.Error) { m.panics.Add(1) }

var _ policymap.Observer = (*Metrics)(nil)
