package policy

import (
	"fmt"
	"time"

	"tlspolicyd/internal/dane"
)

// This file is the decision table of docs/behaviour.md §5: one pure function
// from what DANE and MTA-STS say, and what the operator chose, to an answer.

// Settings are the operator's choices in the decision table. Zero values are
// the defaults.
type Settings struct {
	InsecureMXPrefersDANE bool // policy.insecure_mx = "dane"
	PartialPrefersSTS     bool // policy.partial = "mta-sts"
	EnforceTesting        bool // policy.testing = "enforce"
	StrictDefault         bool // policy.postfix_level is encrypt or stricter
}

// STSState is the MTA-STS side of the table: the mode in force.
type STSState uint8

const (
	STSAbsent  STSState = iota // none, invalid or unfetchable (8461 §3.3)
	STSNone                    // a policy that says "none"
	STSTesting                 // 8461 §5: deliver as though there were no policy
	STSEnforce
)

func (s STSState) String() string {
	return [...]string{"absent", "none", "testing", "enforce"}[s]
}

// Level is the kind of an answer.
type Level uint8

const (
	NoPolicy  Level = iota // NOTFOUND: the admin's default applies
	DANEOnly               // dane-only: mandatory DANE
	DANE                   // dane: DANE where the host has it
	Secure                 // secure match=…: the MTA-STS policy
	Temporary              // TEMP: Postfix defers
	Override               // the operator's own words
)

func (l Level) String() string {
	return [...]string{"notfound", "dane-only", "dane", "secure", "temp", "override"}[l]
}

// Row names a row of the decision table, for logs and for programs that read
// `explain --json`. The names are stable.
type Row string

const (
	RowFull           Row = "dane-full"
	RowPartialEnforce Row = "dane-partial-enforce"
	RowPartial        Row = "dane-partial"
	RowInsecureSTS    Row = "insecure-mx-enforce"
	RowInsecure       Row = "insecure-mx"
	RowEnforce        Row = "sts-enforce"
	RowTesting        Row = "sts-testing"
	RowNone           Row = "no-policy"
	RowUnusable       Row = "dane-unusable-enforce"
	RowUnknownSTS     Row = "unknown-insecure-mx-enforce"
	RowUnknownSome    Row = "unknown-some-hosts"
	RowUnknownProved  Row = "unknown-some-hosts-enforce"
	RowUnknown        Row = "unknown"
	RowOverride       Row = "override"
	RowNotLookedUp    Row = "not-looked-up"
)

// Decision is the answer and why it is that.
type Decision struct {
	Level  Level
	Row    Row
	Why    string // one sentence for the operator
	Reason string // Level Temporary: the failing step

	// Hosts, with Level Secure, are the only hosts that may get the mail, as far
	// as the policy allows them: nil stands for all that it allows.
	Hosts []string

	// Stale: a lookup of DANE fails, and what was last known is used.
	Stale bool

	// KeepAtMost bounds how long the answer may be kept; 0: no bound of its own.
	KeepAtMost time.Duration
}

const (
	LastKnownFor   = 24 * time.Hour   // how long DANE evidence is used while lookups fail
	KeepFailure    = 10 * time.Second // how long a failure is remembered
	keepIncomplete = 5 * time.Minute  // how long an answer is kept while a host of the domain fails
)

// Decide returns the row of the table that fits. Where it names hosts, View.Decide
// then leaves out those that the policy does not allow.
func Decide(d DANEFacts, sts STSState, set Settings) Decision {
	if d.NullMX {
		return Decision{Level: NoPolicy, Row: RowNone, Why: "null MX: the domain takes no mail (RFC 7505)"}
	}
	if sts == STSTesting && set.EnforceTesting {
		sts = STSEnforce
	}
	dec := decide(d, sts, set)
	if d.Stale && dec.Level != Temporary {
		// Never weaker than an hour ago because of a lookup that fails today.
		dec.Stale, dec.Reason = true, d.Reason
		dec.Why += fmt.Sprintf(" (as last known %s ago; now: %s)", age(d.Age), d.Reason)
	}
	return dec
}

func decide(d DANEFacts, sts STSState, set Settings) Decision {
	enforce := sts == STSEnforce
	switch d.State {
	case dane.Full:
		return Decision{
			Level: DANEOnly, Row: RowFull,
			Why: "every mail host has usable TLSA records, and DANE comes before MTA-STS (RFC 8461 §2)",
		}
	case dane.Partial:
		return decidePartial(d, enforce, set)
	case dane.InsecureMX:
		switch {
		case !enforce:
			return Decision{Level: DANE, Row: RowInsecure, Why: "the MX answer is insecure and some mail hosts have TLSA records (RFC 7672 §2.2.1)"}
		case set.InsecureMXPrefersDANE:
			return Decision{
				Level: DANE, Row: RowInsecureSTS,
				Why: `some mail hosts have TLSA records, and policy.insecure_mx = "dane" prefers DANE`,
			}
		}
		return Decision{
			Level: Secure, Row: RowInsecureSTS,
			Why: "the MX answer can be forged: only MTA-STS binds the domain to its hosts",
		}
	case dane.None:
		switch sts {
		case STSEnforce:
			return Decision{Level: Secure, Row: RowEnforce, Why: "no DANE, and an MTA-STS policy in force (RFC 8461 §5)"}
		case STSTesting:
			return Decision{Level: NoPolicy, Row: RowTesting, Why: "no DANE, and the MTA-STS policy is in testing mode (RFC 8461 §5)"}
		}
		return Decision{Level: NoPolicy, Row: RowNone, Why: "no DANE and no MTA-STS policy: the default level of Postfix applies"}
	}
	return decideUnknown(d, enforce, set)
}

