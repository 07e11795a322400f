package postfix

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Policy is a TLS policy as Postfix understands it.
type Policy struct {
	Level      string // lower case
	Match      []string
	Servername string
	Protocols  string
	Ciphers    string
	Exclude    string
	TAFiles    []string

	// For TLSRPT, since Postfix 3.10 (TLSRPT_README).
	Type       string
	Domain     string
	Strings    []string
	MXPatterns []string
	Failure    string
}

// ParsePolicy reads a policy as Postfix 3.10 and later do.
func ParsePolicy(value string) (Policy, error) { return parse(value, true) }

// ParseOldPolicy reads a policy as Postfix 3.4 to 3.9 do: neither braces nor
// the attributes for TLSRPT mean anything there.
func ParseOldPolicy(value string) (Policy, error) { return parse(value, false) }

func parse(value string, since310 bool) (Policy, error) {
	words := split(value, since310)
	if len(words) == 0 {
		return Policy{}, errors.New("empty policy")
	}
	p := Policy{Level: strings.ToLower(words[0])}
	levels := []string{"none", "may", "encrypt", "dane", "dane-only", "fingerprint", "verify", "secure"}
	if !slices.Contains(levels, p.Level) {
		return Policy{}, fmt.Errorf("level %q", words[0])
	}
	if p.Level == "none" {
		return p, nil // attributes are ignored, with a warning
	}
	seen := map[string]bool{}
	for _, word := range words[1:] {
		name, val, err := attribute(word, since310)
		if err != nil {
			return Policy{}, err
		}
		if err := p.set(name, val, seen[name], since310); err != nil {
			return Policy{}, fmt.Errorf("%s=%s: %w", name, val, err)
		}
		seen[name] = true
	}
	if p.Type == "" && (p.Domain != "" || p.Strings != nil || p.MXPatterns != nil || p.Failure != "") {
		return Policy{}, errors.New("attributes for TLSRPT without policy_type")
	}
	return p, nil
}

// split cuts a policy into words at white space and commas. Where braces count,
// what stands between a pair of them is not cut.
func split(value string, braces bool) []string {
	var words []string
	var word strings.Builder
	depth := 0
	for _, c := range []byte(value) {
		switch {
		case depth == 0 && strings.IndexByte(", \t\r\n", c) >= 0:
			if word.Len() > 0 {
				words = append(words, word.String())
				word.Reset()
			}
			continue
		case braces && c == '{':
			depth++
		case braces && c == '}' && depth > 0:
			depth--
		}
		word.WriteByte(c)
	}
	if word.Len() > 0 {
		words = append(words, word.String())
	}
	return words
}

// attribute reads "name=value" or, where braces count, "{ name = value }".
func attribute(word string, braces bool) (name, value string, err error) {
	if braces && word[0] == '{' {
		// The brace that ends the word must be the one that matches its first.
		depth := 0
		for i, c := range []byte(word) {
			switch c {
			case '{':
				depth++
			case '}':
				depth--
			}
			if depth == 0 {
				if i != len(word)-1 {
					return "", "", fmt.Errorf("text behind the closing brace of %q", word)
				}
				break
			}
		}
		if depth != 0 {
			return "", "", fmt.Errorf("no closing brace in %q", word)
		}
		word = word[1 : len(word)-1]
	}
	name, value, ok := strings.Cut(word, "=")
	name, value = strings.Trim(name, " \t\r\n"), strings.Trim(value, " \t\r\n")
	if !ok || name == "" || strings.ContainsAny(name, " \t\r\n") {
		return "", "", fmt.Errorf("%q is no name=value", word)
	}
	return strings.ToLower(name), value, nil
}

var (
	errTwice = errors.New("given twice")
	errEmpty = errors.New("empty")
	errLevel = errors.New("not at this level")
	errName  = errors.New("no host name")
)

