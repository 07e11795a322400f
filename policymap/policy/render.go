package policy

import (
	"fmt"
	"strings"

	"tlspolicyd/internal/hostname"
	"tlspolicyd/internal/mtasts"
	"tlspolicyd/internal/printable"
)

// This file is the only one that knows Postfix's syntax: socketmap replies
// (socketmap_table(5)) and TLS policies (postconf(5), smtp_tls_policy_maps).

// maxReply is how many bytes of a reply Postfix reads (socketmap_table(5)).
const maxReply = 100000

// MaxReason bounds the reason of a TEMP or PERM in bytes: Postfix copies it into
// the mail log.
const MaxReason = 200

// Replies are the two socketmap payloads for one next hop. They are shared by
// all callers and never changed.
type Replies struct {
	Postfix []byte // map "postfix": every Postfix since 3.4
	TLSRPT  []byte // map "postfix-tlsrpt": Postfix 3.10 and later
}

// Render writes a decision in Postfix's syntax. The policy is needed for Secure
// only, the literal for Override only.
func Render(d Decision, domain string, policy *mtasts.Policy, literal string) Replies {
	switch d.Level {
	case DANEOnly:
		return daneOnly
	case DANE:
		return daneFirst
	case Temporary:
		return both("TEMP " + printable.Line(d.Reason, MaxReason))
	case Override:
		return both("OK " + literal)
	case Secure:
		return renderSecure(domain, policy, d.Hosts)
	}
	return NotFound
}

// NotFound is the reply where nothing is known. Like the other two it is the same
// for all next hops and both maps: most of a million entries share them.
var NotFound, daneOnly, daneFirst = both("NOTFOUND "), both("OK dane-only"), both("OK dane")

func both(s string) Replies {
	b := []byte(s)
	return Replies{b, b}
}

// renderSecure writes an MTA-STS policy (8461 §4, §5), for some of its hosts
// alone where these are given. Postfix 3.10 goes by mx_host_pattern rather than
// by match (postconf(5), smtp_tls_enforce_sts_mx_patterns), so both are cut down.
func renderSecure(domain string, p *mtasts.Policy, hosts []string) Replies {
	patterns := unique(p.MX)
	if hosts != nil {
		patterns = hosts
	}
	if len(patterns) == 0 || !safe(domain) || !allSafe(patterns) || !allSafe(p.Lines) {
		// The parser lets nothing like that through. Should it ever do so: mail
		// that waits is better than a reply that Postfix misreads.
		return both("TEMP MTA-STS policy of " + printable.Line(domain, 100) + " cannot be written as a Postfix policy")
	}
	names := make([]string, 0, len(patterns))
	for _, mx := range patterns {
		if !keyword(mx) {
			names = append(names, strings.TrimPrefix(mx, "*")) // "*.example.net" is ".example.net" to Postfix
		}
	}
	if len(names) == 0 {
		return both("TEMP MTA-STS policy of " + printable.Line(domain, 100) + " names no mail host, only keywords of smtp_tls_secure_cert_match")
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
		// The policy strings serve TLSRPT reports only. One has to stay: Postfix
		// 3.10 crashes on a policy_type without any.
		full = head + policyStrings(p.Lines[:1])
	}
	return Replies{bounded(plain, domain), bounded(full, domain)}
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
			printable.Line(domain, 100), maxReply)
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
		case hostname.IsLetterDigit(c), c == '-', c == '.', c == '*', c == ':', c == ' ', c == '_':
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
