package mtasts

import (
	"errors"
	"fmt"
	"strings"

	"tlspolicyd/internal/hostname"
)

const maxHostLength = 253 // of a host name as text (1035 §2.3.4)

// MatchMX reports whether a host name matches one mx pattern of a policy
// (8461 §4.1). A wildcard is exactly one left-most label. Letter case
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

// parsePattern reads sts-policy-mx-value, ["*."] Domain, and returns it in lower
// case. By the grammar "*.com" is a pattern like any other. A final dot, which
// the grammar does not allow, is dropped.
//
// A name that is an address is valid by the grammar (Domain is letters, digits
// and hyphens, 5321 §4.1.2), but no host has such a name. It is not a pattern, and
// the reason wraps hostname.ErrAddress.
func parsePattern(value string) (string, error) {
	if value == "" {
		return "", errors.New("mx has no value")
	}
	wildcard := strings.HasPrefix(value, "*.")
	name := strings.ToLower(strings.TrimSuffix(strings.TrimPrefix(value, "*."), "."))
	err := hostname.Check(name)
	switch {
	case strings.Contains(name, "_"):
		err = errors.New("'_' is not allowed in a host name")
	case errors.Is(err, hostname.ErrAddress) && strings.ContainsAny(name, "[:]"): // not by the grammar
		err = errors.New(err.Error())
	}
	if err != nil {
		return "", fmt.Errorf("mx %s: %w", quote(value), err)
	}
	if wildcard {
		name = "*." + name
	}
	return name, nil
}
