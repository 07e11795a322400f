package lab_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"

	"tlspolicyd/internal/lab"
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

func get(c *http.Client, url string) (*http.Response, string, error) {
	resp, err := c.Get(url)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
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
