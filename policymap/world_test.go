package policymap

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"tlspolicyd/internal/defect"
	"tlspolicyd/internal/dnsclient"
	"tlspolicyd/internal/mtasts"
	"tlspolicyd/policymap/policy"
	"tlspolicyd/share"
	"tlspolicyd/store"
	"tlspolicyd/store/bolt"
	"tlspolicyd/testing/lab"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// host is a real map on a real bbolt file in front of a small internet in
// memory. Everything runs by the bubble's clock.
type host struct {
	*lab.World
	*Map
	t       *testing.T
	path    string
	store   *watchedStore
	seen    *witness
	config  Config
	wall    func() time.Time
	memory  int
	workers int
	fleet   share.Fleet

	exhausted atomic.Pointer[string] // see dial
}

// inBubble runs a scenario by a clock that jumps over every wait.
func inBubble(t *testing.T, zone string, scenario func(t *testing.T, h *host)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h := &host{World: lab.New(), t: t, path: filepath.Join(t.TempDir(), "policies.db")}
		h.Zone(zone)
		h.start()
		defer h.World.Close()
		defer func() { h.stop() }()
		scenario(t, h)
	})
}

func (h *host) start() {
	h.t.Helper()
	db, err := bolt.Open(h.path, bolt.Options{})
	if err != nil {
		h.t.Fatal(err)
	}
	h.store = &watchedStore{Store: db}
	h.seen = &witness{}
	resolver, err := dnsclient.New(dnsclient.Config{Servers: []netip.AddrPort{h.DNSAddr()}, Dial: h.dial})
	if err != nil {
		h.t.Fatal(err)
	}
	fetcher := &mtasts.Fetcher{
		Resolver: resolver, RootCAs: h.Roots(), Dial: h.dial,
		AllowNetworks: []netip.Prefix{netip.MustParsePrefix(lab.Network)},
	}
	h.config.Resolver, h.config.Fetcher = resolver, fetcher
	h.Map = New(Options{
		Store: h.store, Config: h.config,
		Fleet: h.fleet, Observer: h.seen, Wall: h.wall, MemorySize: h.memory, Concurrency: h.workers,
	})
}

// dial fails as on a host that is short of file descriptors while the test says
// so, for addresses with the given suffix.
func (h *host) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if suffix := h.exhausted.Load(); suffix != nil && strings.HasSuffix(address, *suffix) {
		return nil, &net.OpError{Op: "dial", Net: network, Err: os.NewSyscallError("socket", syscall.EMFILE)}
	}
	return h.Dial(ctx, network, address)
}

func (h *host) stop() {
	h.t.Helper()
	h.Map.Close()
	if err := h.store.Close(); err != nil {
		h.t.Error(err)
	}
}

func (h *host) restart() {
	h.t.Helper()
	h.stop()
	h.start()
}

// crash drops the map and the store's memory without writing anything more: a
// copy of the file as it is now is what the next start finds.
func (h *host) crash() {
	h.t.Helper()
	saved := filepath.Join(h.t.TempDir(), "saved.db")
	copyFile(h.t, h.path, saved)
	h.stop()
	h.path = saved
	h.start()
}

func (h *host) ask(key string) string {
	return string(h.Lookup(context.Background(), []byte("postfix"), []byte(key)))
}

func (h *host) askTimed(key string) (string, time.Duration) {
	began := time.Now()
	reply := h.ask(key)
	return reply, time.Since(began)
}

func (h *host) want(key, reply string) {
	h.t.Helper()
	if got := h.ask(key); got != reply && !(strings.HasSuffix(reply, "…") && strings.HasPrefix(got, strings.TrimSuffix(reply, "…"))) {
		h.t.Errorf("%s: got %q, want %q", key, got, reply)
	}
}

// after lets time pass and background work settle.
func (h *host) after(d time.Duration) {
	time.Sleep(d) // the bubble's clock: takes no time
	synctest.Wait()
}

// watchedStore counts what reaches the store, and can behave as a disk that is
// full, slow, or hangs.
type watchedStore struct {
	*bolt.Store
	mu      sync.Mutex
	calls   int
	writes  atomic.Int32
	lists   int // of all records
	full    bool
	refuses bool // writes fail; what PutLater was handed is written once they work again
	queued  map[string]store.Record
	hanging bool
	waiting atomic.Int32
	slow    time.Duration
	dues    atomic.Int64 // calls of Due
}

