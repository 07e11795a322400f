package lab_test

import (
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"tlspolicyd/testing/lab"
)

const policy = "version: STSv1\nmode: enforce\nmx: mx.example.test\nmax_age: 86400\n"

// client returns an HTTP client that reaches the host whatever the URL says.
func client(w *lab.World, h *lab.PolicyHost) (*http.Client, func()) {
	tr := &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return w.Dial(ctx, network, net.JoinHostPort(h.Addr().String(), "443"))
		},
		TLSClientConfig:    &tls.Config{RootCAs: w.Roots()},
		DisableCompression: true,
	}
	c := &http.Client{
		Transport:     tr,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, tr.CloseIdleConnections
}

// most is how much of a body get reads.
const most = 1 << 20

func get(c *http.Client, url string) (*http.Response, string, error) {
	resp, err := c.Get(url)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, most))
	return resp, string(body), err
}

const policyURL = "https://mta-sts.example.test/.well-known/mta-sts.txt"

func TestPolicyOverTLSInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := lab.New()
		defer w.Close()
		h := w.PolicyHost("example.test", policy)
		c, done := client(w, h)
		defer done()
		for range 2 {
			resp, body, err := get(c, policyURL)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != 200 || body != policy || resp.Header.Get("Content-Type") != "text/plain" {
				t.Errorf("%v %q", resp, body)
			}
		}
		if h.Requests() != 2 || h.Connections() != 1 {
			t.Errorf("%d requests, %d connections", h.Requests(), h.Connections())
		}
		if r := h.Seen()[0]; r.SNI != "mta-sts.example.test" || r.TLS != tls.VersionTLS13 || r.Host != r.SNI {
			t.Errorf("seen %+v", r)
		}
	})
}

