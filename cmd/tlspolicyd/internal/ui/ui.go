// Package ui is the operator's page: HTML for one operator on this host, made of
// what the control socket of the running daemon says. It changes nothing.
//
// ui.go decides who gets an answer, pages.go has the pages, series.go what the
// counters did while the program ran, templates and style.css how it looks. There
// is no JavaScript.
package ui

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
	"unicode"

	"tlspolicyd/cmd/tlspolicyd/internal/admin"
)

//go:embed page.html style.css icon.svg
var files embed.FS

const (
	maxClients  = 64               // connections; one above closes the oldest
	readTimeout = 10 * time.Second // to send a request
	// A page that resolves afresh may wait for a policy host.
	writeTimeout = 2 * time.Minute
	stopTimeout  = time.Second
	pollEvery    = 10 * time.Second
	maxAfresh    = 4 // resolutions at a time
)

// Options are what the page is made from. Client is required.
type Options struct {
	Client *admin.Client
	Host   string // name of this host, for the title

	// Explain resolves a next hop afresh and writes what it finds; nil: there is
	// no link for that.
	Explain func(ctx context.Context, key string, w io.Writer) error
}

// Server answers one operator: the one with the token.
type Server struct {
	opt    Options
	pages  *template.Template
	mux    *http.ServeMux
	series series
	afresh chan struct{} // holds one for each resolution

	mu      sync.Mutex
	token   string // of the URL; "" once it was used
	cookie  string // name: cookies are shared by all ports of a host
	session string // value
}

// New makes a server.
func New(o Options) *Server {
	s := &Server{
		opt: o, mux: http.NewServeMux(), afresh: make(chan struct{}, maxAfresh),
		token: rand.Text(), session: rand.Text(), cookie: "tlspolicyd-" + rand.Text()[:8],
	}
	s.pages = template.Must(template.New("page.html").Funcs(funcs()).ParseFS(files, "page.html"))
	s.mux.Handle("GET /style.css", http.FileServerFS(files))
	s.mux.Handle("GET /icon.svg", http.FileServerFS(files))
	for pattern, page := range map[string]page{
		"GET /{$}": s.front, "GET /cache": s.cache, "GET /domain/{domain}": s.domain, "GET /afresh": s.explain,
		"GET /refresher": s.refresher, "GET /counters": s.counters,
	} {
		s.mux.HandleFunc(pattern, s.show(page))
	}
	return s
}

// URL returns the address that lets a browser in, once.
func (s *Server) URL(addr net.Addr) string {
	return fmt.Sprintf("http://%s/?token=%s", addr, s.token)
}

// Serve answers on a listener, which it closes, until ctx ends.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	h := &http.Server{
		Handler: s, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, MaxHeaderBytes: 16 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	polled := make(chan struct{})
	go func() { defer close(polled); s.poll(ctx) }()
	context.AfterFunc(ctx, func() {
		stop, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		if h.Shutdown(stop) != nil {
			h.Close()
		}
	})
	err := h.Serve(admin.NewestFirst(l, maxClients))
	if !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	<-polled
	return nil
}

// poll reads the counters until ctx ends.
func (s *Server) poll(ctx context.Context) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		s.sample(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// sample reads the counters once. A daemon that is down leaves a gap.
func (s *Server) sample(ctx context.Context) {
	if text, err := s.opt.Client.Metrics(ctx); err == nil {
		s.series.add(time.Now(), text)
		text.Close()
	}
}

// ServeHTTP lets through what the operator's browser sends.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	switch {
	case !loopback(r.Host):
		// A web page can have its own name point here (DNS rebinding).
		s.refuse(w, http.StatusForbidden, "This page is at 127.0.0.1 and at localhost only.")
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		h.Set("Allow", "GET, HEAD")
		s.refuse(w, http.StatusMethodNotAllowed, "Nothing can be changed here.")
	case r.URL.Path == "/" && r.Method == http.MethodGet && s.redeem(r.URL.Query().Get("token")):
		http.SetCookie(w, &http.Cookie{Name: s.cookie, Value: s.session, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode})
		http.Redirect(w, r, "/", http.StatusSeeOther)
	case !s.knows(r):
		s.refuse(w, http.StatusUnauthorized, "Open the URL that 'tlspolicyd ui' printed. It works once: start the command again for another browser.")
	default:
		s.mux.ServeHTTP(w, r)
	}
}

// loopback reports whether a Host header names this host as seen from itself, at
// whatever port: that of a tunnel is another one.
func loopback(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return host == "127.0.0.1" || host == "localhost"
}

// redeem takes the token of the URL, once.
func (s *Server) redeem(token string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.token == "" || subtle.ConstantTimeCompare([]byte(token), []byte(s.token)) == 0 {
		return false
	}
	s.token = ""
	return true
}

// knows reports whether a request has the cookie.
func (s *Server) knows(r *http.Request) bool {
	c, err := r.Cookie(s.cookie)
	return err == nil && subtle.ConstantTimeCompare([]byte(c.Value), []byte(s.session)) == 1
}

func (s *Server) refuse(w http.ResponseWriter, status int, why string) {
	s.write(w, status, view{Title: http.StatusText(status), Page: "refused", Data: why})
}

// view is what a template gets.
type view struct {
	Title string
	Page  string // name of the template
	Nav   string // which link of the navigation is this page
	Host  string
	Now   time.Time
	Data  any
}

// page makes the content of one page.
type page func(r *http.Request) (view, error)

// show has a page written, or why there is none.
func (s *Server) show(make page) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := make(r)
		status := http.StatusOK
		if err != nil {
			var text string
			status, text = http.StatusBadGateway, "The daemon does not answer: "+err.Error()
			if refused, ok := errors.AsType[*admin.StatusError](err); ok {
				status, text = refused.Status, refused.Reason
			}
			v = view{Title: http.StatusText(status), Page: "error", Nav: v.Nav, Data: text}
		}
		s.write(w, status, v)
	}
}

func (s *Server) write(w http.ResponseWriter, status int, v view) {
	v.Host, v.Now = s.opt.Host, time.Now().UTC()
	var body bytes.Buffer
	if err := s.pages.ExecuteTemplate(&body, "page", v); err != nil {
		http.Error(w, "this page cannot be made: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	w.Write(bytes.Map(printed, body.Bytes())) // the browser may be gone
}

// printed replaces what is not printed, such as marks that turn the direction of
// text round: html/template has no say in that.
func printed(r rune) rune {
	if unicode.IsPrint(r) || r == '\n' {
		return r
	}
	return '?'
}
