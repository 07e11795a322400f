package check_test

import (
	"net/netip"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"tlspolicyd/cmd/tlspolicyd/internal/audit"
	"tlspolicyd/cmd/tlspolicyd/internal/audit/check"
	"tlspolicyd/cmd/tlspolicyd/internal/audit/smtpprobe"
	"tlspolicyd/internal/dnsclient"
	"tlspolicyd/internal/mtasts"
	"tlspolicyd/testing/lab"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	domain    = "good.test"
	network6  = "fd00:20::/64"
	policyDoc = "version: STSv1\nmode: enforce\nmx: mx1.good.test\nmx: mx2.good.test\nmax_age: 2592000\n"
)

// scene is a small internet with one healthy domain, until a test breaks it.
type scene struct {
	*lab.World
	mx1, mx2 *lab.SMTPHost
	web      *lab.PolicyHost
	check.Options
}

// v6 are the IPv6 addresses of the two mail hosts.
func v6(n byte) netip.Addr {
	return netip.AddrFrom16([16]byte{0xfd, 0, 0, 0x20, 15: n})
}

func newScene() *scene {
	s := &scene{World: lab.New()}
	s.Zone(`
		good.test. MX 10 mx1.good.test.
		good.test. MX 20 mx2.good.test.
		_smtp._tls.good.test. TXT "v=TLSRPTv1; rua=mailto:reports@good.test"
	`)
	s.mx1, s.mx2 = s.SMTPHost("mx1.good.test", lab.SMTP{}), s.SMTPHost("mx2.good.test", lab.SMTP{})
	s.mx1.AddAddr(v6(1))
	s.mx2.AddAddr(v6(2))
	s.TLSA("mx1.good.test", 25)
	s.TLSA("mx2.good.test", 25)
	s.web = s.PolicyHost(domain, policyDoc)

	resolver, err := dnsclient.New(dnsclient.Config{Servers: []netip.AddrPort{s.DNSAddr()}, Dial: s.Dial})
	if err != nil {
		panic(err)
	}
	s.Options = check.Options{
		Resolver: resolver, Servers: resolver.Servers(), Trusted: resolver.Trusted(),
		Fetcher: &mtasts.Fetcher{
			Resolver: resolver, RootCAs: s.Roots(), Dial: s.Dial,
			AllowNetworks: []netip.Prefix{netip.MustParsePrefix(lab.Network), netip.MustParsePrefix(network6)},
		},
		Prober: smtpprobe.Prober{Name: "audit.test", Dial: s.Dial},
	}
	return s
}

// everyAddress are all addresses that the world has given out, and some more.
func (s *scene) mailAddresses() []netip.Addr {
	return []netip.Addr{s.mx1.Addr(), s.mx2.Addr(), v6(1), v6(2)}
}

// examine runs an audit in a bubble, whose clock jumps over every wait.
func examine(t *testing.T, name string, arrange func(*scene)) (report check.Report) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := newScene()
		defer s.Close()
		arrange(s)
		began := time.Now()
		report = check.New(s.Options).Audit(t.Context(), name)
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("took %v, want 20 s at most whatever is silent", took)
		}
	})
	return report
}

// codes returns the codes of a report with their grades, each once.
func codes(r check.Report) map[string]audit.Grade {
	all := map[string]audit.Grade{}
	for _, topic := range r.Topics {
		for _, f := range topic.Findings {
			if old, ok := all[f.Code]; !ok || audit.Worst([]audit.Topic{{Findings: []audit.Finding{{Grade: old}, f}}}) == f.Grade {
				all[f.Code] = f.Grade
			}
		}
	}
	return all
}

func mustURL(text string) *url.URL {
	u, err := url.Parse(text)
	if err != nil {
		panic(err)
	}
	return u
}
