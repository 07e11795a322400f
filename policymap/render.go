package policymap

import (
	"fmt"
	"strings"

	"tlspolicyd/internal/mtasts"
)

// This file is the only one that knows Postfix's syntax: socketmap replies
// (socketmap_table(5)) and TLS policies (postconf(5), smtp_tls_policy_maps).

// maxReply is how many bytes of a reply Postfix reads (socketmap_table(5)).
const maxReply = 100000

// maxReason bounds the reason of a TEMP or PERM: Postfix copies it into the
// mail log.
const maxReason = 200

// replies are the two payloads for one next hop. They are shared by all
// callers and never changed.
type replies struct {
	postfix []byte // map "postfix": every Postfix since 3.4
	tlsrpt  []byte // map "postfix-tlsrpt": Postfix 3.10 and later
}

func (r replies) of(m mapKind) []byte {
	if m == mapTLSRPT {
		return r.tlsrpt
	}
	return r.postfix
}

// render writes a decision in Postfix's words. The policy is needed for
// Secure only, the literal for Override only.
func render(d Decision, domain string, policy *mtasts.Policy, literal string) replies {
	switch d.Level {
	case DANEOnly:
		return daneOnly
	case DANE:
		return daneFirst
	case Temporary:
		return both("TEMP " + printable(d.Reason, maxReason))
	case Override:
		return both("OK " + literal)
	case Secure:
		return renderSecure(domain, policy)
	}
	return notFound
}

// Replies that are the same for all next hops, and for both maps: of a million
// entries most share them.
var notFound, daneOnly, daneFirst = both("NOTFOUND "), both("OK dane-only"), both("OK dane")

func both(s string) replies {
	b := []byte(s)
	return replies{b, b}
}

// renderSecure writes an MTA-STS policy (8461 §4, §5).
func renderSecure(domain string, p *mtasts.Policy) replies {
	patterns := unique(p.MX)
	if len(patterns) == 0 || !safe(domain) || !allSafe(patterns) || !allSafe(p.Lines) {
		// The parser lets nothing like that through. Should it ever: better mail
		// that waits than a reply that Postfix misreads.
		return both("TEMP MTA-STS policy of " + printable(domain, 100) + " cannot be told to Postfix")
	}
	names := make([]string, 0, len(patterns))
	for _, mx := range patterns {
		if !keyword(mx) {
			names = append(names, strings.TrimPrefix(mx, "*")) // "*.example.net" is ".example.net" to Postfix
		}
	}
	if len(names) == 0 {
		return both("TEMP MTA-STS policy of " + printable(domain, 100) + " names no mail host, only words that mean something else to Postfix")
	}
	plain := "OK secure match=" + strings.Join(names, ":") + " servername=hostname"

	var rpt strings.Builder
	rpt.WriteString(plain)
	rpt.WriteString(" policy_type=sts policy_domain=")
	rpt.WriteString(domain)
	for _, mx := range patterns {
		rpt.WriteString(" mx_host_pattern=")
		rpt.WriteString(mx)
	}
	head := rpt.String()
	full := head + policyStrings(p.Lines)
	if len(full) > maxReply {
		// The policy strings only tell the report reader more. One has to stay:
		// Postfix 3.10 does not survive a policy_type without any.
		full = head + policyStrings(p.Lines[:1])
	}
	return replies{bounded(plain, domain), bounded(full, domain)}
}

// keyword reports whether a pattern would not be a name in match=, but stand
// for the next hop or for any host (postconf(5), smtp_tls_secure_cert_match).
func keyword(pattern string) bool {
	return pattern == "hostname" || pattern == "nexthop" || pattern == "dot-nexthop"
}

func policyStrings(lines []string) string {
	var b strings.Builder
	for _, line := range lines {
		b.WriteString(" { policy_string = ")
		b.WriteString(line)
		b.WriteString(" }")
	}
	return b.String()
}

func bounded(reply, domain string) []byte {
	if len(reply) > maxReply {
		return fmt.Appendf(nil, "TEMP MTA-STS policy of %s has too many mx patterns for a socketmap reply of %d bytes",
			printable(domain, 100), maxReply)
	}
	return []byte(reply)
}

func unique(patterns []string) []string {
	seen := make(map[string]bool, len(patterns))
	out := make([]string, 0, len(patterns))
	for _, p := range patterns {
		if !seen[p] {
			seen[p] = true
			out = append(out, p)
		}
	}
	return out
}

// safe reports whether text from a policy can stand in a reply: letters,
// digits and what host names, patterns and policy lines are written with. No
// brace, comma, quote or control byte, which would end or add an attribute.
func safe(s string) bool {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case isLDH(c), c == '.', c == '*', c == ':', c == ' ', c == '_':
		default:
			return false
		}
	}
	return s != ""
}

func allSafe(list []string) bool {
	for _, s := range list {
		if !safe(s) {
			return false
		}
	}
	return len(list) > 0
}

// printable makes one line of printable ASCII of at most n bytes.
func printable(s string, n int) string {
	b := make([]byte, 0, min(len(s), n))
	for i := 0; i < len(s) && len(b) < n; i++ {
		c := s[i]
		if c < ' ' || c > '~' {
			c = '?'
		}
		b = append(b, c)
	}
	return string(b)
}
