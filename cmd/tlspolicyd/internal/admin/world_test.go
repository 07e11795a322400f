package admin

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tlspolicyd/internal/dnsclient"
	"tlspolicyd/internal/mtasts"
	"tlspolicyd/policymap"
	"tlspolicyd/share/sharetest"
	"tlspolicyd/socketmap"
	"tlspolicyd/store"
	"tlspolicyd/store/bolt"
	"tlspolicyd/testing/lab"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(dialEnv); path != "" {
		os.Exit(dialAsChild(path))
	}
	goleak.VerifyTestMain(m)
}

const zones = `
.                      86400 IN SOA a.root.test. hostmaster.test. 1 1800 900 604800 86400
full.test.              3600 IN MX 10 mx.full.test.
mx.full.test.           3600 IN A 192.0.2.1
_25._tcp.mx.full.test.  3600 IN TLSA 3 1 1 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
plain.test.             3600 IN MX 10 mx.plain.test.
mx.plain.test.          3600 IN A 192.0.2.2
xn--bcher-kva.test.     3600 IN MX 10 mx.plain.test.
`

const (
	enforce = "version: STSv1\nmode: enforce\nmx: *.plain.test\nmax_age: 604800\n"
	secure  = "OK secure match=.plain.test servername=hostname"
)

// daemon is everything behind the sockets, on a real bbolt file and in front of
// a small internet in memory. Its control socket and its TCP address are real.
type daemon struct {
	*lab.World
	*policymap.Map
	store   *stumblingStore
	metrics *Metrics
	changes *Changes
	server  *Server
	client  *Client
	engine  *sharetest.Engine // that the host shares policies in
	socket  string            // of the control socket
	public  string            // host:port

	listening atomic.Bool
	hangs     atomic.Bool // lookups are not answered
}

// stumblingStore has a defect, once it is given one: it cannot take the record
// of one domain.
type stumblingStore struct {
	store.Store
	at atomic.Value // string
}

func (s *stumblingStore) Get(domain string) (store.Record, error) {
	if at, _ := s.at.Load().(string); at == domain {
		panic("cannot take " + domain)
	}
	return s.Store.Get(domain)
}

// start runs a daemon until the end of the test.
func start(t testing.TB) *daemon {
	t.Helper()
	d := &daemon{World: lab.New(), metrics: NewMetrics(Build{Version: "1.2.3", Revision: "abc", Go: "go1"})}
	t.Cleanup(d.World.Close)
	d.Zone(zones)
	d.listening.Store(true)
	db, err := bolt.Open(filepath.Join(t.TempDir(), "policies.db"), bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	d.store = &stumblingStore{Store: db}
	d.changes = NewChanges(filepath.Join(t.TempDir(), "changes"), slog.New(slog.DiscardHandler))
	resolver, err := dnsclient.New(dnsclient.Config{Servers: []netip.AddrPort{d.DNSAddr()}, Dial: d.Dial, Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	fetcher := &mtasts.Fetcher{
		Resolver: resolver, RootCAs: d.Roots(), Dial: d.Dial,
		AllowNetworks: []netip.Prefix{netip.MustParsePrefix(lab.Network)},
	}
	d.engine = sharetest.NewEngine()
	fleet := d.engine.Member("this.test", nil)
	d.Map = policymap.New(policymap.Options{
		Store: d.store, Fleet: fleet, Observer: policymap.Observers{d.metrics, d.changes},
		Config: policymap.Config{Resolver: resolver, Fetcher: fetcher},
	})
	d.server = New(Options{
		Map: d.Map, Store: d.store, Fleet: fleet, Metrics: d.metrics, Changes: d.changes, Build: Build{Version: "1.2.3", Go: "go1"},
		Sockets:     []string{"unix:/run/test.sock"},
		Resolver:    func() Resolver { return resolver },
		Connections: func() socketmap.Stats { return socketmap.Stats{Connections: 5, Idle: 3, Accepted: 7} },
		LinesLost:   func() uint64 { return 4 },
		Listening:   d.listening.Load,
		Roots: func() error {
			_, err := fetcher.Roots()
			return err
		},
		Answers: func(context.Context) error {
			if d.hangs.Load() {
				return errors.New("no answer within a second")
			}
			return nil
		},
	})
	d.listen(t)
	d.client = NewClient(d.socket)
	t.Cleanup(func() {
		d.client.Close()
		http.DefaultClient.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute) // a hang fails
		defer cancel()
		if err := d.server.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		d.Map.Close()
		d.changes.Close()
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// listen opens the control socket as the daemon does, in a directory that any
// user may look into, and the TCP address.
func (d *daemon) listen(t testing.TB) {
	t.Helper()
	dir, err := os.MkdirTemp("", "admin")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	d.socket = filepath.Join(dir, "admin.sock")
	control, err := socketmap.Listen(context.Background(), "unix:"+d.socket, socketmap.ListenOptions{Mode: 0o600})
	if err != nil {
		t.Fatal(err)
	}
	public, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d.public = public.Addr().String()
	ended := make(chan error, 2)
	go func() { ended <- d.server.ServeControl(control) }()
	go func() { ended <- d.server.ServePublic(public) }()
	t.Cleanup(func() { // runs after Shutdown, which is registered later
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	})
}

func (d *daemon) ask(t testing.TB, key, want string) {
	t.Helper()
	if got := string(d.Lookup(context.Background(), []byte("postfix"), []byte(key))); got != want {
		t.Fatalf("%s: got %q, want %q", key, got, want)
	}
}

// get asks at the TCP address.
func (d *daemon) get(t testing.TB, method, path string) (status int, body string) {
	t.Helper()
	req, err := http.NewRequest(method, "http://"+d.public+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}
