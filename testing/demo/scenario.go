package main

import (
	"fmt"
	"strings"

	"tlspolicyd/testing/lab"
)

// question is one row of the table: what Postfix would ask and what it must get.
type question struct {
	key     string
	mapName string
	want    string // the whole reply; with "…" at the end, its beginning
	why     string
}

const (
	postfix = "postfix"
	tlsrpt  = "postfix-tlsrpt" // Postfix 3.10 and later
)

// overrides is the operator's part of the configuration.
const overrides = `[override]
"skip.test"        = "skip"
".partner.test"    = "secure match=mx.partner.test servername=hostname"
"ok.partner.test"  = "lookup"
`

// scenario fills the world and returns the questions, in the order of
// docs/behaviour.md §5, then §2 and §1.
func scenario(w *lab.World) []question {
	withDANE(w)
	withPolicies(w)
	withFailures(w)
	return append(decisions(), keys()...)
}

func decisions() []question {
	const (
		secure  = "OK secure match=mx.%[1]s:.backup.%[1]s servername=hostname"
		reports = secure + " policy_type=sts policy_domain=%[1]s mx_host_pattern=mx.%[1]s mx_host_pattern=*.backup.%[1]s" +
			" { policy_string = version: STSv1 } { policy_string = mode: enforce } { policy_string = mx: mx.%[1]s }" +
			" { policy_string = mx: *.backup.%[1]s } { policy_string = max_age: 604800 }"
	)
	forDomain := func(format, domain string) string { return fmt.Sprintf(format, domain) }
	return []question{
		{"full.test", postfix, "OK dane-only", "every MX host has TLSA; DANE comes before the MTA-STS policy beside it (8461 §2)"},
		{"partial-sts.test", postfix, "OK dane", "one of two MX hosts has TLSA; MTA-STS must not override it there (8461 §2)"},
		{"partial.test", postfix, "OK dane", "one of two MX hosts has TLSA (7672 §2.2)"},
		{"unsigned-sts.test", postfix, forDomain(secure, "unsigned-sts.test"), "MX answer unsigned: only MTA-STS binds the domain to its hosts"},
		{"unsigned.test", postfix, "OK dane", "MX answer unsigned, but the hosts have TLSA (7672 §2.2.1)"},
		{"sts.test", postfix, forDomain(secure, "sts.test"), "MTA-STS policy in enforce mode (8461 §5)"},
		{"sts.test", tlsrpt, forDomain(reports, "sts.test"), "the same, with what Postfix 3.10 reports and checks"},
		{"full.test", tlsrpt, "OK dane-only", "TLSRPT attributes are for MTA-STS answers only"},
		{"testing.test", postfix, "NOTFOUND ", "policy in testing mode: deliver as though there were none (8461 §5)"},
		{"none.test", postfix, "NOTFOUND ", "policy in mode none"},
		{"plain.test", postfix, "NOTFOUND ", "neither DANE nor MTA-STS"},
		{"broken.test", postfix, "NOTFOUND ", "policy file is wrong in line 2: as though there were none"},
		{"badcert.test", postfix, "NOTFOUND ", "policy host's certificate is for another name (8461 §3.3)"},
		{"slow.test", postfix, "NOTFOUND ", "policy host never answers: one delivery waits fetch.wait, no longer"},
		{"nullmx.test", postfix, "NOTFOUND ", "null MX: takes no mail (7505)"},
		{"halfdown-sts.test", postfix, forDomain(secure, "halfdown-sts.test"), "MX answer unsigned, a host's lookup fails: MTA-STS still decides"},
		{"halfdown.test", postfix, "OK dane", "one host's TLSA lookup fails, the other has TLSA: Postfix skips the failing one"},
		{"bogus.test", postfix, "TEMP MX lookup of bogus.test: SERVFAIL…", "a failed lookup is not an absence (7672 §2.1.2)"},
	}
}