// set takes one attribute.
func (p *Policy) set(name, val string, twice, since310 bool) error {
	named := p.Level == "verify" || p.Level == "secure" // levels that hold names against a certificate
	once := func(field *string) error {
		if twice {
			return errTwice
		}
		*field = val
		return nil
	}
	switch name {
	case "match":
		separator := ":"
		switch {
		case val == "":
			return errEmpty
		case p.Level == "fingerprint":
			separator = "|"
		case !named:
			return errLevel
		}
		p.Match = append(p.Match, nonEmpty(strings.Split(val, separator))...)
		return nil
	case "servername":
		if !validHostname(val) {
			return errName
		}
		return once(&p.Servername)
	case "protocols":
		return once(&p.Protocols)
	case "exclude":
		return once(&p.Exclude)
	case "ciphers":
		if val == "" {
			return errEmpty
		}
		return once(&p.Ciphers)
	case "tafile":
		if !named {
			return errLevel
		}
		if val == "" {
			return errEmpty
		}
		p.TAFiles = append(p.TAFiles, val)
		return nil
	case "connection_reuse", "enable_rpk":
		if v := strings.ToLower(val); v != "yes" && v != "no" {
			return errors.New("want yes or no")
		}
		return nil
	}
	if !since310 {
		return errors.New("no attribute")
	}
	return p.setReport(name, val, once)
}

// setReport takes one of the attributes that only TLSRPT and, for
// mx_host_pattern, smtp_tls_enforce_sts_mx_patterns make use of.
func (p *Policy) setReport(name, val string, once func(*string) error) error {
	switch name {
	case "policy_type":
		if val != "sts" && val != "no-policy-found" && val != "no-sts-policy-found" && val != "tlsa" {
			return errors.New("no type of a policy")
		}
		return once(&p.Type)
	case "policy_domain":
		if !validHostname(val) {
			return errName
		}
		return once(&p.Domain)
	case "policy_failure":
		return once(&p.Failure)
	case "policy_string":
		p.Strings = append(p.Strings, val)
		return nil
	case "mx_host_pattern":
		p.MXPatterns = append(p.MXPatterns, val)
		return nil
	}
	return errors.New("no attribute")
}

func nonEmpty(list []string) []string {
	return slices.DeleteFunc(list, func(s string) bool { return s == "" })
}

// validHostname is what Postfix takes for a host name: labels of letters,
// digits, hyphens and underscores, and not all of it a number.
func validHostname(name string) bool {
	if name == "" || len(name) > 255 {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(strings.ToLower(label)) {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return false
			}
		}
	}
	return strings.Trim(name, "0123456789.") != ""
}

// Accepts reports whether Postfix delivers to an MX host of a next hop that
// shows a valid certificate for its own name. The error says that the level
// does not ask for a name.
func (p Policy) Accepts(nexthop, host string) (bool, error) {
	if p.Level != "verify" && p.Level != "secure" {
		return false, fmt.Errorf("level %s matches no names", p.Level)
	}
	nexthop, host = strings.ToLower(nexthop), strings.ToLower(host)
	named := slices.ContainsFunc(p.Match, func(pattern string) bool {
		// postconf(5), smtp_tls_secure_cert_match.
		switch pattern = strings.ToLower(pattern); {
		case pattern == "hostname":
			return true
		case pattern == "nexthop":
			return host == nexthop
		case pattern == "dot-nexthop":
			return strings.HasSuffix(host, "."+nexthop)
		case pattern[0] == '.':
			return len(host) > len(pattern) && strings.HasSuffix(host, pattern)
		}
		return host == pattern
	})
	if !named || p.Type != "sts" || len(p.MXPatterns) == 0 {
		return named, nil
	}
	// smtp_tls_enforce_sts_mx_patterns: the host's own name is held against the
	// patterns, where a wildcard is one label (RFC 8461 §4.1).
	return slices.ContainsFunc(p.MXPatterns, func(pattern string) bool {
		pattern = strings.ToLower(pattern)
		if parent, ok := strings.CutPrefix(pattern, "*."); ok {
			_, rest, ok := strings.Cut(host, ".")
			return ok && rest == parent
		}
		return host == pattern
	}), nil
}
