package ui

import (
	"fmt"
	"io"
	"math"
	"strings"
	"sync"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

const (
	maxSamples = 720 // two hours
	maxMetrics = 4 << 20
)

// chart is one figure over time.
type chart struct {
	Title, Unit string
	Lines       []line
	From, To    time.Time
	Top         string // of the scale
}

type line struct {
	Name   string
	Class  string // of its colour and its dashes
	Points string // of an SVG polyline, 600 by 100
	Last   string
}

// figure says what a chart shows: the values of one label of a metric.
type figure struct {
	title, metric, label string
	rate                 bool // per minute; else the value itself
	values               []string
}

func figures() []figure {
	return []figure{
		{"Lookups by answer", "tlspolicyd_lookups_total", "answer", true, []string{"dane-only", "secure", "dane", "notfound", "temp"}},
		{"Lookups by origin", "tlspolicyd_lookups_total", "origin", true, []string{"cached", "cold", "stale"}},
		{"Policy files", "", "", true, []string{"tlspolicyd_fetches_total", "tlspolicyd_fetch_failures_total"}},
		{"Refreshes", "tlspolicyd_refreshes_total", "result", true, []string{"ok", "failed", "expired"}},
		{"Connections", "tlspolicyd_connections", "state", false, []string{"idle", "busy", "waiting"}},
		{"Memory, MiB", "", "", false, []string{"process_resident_memory_bytes"}},
	}
}

// series is what the counters were, the oldest first.
type series struct {
	mu      sync.Mutex
	samples []sample
}

type sample struct {
	at     time.Time
	values map[[2]int]float64 // by number of the figure and of its value
}

// add reads a scrape.
func (s *series) add(now time.Time, text io.Reader) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(io.LimitReader(text, maxMetrics))
	if err != nil {
		return // cut off: the daemon stops
	}
	one := sample{at: now, values: make(map[[2]int]float64)}
	for i, f := range figures() {
		for j, value := range f.values {
			name, label := f.metric, value
			if f.metric == "" {
				name, label = value, ""
			}
			for _, m := range families[name].GetMetric() {
				if label == "" || labelOf(m, f.label) == label {
					one.values[[2]int{i, j}] += m.GetCounter().GetValue() + m.GetGauge().GetValue()
				}
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.samples = append(s.samples, one)
	if len(s.samples) > maxSamples {
		s.samples = append([]sample(nil), s.samples[len(s.samples)-maxSamples:]...)
	}
}

func labelOf(m *dto.Metric, name string) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}

// charts draws what there is.
func (s *series) charts() (all []chart) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.samples) == 0 {
		return nil
	}
	for i, f := range figures() {
		c := chart{Title: f.title, Unit: "now", From: s.samples[0].at, To: s.samples[len(s.samples)-1].at}
		if f.rate {
			c.Unit = "a minute"
		}
		top := 1.0
		rows := make([][]float64, len(f.values))
		for j := range f.values {
			rows[j] = s.row(i, j, f)
			for _, v := range rows[j] {
				if v > top {
					top = v
				}
			}
		}
		c.Top = number(top)
		for j, name := range f.values {
			c.Lines = append(c.Lines, s.line(legend(name), j, rows[j], top))
		}
		all = append(all, c)
	}
	return all
}

// row returns the values of one line, of a counter how much it grew in a minute.
func (s *series) row(i, j int, f figure) (row []float64) {
	for n, one := range s.samples {
		v := one.values[[2]int{i, j}]
		switch {
		case f.rate && n == 0:
			v = math.NaN() // there is nothing before it
		case f.rate:
			before := s.samples[n-1]
			v = max(v-before.values[[2]int{i, j}], 0) / one.at.Sub(before.at).Minutes() // a daemon that was started anew begins at 0
		case strings.HasSuffix(f.values[j], "_bytes"):
			v /= 1 << 20
		}
		row = append(row, v)
	}
	return row
}

func (s *series) line(name string, j int, row []float64, top float64) line {
	var points strings.Builder
	from := s.samples[0].at
	all := max(s.samples[len(s.samples)-1].at.Sub(from), time.Second)
	for n, v := range row {
		if math.IsNaN(v) {
			continue
		}
		fmt.Fprintf(&points, "%.1f,%.1f ", 600*s.samples[n].at.Sub(from).Seconds()/all.Seconds(), 100-100*v/top)
	}
	return line{Name: name, Class: fmt.Sprintf("line%d", j+1), Points: points.String(), Last: number(row[len(row)-1])}
}

func legend(name string) string {
	switch name {
	case "tlspolicyd_fetches_total":
		return "fetches"
	case "tlspolicyd_fetch_failures_total":
		return "failures"
	case "process_resident_memory_bytes":
		return "resident"
	}
	return name
}

// number writes a figure with about three digits.
func number(v float64) string {
	if math.IsNaN(v) {
		return "–"
	}
	if v < 10 && v != float64(int(v)) {
		return fmt.Sprintf("%.1f", v)
	}
	return count(int(v + .5))
}
