package mtasts

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tlspolicyd/internal/dnsclient"
	"tlspolicyd/testing/lab"
)

// BEHAVIOUR §3, the GET line; 8461 §3.3.
func TestFetch(t *testing.T) {
	inWorld(t, func(t *testing.T, w *lab.World, f *Fetcher) {
		h := w.PolicyHost(domain, goodFile)
		got := fetched(t, f, "Example.TEST.")
		want, err := ParsePolicy([]byte(goodFile))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got.Policy); diff != "" {
			t.Errorf("policy (-want +got):\n%s", diff)
		}
		if string(got.Body) != goodFile {
			t.Errorf("body %q", got.Body)
		}

		seen := h.Seen()
		if len(seen) != 1 {
			t.Fatalf("%d requests", len(seen))
		}
		req := seen[0]
		if req.Method != "GET" || req.Path != "/.well-known/mta-sts.txt" || req.Host != host || req.SNI != host {
			t.Errorf("request %+v", req)
		}
		header := http.Header{"User-Agent": {"tlspolicyd"}, "Accept-Encoding": {"identity"}, "Connection": {"close"}}
		if diff := cmp.Diff(header, req.Header); diff != "" {
			t.Errorf("request header (-want +got):\n%s", diff)
		}
	})
}

// The explain command shows the exchange, so it must be complete.
func TestFetchReportsTheExchange(t *testing.T) {
	inWorld(t, func(t *testing.T, w *lab.World, f *Fetcher) {
		h := w.PolicyHost(domain, goodFile)
		w.Delay(20*time.Millisecond, host)
		w.DelayHTTP(30 * time.Millisecond)
		x := fetched(t, f, domain).Exchange
		if x.URL != policyURL {
			t.Errorf("URL %q", x.URL)
		}
		if len(x.Lookups) != 2 || x.Lookups[0].Type+x.Lookups[1].Type != 28+1 {
			t.Errorf("lookups %+v", x.Lookups)
		}
		if len(x.Addresses) != 1 || x.Addresses[0] != (AddressReport{Addr: h.Addr()}) {
			t.Errorf("addresses %+v", x.Addresses)
		}
		if x.Connected != netip.AddrPortFrom(h.Addr(), 443) {
			t.Errorf("connected to %v", x.Connected)
		}
		if x.TLSVersion != "TLS 1.3" || !strings.HasPrefix(x.CipherSuite, "TLS_") {
			t.Errorf("%s, %s", x.TLSVersion, x.CipherSuite)
		}
		c := x.Certificate
		if c == nil || !slices.Equal(c.Names, []string{host}) || c.Issuer != "CN=lab root" || !c.NotAfter.After(time.Now()) {
			t.Errorf("certificate %+v", c)
		}
		if x.Status != 200 || x.MediaType != "text/plain" || x.Size != len(goodFile) || string(x.Body) != goodFile {
			t.Errorf("status %d, media type %q, %d bytes: %q", x.Status, x.MediaType, x.Size, x.Body)
		}
		if x.DNS != 20*time.Millisecond || x.Response != 30*time.Millisecond || x.Total != 50*time.Millisecond {
			t.Errorf("DNS %v, response %v, total %v", x.DNS, x.Response, x.Total)
		}
	})
}

