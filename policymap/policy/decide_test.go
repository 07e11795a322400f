package policy

import (
	"testing"
	"time"

	"tlspolicyd/internal/dane"
)

// The decision table of docs/behaviour.md §5, row by row and setting by setting.
func TestDecisionTable(t *testing.T) {
	var defaults Settings
	strictPartial := Settings{PartialPrefersSTS: true}
	daneInsecure := Settings{InsecureMXPrefersDANE: true}
	testing_ := Settings{EnforceTesting: true}
	all := []STSState{STSAbsent, STSNone, STSTesting, STSEnforce}
	noEnforce := []STSState{STSAbsent, STSNone, STSTesting}
	known := func(s dane.State) DANEFacts { return DANEFacts{State: s} }

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
		{"Full, any, every setting", known(dane.Full), all, Settings{true, true, true}, DANEOnly, RowFull, 0},
		{"Partial, enforce", known(dane.Partial), []STSState{STSEnforce}, defaults, DANE, RowPartialEnforce, 0},
		{"Partial, enforce, policy.partial = mta-sts", known(dane.Partial), []STSState{STSEnforce}, strictPartial, Secure, RowPartialEnforce, 0},
		{"Partial, testing as enforce, policy.partial = mta-sts", known(dane.Partial), []STSState{STSTesting}, Settings{PartialPrefersSTS: true, EnforceTesting: true}, Secure, RowPartialEnforce, 0},
		{"Partial, otherwise", known(dane.Partial), noEnforce, strictPartial, DANE, RowPartial, 0},
		{"InsecureMX, enforce", known(dane.InsecureMX), []STSState{STSEnforce}, defaults, Secure, RowInsecureSTS, 0},
		{"InsecureMX, enforce, policy.insecure_mx = dane", known(dane.InsecureMX), []STSState{STSEnforce}, daneInsecure, DANE, RowInsecureSTS, 0},
		{"InsecureMX, otherwise", known(dane.InsecureMX), noEnforce, defaults, DANE, RowInsecure, 0},
		{"None, enforce", known(dane.None), []STSState{STSEnforce}, defaults, Secure, RowEnforce, 0},
		{"None, testing", known(dane.None), []STSState{STSTesting}, defaults, NoPolicy, RowTesting, 0},
		{"None, testing, policy.testing = enforce", known(dane.None), []STSState{STSTesting}, testing_, Secure, RowEnforce, 0},
		{"None, none or absent", known(dane.None), []STSState{STSNone, STSAbsent}, testing_, NoPolicy, RowNone, 0},

		{"Unknown, last known Full", DANEFacts{Last: dane.Full, LastAge: 24 * time.Hour}, all, defaults, DANEOnly, RowFull, 0},
		{"Unknown, last known None, enforce", DANEFacts{Last: dane.None, LastAge: time.Hour}, []STSState{STSEnforce}, defaults, Secure, RowEnforce, 0},
		{"Unknown, last known None, nothing", DANEFacts{Last: dane.None, LastAge: time.Hour}, []STSState{STSAbsent}, defaults, NoPolicy, RowNone, 0},
		{"Unknown, last known before the failing hosts", DANEFacts{Last: dane.Full, LastAge: time.Hour, SomeTLSA: true}, all, defaults, DANEOnly, RowFull, 0},
		{"Unknown, last known too old", DANEFacts{Last: dane.Full, LastAge: 24*time.Hour + 1}, all, defaults, Temporary, RowUnknown, 10 * time.Second},
		{"Unknown, MX answer insecure, enforce", DANEFacts{MXInsecure: true}, []STSState{STSEnforce}, defaults, Secure, RowUnknownSTS, 5 * time.Minute},
		{"Unknown, MX answer insecure, otherwise", DANEFacts{MXInsecure: true}, noEnforce, defaults, Temporary, RowUnknown, 10 * time.Second},
		{"Unknown for some hosts, another has TLSA", DANEFacts{SomeTLSA: true}, all, defaults, DANE, RowUnknownSome, 5 * time.Minute},
		{"Unknown for some hosts, another has none, no enforce", DANEFacts{SomeNone: true}, noEnforce, defaults, DANE, RowUnknownSome, 5 * time.Minute},
		{"Unknown for some hosts, another has none, enforce", DANEFacts{SomeNone: true}, []STSState{STSEnforce}, defaults, Temporary, RowUnknown, 10 * time.Second},
		{"Unknown otherwise", DANEFacts{}, all, defaults, Temporary, RowUnknown, 10 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, sts := range c.sts {
				d := Decide(c.dane, sts, c.settings)
				if d.Level != c.level || d.Row != c.row {
					t.Errorf("MTA-STS %v: got %v by row %s, want %v by row %s", sts, d.Level, d.Row, c.level, c.row)
				}
				if d.KeepAtMost != c.keep {
					t.Errorf("MTA-STS %v: kept %v at most, want %v", sts, d.KeepAtMost, c.keep)
				}
				if d.Why == "" {
					t.Errorf("MTA-STS %v: no reason", sts)
				}
				if stale := c.dane.State == dane.Unknown && c.dane.Last != dane.Unknown && c.dane.LastAge <= 24*time.Hour; d.Stale != stale {
					t.Errorf("MTA-STS %v: stale %v, want %v", sts, d.Stale, stale)
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
		{"Partial", DANEFacts{State: dane.Partial}, Settings{}, true},
		{"Partial that prefers MTA-STS", DANEFacts{State: dane.Partial}, Settings{PartialPrefersSTS: true}, false},
		{"InsecureMX", DANEFacts{State: dane.InsecureMX}, Settings{}, false},
		{"InsecureMX that prefers DANE", DANEFacts{State: dane.InsecureMX}, Settings{InsecureMXPrefersDANE: true}, true},
		{"None", DANEFacts{State: dane.None}, Settings{}, false},
		{"Unknown", DANEFacts{}, Settings{}, true},
		{"Unknown with an insecure MX answer", DANEFacts{MXInsecure: true}, Settings{}, false},
	} {
		if got := DANEAlone(c.dane, c.settings); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
