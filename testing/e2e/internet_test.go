//go:build e2e

package e2e

// What the test's internet looks like. Every domain is one situation of
// RFC 8461 or RFC 7672, and is named after it.

const (
	authAddr     = "127.0.0.10" // NSD
	resolverAddr = "127.0.0.53" // Unbound

	goodHost     = "127.0.1.1" // certificate of the authority with the right names
	mismatchHost = "127.0.1.2" // certificate of the authority with another name
	plainHost    = "127.0.1.3" // no STARTTLS
	daneHost     = "127.0.1.4" // self-signed, right TLSA record
	rolledHost   = "127.0.1.5" // the same, until a test changes its key
	secondHost   = "127.0.1.6" // certificate of the authority with the names of backup hosts
	downHost     = "127.0.1.9" // no listener

	policyHost      = "127.0.2.1" // nginx with the right certificate
	wrongPolicyHost = "127.0.2.2" // nginx with another name in its certificate
)

// testZone is a DNS zone. Its names are relative to the origin.
type testZone struct {
	origin  string
	signing signing
	records string
	tamper  [2]string // text of the signed zone and what an attacker makes of it
}

// signing says what a validating resolver thinks of a zone.
type signing int

const (
	unsigned signing = iota
	signed
	expired // signatures that were valid until last month
	optOut  // signed with NSEC3 and the opt-out flag
	island  // signed, without a DS record above
)

// policy is a policy file as nginx serves it for a domain.
type policy struct {
	domain string
	text   string
}

// zones are written for the keys that the hosts have at the start.
func zones(good, dane, rolled keyPair) []testZone {
	return []testZone{
		{origin: "open.test", signing: unsigned, records: openRecords},
		{
			origin: "signed.test", signing: signed,
			records: signedRecords +
				"_25._tcp.mx.dane     TLSA " + dane.tlsa() + "\n" +
				"_25._tcp.mx.rolled   TLSA " + rolled.tlsa() + "\n" +
				"_25._tcp.mx.healthy  TLSA " + good.tlsa() + "\n" +
				"_25._tcp.mx.tampered TLSA " + tlsaSigned + "\n",
			tamper: [2]string{tlsaSigned[len("3 1 1 "):], tlsaForged},
		},
		{origin: "expired.test", signing: expired, records: expiredRecords},
		freshZone(""),
		rowsZone(good, dane),
		reportedZone(),
	}
}

const (
	tlsaSigned = "3 1 1 00000000000000000000000000000000000000000000000000000000000000aa"
	tlsaForged = "00000000000000000000000000000000000000000000000000000000000000bb"
)

// openRecords have no signatures, as most domains that publish MTA-STS.
const openRecords = `
sts                       MX   10 mx.sts
mx.sts                    A    ` + goodHost + `
_mta-sts.sts              TXT  "v=STSv1; id=1;"
mta-sts.sts               A    ` + policyHost + `
_smtp._tls.sts            TXT  "v=TLSRPTv1; rua=mailto:reports@sts.open.test"

wildcard                  MX   10 mx.wildcard
mx.wildcard               A    ` + goodHost + `
_mta-sts.wildcard         TXT  "v=STSv1; id=1;"
mta-sts.wildcard          A    ` + policyHost + `
_smtp._tls.wildcard       TXT  "v=TLSRPTv1; rua=mailto:reports@wildcard.open.test"

; two labels below the pattern *.deep: RFC 8461 §4.1 allows one
deep                      MX   10 a.b.deep
a.b.deep                  A    ` + goodHost + `
_mta-sts.deep             TXT  "v=STSv1; id=1;"
mta-sts.deep              A    ` + policyHost + `

; the MX record names a host that the policy does not
unlisted                  MX   10 other.unlisted
other.unlisted            A    ` + goodHost + `
_mta-sts.unlisted         TXT  "v=STSv1; id=1;"
mta-sts.unlisted          A    ` + policyHost + `

mismatch                  MX   10 mx.mismatch
mx.mismatch               A    ` + mismatchHost + `
_mta-sts.mismatch         TXT  "v=STSv1; id=1;"
mta-sts.mismatch          A    ` + policyHost + `
_smtp._tls.mismatch       TXT  "v=TLSRPTv1; rua=mailto:reports@mismatch.open.test"

plaintext                 MX   10 mx.plaintext
mx.plaintext              A    ` + plainHost + `
_mta-sts.plaintext        TXT  "v=STSv1; id=1;"
mta-sts.plaintext         A    ` + policyHost + `

testing                   MX   10 mx.testing
mx.testing                A    ` + mismatchHost + `
_mta-sts.testing          TXT  "v=STSv1; id=1;"
mta-sts.testing           A    ` + policyHost + `

absent                    MX   10 mx.absent
mx.absent                 A    ` + plainHost + `

nomx                      A    ` + plainHost + `
null                      MX   0 .

wrongcert                 MX   10 mx.sts
_mta-sts.wrongcert        TXT  "v=STSv1; id=1;"
mta-sts.wrongcert         A    ` + wrongPolicyHost + `

redirect                  MX   10 mx.sts
_mta-sts.redirect         TXT  "v=STSv1; id=1;"
mta-sts.redirect          A    ` + policyHost + `

hostile                   MX   10 mx.hostile
mx.hostile                A    ` + goodHost + `
_mta-sts.hostile          TXT  "v=STSv1; id=1;"
mta-sts.hostile           A    ` + policyHost + `
_smtp._tls.hostile        TXT  "v=TLSRPTv1; rua=mailto:reports@hostile.open.test"

; until a test forges this part of the zone
forged                    MX   10 mx.forged
mx.forged                 A    ` + goodHost + `
_mta-sts.forged           TXT  "v=STSv1; id=1;"
mta-sts.forged            A    ` + policyHost + `

; until a test changes the policy and its id
changing                  MX   10 mx.changing
mx.changing               A    ` + goodHost + `
_mta-sts.changing     1   TXT  "v=STSv1; id=1;"
mta-sts.changing          A    ` + policyHost + `

; MX answer insecure, host secure (RFC 7672 §2.2.1)
half                      MX   10 mx.dane.signed.test.
halfsts                   MX   10 mx.dane.signed.test.
_mta-sts.halfsts          TXT  "v=STSv1; id=1;"
mta-sts.halfsts           A    ` + policyHost + `
`