func decidePartial(d DANEFacts, enforce bool, set Settings) Decision {
	switch {
	case !enforce:
		return Decision{Level: DANE, Row: RowPartial, Why: "some mail hosts have TLSA records (RFC 7672 §2.2)"}
	case !d.HasUsable && d.Failing:
		return provedHosts(d)
	case !d.HasUsable:
		return Decision{
			Level: Secure, Row: RowUnusable,
			Why: "no TLSA record is usable, so there is no DANE that MTA-STS could override (RFC 6698 §4.1, RFC 8461 §2)",
		}
	case set.PartialPrefersSTS:
		return Decision{
			Level: Secure, Row: RowPartialEnforce,
			Why: `some mail hosts have TLSA records, and policy.partial = "mta-sts" prefers MTA-STS`,
		}
	}
	return Decision{
		Level: DANE, Row: RowPartialEnforce,
		Why: "some mail hosts have TLSA records, and MTA-STS must not override DANE there (RFC 8461 §2)",
	}
}

// provedHosts is MTA-STS for the hosts that it cannot take DANE from; the others
// wait until it is known whether they have TLSA records.
func provedHosts(d DANEFacts) Decision {
	return Decision{
		Level: Secure, Row: RowUnknownProved, Reason: d.Reason, Hosts: append([]string{}, d.Proved...), KeepAtMost: keepIncomplete,
		Why: "the TLSA lookup of a mail host fails: MTA-STS decides for the hosts that have no usable TLSA records (RFC 8461 §2)",
	}
}

func decideUnknown(d DANEFacts, enforce bool, set Settings) Decision {
	some := Decision{Level: DANE, Row: RowUnknownSome, Reason: d.Reason, KeepAtMost: keepIncomplete}
	switch {
	case enforce && d.MX == dane.MXInsecure && set.InsecureMXPrefersDANE && len(d.Proved) > 0 && !d.HasTLSA:
		return provedHosts(d)
	case enforce && d.MX == dane.MXInsecure && set.InsecureMXPrefersDANE && d.Failing:
		some.Why = `the TLSA lookup of a host failed, and policy.insecure_mx = "dane" prefers DANE: Postfix looks up each host itself`
		return some
	case enforce && d.MX == dane.MXInsecure:
		return Decision{
			Level: Secure, Row: RowUnknownSTS, Reason: d.Reason, KeepAtMost: keepIncomplete,
			Why: "the MX answer is insecure, so MTA-STS decides whatever the failing hosts have",
		}
	case enforce && set.PartialPrefersSTS && d.HasUsable:
		// Full would be dane-only, and Partial secure: neither sends without a check.
		some.Level, some.Why = DANEOnly, `the TLSA lookup of a host failed, and policy.partial = "mta-sts" wants no host without a check`
		return some
	case d.HasTLSA:
		some.Why = "some hosts have TLSA records and the lookup of another failed: Postfix skips that one"
		return some
	case enforce && len(d.Proved) > 0:
		return provedHosts(d)
	case !enforce && d.Failing && (len(d.Proved) > 0 || d.MX == dane.MXInsecure):
		// §5, last paragraph: one failing host never holds back the mail for the
		// others. Postfix evaluates DANE host by host (7672 §2.2).
		some.Why = "no TLSA record is known and the TLSA lookup of a host failed: Postfix looks up each host itself and skips that one"
		if set.StrictDefault { // without TLSA records dane is no more than may
			some.Level = NoPolicy
			some.Why = "no TLSA record is known and the TLSA lookup of a host failed: Postfix's default level (policy.postfix_level) is stricter than dane without TLSA records"
		}
		return some
	}
	return Decision{
		Level: Temporary, Row: RowUnknown, Reason: d.Reason, KeepAtMost: KeepFailure,
		Why: "a failed lookup is not an absence (RFC 7672 §2.1.2)",
	}
}

// DANEAlone reports whether DANE decides the row whatever MTA-STS says, so that
// an answer need not wait for a policy host.
func DANEAlone(d DANEFacts, set Settings) bool {
	return Decide(d, STSAbsent, set).Level == Decide(d, STSEnforce, set).Level
}

// age prints a duration for people: whole seconds, minutes or hours.
func age(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return d.Round(time.Second).String()
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	}
	return fmt.Sprintf("%dh", int(d.Hours()))
}
