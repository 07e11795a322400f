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
	RowUnknownSTS     Row = "unknown-insecure-mx-enforce"
	RowUnknownSome    Row = "unknown-some-hosts"
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

	// Stale: DANE could not be evaluated, and the last known state was used.
	Stale bool

	// KeepAtMost bounds how long the answer may be kept; 0: no bound of its own.
	KeepAtMost time.Duration
}

const (
	LastKnownFor   = 24 * time.Hour   // how long the last known DANE state is used while lookups fail
	KeepFailure    = 10 * time.Second // how long a failure is remembered
	keepIncomplete = 5 * time.Minute  // how long an answer is kept while a host of the domain fails
)

// Decide returns the first row of the table that fits.
func Decide(d DANEFacts, sts STSState, set Settings) Decision {
	if d.NullMX {
		return Decision{Level: NoPolicy, Row: RowNone, Why: "null MX: the domain takes no mail (RFC 7505)"}
	}
	if sts == STSTesting && set.EnforceTesting {
		sts = STSEnforce
	}
	if d.State != dane.Unknown {
		return decideKnown(d.State, sts, set)
	}
	if d.Last != dane.Unknown && d.LastAge <= LastKnownFor {
		// Never weaker than an hour ago because of a lookup that fails today.
		dec := decideKnown(d.Last, sts, set)
		dec.Stale = true
		dec.Reason = d.Reason
		dec.Why = fmt.Sprintf("%s (as last known %s ago; now: %s)", dec.Why, age(d.LastAge), d.Reason)
		return dec
	}
	switch {
	case d.MXInsecure && sts == STSEnforce:
		return Decision{
			Level: Secure, Row: RowUnknownSTS, Reason: d.Reason, KeepAtMost: keepIncomplete,
			Why: "the MX answer is insecure, so MTA-STS decides whatever the failing hosts have",
		}
	case d.SomeTLSA:
		return Decision{
			Level: DANE, Row: RowUnknownSome, Reason: d.Reason, KeepAtMost: keepIncomplete,
			Why: "some hosts have TLSA records and the lookup of another failed: Postfix skips that one",
		}
	case d.SomeNone && sts != STSEnforce:
		// §5, last paragraph: one failing host never holds back the mail for
		// the others. Postfix evaluates DANE host by host (7672 §2.2).
		return Decision{
			Level: DANE, Row: RowUnknownSome, Reason: d.Reason, KeepAtMost: keepIncomplete,
			Why: "some hosts have no TLSA records and the lookup of another failed: Postfix skips that one",
		}
	}
	return Decision{
		Level: Temporary, Row: RowUnknown, Reason: d.Reason, KeepAtMost: KeepFailure,
		Why: "a failed lookup is not an absence (RFC 7672 §2.1.2)",
	}
}

func decideKnown(state dane.State, sts STSState, set Settings) Decision {
	enforce := sts == STSEnforce
	switch state {
	case dane.Full:
		return Decision{
			Level: DANEOnly, Row: RowFull,
			Why: "every mail host has usable TLSA records, and DANE comes before MTA-STS (RFC 8461 §2)",
		}
	case dane.Partial:
		switch {
		case !enforce:
			return Decision{Level: DANE, Row: RowPartial, Why: "some mail hosts have TLSA records (RFC 7672 §2.2)"}
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
	case dane.InsecureMX:
		switch {
		case !enforce:
			return Decision{
				Level: DANE, Row: RowInsecure,
				Why: "the MX answer is insecure and some mail hosts have TLSA records (RFC 7672 §2.2.1)",
			}
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
	}
	switch sts {
	case STSEnforce:
		return Decision{Level: Secure, Row: RowEnforce, Why: "no DANE, and an MTA-STS policy in force (RFC 8461 §5)"}
	case STSTesting:
		return Decision{Level: NoPolicy, Row: RowTesting, Why: "no DANE, and the MTA-STS policy is in testing mode (RFC 8461 §5)"}
	}
	return Decision{Level: NoPolicy, Row: RowNone, Why: "no DANE and no MTA-STS policy: the default level of Postfix applies"}
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
