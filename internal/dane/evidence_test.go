package dane

import (
	"errors"
	"testing"
	"time"
)

// The states of BEHAVIOUR §4, for every mixture of verdicts that tells them
// apart.
func TestStates(t *testing.T) {
	address, tlsa := errors.New("address lookup"), errors.New("TLSA lookup")
	all := map[byte]Evidence{
		'u': {Verdict: Usable},
		'p': {Verdict: PartlyInsecure},
		'x': {Verdict: Unusable},
		'n': {Verdict: NoTLSA},
		'i': {Verdict: Insecure},
		'-': {Verdict: NoAddress},
		'A': {Verdict: AddressFailed, Err: address},
		'T': {Verdict: TLSAFailed, Err: tlsa},
	}
	const secure, insecure = MXSecure, MXInsecure
	for _, test := range []struct {
		name    string
		mx      MXAnswer
		hosts   string
		omitted int
		want    State
		err     error
	}{
		{"every host usable", secure, "uu", 0, Full, nil},
		{"a host without address takes no part", secure, "u-", 0, Full, nil},
		{"a host without TLSA", secure, "un", 0, Partial, nil},
		{"a host with insecure addresses", secure, "ui", 0, Partial, nil},
		{"a host with unusable records", secure, "ux", 0, Partial, nil},
		{"a host with some insecure addresses", secure, "up", 0, Partial, nil},
		{"only such hosts", secure, "p", 0, Partial, nil},
		{"nothing but unusable records", secure, "x", 0, Partial, nil},
		{"unusable records and no records", secure, "xn", 0, Partial, nil},
		{"hosts that were not looked at", secure, "uu", 1, Partial, nil},
		{"no host has TLSA", secure, "ni", 0, None, nil},
		{"no host has an address", secure, "--", 0, None, nil},

		{"smart host", MXNotAsked, "u", 0, Full, nil},
		{"smart host without TLSA", MXNotAsked, "n", 0, None, nil},
		{"smart host, TLSA fails", MXNotAsked, "T", 0, Unknown, tlsa},

		{"MX insecure, every host usable", insecure, "uu", 0, InsecureMX, nil},
		{"MX insecure, one host with unusable records", insecure, "nx", 0, InsecureMX, nil},
		{"MX insecure, a host with some insecure addresses", insecure, "p", 0, InsecureMX, nil},
		{"MX insecure, no TLSA", insecure, "nn", 0, None, nil},
		{"MX insecure, no address", insecure, "-", 0, None, nil},

		{"usable, and addresses fail", secure, "uA", 0, Unknown, address},
		{"usable, and TLSA fails", secure, "uT", 0, Unknown, tlsa},
		{"Partial whatever the failing host has", secure, "unT", 0, Partial, tlsa},
		{"Partial: unusable, and TLSA fails", secure, "xT", 0, Partial, tlsa},
		{"Partial: unusable, and addresses fail", secure, "xA", 0, Partial, address},
		{"Partial: hosts left out, and one fails", secure, "uA", 1, Partial, address},
		{"Partial: some insecure addresses, and TLSA fails", secure, "pT", 0, Partial, tlsa},
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
			var hosts []Evidence
			want := Outcome{State: test.want, Err: test.err}
			for i := range len(test.hosts) {
				hosts = append(hosts, all[test.hosts[i]])
				switch test.hosts[i] {
				case 'u', 'p', 'x':
					want.SomeTLSA = true
				case 'n', 'i':
					want.SomeNone = true
				}
			}
			if got := Derive(MX{Answer: test.mx, Omitted: test.omitted}, hosts); got != want {
				t.Errorf("got %+v want %+v", got, want)
			}
		})
	}
}

// What the MX answer alone decides, and how long the outcome may be kept.
func TestDeriveFromTheMXAnswer(t *testing.T) {
	failed := errors.New("MX lookup")
	host := func(v Verdict, ttl time.Duration) []Evidence { return []Evidence{{Verdict: v, TTL: ttl}} }
	for _, test := range []struct {
		name  string
		mx    MX
		hosts []Evidence
		want  Outcome
	}{
		{"failed (7672 §2.1.2)", MX{Err: failed}, nil, Outcome{State: Unknown, Err: failed}},
		{"null MX (7505)", MX{Answer: MXInsecure, Null: true, TTL: time.Minute}, nil, Outcome{State: None, TTL: time.Minute}},
		{"NXDOMAIN", MX{Answer: MXSecure, NoDomain: true, TTL: time.Minute}, nil, Outcome{State: None, TTL: time.Minute}},
		{"MX TTL is smaller", MX{Answer: MXSecure, TTL: time.Minute}, host(Usable, time.Hour), Outcome{State: Full, SomeTLSA: true, TTL: time.Minute}},
		{"host TTL is smaller", MX{Answer: MXSecure, TTL: time.Hour}, host(NoTLSA, time.Minute), Outcome{State: None, SomeNone: true, TTL: time.Minute}},
		{"a smart host has no MX TTL", MX{Answer: MXNotAsked}, host(Usable, time.Minute), Outcome{State: Full, SomeTLSA: true, TTL: time.Minute}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := Derive(test.mx, test.hosts); got != test.want {
				t.Errorf("got %+v want %+v", got, test.want)
			}
		})
	}
}
