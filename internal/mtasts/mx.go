package mtasts

import (
	"fmt"
	"net/netip"
	"strings"
)

// The limits of a host name as text (1035 §2.3.4, 1123 §2.1).
const (
	maxHostLength  = 253
	maxLabelLength = 63
)

// MatchMX reports whether a host name matches one mx pattern of a policy
// (8461 §4.1). A wildcard stands for exactly one left-most label. Letter case
// and a final dot of the host do not matter.
func MatchMX(pattern, host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	pattern = strings.ToLower(pattern)
	parent, wildcard := strings.CutPrefix(pattern, "*.")
	if !wildcard {
		return host != "" && host == pattern
	}
	label, rest, ok := strings.Cut(host, ".")
	return ok && label != "" && rest != "" && rest == parent
}

// parsePattern reads sts-policy-mx-value, ["*."] Domain, and returns it in
// lower case. By the grammar "*.com" is a pattern like any other.
func parsePattern(value string) (pattern, reason string) {
	if value == "" {
		return "", "mx has no value"
	}
	if fault := hostFault(strings.TrimPrefix(value, "*.")); fault != "" {
		return "", fmt.Sprintf("mx %s: %s", quote(value), fault)
	}
	return strings.ToLower(value), ""
}

// hostFault says why a name is not a Domain of 5321 §4.1.2: letters, digits
// and hyphens (so neither a wildcard nor an underscore), no final dot. It
// returns "" for a valid one. A name with a numeric last label is refused as
// an address: no top-level domain is numeric (3696 §2), and "1.2.3" is an
// address to some programs.
func hostFault(name string) string {
	switch {
	case name == "":
		return "want a host name"
	case len(name) > maxHostLength:
		return fmt.Sprintf("host name has %d characters: want 253 at most", len(name))
	case strings.HasSuffix(name, "."):
		return "want a host name without final dot"
	}
	if _, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil {
		return "want a host name, not an address"
	}
	var label string
	for rest, more := name, true; more; {
		label, rest, more = strings.Cut(rest, ".")
		if fault := labelFault(label); fault != "" {
			return fault
		}
	}
	if strings.Trim(label, "0123456789") == "" {
		return "want a host name, not an address: the last label is a number"
	}
	return ""
}

// labelFault says why a label is not a sub-domain of 5321 §4.1.2, Let-dig [Ldh-str].
func labelFault(label string) string {
	switch {
	case label == "":
		return "empty label"
	case len(label) > maxLabelLength:
		return fmt.Sprintf("label has %d characters: want 63 at most", len(label))
	}
	for _, c := range []byte(label) {
		switch {
		case c >= 0x80: // a policy file writes A-labels (8461 §3.2)
			return "want A-labels (xn--) in place of non-ASCII characters"
		case !alphanumeric(c) && c != '-':
			return fmt.Sprintf("%q has no place in a host name", c)
		}
	}
	if label[0] == '-' || label[len(label)-1] == '-' {
		return "label begins or ends with a hyphen"
	}
	return ""
}