func keys() []question {
	return []question{
		{"FULL.test.:submission", postfix, "OK dane", "another port: TLSA on 587 at one of the hosts only"},
		{"[mx1.full.test]", postfix, "OK dane-only", "smart host: no MX lookup, TLSA of the host"},
		{"bücher.test", postfix, "OK secure match=mx.xn--bcher-kva.test:.backup.xn--bcher-kva.test servername=hostname", "a U-label is looked up as its A-label"},
		{".sts.test", postfix, "NOTFOUND ", "a parent's policy never covers a child (8461 §3.4)"},
		{"[192.0.2.1]", postfix, "NOTFOUND ", "address literal: nothing to look up"},
		{"[IPv6:2001:db8::1]:25", postfix, "NOTFOUND ", "address literal: nothing to look up"},
		{"skip.test", postfix, "NOTFOUND ", `override "skip": exempt, though it has DANE`},
		{"mail.partner.test", postfix, "OK secure match=mx.partner.test servername=hostname", "override of .partner.test, literally"},
		{"ok.partner.test", postfix, "OK dane-only", `override "lookup": exempt from its parent's line`},
		{"sts.test", "nosuchmap", `PERM unknown map "nosuchmap"…`, "misuse of the protocol, the only PERM"},
	}
}

// matches reports whether a reply is the wanted one.
func (q question) matches(reply string) bool {
	if head, ok := strings.CutSuffix(q.want, "…"); ok {
		return strings.HasPrefix(reply, head)
	}
	return reply == q.want
}

// withDANE adds the domains that DANE has something to say about.
func withDANE(w *lab.World) {
	mail := func(domain string, withTLSA ...string) {
		w.Zone(fmt.Sprintf(`
			%[1]s.     MX 10 mx1.%[1]s.
			%[1]s.     MX 20 mx2.%[1]s.
			mx1.%[1]s. A  192.0.2.1
			mx2.%[1]s. A  192.0.2.2
		`, domain))
		for _, host := range withTLSA {
			w.TLSA(host+"."+domain, 25)
		}
	}
	mail("full.test", "mx1", "mx2")
	w.TLSA("mx1.full.test", 587)
	w.PolicyHost("full.test", policy("full.test", "enforce"))

	mail("partial.test", "mx1")
	mail("partial-sts.test", "mx1")
	w.PolicyHost("partial-sts.test", policy("partial-sts.test", "enforce"))

	mail("skip.test", "mx1", "mx2")
	mail("ok.partner.test", "mx1", "mx2")

	// The domains are not signed, the domain of their mail host is.
	mail("provider.test", "mx1")
	for _, domain := range []string{"unsigned.test", "unsigned-sts.test"} {
		w.Zone(domain + ". MX 10 mx1.provider.test.")
		w.Insecure(domain)
	}
	w.PolicyHost("unsigned-sts.test", policy("unsigned-sts.test", "enforce"))
}

// withPolicies adds the domains without DANE.
func withPolicies(w *lab.World) {
	domain := func(name string) {
		w.Zone(fmt.Sprintf("%[1]s. MX 10 mx.%[1]s.\nmx.%[1]s. A 192.0.2.3", name))
	}
	for _, name := range []string{"sts.test", "xn--bcher-kva.test"} {
		domain(name)
		w.PolicyHost(name, policy(name, "enforce"))
	}
	for _, mode := range []string{"testing", "none"} {
		name := mode + ".test"
		domain(name)
		w.PolicyHost(name, policy(name, mode))
	}
	domain("plain.test")
	w.Zone("nullmx.test. MX 0 .")

	domain("broken.test")
	w.PolicyHost("broken.test", policy("broken.test", "enfroce"))
	domain("badcert.test")
	w.PolicyHost("badcert.test", policy("badcert.test", "enforce")).Fault(lab.HostFault{Cert: lab.WrongName})
	domain("slow.test")
	w.PolicyHost("slow.test", policy("slow.test", "enforce")).Fault(lab.HostFault{Stall: lab.AtHeaders})
}

// withFailures adds the domains with DNS trouble.
func withFailures(w *lab.World) {
	w.Zone(`
		bogus.test.              MX 10 mx.bogus.test.
		halfdown.test.           MX 10 mx1.halfdown.test.
		halfdown.test.           MX 20 mx2.halfdown.test.
		mx1.halfdown.test.       A  192.0.2.4
		mx2.halfdown.test.       A  192.0.2.5
		halfdown-sts.test.       MX 10 mx1.halfdown.test.
	`)
	w.Fault("bogus.test", "", lab.Bogus)
	w.TLSA("mx2.halfdown.test", 25)
	w.Fault("_25._tcp.mx1.halfdown.test", "TLSA", lab.ServFail)
	w.Insecure("halfdown-sts.test")
	w.PolicyHost("halfdown-sts.test", policy("halfdown-sts.test", "enforce"))
}

func policy(domain, mode string) string {
	return fmt.Sprintf("version: STSv1\nmode: %[2]s\nmx: mx.%[1]s\nmx: *.backup.%[1]s\nmax_age: 604800\n", domain, mode)
}
