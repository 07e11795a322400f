package admin

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"tlspolicyd/policymap"
	"tlspolicyd/store"
)

const (
	workers = 32 // domains that are looked up at a time, for all requests together
	purgers = 64 // domains that are deleted at a time: they share disk writes
)

// controlRoutes are the verbs of the control socket, and what the public address
// shows.
func (s *Server) controlRoutes() http.Handler {
	mux := s.readOnlyRoutes(http.NewServeMux())
	mux.HandleFunc("GET /v1/ping", func(w http.ResponseWriter, _ *http.Request) { reply(w, s.opt.Build) })
	mux.HandleFunc("GET /v1/domains", s.list)
	mux.HandleFunc("GET /v1/domains/{domain}", s.show)
	mux.HandleFunc("POST /v1/refresh", s.refresh)
	mux.HandleFunc("POST /v1/purge", s.purge)
	mux.HandleFunc("POST /v1/warm", s.warm)
	mux.HandleFunc("GET /v1/export", s.export)
	mux.HandleFunc("POST /v1/import", s.importLines)
	return mux
}

func fail(w http.ResponseWriter, status int, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(Failure{err.Error()}) // whoever asked may be gone
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // whoever asked may be gone
}

// body reads a request's JSON, or answers what is wrong with it.
func body(w http.ResponseWriter, r *http.Request, v any) bool {
	text, ok := read(w, r)
	if !ok {
		return false
	}
	if err := unmarshal(text, v); err != nil {
		fail(w, http.StatusBadRequest, fmt.Errorf("request body: %w", err))
		return false
	}
	return true
}

// read reads a request's body, within its bounds of size and time, or answers
// what is wrong. The time-out is not one of the server, as that would also end
// requests whose answer takes longer.
func read(w http.ResponseWriter, r *http.Request) ([]byte, bool) {
	control := http.NewResponseController(w)
	err := control.SetReadDeadline(time.Now().Add(readTimeout))
	var text bytes.Buffer
	if err == nil {
		_, err = text.ReadFrom(http.MaxBytesReader(w, r.Body, maxBody))
	}
	if err == nil {
		err = control.SetReadDeadline(time.Time{})
	}
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		fail(w, http.StatusRequestEntityTooLarge, fmt.Errorf("request body: want at most %d bytes", maxBody))
		return nil, false
	}
	if err != nil {
		fail(w, http.StatusBadRequest, fmt.Errorf("request body: %w", err))
		return nil, false
	}
	return text.Bytes(), true
}

// lines streams lines of JSON. Each write to the client has a deadline. Its
// methods may be called from several goroutines.
type lines struct {
	mu    sync.Mutex
	buf   *bufio.Writer
	json  *json.Encoder
	flush func() error
}

// deadlineWriter gives each write a deadline of its own.
type deadlineWriter struct {
	http.ResponseWriter
	control *http.ResponseController
}

func (w deadlineWriter) Write(p []byte) (int, error) {
	if err := w.control.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return 0, err
	}
	return w.ResponseWriter.Write(p)
}

func newLines(w http.ResponseWriter) *lines {
	w.Header().Set("Content-Type", "application/x-ndjson")
	control := http.NewResponseController(w)
	l := &lines{buf: bufio.NewWriterSize(deadlineWriter{w, control}, 32<<10)}
	l.flush = func() error {
		if err := l.buf.Flush(); err != nil {
			return err
		}
		return control.Flush()
	}
	l.json = json.NewEncoder(l.buf)
	l.json.SetEscapeHTML(false)
	return l
}

// send writes a line, and has it leave at once if now is true.
func (l *lines) send(v any, now bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.json.Encode(v)
	if err == nil && now {
		err = l.flush()
	}
	return err
}

// end finishes the answer; one that is not complete is cut off, so that nobody
// takes it for a whole one.
func (s *Server) end(r *http.Request, l *lines, err error) {
	if err == nil {
		err = r.Context().Err()
	}
	if err == nil {
		err = l.flush()
	}
	if err != nil {
		s.log.Debug("control request not answered in full", "request", r.URL.Path, "reason", err)
		panic(http.ErrAbortHandler)
	}
}

func (s *Server) list(w http.ResponseWriter, r *http.Request) {
	filter, err := parseFilter(r.URL.Query())
	if err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	l := newLines(w)
	now := time.Now()
	var sendErr error
	err = s.opt.Map.Each(func(info policymap.Info) bool {
		if d := domainOf(info); filter.Matches(&d, now) {
			sendErr = l.send(d, false)
		}
		return sendErr == nil && r.Context().Err() == nil
	})
	s.end(r, l, errors.Join(err, sendErr))
}

