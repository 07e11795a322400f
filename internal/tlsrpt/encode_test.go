package tlsrpt

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"tlspolicyd/internal/dnsclient"
	"tlspolicyd/internal/mtasts"
	"tlspolicyd/testing/lab"
)

const (
	policyFile = "version: STSv1\nmode: enforce\nmx: MX.example.test\nmx: *.example.test\nmx: mx.example.test\nmax_age: 604800\n"
	record     = "v=TLSRPTv1; rua=mailto:reports@example.test"
)

// inWorld runs a test in a bubble of time, with a small internet in it.
func inWorld(t *testing.T, test func(t *testing.T, w *lab.World, f *mtasts.Fetcher)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := lab.New()
		defer w.Close()
		resolver, err := dnsclient.New(dnsclient.Config{Servers: []netip.AddrPort{w.DNSAddr()}, Dial: w.Dial})
		if err != nil {
			t.Fatal(err)
		}
		test(t, w, &mtasts.Fetcher{
			Resolver: resolver, RootCAs: w.Roots(), Dial: w.Dial,
			AllowNetworks: []netip.Prefix{netip.MustParsePrefix(lab.Network)},
		})
	})
}

func inForce(t *testing.T) *mtasts.Policy {
	t.Helper()
	p, err := mtasts.ParsePolicy([]byte(policyFile))
	if err != nil {
		t.Fatal(err)
	}
	return &p
}

// What each way for a fetch to fail is reported as (8460 §4.3.2.2); code 0: not at
// all, because the domain is not at fault.
func TestWhatIsReported(t *testing.T) {
	fault := func(f lab.HostFault) func(*lab.World, *mtasts.Fetcher, *lab.PolicyHost) {
		return func(_ *lab.World, _ *mtasts.Fetcher, h *lab.PolicyHost) { h.Fault(f) }
	}
	dial := func(err error) func(*lab.World, *mtasts.Fetcher, *lab.PolicyHost) {
		return func(_ *lab.World, f *mtasts.Fetcher, _ *lab.PolicyHost) {
			f.Dial = func(context.Context, string, string) (net.Conn, error) { return nil, err }
		}
	}
	unreachable := &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ENETUNREACH}
	for _, tc := range []struct {
		name   string
		fail   func(*lab.World, *mtasts.Fetcher, *lab.PolicyHost)
		code   Code
		reason string
	}{
		{"certificate of another name", fault(lab.HostFault{Cert: lab.WrongName}), 303, "the certificate of the policy host is not valid"},
		{"policy file", func(_ *lab.World, _ *mtasts.Fetcher, h *lab.PolicyHost) { h.SetPolicy("version: STSv1\n") }, 302, "the policy file is not valid"},
		{"connection refused", fault(lab.HostFault{Refuse: true}), 301, "no connection to the policy host"},
		{"TLS 1.1", fault(lab.HostFault{TLSMax: tls.VersionTLS11}), 301, "no TLS session with the policy host"},
		{"no HTTP", fault(lab.HostFault{Raw: "SSH-2.0-x\r\n"}), 301, "no complete HTTP response"},
		{"redirect", fault(lab.HostFault{Redirect: "https://example.test/"}), 301, "HTTP status 301"},
		{"status", fault(lab.HostFault{Status: 404}), 301, "HTTP status 404"},
		{"media type", fault(lab.HostFault{MediaType: "text/html"}), 301, "the media type of the policy file is not text/plain"},
		{"content coding", fault(lab.HostFault{Header: http.Header{"Content-Encoding": {"br"}}}), 301, "the policy file has a content coding"},
		{"size", func(_ *lab.World, _ *mtasts.Fetcher, h *lab.PolicyHost) {
			h.SetPolicy(policyFile + "x: " + strings.Repeat("y", mtasts.MaxPolicySize) + "\n")
		}, 301, "the policy file is larger than 65536 bytes"},
		{"time-out", fault(lab.HostFault{Delay: 2 * time.Minute}), 301, "the policy host did not answer in time"},
		{"no policy host", func(w *lab.World, _ *mtasts.Fetcher, _ *lab.PolicyHost) {
			w.Fault("mta-sts.example.test", "", lab.NXDomain)
		}, 301, "the policy host has no address"},

		{"resolver is silent", func(w *lab.World, _ *mtasts.Fetcher, _ *lab.PolicyHost) { w.Down(true) }, 0, ""},
		{"resolver is silent, and the fetch ends first", func(w *lab.World, f *mtasts.Fetcher, _ *lab.PolicyHost) {
			w.Down(true)
			f.Timeout = time.Second
		}, 0, ""},
		{"resolver fails", func(w *lab.World, _ *mtasts.Fetcher, _ *lab.PolicyHost) {
			w.Fault("mta-sts.example.test", "", lab.ServFail)
		}, 0, ""},
		{"address that is not public", func(_ *lab.World, f *mtasts.Fetcher, _ *lab.PolicyHost) { f.AllowNetworks = nil }, 0, ""},
		{"proxy is gone", func(_ *lab.World, f *mtasts.Fetcher, _ *lab.PolicyHost) {
			f.Proxy = &url.URL{Scheme: "http", Host: "192.0.2.1:3128"}
			f.Dial = func(context.Context, string, string) (net.Conn, error) { return nil, syscall.ECONNREFUSED }
		}, 0, ""},
		{"proxy is silent", func(_ *lab.World, f *mtasts.Fetcher, _ *lab.PolicyHost) {
			f.Proxy = &url.URL{Scheme: "http", Host: "192.0.2.1:3128"}
			f.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			}
		}, 0, ""},
		{"no route", dial(unreachable), 0, ""},
		{"no file descriptors", dial(syscall.EMFILE), 0, ""},
		{"no certificate authorities", func(_ *lab.World, f *mtasts.Fetcher, _ *lab.PolicyHost) {
			f.RootCAs = x509.NewCertPool()
		}, 0, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *lab.World, f *mtasts.Fetcher) {
				tc.fail(w, f, w.PolicyHost("example.test", policyFile))
				_, err := f.Fetch(t.Context(), "example.test")
				if err == nil {
					t.Fatal("the fetch succeeded")
				}
				if code, reason := Classify(err); code != tc.code || reason != tc.reason {
					t.Errorf("%v: code %d %q, want %d %q", err, code, reason, tc.code, tc.reason)
				}
				got, err := Encode(Failure{Domain: "example.test", Err: err}, record)
				if err != nil || (got == nil) != (tc.code == 0) {
					t.Errorf("datagram %q, %v", got, err)
				}
			})
		})
	}
	t.Run("given up by the caller", func(t *testing.T) {
		inWorld(t, func(t *testing.T, w *lab.World, f *mtasts.Fetcher) {
			w.PolicyHost("example.test", policyFile).Fault(lab.HostFault{Delay: time.Minute})
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			time.AfterFunc(time.Millisecond, cancel)
			_, err := f.Fetch(ctx, "example.test")
			if code, _ := Classify(err); code != 0 {
				t.Errorf("%v: code %d", err, code)
			}
		})
	})
	if code, _ := Classify(io.EOF); code != 0 {
		t.Errorf("a defect: code %d", code)
	}
}

