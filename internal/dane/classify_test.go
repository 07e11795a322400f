package dane

import (
	"errors"
	"testing"
)

// The states of BEHAVIOUR §4, for every mixture of verdicts that tells them
// apart.
func TestStates(t *testing.T) {
	address, tlsa := errors.New("address lookup"), errors.New("TLSA lookup")
	all := map[byte]Host{
		'u': {Verdict: Usable, Addresses: []string{"192.0.2.1"}},
		'x': {Verdict: Unusable, Addresses: []string{"192.0.2.1"}},
		'n': {Verdict: NoTLSA, Addresses: []string{"192.0.2.1"}},
		'i': {Verdict: Insecure, Addresses: []string{"192.0.2.1"}},
		'-': {Verdict: NoAddress},
		'A': {Verdict: Failed, Err: address},
		'T': {Verdict: Failed, Err: tlsa, Addresses: []string{"192.0.2.1"}},
	}
	const secure, insecure = true, false
	for _, test := range []struct {
		name     string
		mxSecure bool
		hosts    string
		omitted  int
		want     State
		err      error
	}{
		{"every host usable", secure, "uu", 0, Full, nil},
		{"a host without address takes no part", secure, "u-", 0, Full, nil},
		{"a host without TLSA", secure, "un", 0, Partial, nil},
		{"a host with insecure addresses", secure, "ui", 0, Partial, nil},
		{"a host with unusable records", secure, "ux", 0, Partial, nil},
		{"nothing but unusable records", secure, "x", 0, Partial, nil},
		{"unusable records and no records", secure, "xn", 0, Partial, nil},
		{"hosts that were not looked at", secure, "uu", 1, Partial, nil},
		{"no host has TLSA", secure, "ni", 0, None, nil},
		{"no host has an address", secure, "--", 0, None, nil},

		{"MX insecure, every host usable", insecure, "uu", 0, InsecureMX, nil},
		{"MX insecure, one host with unusable records", insecure, "nx", 0, InsecureMX, nil},
		{"MX insecure, no TLSA", insecure, "nn", 0, None, nil},
		{"MX insecure, no address", insecure, "-", 0, None, nil},

		{"usable, and addresses fail", secure, "uA", 0, Unknown, address},
		{"usable, and TLSA fails", secure, "uT", 0, Unknown, tlsa},
		{"Partial whatever the failing host has", secure, "unT", 0, Partial, tlsa},
		{"Partial: unusable, and TLSA fails", secure, "xT", 0, Partial, tlsa},
		{"Partial: unusable, and addresses fail", secure, "xA", 0, Partial, address},
		{"Partial: hosts left out, and one fails", secure, "uA", 1, Partial, address},
		{"InsecureMX whatever the failing hosts have", insecure, "uAT", 0, InsecureMX, address},

		{"addresses of one fail, no TLSA elsewhere: set aside", secure, "An", 0, None, address},
		{"addresses of one fail, insecure elsewhere: set aside", secure, "iA", 0, None, address},
		{"TLSA of one fails, no TLSA elsewhere", secure, "nT", 0, Unknown, tlsa},
		{"TLSA of one fails, addresses of another", secure, "AnT", 0, Unknown, tlsa},
		{"TLSA of the only host fails", secure, "T", 0, Unknown, tlsa},
		{"addresses of all fail", secure, "AA", 0, Unknown, address},
		{"addresses of all fail that might have some", secure, "A-", 0, Unknown, address},
		{"MX insecure, TLSA of one fails", insecure, "nT", 0, Unknown, tlsa},
		{"MX insecure, addresses of one fail", insecure, "nA", 0, None, address},
		{"MX insecure, addresses of all fail", insecure, "A", 0, Unknown, address},
	} {
		t.Run(test.name, func(t *testing.T) {
			var hosts []Host
			want := outcome{state: test.want, err: test.err}
			for i := range len(test.hosts) {
				hosts = append(hosts, all[test.hosts[i]])
				switch test.hosts[i] {
				case 'u', 'x':
					want.someTLSA = true
				case 'n', 'i':
					want.someNone = true
				}
			}
			if got := classify(test.mxSecure, hosts, test.omitted); got != want {
				t.Errorf("got %+v want %+v", got, want)
			}
		})
	}
}