// What is a fault elsewhere, or looks like one, is none here.
func TestFetchAccepts(t *testing.T) {
	padding := "x: " + strings.Repeat("y", MaxPolicySize-len(goodFile)-len("x: ")-1) + "\n"
	for _, tc := range []struct {
		name  string
		file  string
		fault lab.HostFault
	}{
		{"left-most wildcard in the certificate", goodFile, lab.HostFault{Cert: lab.Wildcard}},
		{"TLS 1.2", goodFile, lab.HostFault{TLSMax: tls.VersionTLS12}},
		{"media type with a charset", goodFile, lab.HostFault{MediaType: "text/plain; charset=utf-8"}},
		{"media type in capitals", goodFile, lab.HostFault{MediaType: "TEXT/Plain"}},
		{"blank before the parameters", goodFile, lab.HostFault{MediaType: "text/plain ;format=flowed"}},
		{"parameter without value", goodFile, lab.HostFault{MediaType: "text/plain; charset"}},
		{"parameter twice", goodFile, lab.HostFault{MediaType: "text/plain; a=b; a=c"}},
		{"identity as content coding", goodFile, lab.HostFault{Header: http.Header{"Content-Encoding": {"Identity"}}}},
		{"media type twice", goodFile, lab.HostFault{Header: http.Header{"Content-Type": {"text/plain", "text/plain; charset=utf-8"}}}},
		{"media type twice in one field", goodFile, lab.HostFault{MediaType: "text/plain, text/plain"}},
		{"comma inside a parameter", goodFile, lab.HostFault{MediaType: `text/plain; x="a, b"; charset=utf-8`}},
		{"a large ClientHello is reset", goodFile, lab.HostFault{MaxHello: 1400}},
		{"an address and a final dot among the patterns", "version: STSv1\nmode: enforce\nmx: 192.0.2.56\nmx: mx.example.test.\nmax_age: 604800\n", lab.HostFault{}},
		{"exactly 64 KiB", goodFile + padding, lab.HostFault{}},
		{"59 seconds before the header", goodFile, lab.HostFault{Delay: 59 * time.Second}},
		{"a slow body that ends in time", goodFile, lab.HostFault{Drip: time.Second / 2}},
		{"no length, and TLS ended in order", goodFile, lab.HostFault{NoLength: true}},
		{"no length, and TLS 1.2 ended in order", goodFile, lab.HostFault{NoLength: true, TLSMax: tls.VersionTLS12}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *lab.World, f *Fetcher) {
				w.PolicyHost(domain, tc.file).Fault(tc.fault)
				if got := fetched(t, f, domain); got.Policy.Mode != Enforce || len(got.Body) != len(tc.file) {
					t.Errorf("policy %+v, %d bytes", got.Policy, len(got.Body))
				}
			})
		})
	}
}

// BEHAVIOUR §3, the GET line: each condition by itself.
func TestFetchRefuses(t *testing.T) {
	// What is left of the file is a valid policy with another max_age.
	cut := "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n" + goodFile[:len(goodFile)-4]
	oneMore := goodFile + "x: " + strings.Repeat("y", MaxPolicySize-len(goodFile)-len("x: ")) + "\n"
	for _, tc := range []struct {
		name   string
		file   string
		fault  lab.HostFault
		stage  Stage
		reason string // a part of it
	}{
		{"connection refused", goodFile, lab.HostFault{Refuse: true}, StageConnect, ":443: connect: connection refused"},
		{"TLS 1.1", goodFile, lab.HostFault{TLSMax: tls.VersionTLS11}, StageTLS, "TLS handshake: "},
		{"certificate for another name", goodFile, lab.HostFault{Cert: lab.WrongName}, StageCertificate, "valid for wrong-name.invalid, not " + host},
		{"expired certificate", goodFile, lab.HostFault{Cert: lab.Expired}, StageCertificate, "expired"},
		{"certificate not yet valid", goodFile, lab.HostFault{Cert: lab.NotYetValid}, StageCertificate, "not yet valid"},
		{"self-signed certificate", goodFile, lab.HostFault{Cert: lab.SelfSigned}, StageCertificate, "unknown authority"},
		{"name in the subject alone", goodFile, lab.HostFault{Cert: lab.NoSAN}, StageCertificate, "legacy Common Name"},
		{"redirect", goodFile, lab.HostFault{Redirect: "https://mta-sts.elsewhere.test/.well-known/mta-sts.txt"}, StageRedirect, `HTTP status 301 Moved Permanently to "https://mta-sts.elsewhere.test/`},
		{"temporary redirect to itself", goodFile, lab.HostFault{Redirect: policyURL, Status: 307}, StageRedirect, "HTTP status 307"},
		{"hostile Location", goodFile, lab.HostFault{Redirect: "\"\xff" + strings.Repeat("z", 5000)}, StageRedirect, `to "\"\xffzzz`},
		{"not found", goodFile, lab.HostFault{Status: 404}, StageStatus, "HTTP status 404 Not Found"},
		{"partial content", goodFile, lab.HostFault{Status: 206}, StageStatus, "HTTP status 206"},
		{"another 2xx", goodFile, lab.HostFault{Status: 203}, StageStatus, "HTTP status 203"},
		{"unknown status", goodFile, lab.HostFault{Status: 599}, StageStatus, "HTTP status 599"},
		{"HTML", goodFile, lab.HostFault{MediaType: "text/html; charset=utf-8"}, StageMediaType, `media type "text/html; charset=utf-8": want text/plain`},
		{"no media type", goodFile, lab.HostFault{MediaType: "-"}, StageMediaType, `media type "": want text/plain`},
		{"media type that begins like the right one", goodFile, lab.HostFault{MediaType: "text/plainer"}, StageMediaType, `"text/plainer"`},
		{"two media types", goodFile, lab.HostFault{MediaType: "text/plain, text/html"}, StageMediaType, `"text/plain, text/html"`},
		{"two media types in two fields", goodFile, lab.HostFault{Header: http.Header{"Content-Type": {"text/plain", "text/html"}}}, StageMediaType, `"text/plain, text/html"`},
		{"empty media type", goodFile, lab.HostFault{MediaType: ", "}, StageMediaType, "want text/plain"},
		{"compressed though nobody asked", goodFile, lab.HostFault{Gzip: true}, StageEncoding, `content coding "gzip" was not asked for`},
		{"64 KiB and one byte", oneMore, lab.HostFault{}, StageSize, "larger than 65536 bytes"},
		{"8 MiB", goodFile, lab.HostFault{Size: 8 << 20}, StageSize, "larger than 65536 bytes"},
		{"endless header", goodFile, lab.HostFault{EndlessHeader: true}, StageHTTP, "header"},
		{"connection ends inside the body", goodFile, lab.HostFault{CloseEarly: true}, StageHTTP, "reading the policy file, after "},
		{"no length, and the connection cut", goodFile, lab.HostFault{Raw: cut}, StageHTTP, "cut off"},
		{"no length, and the connection cut, TLS 1.2", goodFile, lab.HostFault{Raw: cut, TLSMax: tls.VersionTLS12}, StageHTTP, "cut off"},
		{"invalid policy", "version: STSv1\nmode: enfroce\n", lab.HostFault{}, StagePolicy, `policy file line 2: mode "enfroce": want enforce, testing or none`},
		{"empty policy", "", lab.HostFault{}, StagePolicy, "policy file: no version line"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *lab.World, f *Fetcher) {
				h := w.PolicyHost(domain, tc.file)
				h.Fault(tc.fault)
				elsewhere := w.PolicyHost("elsewhere.test", goodFile)
				failure := failed(t, f, domain, tc.stage)
				if !strings.Contains(failure.Reason, tc.reason) {
					t.Errorf("reason %q, want %q", failure.Reason, tc.reason)
				}
				if want := "policy host " + host + ": "; !strings.HasPrefix(failure.Error(), want) {
					t.Errorf("error %q, want it to begin with %q", failure, want)
				}
				if n := elsewhere.Connections() + max(h.Requests(), 1); n != 1 {
					t.Errorf("%d requests or connections too many", n-1)
				}
				if len(failure.Exchange.Body) > MaxPolicySize {
					t.Errorf("%d bytes of body kept", len(failure.Exchange.Body))
				}
				if tc.stage == StageCertificate && (failure.Exchange.Certificate == nil || failure.Exchange.Certificate.NotAfter.IsZero()) {
					t.Errorf("certificate %+v", failure.Exchange.Certificate)
				}
			})
		})
	}
}