func failed(stage mtasts.Stage, err error, x mtasts.Exchange) *mtasts.FetchError {
	return &mtasts.FetchError{Host: "mta-sts.example.test", Stage: stage, Reason: "as it was", Err: err, Exchange: &x}
}

// The members and their order are those of libtlsrpt: the collector counts policies
// with another order as different.
func TestDatagram(t *testing.T) {
	x := mtasts.Exchange{URL: "https://mta-sts.example.test/.well-known/mta-sts.txt", Status: 404}
	for _, tc := range []struct {
		name    string
		inForce *mtasts.Policy
		want    string
	}{
		{"no policy in force", nil, `{"dpv":"1","d":"example.test","pr":"v=TLSRPTv1; rua=mailto:reports@example.test","policies":[{` +
			`"policy-type":2,"policy-domain":"example.test","failure-details":[{"c":301,` +
			`"a":"https://mta-sts.example.test/.well-known/mta-sts.txt","f":"HTTP status 404"}],"t":1,"f":1}]}`},
		{"a cached policy in force", inForce(t), `{"dpv":"1","d":"example.test","pr":"v=TLSRPTv1; rua=mailto:reports@example.test","policies":[{` +
			`"policy-type":2,"policy-domain":"example.test",` +
			`"policy-string":["version: STSv1","mode: enforce","mx: MX.example.test","mx: *.example.test","mx: mx.example.test","max_age: 604800"],` +
			`"mx-host":["mx.example.test","*.example.test"],"failure-details":[{"c":301,` +
			`"a":"https://mta-sts.example.test/.well-known/mta-sts.txt","f":"HTTP status 404; the cached policy was used"}],"t":1,"f":1}]}`},
	} {
		got, err := Encode(Failure{Domain: "example.test", Err: failed(mtasts.StageStatus, nil, x), InForce: tc.inForce}, record)
		if diff := cmp.Diff(tc.want, string(got)); diff != "" || err != nil {
			t.Errorf("%s: %v (-want +got):\n%s", tc.name, err, diff)
		}
	}
}

