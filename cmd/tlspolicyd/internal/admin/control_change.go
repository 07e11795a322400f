package admin

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"tlspolicyd/internal/defect"
	"tlspolicyd/policymap"
	"tlspolicyd/policymap/policy"
	"tlspolicyd/store"
)

// The verbs of the control socket that change the cache, or have something looked up.

const (
	workers = 32 // domains that are looked up at a time, for all requests together
	purgers = 64 // domains that are deleted at a time: they share disk writes
)

// domains returns the domains that a request names, or answers what is wrong.
func (s *Server) domains(w http.ResponseWriter, r *http.Request) (domains []string, names Names, ok bool) {
	if !body(w, r, &names) {
		return nil, names, false
	}
	if names.All == (len(names.Names) > 0) {
		fail(w, http.StatusBadRequest, errors.New(`want "names" or "all"`))
		return nil, names, false
	}
	for _, name := range names.Names {
		domain, err := domainOfName(name)
		if err != nil {
			fail(w, http.StatusBadRequest, err)
			return nil, names, false
		}
		domains = append(domains, domain)
	}
	if !names.All {
		return domains, names, true
	}
	err := s.opt.Map.Each(func(info policymap.Info) bool {
		domains = append(domains, info.Record.Domain)
		return r.Context().Err() == nil
	})
	if err != nil {
		fail(w, http.StatusInternalServerError, err)
		return nil, names, false
	}
	return domains, names, true
}