// The ClientHello fits into one packet, however long the name in it.
func TestFetchSendsASmallClientHello(t *testing.T) {
	inWorld(t, func(t *testing.T, w *lab.World, f *Fetcher) {
		domain := strings.Repeat(strings.Repeat("a", 61)+".", 3) + strings.Repeat("b", 54) + ".test"
		w.PolicyHost(domain, goodFile).Fault(lab.HostFault{MaxHello: 1400})
		fetched(t, f, domain)
	})
}

// An AAAA record that leads to another machine than the A record: after a TLS or
// certificate failure the other family is tried, once.
func TestFetchWhereOneFamilyLeadsElsewhere(t *testing.T) {
	v6, v6b := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
	for _, tc := range []struct {
		name     string
		elsewhat lab.HostFault
		stage    Stage // of the failure, if the other address is no better
		reason   string
	}{
		{"another certificate", lab.HostFault{}, StageCertificate, "valid for mta-sts.elsewhere.test"},
		{"not TLS", lab.HostFault{NoTLS: "SSH-2.0-OpenSSH_9.2\r\n"}, StageTLS, "TLS handshake"},
		{"hangs up", lab.HostFault{Hangup: lab.AtHandshake}, StageTLS, "TLS handshake"},
		{"never answers", lab.HostFault{Stall: lab.AtHandshake}, StageTimeout, "gave up after 10s: TLS handshake"},
		{"TLS 1.1 only", lab.HostFault{TLSMax: tls.VersionTLS11}, StageTLS, "TLS handshake"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *lab.World, f *Fetcher) {
				h := w.PolicyHost(domain, goodFile)
				elsewhere := w.PolicyHost("elsewhere.test", goodFile)
				elsewhere.Fault(tc.elsewhat)
				elsewhere.AddAddr(v6)
				elsewhere.AddAddr(v6b)
				w.Zone(host + ". AAAA 2001:db8::1\n" + host + ". AAAA 2001:db8::2")
				x := fetched(t, f, domain).Exchange
				if x.Connected.Addr() != h.Addr() || !slices.Equal(x.Certificate.Names, []string{host}) {
					t.Errorf("connected to %v, certificate %+v", x.Connected, x.Certificate)
				}
				for _, a := range x.Addresses {
					if failed := strings.Contains(a.Failed, tc.reason); failed != (a.Addr == v6) {
						t.Errorf("%+v", a)
					}
				}
				if n := elsewhere.Connections(); n != 1 {
					t.Errorf("%d connections to the other machine", n)
				}

				// No better there: what the preferred address does is reported.
				h.Fault(lab.HostFault{Refuse: true})
				failure := failed(t, f, domain, tc.stage)
				if !strings.Contains(failure.Reason, tc.reason) || failure.Exchange.Connected.Addr() != v6 {
					t.Errorf("%v, connected to %v", failure, failure.Exchange.Connected)
				}
			})
		})
	}
}

