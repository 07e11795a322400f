//go:build e2e

package e2e

import (
	"fmt"
	"strings"
)

// fieldCase is one situation of BEHAVIOUR §4 and §5.
type fieldCase struct {
	name, key string
	policy    []string // hosts that a policy in mode enforce names
	validated string   // the answer behind a resolver that validates
	plain     string   // behind one that does not
	dns64     string   // where it makes up addresses without the AD bit; empty: as validated
}

func (c fieldCase) want(s setting, madeUp bool) string {
	switch {
	case s.dnssec == "no":
		return c.plain
	case madeUp && c.dns64 != "":
		return c.dns64
	}
	return c.validated
}

const (
	notFound = "NOTFOUND"
	temp     = "TEMP"
	secure1  = "secure mx1"
	secure12 = "secure mx1:mx2"
)

func fieldCases() []fieldCase {
	mx := func(domain string, n int) (names []string) {
		for i := range n {
			names = append(names, fmt.Sprintf("mx%d.%s", i+1, domain))
		}
		return names
	}
	return []fieldCase{
		{"Full", "full.signed.field", nil, "dane-only", notFound, "dane"},
		{"Full, policy", "fullsts.signed.field", mx("fullsts.signed.field", 1), "dane-only", secure1, "dane"},
		{"Full, 40 TLSA records (TCP)", "big.signed.field", nil, "dane-only", notFound, "dane"},
		{"Full, smart host", "[mx1.full.signed.field]", nil, "dane-only", notFound, "dane"},
		{"Full, no MX record", "nomx.signed.field", nil, "dane-only", notFound, "dane"},
		{"Full, MX host is an alias", "alias.signed.field", nil, "dane-only", notFound, "dane"},
		{"Full, the domain is an alias", "cname.signed.field", nil, "dane-only", notFound, "dane"},
		{"Full, secure alias of an insecure host", "across.signed.field", nil, "dane-only", notFound, ""},
		{"Full, MX record of a wildcard", "any.wild.signed.field", nil, "dane-only", notFound, "dane"},
		{"Full, TLSA record of a wildcard", "wildtlsa.signed.field", nil, "dane-only", notFound, "dane"},
		{"Full, NSEC3 with opt-out", "full.optout.field", nil, "dane-only", notFound, "dane"},
		{"Partial", "partial.signed.field", nil, "dane", notFound, ""},
		{"Partial, policy", "partialsts.signed.field", mx("partialsts.signed.field", 2), "dane", secure12, ""},
		{"Partial, NSEC3 with opt-out", "partial.optout.field", nil, "dane", notFound, ""},
		{"no usable TLSA record", "unusable.signed.field", nil, "dane", notFound, ""},
		{"no usable TLSA record, policy", "unusablests.signed.field", mx("unusablests.signed.field", 1), secure1, secure1, ""},
		{"InsecureMX", "insecuremx.open.field", nil, "dane", notFound, ""},
		{"InsecureMX, policy", "insecuremxsts.open.field", []string{"mx1.full.signed.field"}, secure1, secure1, ""},
		{"None, signed", "none.signed.field", nil, notFound, notFound, ""},
		{"None, signed, policy", "nonests.signed.field", mx("nonests.signed.field", 1), secure1, secure1, ""},
		{"None, NSEC3 with opt-out, policy", "nonests.optout.field", mx("nonests.optout.field", 1), secure1, secure1, ""},
		{"None, unsigned, TLSA record", "tlsa.open.field", nil, notFound, notFound, ""},
		{"None, unsigned, policy", "nonests.open.field", mx("nonests.open.field", 1), secure1, secure1, ""},
		{"None, signed without DS record", "full.island.field", nil, notFound, notFound, ""},
		{"null MX", "null.signed.field", nil, notFound, notFound, ""},
		{"no such domain", "nosuch.signed.field", nil, notFound, notFound, ""},
		{"TLSA of one host bogus, the other Full", "onefails.signed.field", nil, "dane", notFound, ""},
		{"TLSA of one host bogus, the other has none, policy", "onefailssts.signed.field", mx("onefailssts.signed.field", 2), secure1, secure12, ""},
		{"TLSA of the only host bogus", "bogus.signed.field", nil, temp, notFound, ""},
		{"MX answer bogus", "bogus.badmx.field", nil, temp, notFound, ""},
		{"expired signatures", "full.expired.field", nil, temp, notFound, ""},
	}
}