// signedRecords have no TLSA records of their own: they need the hosts' keys.
const signedRecords = `
dane                      MX   10 mx.dane
mx.dane                   A    ` + daneHost + `
_smtp._tls.dane           TXT  "v=TLSRPTv1; rua=mailto:reports@dane.signed.test"

both                      MX   10 mx.dane
_mta-sts.both             TXT  "v=STSv1; id=1;"
mta-sts.both              A    ` + policyHost + `

; all there is: DANE, a policy, a certificate that fits both, reports
healthy                   MX   10 mx.healthy
mx.healthy                A    ` + goodHost + `
_mta-sts.healthy          TXT  "v=STSv1; id=1;"
mta-sts.healthy           A    ` + policyHost + `
_smtp._tls.healthy        TXT  "v=TLSRPTv1; rua=mailto:reports@healthy.signed.test"

partial                   MX   10 mx.dane
                          MX   20 plain
plain                     A    ` + goodHost + `

; secure, but without TLSA records: MTA-STS is all there is
stsonly                   MX   10 plain
_mta-sts.stsonly          TXT  "v=STSv1; id=1;"
mta-sts.stsonly           A    ` + policyHost + `

; MX host that is an alias; the TLSA record is at its target (RFC 7672 §2.2.3)
alias                     MX   10 mx.alias
mx.alias                  CNAME mx.dane

xn--bcher-kva             MX   10 mx.dane

rolled                    MX   10 mx.rolled
mx.rolled                 A    ` + rolledHost + `

tampered                  MX   10 mx.tampered
mx.tampered               A    ` + daneHost + `
`

const expiredRecords = `
@                         MX   10 mx
mx                        A    ` + daneHost + `
`

// forgery is what an attacker who controls the path to the insecure zone makes
// of the domain "forged": no policy announced, mail to another host.
func forgery() (genuine, forged string) {
	genuine = `
mx.forged                 A    ` + goodHost + `
_mta-sts.forged           TXT  "v=STSv1; id=1;"
mta-sts.forged            A    ` + policyHost + `
`
	return genuine, "mx.forged A " + mismatchHost + "\n"
}

// enforced is a policy file in enforce mode.
func enforced(domain string, mx ...string) policy {
	text := "version: STSv1\r\nmode: enforce\r\n"
	for _, pattern := range mx {
		text += "mx: " + pattern + "\r\n"
	}
	return policy{domain: domain, text: text + "max_age: 604800\r\n"}
}

func policies() []policy {
	testing := policy{
		domain: "testing.open.test",
		text:   "version: STSv1\nmode: testing\nmx: mx.testing.open.test\nmax_age: 86400\n",
	}
	// RFC 8461 §3.2 lets a policy have fields that nobody knows; none of these
	// may reach Postfix, where they would be attributes.
	hostile := enforced("hostile.open.test", "mx.hostile.open.test")
	hostile.text += "x: } policy_failure=sts-policy-invalid {\n" +
		"y: match=.test policy_type=no-policy-found\n" +
		"mx_host_pattern: *.test\n"
	all := []policy{
		enforced("sts.open.test", "mx.sts.open.test"),
		enforced("wildcard.open.test", "*.wildcard.open.test", "MX2.wildcard.open.test"),
		enforced("deep.open.test", "*.deep.open.test"),
		enforced("unlisted.open.test", "mx.unlisted.open.test"),
		enforced("mismatch.open.test", "mx.mismatch.open.test"),
		enforced("plaintext.open.test", "mx.plaintext.open.test"),
		enforced("wrongcert.open.test", "mx.sts.open.test"),
		enforced("forged.open.test", "mx.forged.open.test"),
		enforced("changing.open.test", "mx.elsewhere.invalid"),
		enforced("halfsts.open.test", "mx.dane.signed.test"),
		enforced("both.signed.test", "mx.dane.signed.test"),
		enforced("stsonly.signed.test", "plain.signed.test"),
		enforced("healthy.signed.test", "mx.healthy.signed.test"),
		testing,
		hostile,
	}
	return append(append(all, rowsPolicies()...), reportedPolicies()...)
}

// goodNames are the MX hosts at goodHost.
func goodNames() []string {
	names := []string{
		"mx.sts.open.test", "mx.wildcard.open.test", "a.b.deep.open.test", "other.unlisted.open.test",
		"mx.hostile.open.test", "mx.forged.open.test", "mx.changing.open.test", "plain.signed.test",
		"mx.healthy.signed.test", "mx.fresh.test",
	}
	return append(append(names, rowsGoodNames()...), reportedGoodNames()...)
}
