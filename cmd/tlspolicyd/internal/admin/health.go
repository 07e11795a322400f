package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"tlspolicyd/cmd/tlspolicyd/internal/resolverprobe"
	"tlspolicyd/store"
)

const (
	testEvery   = 3 * time.Minute  // the resolver, without a request for its health
	testGoodFor = time.Minute      // how old a test may be for /readyz
	retestAfter = 10 * time.Second // the same after a failure
	testTimeout = 4 * time.Second
	checkWithin = 5 * time.Second
)

// resolverTest is the outcome of one question to the resolver.
type resolverTest struct {
	at        time.Time // zero: never
	validates bool      // the answer was validated, and may be believed (7672 §2.1.3)
	err       error
}

// resolverHealth asks the resolver now and then for the SOA record of the root,
// which is signed and which every resolver has in its cache: a validating one
// says so with the AD bit (RFC 6840 §5.8).
type resolverHealth struct {
	resolver func() Resolver

	asking chan struct{} // holds one token while no test is under way
	mu     sync.Mutex
	last   resolverTest
}

func newResolverHealth(resolver func() Resolver) *resolverHealth {
	h := &resolverHealth{resolver: resolver, asking: make(chan struct{}, 1)}
	h.asking <- struct{}{}
	return h
}

func (h *resolverHealth) latest() resolverTest {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.last
}

// watch tests the resolver until ctx ends.
func (h *resolverHealth) watch(ctx context.Context) {
	tick := time.NewTicker(testEvery)
	defer tick.Stop()
	for {
		h.test(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// recent returns a test that is not old, and makes one if need be.
func (h *resolverHealth) recent(ctx context.Context) resolverTest {
	last := h.latest()
	goodFor := testGoodFor
	if last.err != nil {
		goodFor = retestAfter
	}
	if last.at.IsZero() || time.Since(last.at) > goodFor {
		return h.test(ctx)
	}
	return last
}

// test queries the resolver now, or waits for the test under way.
func (h *resolverHealth) test(ctx context.Context) resolverTest {
	began := time.Now()
	select {
	case <-h.asking:
		defer func() { h.asking <- struct{}{} }()
	case <-ctx.Done():
		return resolverTest{at: began, err: ctx.Err()}
	}
	if last := h.latest(); last.at.After(began) {
		return last
	}
	asked, cancel := context.WithTimeout(ctx, testTimeout)
	defer cancel()
	root := resolverprobe.Signed(asked, h.resolver(), resolverprobe.Root)
	t := resolverTest{at: time.Now(), validates: root.Err == nil && root.AD, err: root.Err}
	if t.err != nil && ctx.Err() != nil {
		return t // the client is gone: this says nothing about the resolver
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last = t
	return t
}

// check is one line of /healthz, of /readyz and of the status page.
type check struct {
	Name     string
	Err      error
	Note     string
	Degraded bool // it works, but the note is about something that does not
}

// OK reports whether all is well.
func (c check) OK() bool { return c.Err == nil }

func (c check) String() string {
	switch {
	case c.Err != nil:
		return fmt.Sprintf("%s: %v", c.Name, c.Err)
	case c.Note != "":
		return fmt.Sprintf("%s: ok, %s", c.Name, c.Note)
	}
	return c.Name + ": ok"
}

// lookups: the process works as long as it answers what needs nothing.
func (s *Server) checkLookups(ctx context.Context) check {
	c := check{Name: "lookups"}
	if err := s.opt.Answers(ctx); err != nil {
		c.Err = fmt.Errorf("hang: %w", err)
	}
	return c
}

func (s *Server) checkSocket() check {
	c := check{Name: "socket"}
	if !s.opt.Listening() {
		c.Err = errors.New("not open")
	}
	return c
}

func (s *Server) checkStore() check {
	c := check{Name: "store"}
	if _, err := s.opt.Store.Get("readyz.invalid"); err != nil && !errors.Is(err, store.ErrNotFound) {
		c.Err = err
	} else if h, ok := s.opt.Store.(store.HealthChecker); ok {
		if err := h.Health(); errors.Is(err, store.ErrUnavailable) {
			c.Err = err
		} else if err != nil {
			c.Note, c.Degraded = "the last write failed: what is learned is in memory only", true // answers go on
		}
	}
	return c
}

func (s *Server) checkResolver(ctx context.Context) check {
	c := check{Name: "resolver"}
	t := s.health.recent(ctx)
	switch {
	case t.err != nil:
		c.Err = t.err
	case t.validates:
		c.Note = "validates"
	case s.opt.Resolver().Trusted():
		c.Note, c.Degraded = "sets no AD bit in its answer about the root: if it validates nothing, DANE is never answered", true
	default:
		c.Note, c.Degraded = "not trusted to validate: DANE is never answered", true
	}
	return c
}

// checkRoots: without certificate authorities DANE still works.
func (s *Server) checkRoots() check {
	c := check{Name: "trust store"}
	if err := s.opt.Roots(); err != nil {
		c.Note, c.Degraded = "no MTA-STS policy can be fetched: "+err.Error(), true
	}
	return c
}

// healthz answers 200 as long as the process works.
func (s *Server) healthz(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), checkWithin)
	defer cancel()
	report(w, s.checkLookups(ctx))
}

// readyz answers 200 when lookups can be answered well: with 503 it
// says which part is missing.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), checkWithin)
	defer cancel()
	report(w, s.checkSocket(), s.checkStore(), s.checkResolver(ctx), s.checkRoots())
}

func report(w http.ResponseWriter, checks ...check) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	for _, c := range checks {
		if !c.OK() {
			w.WriteHeader(http.StatusServiceUnavailable)
			break
		}
	}
	for _, c := range checks {
		fmt.Fprintln(w, c)
	}
}
