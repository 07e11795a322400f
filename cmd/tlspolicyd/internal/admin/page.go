package admin

import (
	"bytes"
	"context"
	_ "embed"
	"html/template"
	"net/http"
	"time"

	"tlspolicyd/policymap/policy"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
)

//go:embed page.html
var pageText string

// page is what the status page shows. There are no domain names in it: where
// this host sends mail to is private.
type page struct {
	Build    Build
	Up       time.Duration
	Checks   []check
	Sockets  []string
	Servers  []string
	Records  int
	MiB      float64 // on disk
	Scan     *scan
	Modes    []pageCount
	Answers  []pageCount
	Open     int
	Accepted uint64
}

type pageCount struct {
	Name string
	N    uint64
}

// readOnlyRoutes adds what changes nothing.
func (s *Server) readOnlyRoutes(mux *http.ServeMux) *http.ServeMux {
	tmpl := template.Must(template.New("page").Parse(pageText))
	metrics := promhttp.HandlerFor(s.opt.Metrics.registry, promhttp.HandlerOpts{
		MaxRequestsInFlight: 4, Timeout: writeTimeout, ErrorHandling: promhttp.ContinueOnError,
	})
	mux.Handle("GET /metrics", metrics)
	mux.HandleFunc("GET /healthz", s.healthz)
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		var body bytes.Buffer
		if err := tmpl.Execute(&body, s.status(r.Context())); err != nil {
			http.Error(w, "the status page cannot be made", http.StatusInternalServerError)
			s.log.Error("the status page cannot be made", "reason", err)
			return
		}
		h := w.Header()
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		w.Write(body.Bytes()) // the client may be gone
	})
	return mux
}

func (s *Server) status(ctx context.Context) page {
	ctx, cancel := context.WithTimeout(ctx, checkWithin)
	defer cancel()
	c := s.opt.Connections()
	p := page{
		Build: s.opt.Build, Up: time.Since(s.started).Round(time.Second),
		Checks:  []check{s.checkLookups(ctx), s.checkSocket(), s.checkStore(), s.checkResolver(ctx), s.checkRoots()},
		Sockets: s.opt.Sockets,
		Records: s.opt.Store.Len(), MiB: float64(s.opt.Store.Size()) / (1 << 20),
		Open: c.Connections, Accepted: c.Accepted,
		Answers: s.answerCounts(),
	}
	for _, server := range s.opt.Resolver().Servers() {
		p.Servers = append(p.Servers, server.String())
	}
	if last := s.gauges.scan(firstScan); !last.ended.IsZero() {
		p.Scan = &last
		for mode := policy.STSEnforce; mode > policy.STSAbsent; mode-- {
			p.Modes = append(p.Modes, pageCount{mode.String(), uint64(last.tally.Modes[mode])})
		}
	}
	return p
}

// answerCounts sums the lookups by answer.
func (s *Server) answerCounts() []pageCount {
	counts := make([]pageCount, 0, levels)
	for level := range levels {
		counts = append(counts, pageCount{Name: level.String()})
	}
	for _, kind := range s.opt.Metrics.lookups {
		for level, origins := range kind {
			for _, counter := range origins {
				var m dto.Metric
				if counter.Write(&m) == nil {
					counts[level].N += uint64(m.GetCounter().GetValue())
				}
			}
		}
	}
	return counts
}

// Ended and the others are for the page.
func (s scan) Ended() string { return s.ended.UTC().Format(time.DateTime) + " UTC" }
func (s scan) DANE() int     { return s.tally.DANE + s.tally.Both }
func (s scan) STS() int      { return s.tally.STS + s.tally.Both }
func (s scan) Negative() int { return s.tally.Negative }
func (s scan) Expiring() int { return s.tally.Expiring }
