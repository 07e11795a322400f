package check_test

import (
	"net/netip"
	"testing"
	"testing/synctest"

	"tlspolicyd/internal/check"
	"tlspolicyd/internal/finding"
	"tlspolicyd/internal/lab"
)

// Domains at one provider share the look at its hosts.
func TestProbesAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene()
		defer s.Close()
		s.Zone("other.test. MX 10 mx1.good.test.")
		a := check.New(s.Options)
		done := make(chan check.Report, 2)
		for _, name := range []string{domain, "other.test"} {
			go func() { done <- a.Audit(t.Context(), name) }()
		}
		for range 2 {
			if r := <-done; len(r.Certificates) < 2 {
				t.Errorf("%s: %d certificates", r.Domain, len(r.Certificates))
			}
		}
		if n := s.mx1.Connections(); n != 2 {
			t.Errorf("%d connections to a host with 2 addresses", n)
		}
	})
}

// Once it is known that this host has no DNS, further domains cost no time and
// no question.
func TestDNSDownIsFoundOutOnce(t *testing.T) {
	for name, fail := range map[string]func(*scene){
		"silent":  dnsDown,
		"cut off": func(s *scene) { s.Fault("*", "", lab.NXDomain) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScene()
				defer s.Close()
				fail(s)
				a := check.New(s.Options)
				a.Audit(t.Context(), domain)
				s.ResetQueries()
				if r := a.Audit(t.Context(), "other.test"); r.Grade != finding.Unknown || s.Count("*", "") != 0 || len(s.Queries()) != 0 {
					t.Errorf("%v, questions %v", r.Grade, s.Queries())
				}
			})
		})
	}
}

// A hostile domain cannot make an audit connect to hundreds of addresses.
func TestConnectionsAreBounded(t *testing.T) {
	r := audit(t, domain, func(s *scene) {
		s.Fetcher.AllowNetworks = append(s.Fetcher.AllowNetworks, netip.MustParsePrefix("10.21.0.0/16"))
		s.Zone("good.test. MX 30 mx3.good.test.")
		for _, name := range []string{"mx1.good.test", "mx2.good.test", "mx3.good.test"} {
			s.Fault(name, "A", lab.Huge)
		}
	})
	if got := codes(r); got["mx-many"] != finding.Warn || got["port25-blocked"] != finding.Unknown {
		t.Errorf("%v", got)
	}
}
