package check

import (
	"crypto/x509"
	"errors"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"github.com/miekg/dns"

	"tlspolicyd/cmd/tlspolicyd/internal/audit/smtpprobe"
	"tlspolicyd/cmd/tlspolicyd/internal/explain"
	"tlspolicyd/internal/dane"
	"tlspolicyd/internal/mtasts"
)

// Facts are what was seen of one domain, and from where.
type Facts struct {
	Domain string
	At     time.Time
	Took   time.Duration

	Servers []netip.AddrPort // the resolvers that were asked
	Trusted bool             // their AD bits count
	Roots   *x509.CertPool   // trust store for mail hosts; nil: the system's
	NoRoots bool             // this host has none

	MXErr  error // the first lookup of all failed, and nothing else was tried
	OurDNS error // a lookup failed, and this host cannot look up anything else either

	NoTimeForDNS bool // a lookup failed, and there was no time to find out about other names

	Explanation explain.Explanation

	// The policy file, whether or not a record announces it.
	Announced bool
	Exchange  *mtasts.Exchange
	Policy    *mtasts.Policy
	FetchErr  *mtasts.FetchError

	Hosts   []Host
	Omitted int // addresses of mail hosts that were not tried

	Elsewhere Elsewhere // what audits of other domains found

	TLSRPT TLSRPT
}

// Host is one mail host.
type Host struct {
	dane.Host
	Addresses    []Address
	UnsignedTLSA int // TLSA records that senders ignore, because they are not signed
}

// Address is one address of a mail host.
type Address struct {
	Addr      netip.Addr
	NotPublic string            // why it was not tried; "" for a public one
	Left      bool              // not tried: the other family was asked for, or there are too many
	Probe     *smtpprobe.Result // nil: not tried
	Match     dane.Match        // of the certificate with the TLSA records of the host
}

// nothingKnown reports whether nothing is known of the domain.
func (f *Facts) nothingKnown() bool { return f.MXErr != nil }

// noMail reports whether there is no mail host: nothing else is judged.
func (f *Facts) noMail() bool {
	d := f.Explanation.DANE
	return f.nothingKnown() || d.MX.NoDomain || d.MX.Null || len(d.Hosts) == 1 && d.Hosts[0].Implicit && d.Hosts[0].Verdict == dane.NoAddress
}

// mode is the mode that senders know.
func (f *Facts) mode() mtasts.Mode {
	if !f.Announced || f.Policy == nil {
		return ""
	}
	return f.Policy.Mode
}

// reach counts the connections to port 25 over one family.
type reach struct{ tried, reached, silent int }

func (f *Facts) reach(v6 bool) (r reach) {
	for _, h := range f.Hosts {
		for _, a := range h.Addresses {
			if a.Probe == nil || a.Addr.Is6() != v6 || a.Probe.Cause == smtpprobe.Unfinished {
				continue
			}
			r.tried++
			switch {
			case a.Probe.Reached():
				r.reached++
			case a.Probe.Cause == smtpprobe.Silence:
				r.silent++
			}
		}
	}
	return r
}

// familyUnreachable reports whether nothing at all answered over a family, of this
// domain or another. Then it may be the fault of this host. Where this host could
// not even try (smtpprobe.Local), other domains do not count.
func (f *Facts) familyUnreachable(v6 bool) bool {
	r := f.reach(v6)
	elsewhere := f.Elsewhere.IPv4
	if v6 {
		elsewhere = f.Elsewhere.IPv6
	}
	return r.tried > 0 && r.reached == 0 && (r.silent == 0 || !elsewhere)
}

// port25Blocked reports whether port 25 seems to be blocked on the way out of this
// host: no mail host, of this domain or another, accepted a connection.
// A refusal comes from the mail host, unless those of other domains refuse too:
// then it may come from a firewall of this side.
func (f *Facts) port25Blocked() bool {
	four, six := f.reach(false), f.reach(true)
	switch {
	case !f.tried25() || f.connected25():
		return false
	case four.reached+six.reached+four.silent+six.silent == 0:
		return true // this host could not even try
	case f.Elsewhere.IPv4 || f.Elsewhere.IPv6:
		return false
	}
	return four.reached+six.reached == 0 || f.Elsewhere.Refused
}

func (f *Facts) tried25() bool { return f.reach(false).tried+f.reach(true).tried > 0 }

func (f *Facts) connected25() bool {
	for _, h := range f.Hosts {
		for _, a := range h.Addresses {
			if a.Probe != nil && a.Probe.Stage != smtpprobe.Connect {
				return true
			}
		}
	}
	return false
}

// policyInconclusive reports whether the policy could not be fetched for a reason
// that may be on this side: no connection to anything, no proxy, no authorities.
func (f *Facts) policyInconclusive() bool {
	switch {
	case f.FetchErr == nil:
		return false
	case f.FetchErr.LocalFault():
		return true
	case f.Exchange != nil && f.Exchange.Connected.IsValid():
		return false
	}
	switch f.FetchErr.Stage {
	case mtasts.StageConnect, mtasts.StageTimeout:
		if errors.Is(f.FetchErr, syscall.ECONNREFUSED) {
			return false
		}
		return !f.connected25()
	case mtasts.StageProxy, mtasts.StageCanceled:
		return true
	}
	return false
}

// outboundBlocked reports whether no connection to anything was possible.
func (f *Facts) outboundBlocked() bool { return f.port25Blocked() && f.policyInconclusive() }

// alias returns the name that a host is an alias of, or "".
func (f *Facts) alias(host string) string {
	for _, l := range f.Explanation.DNS {
		if (l.Type == dns.TypeA || l.Type == dns.TypeAAAA) && len(l.Answer.Chain) > 0 &&
			strings.EqualFold(strings.TrimSuffix(l.Name, "."), host) {
			return strings.TrimSuffix(l.Answer.Final, ".")
		}
	}
	return ""
}

// done are the addresses at which there was a TLS session.
func (h Host) done() (list []Address) {
	for _, a := range h.Addresses {
		if a.Probe != nil && a.Probe.Stage == smtpprobe.Done {
			list = append(list, a)
		}
	}
	return list
}

// anyDone reports whether any mail host opened a TLS session.
func (f *Facts) anyDone() bool {
	for _, h := range f.Hosts {
		if len(h.done()) > 0 {
			return true
		}
	}
	return false
}

func (f *Facts) certificates() []Certificate {
	list := []Certificate{}
	if x := f.Exchange; x != nil && x.Certificate != nil && x.Connected.IsValid() {
		list = append(list, Certificate{
			Role: "policy-host", Host: "mta-sts." + f.Domain, Address: x.Connected.Addr().String(),
			NotAfter: x.Certificate.NotAfter.UTC(), DaysLeft: daysLeft(x.Certificate.NotAfter, f.At),
		})
	}
	for _, h := range f.Hosts {
		for _, a := range h.done() {
			end := a.Probe.Chain[0].NotAfter
			list = append(list, Certificate{
				Role: "mx", Host: h.Name, Address: a.Addr.String(), NotAfter: end.UTC(), DaysLeft: daysLeft(end, f.At),
			})
		}
	}
	return list
}