// 8461 §3.3 by way of 6125 §6.4.3: a wildcard is the whole left-most label, and
// stands for one label.
func TestFetchRefusesOtherWildcards(t *testing.T) {
	for _, name := range []string{"mta-*.example.test", "*.test", "*sts.example.test", "mta-sts.*.test"} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *lab.World, f *Fetcher) {
				h := w.PolicyHost("other.test", goodFile)
				h.AddName(name)
				w.Zone(host + ". A " + h.Addr().String())
				failed(t, f, domain, StageCertificate)
			})
		})
	}
}

// The name that counts is the policy domain's, not the one an alias leads to.
func TestFetchOverAnAlias(t *testing.T) {
	inWorld(t, func(t *testing.T, w *lab.World, f *Fetcher) {
		h := w.PolicyHost("hoster.test", goodFile)
		w.Zone(host + ". CNAME mta-sts.hoster.test.")
		failed(t, f, domain, StageCertificate)
		h.AddName(host)
		fetched(t, f, domain)
	})
}

// BEHAVIOUR §3: no cookies, no HTTP cache; and no connection is kept.
func TestFetchKeepsNothing(t *testing.T) {
	inWorld(t, func(t *testing.T, w *lab.World, f *Fetcher) {
		h := w.PolicyHost(domain, goodFile)
		h.Fault(lab.HostFault{Header: http.Header{
			"Set-Cookie":    {"a=b; Secure"},
			"Cache-Control": {"max-age=86400, immutable"},
			"Etag":          {`"1"`},
		}})
		first := fetched(t, f, domain)
		h.SetPolicy(strings.Replace(goodFile, "enforce", "none", 1))
		second := fetched(t, f, domain)
		if first.Policy.Mode != Enforce || second.Policy.Mode != None {
			t.Errorf("mode %s, then %s", first.Policy.Mode, second.Policy.Mode)
		}
		if h.Requests() != 2 || h.Connections() != 2 {
			t.Fatalf("%d requests over %d connections", h.Requests(), h.Connections())
		}
		for field := range h.Seen()[1].Header {
			if field != "User-Agent" && field != "Accept-Encoding" && field != "Connection" {
				t.Errorf("the second request has a %s field", field)
			}
		}
	})
}

// A proxy is used when configured, never because of the environment.
func TestFetchIgnoresProxyOfTheEnvironment(t *testing.T) {
	policyURL, err := http.NewRequest(http.MethodGet, "https://mta-sts."+domain+policyPath, nil)
	if err != nil {
		t.Fatal(err)
	}
	if proxy, err := http.ProxyFromEnvironment(policyURL); err != nil || proxy == nil || proxy.String() != noProxy {
		t.Fatalf("the environment names the proxy %v, %v: nothing is tested", proxy, err)
	}
	inWorld(t, func(t *testing.T, w *lab.World, f *Fetcher) {
		w.PolicyHost(domain, goodFile)
		if x := fetched(t, f, domain).Exchange; x.Proxy != "" {
			t.Errorf("proxy %q", x.Proxy)
		}
	})
}