// fieldZones have the records of the cases. No mail is sent to the hosts.
func fieldZones() []testZone {
	const usable = "3 1 1 11111111111111111111111111111111111111111111111111111111111111aa"
	z := map[string]*strings.Builder{}
	for _, name := range []string{"signed", "open", "optout", "island", "badmx", "expired"} {
		z[name] = &strings.Builder{}
	}
	domain := func(zone, name string, tlsa ...string) {
		for i, t := range tlsa {
			host := fmt.Sprintf("mx%d.%s", i+1, name)
			fmt.Fprintf(z[zone], "%s MX %d %s\n%s A 192.0.2.%d\n", name, 10*(i+1), host, host, i+1)
			if t != "" {
				fmt.Fprintf(z[zone], "_25._tcp.%s TLSA %s\n", host, t)
			}
		}
	}
	for zone, names := range map[string][]string{
		"signed": {"full", "fullsts"}, "optout": {"full"}, "island": {"full"}, "expired": {"full"}, "badmx": {"bogus"}, "open": {"tlsa"},
	} {
		for _, name := range names {
			domain(zone, name, usable)
		}
	}
	domain("signed", "partial", usable, "")
	domain("signed", "partialsts", usable, "")
	domain("optout", "partial", usable, "")
	domain("signed", "unusable", tlsaUnusable)
	domain("signed", "unusablests", tlsaUnusable)
	domain("signed", "none", "")
	domain("signed", "nonests", "")
	domain("optout", "nonests", "")
	domain("open", "nonests", "")
	domain("signed", "onefails", usable, tlsaSigned)
	domain("signed", "onefailssts", "", tlsaSigned)
	domain("signed", "bogus", tlsaSigned)
	for i := range 40 {
		fmt.Fprintf(z["signed"], "_25._tcp.mx1.big TLSA 3 1 1 %064x\n", i+1)
	}
	z["signed"].WriteString(`
big        MX    10 mx1.big
mx1.big    A     192.0.2.1
nomx       A     192.0.2.1
_25._tcp.nomx TLSA ` + usable + `
alias      MX    10 mx1.alias
mx1.alias  CNAME mx1.full
cname      CNAME full
across     MX    10 mx1.across
mx1.across CNAME mx1.nonests.open.field.
_25._tcp.mx1.across TLSA ` + usable + `
*.wild     MX    10 mx1.full
wildtlsa   MX    10 mx1.wildtlsa
mx1.wildtlsa   A    192.0.2.1
*.mx1.wildtlsa TLSA ` + usable + `
null       MX    0 .
`)
	z["open"].WriteString("insecuremx MX 10 mx1.full.signed.field.\ninsecuremxsts MX 10 mx1.full.signed.field.\n")
	for _, c := range fieldCases() {
		if c.policy != nil {
			label, rest, _ := strings.Cut(c.key, ".")
			zone, _, _ := strings.Cut(rest, ".")
			fmt.Fprintf(z[zone], "_mta-sts.%s TXT \"v=STSv1; id=1;\"\nmta-sts.%s A %s\n", label, label, policyHost)
		}
	}
	return []testZone{
		{origin: "signed.field", signing: signed, records: z["signed"].String(), tamper: [2]string{tlsaSigned[len("3 1 1 "):], tlsaForged}},
		{origin: "open.field", signing: unsigned, records: z["open"].String()},
		{origin: "optout.field", signing: optOut, records: z["optout"].String()},
		{origin: "island.field", signing: island, records: z["island"].String()},
		{origin: "expired.field", signing: expired, records: z["expired"].String()},
		{origin: "badmx.field", signing: signed, records: z["badmx"].String(), tamper: [2]string{"mx1.bogus.badmx.field.", "mx2.bogus.badmx.field."}},
	}
}

// exception is where a resolver differs, and why that is right.
type exception struct {
	answers map[string]string
	reason  string
}

func fieldExceptions(name string, s setting) exception {
	switch {
	case name == "dnsmasq" && s.dnssec == "no", name == "systemd-resolved" && s.dnssec == "no":
		return exception{
			map[string]string{"MX answer bogus": temp, "expired signatures": temp},
			"The resolver behind it validates, and answers SERVFAIL for what is bogus",
		}
	}
	return exception{}
}

type fieldResult struct {
	release, resolver, version string
	setting                    setting
	differ                     []string
}

// fieldReport are the tables of docs/field.md.
func fieldReport(results []fieldResult) string {
	var b strings.Builder
	b.WriteString("| situation | DNSSEC | no DNSSEC | DNSSEC, addresses made up without the AD bit |\n| --- | --- | --- | --- |\n")
	for _, c := range fieldCases() {
		fmt.Fprintf(&b, "| %s | `%s` | `%s` | `%s` |\n", c.name, c.validated, c.plain, c.want(setting{"yes", "yes"}, true))
	}
	n := len(fieldCases())
	b.WriteString("\n| Debian | resolver | setting | as above | differs |\n| --- | --- | --- | --- | --- |\n")
	for _, r := range results {
		differ := strings.Join(r.differ, "; ")
		if reason := fieldExceptions(r.resolver, r.setting).reason; reason != "" {
			differ += ". " + reason
		}
		fmt.Fprintf(&b, "| %s | %s %s | %s | %d of %d | %s |\n", r.release, r.resolver, r.version, r.setting, n-len(r.differ), n, differ)
	}
	return b.String()
}
