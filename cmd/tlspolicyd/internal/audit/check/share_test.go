package check_test

import (
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tlspolicyd/cmd/tlspolicyd/internal/audit"
	"tlspolicyd/cmd/tlspolicyd/internal/audit/check"
	"tlspolicyd/testing/lab"
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

// The mail hosts of other domains show which side fails when a domain's own
// take no connection.
func TestOtherDomainsShowWhichSideFails(t *testing.T) {
	silent := func(s *scene) { s.Silent(netip.MustParseAddr("10.20.99.1")) }
	for _, test := range []struct {
		name    string
		arrange func(*scene)
		others  bool // are audited, too
		want    string
	}{
		{"silent, alone", silent, false, "unknown port25-blocked"},
		{"silent, while another answers", silent, true, "fail smtp-unreachable"},
		{"silent, as all others are", func(s *scene) {
			silent(s)
			s.Silent(s.mailAddresses()...)
		}, true, "unknown port25-blocked"},
		{"not to be reached from here, while another answers", func(s *scene) { s.NoRoute(netip.MustParseAddr("10.20.99.1")) }, true, "unknown port25-blocked"},
		{"refuses, alone", func(*scene) {}, false, "fail smtp-unreachable"},
		{"refuses, while another answers", func(*scene) {}, true, "fail smtp-unreachable"},
		{"refuses, as all others do", func(s *scene) {
			for _, name := range []string{"mx1.good.test", "mx2.good.test"} {
				s.Replace(name, "A", "10.20.99.2")
				s.Replace(name, "AAAA")
			}
		}, true, "unknown port25-blocked"},
		{"refuses, as others at the same address do", func(s *scene) {
			for _, name := range []string{"mx1.good.test", "mx2.good.test"} {
				s.Replace(name, "A", "10.20.99.1")
				s.Replace(name, "AAAA")
			}
		}, true, "fail smtp-unreachable"},
		{"silent over IPv6, where no host answers", func(s *scene) {
			s.Replace("mx.dead.test", "A", s.mx1.Addr().String())
			s.Replace("mx.dead.test", "AAAA", "fd00:20::99")
			s.Silent(netip.MustParseAddr("fd00:20::99"), v6(1), v6(2))
		}, true, "unknown ip-family-unreachable"},
		{"silent over IPv6, where another answers", func(s *scene) {
			s.Replace("mx.dead.test", "A", s.mx1.Addr().String())
			s.Replace("mx.dead.test", "AAAA", "fd00:20::99")
			s.Silent(netip.MustParseAddr("fd00:20::99"))
		}, true, "warn smtp-unreachable"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScene()
				defer s.Close()
				s.Zone("dead.test. MX 10 mx.dead.test.\nmx.dead.test. A 10.20.99.1")
				test.arrange(s)
				a := check.New(s.Options)
				dead := a.Gather(t.Context(), "dead.test")
				if a.Undecided(dead) == strings.HasPrefix(test.name, "not to be") {
					t.Error("what is decided was waited for, or what is not was not")
				}
				if test.others {
					a.Audit(t.Context(), domain)
				}
				grade, code, _ := strings.Cut(test.want, " ")
				if got := codes(a.Judge(dead)); got[code].String() != grade || (code != "smtp-unreachable") == (got["smtp-unreachable"] != 0) {
					t.Errorf("%v, want %s", got, test.want)
				}
			})
		})
	}
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
				if r := a.Audit(t.Context(), "other.test"); r.Grade != audit.Unknown || s.Count("*", "") != 0 || len(s.Queries()) != 0 {
					t.Errorf("%v, questions %v", r.Grade, s.Queries())
				}
			})
		})
	}
}

