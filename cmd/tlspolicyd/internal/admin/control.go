package admin

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"tlspolicyd/policymap"
	"tlspolicyd/policymap/policy"
)

// controlRoutes are the verbs of the control socket, and what the public address
// shows.
func (s *Server) controlRoutes() http.Handler {
	mux := s.readOnlyRoutes(http.NewServeMux())
	mux.HandleFunc("GET /v1/ping", func(w http.ResponseWriter, _ *http.Request) { reply(w, s.opt.Build) })
	mux.HandleFunc("GET /v1/domains", s.list)
	mux.HandleFunc("GET /v1/domains/{domain}", s.show)
	mux.HandleFunc("GET /v1/page", s.page)
	mux.HandleFunc("GET /v1/attention", s.attention)
	mux.HandleFunc("GET /v1/changes", s.changes)
	mux.HandleFunc("GET /v1/schedule", s.schedule)
	mux.HandleFunc("POST /v1/refresh", s.refresh)
	mux.HandleFunc("POST /v1/purge", s.purge)
	mux.HandleFunc("GET /v1/diff", s.diff)
	mux.HandleFunc("POST /v1/warm", s.warm)
	mux.HandleFunc("GET /v1/export", s.export)
	mux.HandleFunc("POST /v1/import", s.importLines)
	return mux
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
	hop, ok := policy.ParseNextHop(name)
	if !ok {
		return "", fmt.Errorf("%s is not a domain", quoted(name))
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
