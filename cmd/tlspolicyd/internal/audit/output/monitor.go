package output

import (
	"fmt"
	"io"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"

	"tlspolicyd/cmd/tlspolicyd/internal/audit"
	"tlspolicyd/cmd/tlspolicyd/internal/audit/check"
	"tlspolicyd/internal/printable"
)

// Nagios writes what the plug-in guidelines of Nagios ask for: a line with
// performance data after "|", and more text below it. It returns their exit
// status.
func Nagios(out io.Writer, reports []check.Report) (status int, err error) {
	grade := check.Worst(reports)
	word, status := nagiosWord(grade)
	var b strings.Builder
	fmt.Fprintf(&b, "TLSPOLICY %s - %s |", word, nagiosText(nagiosSummary(reports, grade)))
	for _, r := range reports {
		n := counts(r.Topics)
		for _, g := range []audit.Grade{audit.Fail, audit.Unknown, audit.Warn} {
			fmt.Fprintf(&b, " '%s %s'=%d;;;0", r.Domain, g, n[g])
		}
		if days, ok := r.FewestDays(); ok {
			fmt.Fprintf(&b, " '%s cert_days'=%d", r.Domain, days)
		}
	}
	b.WriteByte('\n')
	for _, r := range reports {
		for _, t := range Problems(r.Topics) {
			for _, f := range t.Findings {
				fmt.Fprintf(&b, "%s: %s %s\n", r.Domain, f.Grade, nagiosText(f.Code+": "+sentence(f)))
			}
		}
	}
	_, err = io.WriteString(out, b.String())
	return status, err
}

// NagiosUnknown writes why nothing was checked, and returns the exit status.
func NagiosUnknown(out io.Writer, why string) (status int, err error) {
	word, status := nagiosWord(audit.Unknown)
	_, err = fmt.Fprintf(out, "TLSPOLICY %s - %s\n", word, nagiosText(why))
	return status, err
}

// nagiosWord turns a grade into the word and the exit status of a plug-in.
func nagiosWord(g audit.Grade) (word string, status int) {
	switch g {
	case audit.OK:
		return "OK", 0
	case audit.Warn:
		return "WARNING", 1
	case audit.Fail:
		return "CRITICAL", 2
	}
	return "UNKNOWN", 3
}

func nagiosSummary(reports []check.Report, grade audit.Grade) string {
	bad := 0
	var first check.Report
	for _, r := range reports {
		if r.Grade == grade {
			if bad == 0 {
				first = r
			}
			bad++
		}
	}
	text := first.Domain + ": " + Summary(first.Topics)
	if f, found := worst(first.Topics); found {
		text = first.Domain + ": " + f.Code + ": " + sentence(f)
	}
	switch {
	case len(reports) == 1:
		return text
	case grade == audit.OK:
		return fmt.Sprintf("%d domains, all well", len(reports))
	}
	return fmt.Sprintf("%d of %d domains, the first is %s", bad, len(reports), text)
}

// nagiosText keeps a text from being read as performance data, or as anything
// else than a text.
func nagiosText(s string) string {
	return strings.ReplaceAll(printable.Line(strings.Join(strings.Fields(s), " "), 4096), "|", "/")
}

// metrics are listed in docs/check.md.
type metrics struct {
	grade, findings, finding, days, maxAge, took, at *prometheus.GaugeVec
}

func newMetrics(reg *prometheus.Registry) metrics {
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "tlspolicyd", Subsystem: "check", Name: name, Help: help}, append([]string{"domain"}, labels...))
		reg.MustRegister(v)
		return v
	}
	return metrics{
		grade:    gauge("grade", "1 for the domain's grade, 0 for the others.", "grade"),
		findings: gauge("findings", "Findings of each grade.", "grade"),
		finding:  gauge("finding", "How many findings have this code, of those that are not ok.", "code", "grade"),
		days:     gauge("certificate_days_left", "Whole days until the end of a certificate of the policy host or of a mail host; negative: ended.", "role", "host", "address"),
		maxAge:   gauge("policy_max_age_seconds", "max_age of the MTA-STS policy, 0 without one."),
		took:     gauge("duration_seconds", "How long the audit took."),
		at:       gauge("timestamp_seconds", "When the audit was made, in seconds since 1970."),
	}
}

func (m metrics) set(r check.Report) {
	n := counts(r.Topics)
	for _, g := range []audit.Grade{audit.OK, audit.Warn, audit.Fail, audit.Unknown} {
		m.findings.WithLabelValues(r.Domain, g.String()).Set(float64(n[g]))
		is := 0.0
		if g == r.Grade {
			is = 1
		}
		m.grade.WithLabelValues(r.Domain, g.String()).Set(is)
	}
	for _, t := range Problems(r.Topics) {
		for _, f := range t.Findings {
			m.finding.WithLabelValues(r.Domain, f.Code, f.Grade.String()).Inc()
		}
	}
	for _, cert := range r.Certificates {
		m.days.WithLabelValues(r.Domain, cert.Role, cert.Host, cert.Address).Set(float64(cert.DaysLeft))
	}
	if r.MTASTS != "unknown" { // an alert on a policy that is gone is not for our own DNS
		m.maxAge.WithLabelValues(r.Domain).Set(float64(r.MaxAgeSeconds))
	}
	m.took.WithLabelValues(r.Domain).Set(float64(r.TookMS) / 1000)
	m.at.WithLabelValues(r.Domain).Set(float64(r.At.Unix()))
}

// Prometheus writes the metrics of all domains.
func Prometheus(out io.Writer, reports []check.Report) error {
	reg := prometheus.NewRegistry()
	m := newMetrics(reg)
	for _, r := range reports {
		m.set(r)
	}
	families, err := reg.Gather()
	if err != nil {
		return err
	}
	for _, family := range families {
		if _, err := expfmt.MetricFamilyToText(out, family); err != nil {
			return err
		}
	}
	return nil
}
