// Package admin is the operator's side of the daemon: a control socket that
// speaks HTTP with JSON (docs/control.md), and metrics, health and a status
// page, which an optional TCP address shows too, read-only.
//
// control.go has the verbs, wire.go the JSON, dump.go the format in which a
// cache moves to another host, client.go the other end of the socket. metrics.go
// counts what policymap reports, gauges.go reads the current state.
package admin

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/net/netutil"

	"tlspolicyd/internal/dnsclient"
	"tlspolicyd/policymap"
	"tlspolicyd/share"
	"tlspolicyd/socketmap"
	"tlspolicyd/store"
)

// Bounds of a request. What a handler streams has a deadline for each write.
const (
	readTimeout   = time.Minute
	writeTimeout  = 30 * time.Second
	idleTimeout   = 2 * time.Minute
	publicTimeout = 5 * time.Second // to send a request to listen.http, or the next one
	maxHeader     = 16 << 10        // bytes
	maxBody       = 4 << 20         // bytes
	maxClients    = 64              // connections to each listener at a time
)

// Resolver is what is asked about the resolvers.
type Resolver interface {
	dnsclient.Resolver
	Servers() []netip.AddrPort
	Trusted() bool
}

// Build says what runs.
type Build struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Go       string `json:"go"`
}

// Options are the parts of the daemon that an operator may look at. All of them
// are required but Log and Fleet. The functions must be safe for concurrent use.
type Options struct {
	Map     *policymap.Map
	Store   store.Store
	Fleet   share.Fleet // nil: nothing is shared
	Metrics *Metrics    // also the map's observer
	Changes *Changes    // likewise
	Log     *slog.Logger

	Build       Build
	Sockets     []string // where lookups are answered
	HTTPNames   []string // of this host, for ServePublic: lower case, no final dot
	Resolver    func() Resolver
	Connections func() socketmap.Stats          // of the lookup server
	LinesLost   func() uint64                   // of the log
	Listening   func() bool                     // lookups are accepted
	Answers     func(ctx context.Context) error // a lookup that needs nothing is answered
	Roots       func() error                    // nil when there are certificate authorities; see mtasts.ErrNoRoots
}

// Server is the operator's side. Its Serve methods take any listener.
type Server struct {
	opt     Options
	log     *slog.Logger
	started time.Time
	gauges  *gauges
	health  *resolverHealth

	control, public *http.Server
	lookups         chan struct{} // holds one for each lookup that an operator wants

	ctx    context.Context // ends with Shutdown
	cancel context.CancelFunc
	work   sync.WaitGroup
}

// New makes a server, which begins to look after the resolver at once. The
// metrics are registered, so there is one server for each Metrics.
func New(o Options) *Server {
	s := &Server{opt: o, log: o.Log, started: time.Now(), lookups: make(chan struct{}, workers)}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.health = newResolverHealth(o.Resolver)
	s.gauges = newGauges(s)
	o.Metrics.registry.MustRegister(s.gauges)
	s.control = s.newHTTP(s.controlRoutes())
	s.public = s.newHTTP(guard(s.readOnlyRoutes(http.NewServeMux()), o.HTTPNames))
	// An operator's command may get no processor for a while on a busy host.
	s.control.ReadHeaderTimeout = readTimeout
	s.public.ReadTimeout, s.public.IdleTimeout = publicTimeout, publicTimeout
	s.public.WriteTimeout = writeTimeout
	s.work.Go(func() { s.health.watch(s.ctx) })
	return s
}

func (s *Server) newHTTP(h http.Handler) *http.Server {
	return &http.Server{
		Handler:        s.guarded(h),
		IdleTimeout:    idleTimeout,
		MaxHeaderBytes: maxHeader,
		BaseContext:    func(net.Listener) context.Context { return s.ctx },
		ErrorLog:       slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
}

// guarded has a defect in a handler logged and counted; net/http would only log
// it, at the level of its other messages. The client sees a connection that is
// cut, so that it takes no part of an answer for all of it.
func (s *Server) guarded(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.guard(r.URL.Path, func() { h.ServeHTTP(w, r) }) != nil {
			panic(http.ErrAbortHandler)
		}
	})
}

// ServeControl answers the operator on l until Shutdown, and then returns nil.
// A client that can connect to l can change everything: it must be a Unix socket
// of mode 0600.
func (s *Server) ServeControl(l net.Listener) error {
	return serve(s.control, netutil.LimitListener(l, maxClients))
}

// ServePublic shows metrics, health and the status page on l until Shutdown, and
// then returns nil. Nothing can be changed there.
func (s *Server) ServePublic(l net.Listener) error {
	return serve(s.public, NewestFirst(l, maxClients))
}

func serve(h *http.Server, l net.Listener) error {
	if err := h.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Shutdown closes the listeners and ends what runs on behalf of an operator. When
// ctx ends before all is answered, connections are cut and nothing is waited for.
func (s *Server) Shutdown(ctx context.Context) error {
	s.cancel()
	var all []error
	for _, h := range []*http.Server{s.control, s.public} {
		if err := h.Shutdown(ctx); err != nil {
			all = append(all, err, h.Close())
		}
	}
	ended := make(chan struct{})
	go func() {
		s.work.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-ctx.Done():
		all = append(all, ctx.Err())
	}
	return errors.Join(all...)
}
