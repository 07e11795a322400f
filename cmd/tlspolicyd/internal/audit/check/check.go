// Package check audits a mail domain from outside, as other senders see it: its
// MTA-STS record and policy (RFC 8461), its MX hosts with the certificates that
// they present, DANE (RFC 7672), TLSRPT (RFC 8460), and whether a message is
// delivered.
//
// An audit has two halves. Gathering (gather.go, control.go, probes.go) uses the
// network and collects Facts. Judging is pure functions from Facts to findings,
// one file a topic. What cannot be seen because of this host or its network is
// graded audit.Unknown and is not the fault of the domain (thishost.go).
package check

import (
	"context"
	"crypto/x509"
	"net/netip"
	"time"

	"tlspolicyd/cmd/tlspolicyd/internal/audit"
	"tlspolicyd/cmd/tlspolicyd/internal/audit/smtpprobe"
	"tlspolicyd/internal/dnsclient"
	"tlspolicyd/internal/mtasts"
	"tlspolicyd/policymap/policy"
)

// DefaultTimeout bounds the audit of one domain.
const DefaultTimeout = 18 * time.Second

// Auditor audits domains. Use New. It is safe for concurrent use; probes of mail
// hosts and the check of our own DNS are shared by all domains, so make a new one
// for each round.
type Auditor struct {
	Options
	roots   *x509.CertPool // nil: the system's
	noRoots bool           // this host has no trust store

	probes  probes
	control control
}

// Options are what an Auditor needs.
type Options struct {
	Resolver dnsclient.Resolver
	Servers  []netip.AddrPort // that Resolver asks, for the findings
	Trusted  bool             // their AD bits count (7672 §2.1.3)

	// Fetcher fetches policies. Its RootCAs and AllowNetworks hold for mail
	// hosts too.
	Fetcher *mtasts.Fetcher
	Prober  smtpprobe.Prober

	Family  int           // 4 or 6: connect to mail hosts over this family only; 0: over both
	Timeout time.Duration // for one domain; 0: DefaultTimeout
}

// New returns an Auditor.
func New(o Options) *Auditor {
	a := &Auditor{Options: o, roots: o.Fetcher.RootCAs}
	_, err := o.Fetcher.Roots()
	a.noRoots = err != nil
	if a.Timeout == 0 {
		a.Timeout = DefaultTimeout
	}
	return a
}

// Report is the outcome of one audit. docs/check.md documents its JSON: fields
// may be added to, but none may change its name or meaning.
type Report struct {
	Domain string      `json:"domain"`
	Grade  audit.Grade `json:"grade"`
	At     time.Time   `json:"checked_at"`
	TookMS int64       `json:"took_ms"`

	MTASTS        string `json:"mta_sts"` // enforce, testing, none, absent, broken or unknown
	MaxAgeSeconds int64  `json:"max_age_seconds"`
	PolicyID      string `json:"policy_id"`
	DANE          string `json:"dane"` // full, partial, insecure-mx, none or unknown
	TLSRPT        string `json:"tlsrpt"`
	Postfix       string `json:"postfix"`
	PostfixTLSRPT string `json:"postfix_tlsrpt"`

	Certificates []Certificate `json:"certificates"`
	Topics       []audit.Topic `json:"topics"`
}

// Certificate is one that a host of the domain presented.
type Certificate struct {
	Role     string    `json:"role"` // policy-host or mx
	Host     string    `json:"host"`
	Address  string    `json:"address"`
	NotAfter time.Time `json:"not_after"`
	DaysLeft int       `json:"days_left"` // whole days; negative: expired
}

// FewestDays is DaysLeft of the certificate that expires first, if there is one.
func (r Report) FewestDays() (days int, found bool) {
	for _, cert := range r.Certificates {
		if !found || cert.DaysLeft < days {
			days, found = cert.DaysLeft, true
		}
	}
	return days, found
}

// NothingSeen reports an audit that found out something about this host only.
func (r Report) NothingSeen() bool {
	return len(r.Topics) == 1 && len(r.Topics[0].Findings) == 1 && IsNothingSeen(r.Topics[0].Findings[0].Code)
}

// IsNothingSeen reports whether a code says that nothing is known of any domain.
func IsNothingSeen(code string) bool { return code == "dns-down" || code == "dns-isolated" }

// Worst returns the grade of several reports.
func Worst(reports []Report) audit.Grade {
	var topic audit.Topic
	for _, r := range reports {
		topic.Findings = append(topic.Findings, audit.Finding{Grade: r.Grade})
	}
	return audit.Worst([]audit.Topic{topic})
}

// Audit audits a domain, given in A-labels. It ends within Timeout.
func (a *Auditor) Audit(ctx context.Context, domain string) Report {
	return a.Judge(a.Gather(ctx, domain))
}

// Judge is the function Judge, with what the audits of other domains have shown so
// far of the way to port 25.
func (a *Auditor) Judge(f *Facts) Report {
	f.Elsewhere = a.probes.elsewhere(f)
	return Judge(f)
}

// Undecided reports whether a mail host of another domain may yet show which side
// fails: none of this domain's accepted a connection, or all were silent over IPv4
// or IPv6. Judge when it is false, or when all other audits have ended.
func (a *Auditor) Undecided(f *Facts) bool {
	e, four, six := a.probes.elsewhere(f), f.reach(false), f.reach(true)
	return !e.IPv4 && !e.IPv6 && four.reached+six.reached+four.silent+six.silent > 0 && !f.connected25() ||
		!e.IPv4 && four.reached == 0 && four.silent > 0 ||
		!e.IPv6 && six.reached == 0 && six.silent > 0
}

// Judge turns facts into a report. It is pure.
func Judge(f *Facts) Report {
	r := Report{
		Domain: f.Domain, At: f.At.UTC().Truncate(time.Second), TookMS: f.Took.Milliseconds(),
		MTASTS: f.mtasts(), DANE: f.daneWord(), TLSRPT: f.TLSRPT.word(), PolicyID: f.Explanation.Record.Record.ID,
		Postfix: f.Explanation.Postfix, PostfixTLSRPT: f.Explanation.TLSRPT,
		Certificates: f.certificates(), Topics: []audit.Topic{},
	}
	if f.Policy != nil {
		r.MaxAgeSeconds = int64(f.Policy.MaxAge / time.Second)
	}
	for _, t := range []struct {
		name  string
		judge func(*Facts) []audit.Finding
	}{
		{"this host", judgeThisHost},
		{"domain", judgeDomain},
		{"record", judgeRecord},
		{"policy file", judgePolicyFile},
		{"mx alignment", judgeAlignment},
		{"mail hosts", judgeMailHosts},
		{"dane", judgeDANE},
		{"mode", judgeMode},
		{"tlsrpt", judgeTLSRPT},
		{"senders", judgeSenders},
	} {
		if found := t.judge(f); len(found) > 0 {
			r.Topics = append(r.Topics, audit.Topic{Name: t.name, Findings: found})
		}
	}
	r.Grade = audit.Worst(r.Topics)
	return r
}

// mtasts is the mode in force, or why there is none.
func (f *Facts) mtasts() string {
	switch {
	case f.nothingKnown() || f.Explanation.Record.Failed || f.policyInconclusive():
		return "unknown"
	case f.Announced && f.Policy != nil:
		return string(f.Policy.Mode)
	case f.Announced || f.Explanation.Record.Err != nil && len(f.Explanation.Record.Texts) > 0:
		return "broken"
	}
	return policy.STSAbsent.String()
}

func (f *Facts) daneWord() string {
	if f.nothingKnown() {
		return "unknown"
	}
	return f.Explanation.DANE.State.String()
}
