package policy

import (
	"testing"
	"time"

	"tlspolicyd/internal/dane"
	"tlspolicyd/internal/mtasts"
)

// The decision table of docs/behaviour.md §5, row by row and setting by setting.
func TestDecisionTable(t *testing.T) {
	var defaults Settings
	strictPartial := Settings{PartialPrefersSTS: true}
	daneInsecure := Settings{InsecureMXPrefersDANE: true}
	testing_ := Settings{EnforceTesting: true}
	all := []STSState{STSAbsent, STSNone, STSTesting, STSEnforce}
	noEnforce := []STSState{STSAbsent, STSNone, STSTesting}
	known := func(s dane.State) DANEFacts {
		return DANEFacts{State: s, MX: dane.MXSecure, HasTLSA: s != dane.None, HasUsable: s != dane.None}
	}
	unusable := DANEFacts{State: dane.Partial, MX: dane.MXSecure, HasTLSA: true}
	insecureUnusable := DANEFacts{State: dane.InsecureMX, MX: dane.MXInsecure, HasTLSA: true}
	stale := func(s dane.State) DANEFacts {
		f := known(s)
		f.Stale, f.Age = true, 24*time.Hour
		return f
	}
	failing := func(f DANEFacts) DANEFacts {
		f.Failing, f.Proved = true, []string{"mx1.test"}
		return f
	}
	strict := Settings{StrictDefault: true}
	enforced := []STSState{STSEnforce}

	for _, c := range []struct {
		name     string
		dane     DANEFacts
		sts      []STSState
		settings Settings
		level    Level
		row      Row
		keep     time.Duration
	}{
		{"Full, any", known(dane.Full), all, defaults, DANEOnly, RowFull, 0},
		{"Full, any, every setting", known(dane.Full), all, Settings{true, true, true, true}, DANEOnly, RowFull, 0},
		{"Partial, enforce", known(dane.Partial), enforced, defaults, DANE, RowPartialEnforce, 0},
		{"Partial, enforce, policy.partial = mta-sts", known(dane.Partial), enforced, strictPartial, Secure, RowPartialEnforce, 0},
		{"Partial, testing as enforce, policy.partial = mta-sts", known(dane.Partial), []STSState{STSTesting}, Settings{PartialPrefersSTS: true, EnforceTesting: true}, Secure, RowPartialEnforce, 0},
		{"Partial, otherwise", known(dane.Partial), noEnforce, strictPartial, DANE, RowPartial, 0},
		{"InsecureMX, enforce", known(dane.InsecureMX), enforced, defaults, Secure, RowInsecureSTS, 0},
		{"InsecureMX, enforce, policy.insecure_mx = dane", known(dane.InsecureMX), enforced, daneInsecure, DANE, RowInsecureSTS, 0},
		{"InsecureMX, otherwise", known(dane.InsecureMX), noEnforce, defaults, DANE, RowInsecure, 0},
		{"None, enforce", known(dane.None), enforced, defaults, Secure, RowEnforce, 0},
		{"None, testing", known(dane.None), []STSState{STSTesting}, defaults, NoPolicy, RowTesting, 0},
		{"None, testing, policy.testing = enforce", known(dane.None), []STSState{STSTesting}, testing_, Secure, RowEnforce, 0},
		{"None, none or absent", known(dane.None), []STSState{STSNone, STSAbsent}, testing_, NoPolicy, RowNone, 0},

		{"Partial, no record usable, enforce", unusable, enforced, defaults, Secure, RowUnusable, 0},
		{"Partial, no record usable, otherwise", unusable, noEnforce, strict, DANE, RowPartial, 0},
		{"Partial, no record usable, a host fails, enforce", failing(unusable), enforced, defaults, Secure, RowUnknownProved, 5 * time.Minute},
		{"InsecureMX, no record usable, enforce", insecureUnusable, enforced, defaults, Secure, RowInsecureSTS, 0},

		{"as last known, Full", stale(dane.Full), all, defaults, DANEOnly, RowFull, 0},
		{"as last known, None, enforce", stale(dane.None), enforced, defaults, Secure, RowEnforce, 0},
		{"as last known, None, nothing", stale(dane.None), []STSState{STSAbsent}, strict, NoPolicy, RowNone, 0},
		{"Unknown, MX answer insecure, enforce", DANEFacts{MX: dane.MXInsecure, Failing: true}, enforced, defaults, Secure, RowUnknownSTS, 5 * time.Minute},
		{"Unknown, MX answer insecure, TLSA of every host fails", DANEFacts{MX: dane.MXInsecure, Failing: true}, noEnforce, defaults, DANE, RowUnknownSome, 5 * time.Minute},
		{"Unknown, MX answer insecure, no host has an address", DANEFacts{MX: dane.MXInsecure}, noEnforce, defaults, Temporary, RowUnknown, 10 * time.Second},
		{"Unknown for some hosts, another has TLSA", DANEFacts{MX: dane.MXSecure, Failing: true, HasTLSA: true, HasUsable: true}, all, strict, DANE, RowUnknownSome, 5 * time.Minute},
		{"Unknown for some hosts, another has none, no enforce", DANEFacts{MX: dane.MXSecure, Failing: true, Proved: []string{"mx1.test"}}, noEnforce, defaults, DANE, RowUnknownSome, 5 * time.Minute},
		{"Unknown for some hosts, another has none, Postfix's default is strict", DANEFacts{MX: dane.MXSecure, Failing: true, Proved: []string{"mx1.test"}}, noEnforce, strict, NoPolicy, RowUnknownSome, 5 * time.Minute},
		{"Unknown for some hosts, another has none, enforce", DANEFacts{MX: dane.MXSecure, Failing: true, Proved: []string{"mx1.test"}}, enforced, defaults, Secure, RowUnknownProved, 5 * time.Minute},
		{"Unknown for some hosts, another has none that the policy does not allow, enforce", DANEFacts{MX: dane.MXSecure, Failing: true, Proved: []string{"mx.other.test"}}, enforced, defaults, Temporary, RowUnknown, 10 * time.Second},
		{"Unknown for some hosts, another has TLSA, policy.partial = mta-sts", DANEFacts{MX: dane.MXSecure, Failing: true, HasTLSA: true, HasUsable: true}, enforced, strictPartial, DANEOnly, RowUnknownSome, 5 * time.Minute},
		{"Unknown, MX answer insecure, policy.insecure_mx = dane", DANEFacts{MX: dane.MXInsecure, Failing: true}, enforced, daneInsecure, DANE, RowUnknownSome, 5 * time.Minute},
		{"Unknown, MX answer insecure, another has none, policy.insecure_mx = dane", DANEFacts{MX: dane.MXInsecure, Failing: true, Proved: []string{"mx1.test"}}, enforced, daneInsecure, Secure, RowUnknownProved, 5 * time.Minute},
		{"Unknown for every host", DANEFacts{MX: dane.MXSecure, Failing: true}, all, defaults, Temporary, RowUnknown, 10 * time.Second},
		{"Unknown otherwise", DANEFacts{}, all, defaults, Temporary, RowUnknown, 10 * time.Second},
		{"Unknown otherwise, as last known", DANEFacts{Stale: true}, all, defaults, Temporary, RowUnknown, 10 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, sts := range c.sts {
				v := View{DANE: c.dane, STS: STSFacts{State: sts}}
				if sts != STSAbsent {
					v.STS.Policy = &mtasts.Policy{MX: []string{"mx1.test"}}
				}
				d := v.Decide(c.settings)
				if d.Level != c.level || d.Row != c.row {
					t.Errorf("MTA-STS %v: got %v by row %s, want %v by row %s", sts, d.Level, d.Row, c.level, c.row)
				}
				if d.KeepAtMost != c.keep {
					t.Errorf("MTA-STS %v: kept %v at most, want %v", sts, d.KeepAtMost, c.keep)
				}
				if d.Why == "" {
					t.Errorf("MTA-STS %v: no reason", sts)
				}
				if want := c.dane.Stale && d.Level != Temporary; d.Stale != want {
					t.Errorf("MTA-STS %v: stale %v, want %v", sts, d.Stale, want)
				}
			}
		})
	}
}