func parseFilter(q url.Values) (f Filter, err error) {
	f = Filter{Policy: q.Get("policy"), State: q.Get("state")}
	if f.Policy != "" {
		err = ParsePolicy(f.Policy)
	}
	if f.State != "" && err == nil {
		err = ParseState(f.State)
	}
	for name, age := range map[string]*time.Duration{"older": &f.Older, "unused": &f.Unused} {
		if text := q.Get(name); text != "" && err == nil {
			if *age, err = time.ParseDuration(text); err != nil {
				err = fmt.Errorf("%s: want a duration such as 720h", name)
			}
		}
	}
	return f, err
}

// domainOfName reads a domain in any of the forms that Postfix has for it.
func domainOfName(name string) (string, error) {
	hop, ok := policymap.ParseNextHop(name)
	if !ok {
		return "", fmt.Errorf("%s is no domain", quoted(name))
	}
	return hop.Domain, nil
}

func (s *Server) show(w http.ResponseWriter, r *http.Request) {
	domain, err := domainOfName(r.PathValue("domain"))
	if err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	info, ok := s.opt.Map.Info(domain)
	if !ok {
		fail(w, http.StatusNotFound, policymap.ErrUnknownDomain)
		return
	}
	reply(w, Details{domainOf(info), recordOf(info.Record)})
}

// domains returns the domains that a request names, or answers what is wrong.
func (s *Server) domains(w http.ResponseWriter, r *http.Request) ([]string, bool) {
	var names Names
	if !body(w, r, &names) {
		return nil, false
	}
	if names.All == (len(names.Names) > 0) {
		fail(w, http.StatusBadRequest, errors.New(`want "names" or "all"`))
		return nil, false
	}
	var domains []string
	for _, name := range names.Names {
		domain, err := domainOfName(name)
		if err != nil {
			fail(w, http.StatusBadRequest, err)
			return nil, false
		}
		domains = append(domains, domain)
	}
	if !names.All {
		return domains, true
	}
	err := s.opt.Map.Each(func(info policymap.Info) bool {
		domains = append(domains, info.Record.Domain)
		return r.Context().Err() == nil
	})
	if err != nil {
		fail(w, http.StatusInternalServerError, err)
		return nil, false
	}
	return domains, true
}

// each does work for names, some at a time, and tells of each that is done. All
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
			p := work(ctx, name)
			if err := ctx.Err(); err != nil {
				return err
			}
			return l.send(p, true)
		})
	}
	s.end(r, l, g.Wait())
}

func (s *Server) refresh(w http.ResponseWriter, r *http.Request) {
	domains, ok := s.domains(w, r)
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
	domains, ok := s.domains(w, r)
	if !ok {
		return
	}
	var mu sync.Mutex
	purged := 0
	g, ctx := errgroup.WithContext(r.Context())
	g.SetLimit(purgers)
	for _, domain := range domains {
		if ctx.Err() != nil {
			break
		}
		g.Go(func() error {
			_, known := s.opt.Map.Info(domain)
			err := s.opt.Map.Purge(ctx, domain)
			if err == nil && known {
				mu.Lock()
				purged++
				mu.Unlock()
			}
			return err
		})
	}
	err := g.Wait()
	s.log.Info("cache purged by the operator", "domains", purged)
	if err != nil {
		fail(w, http.StatusInternalServerError, fmt.Errorf("%d domains were purged, then: %w", purged, err))
		return
	}
	reply(w, Count{purged})
}

func (s *Server) warm(w http.ResponseWriter, r *http.Request) {
	var names Names
	if !body(w, r, &names) {
		return
	}
	if names.All {
		fail(w, http.StatusBadRequest, errors.New(`"all" makes no sense here: want "names"`))
		return
	}
	if slices.Contains(names.Names, "") {
		fail(w, http.StatusBadRequest, errors.New("an empty name is no next hop"))
		return
	}
	s.each(w, r, names.Names, func(ctx context.Context, key string) Progress {
		if _, ok := policymap.ParseNextHop(key); !ok {
			return Progress{Name: key, Error: "no domain"}
		}
		d := s.opt.Map.Warm(ctx, key)
		p := Progress{Name: key, Policy: d.Level.String()}
		if d.Level == policymap.Temporary {
			p.Error = d.Reason
		}
		return p
	})
}

func (s *Server) export(w http.ResponseWriter, r *http.Request) {
	l := newLines(w)
	dump, err := newDumpWriter(l.buf, programName+" "+s.opt.Build.Version, time.Now())
	if err == nil {
		var writeErr error
		err = s.opt.Map.Each(func(info policymap.Info) bool {
			writeErr = dump.write(info.Record)
			return writeErr == nil && r.Context().Err() == nil
		})
		err = errors.Join(err, writeErr, r.Context().Err())
	}
	if err == nil {
		err = dump.end()
	}
	s.end(r, l, err)
}

const programName = "tlspolicyd"

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
	s.log.Info("cache imported by the operator", "domains", len(recs))
	reply(w, Count{len(recs)})
}
