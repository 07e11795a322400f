package lab_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"tlspolicyd/testing/lab"
)

func TestDial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := lab.New()
		defer w.Close()
		gone := netip.MustParseAddr("192.0.2.9")
		w.Silent(gone)
		if _, err := w.Dial(t.Context(), "tcp", "192.0.2.1:443"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("nothing there: %v", err)
		}
		if _, err := w.Dial(t.Context(), "tcp", "mta-sts.example.test:443"); err == nil {
			t.Error("a name was resolved behind the resolver's back")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		begin := time.Now()
		_, err := w.Dial(ctx, "tcp", netip.AddrPortFrom(gone, 443).String())
		var ne net.Error
		if !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &ne) || !ne.Timeout() || time.Since(begin) != time.Minute {
			t.Errorf("silent: %v after %v", err, time.Since(begin))
		}
		if _, err := w.Dial(ctx, "udp", w.DNSAddr().String()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("late: %v", err)
		}
	})
}

// Close ends what is under way: answers that wait, connections that stall,
// attempts to connect. goleak in TestMain sees what is left.
func TestCloseEndsEverything(t *testing.T) {
	w := lab.New()
	h := w.PolicyHost("example.test", policy)
	h.Fault(lab.HostFault{Stall: lab.AtHandshake})
	w.Delay(time.Hour)
	gone := netip.MustParseAddr("192.0.2.9")
	w.Silent(gone)
	if _, err := w.ListenDNS("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.ListenProxy("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	stalled, err := w.Dial(t.Context(), "tcp", netip.AddrPortFrom(h.Addr(), 443).String())
	if err != nil {
		t.Fatal(err)
	}
	waiting, err := w.Dial(t.Context(), "tcp", w.DNSAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := (&dns.Conn{Conn: waiting}).WriteMsg(query("a.test", dns.TypeA)); err != nil {
		t.Fatal(err)
	}
	dialled := make(chan error)
	go func() {
		_, err := w.Dial(context.Background(), "tcp", netip.AddrPortFrom(gone, 443).String())
		dialled <- err
	}()
	w.Close()
	w.Close() // harmless
	for _, c := range []net.Conn{stalled, waiting} {
		if _, err := io.ReadAll(c); err != nil {
			t.Errorf("%v", err)
		}
	}
	if err := <-dialled; err == nil {
		t.Error("connected to nothing")
	}
	if _, err := w.Dial(t.Context(), "tcp", w.DNSAddr().String()); err == nil {
		t.Error("connected to a closed world")
	}
	if _, err := w.ListenDNS("127.0.0.1:0"); err == nil {
		t.Error("listens in a closed world")
	}
}

func TestRealResolver(t *testing.T) {
	w := newWorld(t)
	w.Zone("a.test. A 192.0.2.1")
	addr, err := w.ListenDNS("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	for _, network := range []string{"udp", "tcp"} {
		c := &dns.Client{Net: network}
		m, _, err := c.ExchangeContext(t.Context(), query("a.test", dns.TypeA), addr.String())
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff([]string{"192.0.2.1 a.test."}, data(m.Answer)); d != "" || !m.AuthenticatedData {
			t.Errorf("%s: %s", network, d)
		}
		if q := w.Queries(); q[len(q)-1].Network != network || q[len(q)-1].Server != addr {
			t.Errorf("%+v", q)
		}
	}
}

func TestRealProxy(t *testing.T) {
	w := newWorld(t)
	h := w.PolicyHost("example.test", policy)
	addr, err := w.ListenProxy("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{h.Addr().String(), "mta-sts.example.test"} {
		tr := &http.Transport{
			Proxy:           http.ProxyURL(&url.URL{Scheme: "http", Host: addr.String()}),
			TLSClientConfig: &tls.Config{RootCAs: w.Roots(), ServerName: "mta-sts.example.test"},
		}
		_, body, err := get(&http.Client{Transport: tr}, "https://"+host+"/.well-known/mta-sts.txt")
		if err != nil || body != policy {
			t.Errorf("%s: %q %v", host, body, err)
		}
		tr.CloseIdleConnections()
	}
	tr := &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: addr.String()})}
	defer tr.CloseIdleConnections()
	if _, _, err := get(&http.Client{Transport: tr}, "https://192.0.2.1/"); err == nil || err.Error() != `Get "https://192.0.2.1/": Bad Gateway` {
		t.Errorf("nothing there: %v", err)
	}
	if resp, _, err := get(&http.Client{Transport: tr}, "http://mta-sts.example.test/"); err != nil || resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("no CONNECT: %v %v", resp, err)
	}
}