// §6: where DANE alone decides the row, the answer does not wait for a policy host.
func TestDANEAlone(t *testing.T) {
	for _, c := range []struct {
		name     string
		dane     DANEFacts
		settings Settings
		want     bool
	}{
		{"Full", DANEFacts{State: dane.Full}, Settings{}, true},
		{"Partial", DANEFacts{State: dane.Partial, HasUsable: true}, Settings{}, true},
		{"Partial without a usable record", DANEFacts{State: dane.Partial}, Settings{}, false},
		{"Partial that prefers MTA-STS", DANEFacts{State: dane.Partial, HasUsable: true}, Settings{PartialPrefersSTS: true}, false},
		{"InsecureMX", DANEFacts{State: dane.InsecureMX}, Settings{}, false},
		{"InsecureMX that prefers DANE", DANEFacts{State: dane.InsecureMX}, Settings{InsecureMXPrefersDANE: true}, true},
		{"None", DANEFacts{State: dane.None}, Settings{}, false},
		{"Unknown", DANEFacts{}, Settings{}, true},
		{"Unknown with an insecure MX answer", DANEFacts{MX: dane.MXInsecure}, Settings{}, false},
		{"Unknown for a host, another has none", DANEFacts{MX: dane.MXSecure, Failing: true, Proved: []string{"mx1.test"}}, Settings{}, false},
	} {
		if got := DANEAlone(c.dane, c.settings); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