// each does work for names, some at a time, and reports each that is done. All
// requests share the workers, so that no number of them floods the resolver.
func (s *Server) each(w http.ResponseWriter, r *http.Request, names []string, work func(context.Context, string) Progress) {
	l := newLines(w)
	if err := l.send(Progress{Total: len(names)}, true); err != nil {
		s.end(r, l, err)
	}
	g, ctx := errgroup.WithContext(r.Context())
names:
	for _, name := range names {
		select {
		case s.lookups <- struct{}{}:
		case <-ctx.Done():
			break names
		}
		g.Go(func() error {
			defer func() { <-s.lookups }()
			var p Progress
			if met := s.guard(name, func() { p = work(ctx, name) }); met != nil {
				p = Progress{Name: name, Error: errors.Unwrap(met).Error()}
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			return l.send(p, true)
		})
	}
	s.end(r, l, g.Wait())
}

func (s *Server) refresh(w http.ResponseWriter, r *http.Request) {
	domains, _, ok := s.domains(w, r)
	if !ok {
		return
	}
	s.each(w, r, domains, s.refreshOne)
}

func (s *Server) refreshOne(ctx context.Context, domain string) Progress {
	p := Progress{Name: domain}
	before, _ := s.opt.Map.Info(domain)
	if err := s.opt.Map.Refresh(ctx, domain); err != nil {
		p.Error, p.Unknown = err.Error(), errors.Is(err, policymap.ErrUnknownDomain)
		return p
	}
	after, ok := s.opt.Map.Info(domain)
	if !ok {
		return p
	}
	p.Error = notLearned(before.Record, after.Record)
	if len(after.Answers) > 0 {
		first := after.Answers[0].Decision
		p.Policy = first.Level.String()
		if p.Error == "" {
			p.Error = first.Reason
		}
	}
	return p
}

// notLearned says what a refresh could not find out.
func notLearned(before, after store.Record) string {
	if s := after.STS; s != nil {
		if msg := lastError(s); msg != "" {
			return msg
		}
	}
	known := make(map[string]time.Time)
	key := func(d *store.DANE) string { return fmt.Sprint(d.Literal, d.Port) }
	for i := range before.DANE {
		known[key(&before.DANE[i])] = before.DANE[i].KnownAt
	}
	for i := range after.DANE {
		if d := &after.DANE[i]; !d.KnownAt.After(known[key(d)]) {
			return fmt.Sprintf("DANE for port %d could not be looked up: what was known stays", d.Port)
		}
	}
	return ""
}

func (s *Server) purge(w http.ResponseWriter, r *http.Request) {
	domains, names, ok := s.domains(w, r)
	if !ok {
		return
	}
	shared := 0
	if r.URL.Query().Get("fleet") == "true" { // first: what is there would fill the void
		if s.opt.Fleet == nil {
			fail(w, http.StatusConflict, errNotShared)
			return
		}
		var err error
		if shared, err = s.purgeShared(r.Context(), domains, names.All); err != nil {
			fail(w, http.StatusBadGateway, fmt.Errorf("nothing was deleted on this host; deleted from the shared cache: %d; then: %w", shared, err))
			return
		}
	}
	var purged atomic.Int64
	defects := make([]error, len(domains)) // each costs its domain only
	g, ctx := errgroup.WithContext(r.Context())
	g.SetLimit(purgers)
	for i, domain := range domains {
		if ctx.Err() != nil {
			break
		}
		g.Go(func() (err error) {
			known := true // a record that cannot be read is purged all the same
			_ = s.guard(domain, func() { _, known = s.opt.Map.Info(domain) })
			defects[i] = s.guard(domain, func() {
				if err = s.opt.Map.Purge(ctx, domain); err == nil && known {
					purged.Add(1)
				}
			})
			return err
		})
	}
	err := cmp.Or(g.Wait(), cmp.Or(defects...))
	n := int(purged.Load())
	s.log.Info("cache purged", "domains", n)
	if err != nil {
		fail(w, http.StatusInternalServerError, fmt.Errorf("%d domains were purged, then: %w", n, err))
		return
	}
	reply(w, Count{Count: n, Shared: shared})
}

// guard runs the work of a goroutine for one name, or of a handler for one path.
// A defect that it meets is logged and returned, and costs that name only.
func (s *Server) guard(name string, work func()) (met error) {
	defer func() {
		switch r := recover(); r {
		case nil:
		case http.ErrAbortHandler: // on purpose: see end
			panic(r)
		default:
			err := defect.From(r)
			s.opt.Metrics.Panicked(name, err)
			s.log.Error("control request panicked", "name", name, "panic", err.Text, "stack", err.Stack)
			met = fmt.Errorf("%s: %w", name, err)
		}
	}()
	work()
	return nil
}

func (s *Server) warm(w http.ResponseWriter, r *http.Request) {
	var names Names
	if !body(w, r, &names) {
		return
	}
	if names.All {
		fail(w, http.StatusBadRequest, errors.New(`"all" is not possible here: want "names"`))
		return
	}
	if slices.Contains(names.Names, "") {
		fail(w, http.StatusBadRequest, errors.New("an empty name is not a next hop"))
		return
	}
	s.each(w, r, names.Names, func(ctx context.Context, key string) Progress {
		if _, ok := policy.ParseNextHop(key); !ok {
			return Progress{Name: key, Error: "not a domain"}
		}
		d := s.opt.Map.Warm(ctx, key)
		p := Progress{Name: key, Policy: d.Level.String()}
		if d.Level == policy.Temporary {
			p.Error = d.Reason
		}
		return p
	})
}

// importLines takes records over, a part of a dump at a time and without header
// and trailer. Where one line is broken none of this part is taken.
func (s *Server) importLines(w http.ResponseWriter, r *http.Request) {
	text, ok := read(w, r)
	if !ok {
		return
	}
	var recs []store.Record
	n, seen := 0, make(domainSet)
	for line := range bytes.Lines(text) {
		n++
		rec, err := parseRecord(bytes.TrimRight(line, "\r\n"))
		if err == nil {
			err = seen.add(rec.Domain)
		}
		if err != nil {
			fail(w, http.StatusBadRequest, &LineError{n, err})
			return
		}
		recs = append(recs, rec)
	}
	if err := s.opt.Map.Import(r.Context(), recs); err != nil {
		fail(w, http.StatusInternalServerError, err)
		return
	}
	s.log.Info("cache imported", "domains", len(recs))
	reply(w, Count{Count: len(recs)})
}