var errDiskFull = errors.New("no space left on device")

func (s *watchedStore) Get(domain string) (store.Record, error) {
	s.mu.Lock()
	s.calls++
	slow := s.slow
	s.mu.Unlock()
	time.Sleep(slow)
	return s.Store.Get(domain)
}

func (s *watchedStore) Walk(scan store.Scan, fn func(store.Record) bool) error {
	s.mu.Lock()
	s.lists++
	s.mu.Unlock()
	return s.Store.Walk(scan, fn)
}

func (s *watchedStore) Put(ctx context.Context, recs ...store.Record) error {
	s.mu.Lock()
	s.calls++
	s.writes.Add(1)
	full, hanging := s.full || s.refuses, s.hanging
	s.mu.Unlock()
	if full {
		return errDiskFull
	}
	if hanging {
		s.waiting.Add(1)
		defer s.waiting.Add(-1)
		<-ctx.Done()
		return ctx.Err()
	}
	return s.Store.Put(ctx, recs...)
}

// hangs returns how many writes wait for a disk that hangs.
func (s *watchedStore) hangs() int { return int(s.waiting.Load()) }

func (s *watchedStore) Delete(ctx context.Context, domains ...string) error {
	s.mu.Lock()
	full, hanging := s.full, s.hanging
	s.mu.Unlock()
	if full {
		return errDiskFull
	}
	if hanging {
		<-ctx.Done()
		return ctx.Err()
	}
	return s.Store.Delete(ctx, domains...)
}

func (s *watchedStore) PutLater(rec store.Record) {
	s.mu.Lock()
	s.calls++
	s.writes.Add(1)
	full := s.full
	if s.refuses {
		s.queued[rec.Domain], full = rec, true
	}
	s.mu.Unlock()
	if !full {
		s.Store.PutLater(rec)
	}
}

// refuse has the disk take nothing until works is called, which writes at once
// what the store had queued, as store/bolt does.
func (s *watchedStore) refuse() (works func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuses, s.queued = true, make(map[string]store.Record)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.refuses = false
		for _, rec := range s.queued {
			_ = s.Store.Put(context.Background(), rec)
		}
	}
}

func (s *watchedStore) Due(t time.Time, limit int) ([]store.Record, error) {
	s.dues.Add(1)
	return s.Store.Due(t, limit)
}

func (s *watchedStore) setFull(full bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.full = full
}

func (s *watchedStore) setHanging(hanging bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hanging = hanging
}

func (s *watchedStore) setSlow(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.slow = d
}

func (s *watchedStore) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls
}

// witness remembers what an observer is told.
type witness struct {
	mu      sync.Mutex
	rows    []policy.Row
	changes []policy.Change
	fetches int
	fetched Fetch // the last one
	failed  []error
	origins []Origin
	steps   []time.Duration
	ended   []Outcome // of refreshes
	last    Resolution
}

func (w *witness) Answered(_ bool, _ policy.Level, o Origin) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.origins = append(w.origins, o)
}

func (w *witness) Resolved(r Resolution) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rows = append(w.rows, r.Decision.Row)
	w.last = r
}

func (w *witness) Changed(c policy.Change) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.changes = append(w.changes, c)
}

func (w *witness) Fetched(f Fetch) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fetches++
	w.fetched = f
}

func (w *witness) Refreshed(_ string, o Outcome) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = append(w.ended, o)
}

func (w *witness) StoreFailed(_ string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failed = append(w.failed, err)
}

func (w *witness) Panicked(string, *defect.Error) {}

func (w *witness) ClockStepped(by time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.steps = append(w.steps, by)
}

func (w *witness) lastOrigin() Origin {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.origins[len(w.origins)-1]
}

func (w *witness) lastRow() policy.Row {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.rows) == 0 {
		return ""
	}
	return w.rows[len(w.rows)-1]
}

func (w *witness) changed() []policy.Change {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]policy.Change(nil), w.changes...)
}