func TestPolicyHostFaults(t *testing.T) {
	const limit = 10 * time.Second
	for _, tt := range []struct {
		what  string
		fault lab.HostFault
		want  string // status, or a part of the error
		took  time.Duration
		check func(t *testing.T, r *http.Response, body string)
	}{
		{what: "refused", fault: lab.HostFault{Refuse: true}, want: "connection refused"},
		{what: "never connects", fault: lab.HostFault{Stall: lab.AtConnect}, want: "context deadline exceeded", took: limit},
		{what: "no handshake", fault: lab.HostFault{Stall: lab.AtHandshake}, want: "context deadline exceeded", took: limit},
		{what: "no header", fault: lab.HostFault{Stall: lab.AtHeaders}, want: "context deadline exceeded", took: limit},
		{what: "half a body", fault: lab.HostFault{Stall: lab.AtBody}, want: "context deadline exceeded", took: limit},
		{what: "another name", fault: lab.HostFault{Cert: lab.WrongName}, want: "valid for wrong-name.invalid"},
		{what: "expired", fault: lab.HostFault{Cert: lab.Expired}, want: "expired"},
		{what: "not yet valid", fault: lab.HostFault{Cert: lab.NotYetValid}, want: "not yet valid"},
		{what: "self-signed", fault: lab.HostFault{Cert: lab.SelfSigned}, want: "unknown authority"},
		{what: "no SAN", fault: lab.HostFault{Cert: lab.NoSAN}, want: "legacy Common Name"},
		{what: "wildcard", fault: lab.HostFault{Cert: lab.Wildcard}, want: "200"},
		{what: "TLS 1.1", fault: lab.HostFault{TLSMax: tls.VersionTLS11}, want: "protocol version"},
		{what: "TLS 1.2", fault: lab.HostFault{TLSMax: tls.VersionTLS12}, want: "200", check: func(t *testing.T, r *http.Response, _ string) {
			if r.TLS.Version != tls.VersionTLS12 {
				t.Errorf("TLS version %x", r.TLS.Version)
			}
		}},
		{what: "late", fault: lab.HostFault{Delay: 8 * time.Second}, want: "200", took: 8 * time.Second},
		{what: "status", fault: lab.HostFault{Status: 503}, want: "503"},
		{what: "redirect", fault: lab.HostFault{Redirect: "https://other.invalid/"}, want: "301", check: func(t *testing.T, r *http.Response, _ string) {
			if r.Header.Get("Location") != "https://other.invalid/" {
				t.Errorf("header %v", r.Header)
			}
		}},
		{what: "media type", fault: lab.HostFault{MediaType: "text/html"}, want: "200", check: func(t *testing.T, r *http.Response, _ string) {
			if r.Header.Get("Content-Type") != "text/html" {
				t.Errorf("header %v", r.Header)
			}
		}},
		{what: "no media type", fault: lab.HostFault{MediaType: "-"}, want: "200", check: func(t *testing.T, r *http.Response, _ string) {
			if r.Header["Content-Type"] != nil {
				t.Errorf("header %v", r.Header)
			}
		}},
		{what: "header", fault: lab.HostFault{Header: http.Header{"set-cookie": {"a=b"}}}, want: "200", check: func(t *testing.T, r *http.Response, _ string) {
			if r.Header.Get("Set-Cookie") != "a=b" {
				t.Errorf("header %v", r.Header)
			}
		}},
		{what: "endless header", fault: lab.HostFault{EndlessHeader: true}, want: "server response headers exceeded"},
		{what: "drip", fault: lab.HostFault{Drip: 10 * time.Millisecond}, want: "200", took: time.Duration(len(policy)) * 10 * time.Millisecond},
		{what: "size", fault: lab.HostFault{Size: 70000}, want: "200", check: func(t *testing.T, _ *http.Response, body string) {
			if len(body) != 70000 || !strings.HasPrefix(body, policy) {
				t.Errorf("%d bytes", len(body))
			}
		}},
		{what: "no length", fault: lab.HostFault{NoLength: true}, want: "200", check: func(t *testing.T, r *http.Response, body string) {
			if r.ContentLength != -1 || body != policy {
				t.Errorf("length %d: %q", r.ContentLength, body)
			}
		}},
		{what: "more than memory holds", fault: lab.HostFault{Size: 1 << 50, NoLength: true}, want: "200", check: func(t *testing.T, _ *http.Response, body string) {
			if len(body) != most || !strings.HasPrefix(body, policy) {
				t.Errorf("%d bytes", len(body))
			}
		}},
		{what: "cut off", fault: lab.HostFault{CloseEarly: true}, want: "unexpected EOF"},
		{what: "cut off where no length tells", fault: lab.HostFault{CloseEarly: true, NoLength: true}, want: "200", check: func(t *testing.T, _ *http.Response, body string) {
			// crypto/tls takes an end without close_notify for one.
			if body != policy[:len(policy)/2] {
				t.Errorf("%q", body)
			}
		}},
		{what: "bulky certificate", fault: lab.HostFault{Cert: lab.Bulky}, want: "valid for 4000 names"},
		{what: "hangs up in the handshake", fault: lab.HostFault{Hangup: lab.AtHandshake}, want: "EOF"},
		{what: "hangs up before the header", fault: lab.HostFault{Hangup: lab.AtHeaders}, want: "EOF"},
		{what: "no TLS", fault: lab.HostFault{NoTLS: "SSH-2.0-x\r\n"}, want: "does not look like a TLS handshake"},
		{what: "raw", fault: lab.HostFault{Raw: "HTTP/1.1 299 Own\r\n\r\nbody"}, want: "299 Own", check: func(t *testing.T, _ *http.Response, body string) {
			if body != "body" {
				t.Errorf("%q", body)
			}
		}},
		{what: "raw, dripping", fault: lab.HostFault{Raw: "HTTP/1.1 200 OK\r\n\r\n", Drip: time.Millisecond}, want: "200", took: 19 * time.Millisecond},
		{what: "raw, then silence", fault: lab.HostFault{Raw: "HTTP/1.1 200 OK\r\n", Stall: lab.AtBody}, want: "context deadline exceeded", took: limit},
		{what: "raw without end", fault: lab.HostFault{Raw: "HTTP/1.1 200 OK\r\n", Endless: "X: y\r\n"}, want: "server response headers exceeded"},
		{what: "gzip", fault: lab.HostFault{Gzip: true}, want: "200", check: func(t *testing.T, r *http.Response, body string) {
			z, err := gzip.NewReader(strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			if plain, err := io.ReadAll(z); string(plain) != policy || err != nil || r.Header.Get("Content-Encoding") != "gzip" {
				t.Errorf("%v %q %v", r.Header, plain, err)
			}
		}},
	} {
		t.Run(tt.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := lab.New()
				defer w.Close()
				h := w.PolicyHost("example.test", policy)
				h.Fault(tt.fault)
				c, done := client(w, h)
				defer done()
				c.Timeout = limit
				begin := time.Now()
				resp, body, err := get(c, policyURL)
				if took := time.Since(begin); took != tt.took {
					t.Errorf("took %v, want %v", took, tt.took)
				}
				got := fmt.Sprint(err)
				if err == nil {
					got = resp.Status
				}
				if !strings.Contains(got, tt.want) {
					t.Errorf("got %s, want %s", got, tt.want)
				}
				if reached := h.Connections() > 0; reached == (tt.fault.Refuse || tt.fault.Stall == lab.AtConnect) {
					t.Errorf("reached: %v", reached)
				}
				if tt.check != nil {
					tt.check(t, resp, body)
				}
				h.Fault(lab.HostFault{})
				if _, _, err := get(c, policyURL); err != nil {
					t.Errorf("fault cleared: %v", err)
				}
			})
		})
	}
}

func TestDelayHTTPHoldsForAllHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := lab.New()
		defer w.Close()
		w.DelayHTTP(3 * time.Second)
		c, done := client(w, w.PolicyHost("example.test", policy))
		defer done()
		begin := time.Now()
		if _, _, err := get(c, policyURL); err != nil || time.Since(begin) != 3*time.Second {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
	})
}

func TestOnlyThePolicyPathIsServed(t *testing.T) {
	w := newWorld(t)
	c, done := client(w, w.PolicyHost("example.test", policy))
	defer done()
	resp, _, err := get(c, "https://mta-sts.example.test/.well-known/mta-sts/mta-sts.txt")
	if err != nil || resp.StatusCode != 404 {
		t.Errorf("%v %v", resp, err)
	}
}

func TestPolicyHostInDNS(t *testing.T) {
	w := newWorld(t)
	h := w.PolicyHost("example.test", policy)
	txt := func() string {
		m := ask(t, w, "_mta-sts.example.test", dns.TypeTXT)
		if len(data(m.Answer)) == 0 {
			return ""
		}
		return data(m.Answer)[0]
	}
	if got := data(ask(t, w, "mta-sts.example.test", dns.TypeA).Answer); !slices.Equal(got, []string{h.Addr().String() + " mta-sts.example.test."}) {
		t.Errorf("address %v", got)
	}
	if !netip.MustParsePrefix(lab.Network).Contains(h.Addr()) {
		t.Errorf("%v is not in %s", h.Addr(), lab.Network)
	}
	for _, step := range []struct {
		what string
		do   func()
		txt  string
	}{
		{"as made", func() {}, `v=STSv1; id=1; _mta-sts.example.test.`},
		{"SetPolicy", func() { h.SetPolicy("new") }, `v=STSv1; id=2; _mta-sts.example.test.`},
		{"SetPolicyKeepID", func() { h.SetPolicyKeepID("newer") }, `v=STSv1; id=2; _mta-sts.example.test.`},
		{"SetID", func() { h.SetID("abc") }, `v=STSv1; id=abc; _mta-sts.example.test.`},
		{"RemoveTXT", func() { h.RemoveTXT() }, ``},
	} {
		step.do()
		if got := txt(); got != step.txt {
			t.Errorf("%s: %q, want %q", step.what, got, step.txt)
		}
	}
	c, done := client(w, h)
	defer done()
	if _, body, err := get(c, policyURL); body != "newer" || err != nil {
		t.Errorf("%q %v", body, err)
	}
}

func TestPolicyHostWithMoreAddressesAndNames(t *testing.T) {
	w := newWorld(t)
	h := w.PolicyHost("example.test", policy)
	v6 := netip.MustParseAddr("2001:db8::1")
	h.AddAddr(v6)
	h.AddName("mta-sts.customer.test")
	if got := data(ask(t, w, "mta-sts.example.test", dns.TypeAAAA).Answer); len(got) != 1 {
		t.Errorf("AAAA %v", got)
	}
	for _, addr := range []string{"[2001:db8::1]:443", "[::ffff:" + h.Addr().String() + "]:443"} {
		for _, name := range []string{"mta-sts.example.test", "mta-sts.customer.test"} {
			nc, err := w.Dial(t.Context(), "tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			tc := tls.Client(nc, &tls.Config{RootCAs: w.Roots(), ServerName: name})
			if err := tc.Handshake(); err != nil {
				t.Errorf("%s as %s: %v", addr, name, err)
			}
			tc.Close()
		}
	}
}

func TestCAFile(t *testing.T) {
	w := newWorld(t)
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := w.WriteCA(file); err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) || !pool.Equal(w.Roots()) {
		t.Errorf("%s", pem)
	}
}
