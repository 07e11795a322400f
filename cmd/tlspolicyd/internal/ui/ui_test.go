package ui

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tlspolicyd/cmd/tlspolicyd/internal/admin"
	"tlspolicyd/internal/dnsclient"
	"tlspolicyd/internal/mtasts"
	"tlspolicyd/policymap"
	"tlspolicyd/policymap/policy"
	"tlspolicyd/socketmap"
	"tlspolicyd/store"
	"tlspolicyd/store/bolt"
	"tlspolicyd/testing/lab"
	"tlspolicyd/testing/load"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const zones = `
.                       86400 IN SOA a.root.test. hostmaster.test. 1 1800 900 604800 86400
full.test.               3600 IN MX 10 mx.full.test.
mx.full.test.            3600 IN A 192.0.2.1
_25._tcp.mx.full.test.   3600 IN TLSA 3 1 1 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
plain.test.              3600 IN MX 10 mx.plain.test.
mx.plain.test.           3600 IN A 192.0.2.2
`

// world is the page in front of a real control socket, with everything behind it.
type world struct {
	*lab.World
	*policymap.Map
	db      *bolt.Store
	changes *admin.Changes
	control *admin.Server
	ui      *Server
	base    string // http://127.0.0.1:PORT
	browser *http.Client
}

func start(t *testing.T) *world {
	t.Helper()
	w := &world{World: lab.New()}
	t.Cleanup(w.World.Close)
	w.Zone(zones)
	dir := t.TempDir()
	var err error
	if w.db, err = bolt.Open(filepath.Join(dir, "policies.db"), bolt.Options{}); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	resolver, err := dnsclient.New(dnsclient.Config{Servers: []netip.AddrPort{w.DNSAddr()}, Dial: w.Dial, Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	fetcher := &mtasts.Fetcher{
		Resolver: resolver, RootCAs: w.Roots(), Dial: w.Dial,
		AllowNetworks: []netip.Prefix{netip.MustParsePrefix(lab.Network)},
	}
	metrics := admin.NewMetrics(admin.Build{Version: "1.2.3"})
	w.changes = admin.NewChanges(filepath.Join(dir, "changes"), log)
	w.Map = policymap.New(policymap.Options{
		Store: w.db, Observer: policymap.Observers{metrics, w.changes},
		Config: policymap.Config{Resolver: resolver, Fetcher: fetcher},
	})
	w.control = admin.New(admin.Options{
		Map: w.Map, Store: w.db, Metrics: metrics, Changes: w.changes,
		Resolver:    func() admin.Resolver { return resolver },
		Connections: func() socketmap.Stats { return socketmap.Stats{Connections: 5, Idle: 3} },
		LinesLost:   func() uint64 { return 0 },
		Listening:   func() bool { return true },
		Answers:     func(context.Context) error { return nil },
		Roots:       func() error { return nil },
	})
	short, err := os.MkdirTemp("", "ui") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(short) })
	socket, err := socketmap.Listen(t.Context(), "unix:"+short+"/admin.sock", socketmap.ListenOptions{Mode: 0o600})
	if err != nil {
		t.Fatal(err)
	}
	client := admin.NewClient(short + "/admin.sock")
	w.ui = New(Options{
		Client: client, Host: "mail.example.test",
		Explain: func(_ context.Context, key string, out io.Writer) error {
			_, err := fmt.Fprintf(out, "== %s <b>\n", key)
			return err
		},
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.base = "http://" + l.Addr().String()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	w.browser = &http.Client{Jar: jar, Transport: &http.Transport{}}

	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 2)
	go func() { served <- w.control.ServeControl(socket) }()
	go func() { served <- w.ui.Serve(ctx, l) }()
	t.Cleanup(func() {
		w.browser.CloseIdleConnections()
		stop()
		client.Close()
		if err := w.control.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		for range 2 {
			if err := <-served; err != nil {
				t.Error(err)
			}
		}
		w.Map.Close()
		w.changes.Close()
		if err := w.db.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// enter opens the URL that the command prints.
func (w *world) enter(t *testing.T) {
	t.Helper()
	at, err := url.Parse(w.base)
	if err != nil {
		t.Fatal(err)
	}
	addr := net.TCPAddrFromAddrPort(netip.MustParseAddrPort(at.Host))
	resp, err := w.browser.Get(w.ui.URL(addr))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.Request.URL.String() != w.base+"/" {
		t.Fatalf("status %d at %s", resp.StatusCode, resp.Request.URL)
	}
}

// get returns a page.
func (w *world) get(t *testing.T, path string, status int) string {
	t.Helper()
	resp, err := w.browser.Get(w.base + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != status {
		t.Errorf("%s: status %d, want %d", path, resp.StatusCode, status)
	}
	return string(text)
}

func (w *world) want(t *testing.T, path string, texts ...string) {
	t.Helper()
	page := w.get(t, path, http.StatusOK)
	for _, text := range texts {
		if !strings.Contains(page, text) {
			t.Errorf("%s: %q is not there:\n%s", path, text, page)
		}
	}
}

func (w *world) ask(t *testing.T, key, want string) {
	t.Helper()
	if got := string(w.Lookup(t.Context(), []byte("postfix"), []byte(key))); !strings.HasPrefix(got, want) {
		t.Fatalf("%s: got %q, want %q", key, got, want)
	}
}

// The token works once, in a GET; the cookie is for this page alone.
func TestToken(t *testing.T) {
	w := start(t)
	once := &http.Client{Transport: w.browser.Transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	printed := w.ui.URL(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1})
	_, query, _ := strings.Cut(printed, "/?")
	status := func(method, path string, cookie *http.Cookie) (int, *http.Response) {
		t.Helper()
		req, err := http.NewRequest(method, w.base+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		if cookie != nil {
			req.AddCookie(cookie)
		}
		resp, err := once.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode, resp
	}
	for _, path := range []string{"/", "/cache", "/style.css", "/?token=", "/?token=x", "/cache?" + query, "/none"} {
		if got, _ := status(http.MethodGet, path, nil); got != http.StatusUnauthorized {
			t.Errorf("%s without the token: %d", path, got)
		}
	}
	if got, _ := status(http.MethodHead, "/?"+query, nil); got != http.StatusUnauthorized {
		t.Errorf("HEAD with the token: %d", got)
	}
	got, resp := status(http.MethodGet, "/?"+query, nil)
	if got != http.StatusSeeOther || len(resp.Cookies()) != 1 {
		t.Fatalf("with the token: %d, %v", got, resp.Header)
	}
	cookie := resp.Cookies()[0]
	if !cookie.HttpOnly || cookie.SameSite != http.SameSiteStrictMode || cookie.Path != "/" || cookie.Domain != "" || cookie.MaxAge != 0 || len(cookie.Value) < 26 {
		t.Errorf("cookie %v", cookie)
	}
	if got, _ := status(http.MethodGet, "/?"+query, nil); got != http.StatusUnauthorized {
		t.Errorf("the token a second time: %d", got)
	}
	if got, _ := status(http.MethodGet, "/?token=", nil); got != http.StatusUnauthorized {
		t.Errorf("no token, after it was used: %d", got)
	}
	for path, want := range map[string]int{"/": 200, "/style.css": 200, "/icon.svg": 200, "/none": 404, "/page.html": 404} {
		if got, _ := status(http.MethodGet, path, cookie); got != want {
			t.Errorf("%s with the cookie: %d", path, got)
		}
	}
	if got, _ := status(http.MethodGet, "/", &http.Cookie{Name: cookie.Name, Value: "x"}); got != http.StatusUnauthorized {
		t.Errorf("another cookie: %d", got)
	}
	for _, method := range []string{"POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"} {
		if got, resp := status(method, "/cache", cookie); got != http.StatusMethodNotAllowed || resp.Header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: %d", method, got)
		}
	}
}

// Only this host as seen from itself, at any port: a tunnel has another one.
func TestForeignHost(t *testing.T) {
	w := start(t)
	w.enter(t)
	for host, want := range map[string]int{
		"127.0.0.1": 200, "127.0.0.1:9000": 200, "localhost:9000": 200,
		"attacker.test": 403, "attacker.test:9462": 403, "127.0.0.1.attacker.test": 403, "localhost.attacker.test": 403,
		"192.0.2.1": 403, "127.0.0.2": 403, "[::1]:9462": 403, "mail.example.test": 403,
	} {
		req, err := http.NewRequest(http.MethodGet, w.base+"/", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		at, _ := url.Parse(w.base)
		for _, c := range w.browser.Jar.Cookies(at) {
			req.AddCookie(c)
		}
		resp, err := w.browser.Transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("Host %s: %d, want %d", host, resp.StatusCode, want)
		}
	}
}

// Every answer, refusals too, forbids scripts, frames and other sites.
func TestHeaders(t *testing.T) {
	w := start(t)
	for _, entered := range []bool{false, true} {
		if entered {
			w.enter(t)
		}
		for _, path := range []string{"/", "/cache", "/style.css", "/none"} {
			resp, err := w.browser.Get(w.base + path)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			csp := resp.Header.Get("Content-Security-Policy")
			if !strings.HasPrefix(csp, "default-src 'none'; style-src 'self';") || strings.Contains(csp, "unsafe") || strings.Contains(csp, "script") {
				t.Errorf("%s: %s", path, csp)
			}
			for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store", "Cross-Origin-Opener-Policy": "same-origin"} {
				if got := resp.Header.Get(name); got != want {
					t.Errorf("%s: %s: %s", path, name, got)
				}
			}
		}
	}
}

func TestPages(t *testing.T) {
	w := start(t)
	w.enter(t)
	for !strings.Contains(w.get(t, "/", http.StatusOK), "Policies were counted") { // go test ends a hang
	}
	w.want(t, "/", "Nothing needs attention", "validates")
	w.want(t, "/cache", "No domain matches.")

	w.PolicyHost("plain.test", "version: STSv1\nmode: enforce\nmx: *.plain.test\nnote: <b>\u202e\nmax_age: 604800\n")
	w.ask(t, "plain.test", "OK secure")
	w.ask(t, "full.test", "OK dane-only")
	w.ask(t, "full.test:587", "NOTFOUND")
	w.Fault("broken.test", "MX", lab.ServFail)
	w.ask(t, "broken.test", "TEMP")
	w.changes.Changed(policy.Change{Key: "plain.test", What: "MTA-STS", Old: "enforce mx.plain.test", New: "testing mx.plain.test", Weaker: true})

	w.want(t, "/", "<h1>Attention</h1>", "broken.test", "MX lookup of broken.test: SERVFAIL", "MTA-STS: testing mx.plain.test, was enforce mx.plain.test")
	w.want(t, "/cache", `<a href="/domain/full.test">full.test:587</a>`, "dane-only", "enforce", "3 shown")
	w.want(t, "/cache?policy=secure&search=pl", "plain.test", `<option selected>secure</option>`, `value="pl"`, "1 shown, the end of the list")
	w.want(t, "/domain/plain.test", "OK secure match=.plain.test servername=hostname", "policy_type=sts policy_domain=plain.test",
		"note: &lt;b&gt;\\xe2\\x80\\xae", "is unknown and ignored", "mx.plain.test", "no TLSA record", "weaker", `href="/afresh?key=plain.test"`)
	w.want(t, "/domain/full.test", "usable TLSA records", "full.test:587", "OK dane-only", "No change is remembered")
	w.want(t, "/afresh?key=plain.test", "== plain.test &lt;b&gt;")
	w.want(t, "/refresher", "domains are refreshed within the next hour")
	w.ui.sample(t.Context())
	w.want(t, "/counters", "Lookups by answer", "polyline")

	for path, status := range map[string]int{
		"/domain/unknown.test": 404, "/domain/%3Cscript%3E": 400, "/afresh": 404,
		"/cache?policy=x": 400, "/cache?sort=policy": 400, "/cache?older=x": 400, "/cache?after=x": 400,
	} {
		if page := w.get(t, path, status); strings.Contains(page, "<script") || !strings.Contains(page, "<h1>") {
			t.Errorf("%s: %s", path, page)
		}
	}
}

// A click on a column head sorts, another one turns the order round, and filters
// stay. A search keeps the one order that has what it finds side by side.
func TestCacheLinks(t *testing.T) {
	w := start(t)
	w.enter(t)
	if err := load.Fill(t.Context(), w.db, 250, time.Now()); err != nil {
		t.Fatal(err)
	}
	w.want(t, "/cache", `aria-sort="ascending"><a href="/cache?sort=-domain">`, `<a href="/cache?sort=used">Last used`, "100 shown", ">Next page</a>")
	w.want(t, "/cache?sort=-used&policy=secure", `aria-sort="descending"><a href="/cache?policy=secure&amp;sort=used">Last used`)
	page := w.get(t, "/cache?search=d&sort=used", http.StatusOK)
	if strings.Contains(page, "sort=used") || !strings.Contains(page, `<a href="/cache?search=d&amp;sort=-domain">Next hop`) {
		t.Error("a search offers an order that cannot be had")
	}
	// Follow "Next page" to the end.
	seen, path := 0, "/cache?sort=refresh"
	for path != "" {
		page := w.get(t, path, http.StatusOK)
		seen += strings.Count(page, `<tr><th scope="row">`)
		_, after, more := strings.Cut(page, `<a href="/cache?after=`)
		path = ""
		if more {
			link, _, _ := strings.Cut(after, `"`)
			path = "/cache?after=" + strings.ReplaceAll(link, "&amp;", "&")
		}
	}
	if seen != 250 {
		t.Errorf("%d domains on all pages", seen)
	}
}

// What a damaged or forged database could bring along is shown as text.
func TestHostileRecord(t *testing.T) {
	w := start(t)
	w.enter(t)
	const bad = `<script>alert(1)</script>"'` + "\u202e\x1b"
	now := time.Now()
	file := "version: STSv1\nmode: enforce\nmx: mx.hostile.test\nx: " + strings.Repeat("<i>", 20000) + "\n" + strings.Repeat("a: b\n", 600) + "max_age: 9999\n"
	for _, domain := range []string{"hostile.test", "hostile" + bad} {
		if err := w.db.Put(t.Context(), store.Record{
			Domain: domain, LastUsed: now, Due: now.Add(time.Hour), Class: store.Positive,
			STS: &store.STS{Policy: []byte(file), FetchedAt: now, PolicyID: bad, TXTID: bad, CheckedAt: now, TXTError: bad, FailedAt: now, FailedID: bad, Error: bad, Failures: 1, SharedBy: bad, SharedSince: now},
			DANE: []store.DANE{{
				Port: 25, MX: 1, KnownAt: now, ExpiresAt: now.Add(time.Hour),
				Hosts: []store.Host{{Name: bad, Verdict: 1, Failure: 1, Error: bad}},
			}},
		}); err != nil {
			t.Fatal(err)
		}
	}
	w.changes.Changed(policy.Change{Key: "hostile.test", What: bad, Old: bad, New: bad, Weaker: true})
	for _, path := range []string{"/", "/cache", "/cache?sort=used", "/refresher", "/domain/hostile.test", "/cache?search=" + url.QueryEscape(bad)} {
		page := w.get(t, path, http.StatusOK)
		if strings.Contains(page, "<script") || strings.ContainsAny(page, "\u202e\x1b") || len(page) > 1<<20 {
			t.Errorf("%s: %d bytes, or a text is not escaped", path, len(page))
		}
		if path != "/refresher" && !strings.Contains(page, "script&gt;") {
			t.Errorf("%s: it is not there", path)
		}
	}
	w.want(t, "/domain/hostile.test", "(60003 bytes)", "105 more lines", "by other hosts since")
}

func TestADaemonThatIsGone(t *testing.T) {
	w := start(t)
	w.enter(t)
	if err := w.control.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/", "/cache", "/domain/full.test", "/refresher"} {
		if page := w.get(t, path, http.StatusBadGateway); !strings.Contains(page, "The daemon does not answer") {
			t.Errorf("%s: %s", path, page)
		}
	}
}

func TestCounters(t *testing.T) {
	var s series
	at := time.Date(2026, 11, 28, 10, 0, 0, 0, time.UTC)
	for i, n := range []int{100, 130, 5, 5} { // the daemon is started anew before the third
		s.add(at.Add(time.Duration(i)*10*time.Second), strings.NewReader(fmt.Sprintf(
			"# TYPE tlspolicyd_lookups_total counter\ntlspolicyd_lookups_total{answer=\"secure\",origin=\"cached\"} %d\n", n)))
	}
	s.add(at, strings.NewReader("cut off {"))
	c := s.charts()[0]
	if l := c.Lines[1]; l.Name != "secure" || l.Last != "0" || l.Points != "200.0,0.0 400.0,100.0 600.0,100.0 " || c.Top != "180" {
		t.Errorf("%+v, top %s", l, c.Top)
	}
	for i := range 2 * maxSamples {
		s.add(at.Add(time.Duration(i)*time.Second), strings.NewReader(""))
	}
	if len(s.samples) != maxSamples {
		t.Errorf("%d samples are kept", len(s.samples))
	}
}