func TestDatagramIsBounded(t *testing.T) {
	long := &mtasts.Policy{Mode: mtasts.Enforce}
	for range 1000 {
		line := "mx" + strings.Repeat("x", 50) + ".example.test"
		long.Lines, long.MX = append(long.Lines, "mx: "+line), append(long.MX, line)
	}
	many := &mtasts.Policy{Mode: mtasts.Enforce, Lines: long.Lines}
	for i := range 1500 {
		many.MX = append(many.MX, strings.Repeat("m", 50)+string(rune('a'+i%26))+strings.Repeat("x", i/26)+".test")
	}
	failure := failed(mtasts.StageSize, nil, mtasts.Exchange{})
	for name, p := range map[string]*mtasts.Policy{"long strings": long, "many hosts": many} {
		got, err := Encode(Failure{Domain: "example.test", Err: failure, InForce: p}, record)
		var d datagram
		if err != nil || len(got) > MaxDatagram || json.Unmarshal(got, &d) != nil || len(d.Policies[0].Strings) != 1 {
			t.Errorf("%s: %d bytes, %v, %d strings", name, len(got), err, len(d.Policies[0].Strings))
		}
		if (len(d.Policies[0].MXHosts) == 0) != (name == "many hosts") {
			t.Errorf("%s: %d hosts", name, len(d.Policies[0].MXHosts))
		}
	}
	if len(long.Lines) != 1000 {
		t.Error("the policy itself was changed")
	}
	if got, err := Encode(Failure{Domain: "example.test", Err: failure}, strings.Repeat("x", MaxDatagram)); !errors.Is(err, errTooLarge) || got != nil {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// knownReason matches every reason: there are few, and no name or address is in one.
var knownReason = regexp.MustCompile(`^(no (connection to|TLS session with) the policy host|no complete HTTP response|HTTP status -?\d+|` +
	`the policy file (is not valid|has a content coding|is larger than 65536 bytes)|the media type of the policy file is not text/plain|` +
	`the policy host (has no address|did not answer in time)|the certificate of the policy host is not valid)(; the cached policy was used)?$`)

// One bad datagram ends the collector, and with it the reports of Postfix.
func FuzzEncode(f *testing.F) {
	stages := []mtasts.Stage{
		mtasts.StageDNS, mtasts.StageAddress, mtasts.StageConnect, mtasts.StageProxy, mtasts.StageTLS,
		mtasts.StageCertificate, mtasts.StageHTTP, mtasts.StageRedirect, mtasts.StageStatus, mtasts.StageMediaType,
		mtasts.StageEncoding, mtasts.StageSize, mtasts.StageTimeout, mtasts.StageCanceled, mtasts.StagePolicy, "new",
	}
	f.Add(uint8(8), "example.test", record, "https://mta-sts.example.test/", policyFile, 404, "192.0.2.1:3128", true)
	f.Add(uint8(0), "\xff\"", "\x00\u2028</script>", "\\", "version: STSv1\nmode: none\nmax_age: 1\n", -1, "", false)
	f.Fuzz(func(t *testing.T, stage uint8, domain, record, uri, file string, status int, proxy string, connected bool) {
		x := mtasts.Exchange{URL: uri, Status: status, Proxy: proxy}
		if connected {
			x.Connected = netip.MustParseAddrPort("192.0.2.1:443")
			x.Addresses = []mtasts.AddressReport{{Addr: x.Connected.Addr(), Failed: "connect: connection refused"}}
		}
		s := stages[int(stage)%len(stages)]
		failure := failed(s, nil, x)
		if s == mtasts.StageCertificate {
			failure.Err = &tls.CertificateVerificationError{}
		}
		in := Failure{Domain: domain, Err: failure}
		if p, err := mtasts.ParsePolicy([]byte(file)); err == nil {
			in.InForce = &p
		}
		got, err := Encode(in, record)
		if got == nil {
			return
		}
		var d datagram
		decoder := json.NewDecoder(strings.NewReader(string(got)))
		decoder.DisallowUnknownFields()
		if err != nil || len(got) > MaxDatagram || !utf8.Valid(got) || decoder.Decode(&d) != nil {
			t.Fatalf("%d bytes, %v: %q", len(got), err, got)
		}
		if utf8.ValidString(domain) && utf8.ValidString(record) && (d.Domain != domain || d.Record != record) {
			t.Errorf("domain %q, record %q in %s", domain, record, got)
		}
		want := map[mtasts.Stage]Code{mtasts.StageCertificate: 303, mtasts.StagePolicy: 302}[s]
		if want == 0 {
			want = 301
		}
		p := d.Policies[0]
		if p.Type != 2 || p.Domain != d.Domain || p.Failures != len(p.Details) || p.Result != 1 || p.Details[0].Code != want {
			t.Errorf("stage %s: %s", s, got)
		}
		if !knownReason.MatchString(p.Details[0].Reason) {
			t.Errorf("reason %q", p.Details[0].Reason)
		}
	})
}
