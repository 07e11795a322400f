package mtasts

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"tlspolicyd/internal/dnsclient"
	"tlspolicyd/testing/lab"
)

const (
	domain    = "example.test"
	host      = "mta-sts.example.test"
	policyURL = "https://mta-sts.example.test/.well-known/mta-sts.txt"
	goodFile  = "version: STSv1\nmode: enforce\nmx: mx.example.test\nmax_age: 604800\n"
)

// inWorld runs a test in a bubble of time, with a small internet in it and a
// fetcher that lives there. The addresses of that internet's own hosts are
// allowed, and those for documentation.
func inWorld(t *testing.T, test func(t *testing.T, w *lab.World, f *Fetcher)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := lab.New()
		defer w.Close()
		test(t, w, newFetcher(t, w))
	})
}

func newFetcher(t *testing.T, w *lab.World) *Fetcher {
	t.Helper()
	return &Fetcher{
		Resolver: newResolver(t, w),
		RootCAs:  w.Roots(),
		AllowNetworks: []netip.Prefix{
			netip.MustParsePrefix(lab.Network),
			netip.MustParsePrefix("203.0.113.0/24"),
			netip.MustParsePrefix("2001:db8::/32"),
		},
		Dial: w.Dial,
	}
}

func newResolver(t *testing.T, w *lab.World) dnsclient.Resolver {
	t.Helper()
	c, err := dnsclient.New(dnsclient.Config{Servers: []netip.AddrPort{w.DNSAddr()}, Dial: w.Dial})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

type dialFunc = func(ctx context.Context, network, addr string) (net.Conn, error)

// dialed notes the addresses that are connected to.
type dialed struct {
	mu    sync.Mutex
	addrs []string
}

func (d *dialed) through(next dialFunc) dialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		d.mu.Lock()
		d.addrs = append(d.addrs, addr)
		d.mu.Unlock()
		return next(ctx, network, addr)
	}
}

func (d *dialed) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.addrs = nil
}

func (d *dialed) list() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.addrs)
}

// failed fetches and expects a failure at one stage. It returns the failure.
func failed(t *testing.T, f *Fetcher, domain string, stage Stage) *FetchError {
	t.Helper()
	fetched, err := f.Fetch(t.Context(), domain)
	if err == nil {
		t.Fatalf("fetched %+v, want a failure at stage %s", fetched.Policy, stage)
	}
	failure, ok := err.(*FetchError)
	if !ok {
		t.Fatalf("error is a %T: %v", err, err)
	}
	if failure.Stage != stage {
		t.Errorf("stage %s (%s), want %s", failure.Stage, failure.Reason, stage)
	}
	if failure.Exchange == nil {
		t.Error("no exchange")
	}
	checkLine(t, err.Error())
	return failure
}

// fetched fetches and expects success.
func fetched(t *testing.T, f *Fetcher, domain string) *Fetched {
	t.Helper()
	got, err := f.Fetch(t.Context(), domain)
	if err != nil {
		t.Fatal(err)
	}
	return got
}