// BEHAVIOUR §3: at most 60 s, wherever the policy host stops.
func TestFetchTimeout(t *testing.T) {
	for _, tc := range []struct {
		name  string
		fault lab.HostFault
		doing string
	}{
		{"connection never answered", lab.HostFault{Stall: lab.AtConnect}, "connecting"},
		{"TLS never answered", lab.HostFault{Stall: lab.AtHandshake}, "TLS handshake"},
		{"request never answered", lab.HostFault{Stall: lab.AtHeaders}, "waiting for the HTTP response"},
		{"body stops halfway", lab.HostFault{Stall: lab.AtBody}, fmt.Sprintf("reading the policy file, after %d bytes", len(goodFile)/2)},
		{"body drips", lab.HostFault{Drip: 2600 * time.Millisecond}, "reading the policy file, after 23 bytes"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *lab.World, f *Fetcher) {
				w.PolicyHost(domain, goodFile).Fault(tc.fault)
				start := time.Now()
				failure := failed(t, f, domain, StageTimeout)
				if after := time.Since(start); after != time.Minute {
					t.Errorf("gave up after %v of the bubble's time", after)
				}
				if want := "gave up after 1m0s: " + tc.doing; failure.Reason != want {
					t.Errorf("reason %q, want %q", failure.Reason, want)
				}
				if !errors.Is(failure, context.DeadlineExceeded) {
					t.Errorf("error %v beneath", failure.Err)
				}
			})
		})
	}
}

func TestFetchTimeoutCoversDNS(t *testing.T) {
	inWorld(t, func(t *testing.T, w *lab.World, f *Fetcher) {
		f.Timeout = 3 * time.Second
		w.PolicyHost(domain, goodFile)
		w.Down(true)
		failure := failed(t, f, domain, StageTimeout)
		if want := "gave up after 3s: looking up its addresses"; failure.Reason != want {
			t.Errorf("reason %q, want %q", failure.Reason, want)
		}
	})
}

// A resolver may give up at the very moment the time is up. What is noticed
// first is chance, so it is tried often; it is a time-out all the same.
func TestFetchTimeoutIsNoDNSFailure(t *testing.T) {
	inWorld(t, func(t *testing.T, w *lab.World, f *Fetcher) {
		f.Timeout = time.Second
		f.Resolver = resolverFunc(func(_ context.Context, name string, qtype uint16) (dnsclient.Answer, error) {
			time.Sleep(f.Timeout) // in the bubble
			return dnsclient.Answer{}, &dnsclient.Error{Name: name, Type: qtype, Kind: dnsclient.Timeout}
		})
		for range 200 {
			failed(t, f, domain, StageTimeout)
		}
	})
}

type resolverFunc func(ctx context.Context, name string, qtype uint16) (dnsclient.Answer, error)

func (f resolverFunc) Lookup(ctx context.Context, name string, qtype uint16) (dnsclient.Answer, error) {
	return f(ctx, name, qtype)
}

// A caller who no longer wants the policy is not told that the host failed.
func TestFetchCanceled(t *testing.T) {
	for _, stall := range []lab.Stall{lab.AtConnect, lab.AtHandshake, lab.AtHeaders, lab.AtBody} {
		t.Run(fmt.Sprint(stall), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *lab.World, f *Fetcher) {
				w.PolicyHost(domain, goodFile).Fault(lab.HostFault{Stall: stall})
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(2*time.Second, cancel)
				start := time.Now()
				_, err := f.Fetch(ctx, domain)
				failure, ok := errors.AsType[*FetchError](err)
				if !ok || failure.Stage != StageCanceled || !errors.Is(err, context.Canceled) {
					t.Fatalf("error %v", err)
				}
				if after := time.Since(start); after != 2*time.Second {
					t.Errorf("returned after %v of the bubble's time", after)
				}
			})
		})
	}
}

// The domain becomes part of a URL.
func TestFetchRefusesWhatIsNoHostName(t *testing.T) {
	inWorld(t, func(t *testing.T, w *lab.World, f *Fetcher) {
		w.PolicyHost(domain, goodFile)
		var d dialed
		f.Dial = d.through(w.Dial)
		for _, domain := range []string{
			"", ".", "example.test/../x", "example.test:444", "user@example.test", "example.test?", "example.test#", "*.example.test",
			"example.test\r\nX: y", "b\u00fccher.test", "192.0.2.1", strings.Repeat("a.", 123) + "test",
		} {
			failure := failed(t, f, domain, StageDNS)
			if !strings.HasPrefix(failure.Reason, "not a host name: ") {
				t.Errorf("%q: reason %q", domain, failure.Reason)
			}
		}
		if w.Count("*", "ANY") != 0 || len(d.list()) != 0 {
			t.Errorf("%d questions, connections to %v", w.Count("*", "ANY"), d.list())
		}
	})
}