// A domain with a slow mail host and a lookup that fails leaves no time to ask
// about our own DNS at its end. That says nothing of the domains after it.
func TestSlowDomainSpoilsNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene()
		defer s.Close()
		s.Zone("slow.test. MX 10 mx.slow.test.")
		s.SMTPHost("mx.slow.test", lab.SMTP{Stall: lab.BeforeGreeting})
		s.Fault("_smtp._tls.slow.test", "TXT", lab.ServFail)
		a := check.New(s.Options)
		got := codes(a.Audit(t.Context(), "slow.test"))
		if got["tlsrpt-lookup-failed"] != audit.Warn || got["smtp-inconclusive"] != audit.Unknown || got["dns-down"] != 0 {
			t.Errorf("the slow one: %v", got)
		}
		if r := a.Audit(t.Context(), domain); r.Grade != audit.OK {
			t.Errorf("the next one: %v", codes(r))
		}
	})
}

// While it is not known whether our own DNS works, a failed lookup is not the fault
// of the domain, and no audit waits for longer than its limit.
func TestNoTimeToAskAboutOurDNS(t *testing.T) {
	const limit = 4 * time.Second // less than the question may take
	synctest.Test(t, func(t *testing.T) {
		s := newScene()
		defer s.Close()
		s.Timeout = limit
		s.Fault("*", "A", lab.Drop)
		for _, name := range []string{"mx1.good.test", "mx2.good.test", "mta-sts.good.test"} {
			s.Fault(name, "A", lab.Truncate) // which is harmless, and nearer
		}
		s.Fault("_smtp._tls.good.test", "TXT", lab.ServFail)
		a := check.New(s.Options)
		began := time.Now()
		got := codes(a.Audit(t.Context(), domain))
		if got["tlsrpt-lookup-failed"] != audit.Unknown || got["dns-down"] != 0 {
			t.Errorf("%v", got)
		}
		if took := time.Since(began); took > limit {
			t.Errorf("took %v", took)
		}
	})
}

// What is found out too late for the domain that asked holds for those after it.
func TestDNSDownIsFoundOutForTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene()
		defer s.Close()
		s.Timeout = 4 * time.Second
		dnsDown(s)
		a := check.New(s.Options)
		for i, want := range []string{"dns-timeout", "dns-timeout", "dns-down", "dns-down"} {
			began := time.Now()
			if got := codes(a.Audit(t.Context(), domain)); len(got) != 1 || got[want] != audit.Unknown {
				t.Errorf("audit %d: %v, want %s", i, got, want)
			}
			if took := time.Since(began); took > s.Timeout {
				t.Errorf("audit %d took %v", i, took)
			}
		}
	})
}

// A host whose addresses take all the time there is says nothing of the next.
func TestHostWithoutItsTurnIsNotBlamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene()
		defer s.Close()
		s.Zone("full.test. MX 10 mx.full.test.\nfull.test. MX 20 mx2.good.test.\nother.test. MX 10 mx2.good.test.")
		stalling := s.SMTPHost("mx.full.test", lab.SMTP{Stall: lab.BeforeGreeting})
		for n := range byte(31) {
			stalling.AddAddr(netip.AddrFrom4([4]byte{10, 20, 99, n}))
		}
		a := check.New(s.Options)
		got := codes(a.Audit(t.Context(), "full.test"))
		if got["smtp-inconclusive"] != audit.Unknown || got["delivery-inconclusive"] != audit.Unknown || got["smtp-unreachable"] != 0 || got["delivery-failed"] != 0 {
			t.Errorf("%v", got)
		}
		if got := codes(a.Audit(t.Context(), "other.test")); got["smtp-ok"] != audit.OK || got["smtp-unreachable"] != 0 {
			t.Errorf("another domain with that host: %v", got)
		}
	})
}

// A hostile domain cannot make an audit connect to hundreds of addresses.
func TestConnectionsAreBounded(t *testing.T) {
	r := examine(t, domain, func(s *scene) {
		s.Fetcher.AllowNetworks = append(s.Fetcher.AllowNetworks, netip.MustParsePrefix("10.21.0.0/16"))
		s.Zone("good.test. MX 30 mx3.good.test.")
		for _, name := range []string{"mx1.good.test", "mx2.good.test", "mx3.good.test"} {
			s.Fault(name, "A", lab.Huge)
		}
	})
	if got := codes(r); got["mx-too-many"] != audit.Warn || got["smtp-unreachable"] != audit.Fail {
		t.Errorf("%v", got)
	}
}
