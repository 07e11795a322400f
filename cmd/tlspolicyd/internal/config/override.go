package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"tlspolicyd/internal/hostname"
	"tlspolicyd/internal/printable"
)

// The two words that an override may have instead of a policy.
const (
	OverrideSkip   = "skip"   // always NOTFOUND: exempt a broken domain
	OverrideLookup = "lookup" // exempt a child from its parent's line
)

// maxPolicy bounds a literal policy, in bytes. Postfix reads replies up to
// 100,000, but no line in an operator's file has reason to come near.
const maxPolicy = 4096

const wantOverride = `want "skip", "lookup" or a Postfix policy, e.g. "secure match=.example.com servername=hostname"`

// overrides collects the lines of [override].
type overrides struct {
	policies map[string]string
	written  map[string]string // the key as it is in the file
}

func newOverrides(policies map[string]string) overrides {
	return overrides{policies, make(map[string]string)}
}

func (o overrides) add(key string, v any) error {
	name, err := overrideName(key)
	if err != nil {
		return keyError{err}
	}
	if before, ok := o.written[name]; ok {
		return keyError{fmt.Errorf("the same name as %s: want one line for it", quote(before))}
	}
	policy, ok := v.(string)
	if !ok {
		return fmt.Errorf("%s: %s", show(v), wantOverride)
	}
	if err := checkPolicy(policy); err != nil {
		return err
	}
	o.policies[name] = policy
	o.written[name] = key
	return nil
}

// FileOverride is an override from a file of its own.
type FileOverride struct {
	Policy string // as in Config.Override
	File   string
}

// ReadOverrides reads files that have nothing but a section [override]. The names
// of own are left out; of a name that several files have the first one counts. Each
// file has at most 4 MiB. A mistake in a file is an *Error.
func ReadOverrides(paths []string, own map[string]string) (map[string]FileOverride, error) {
	var all map[string]FileOverride
	for _, path := range paths {
		data, _, err := readFile(path)
		if err != nil {
			return nil, fmt.Errorf("policy.override_file: %w", err)
		}
		f := file{name: path, overrides: newOverrides(make(map[string]string))}
		if err := f.parse(data); err != nil {
			return nil, err
		}
		for name, policy := range f.overrides.policies {
			_, before := all[name]
			if _, mine := own[name]; before || mine {
				continue
			}
			if all == nil {
				all = make(map[string]FileOverride)
			}
			all[name] = FileOverride{policy, path}
		}
	}
	return all, nil
}

// overrideName returns the key in the form in which next hops are held against
// it: A-labels, lower case, no final dot; a leading dot stays.
func overrideName(key string) (string, error) {
	name, child := strings.CutPrefix(key, ".")
	dot := key[:len(key)-len(name)]
	if rest, ok := strings.CutPrefix(name, "*."); ok && !child {
		return "", fmt.Errorf("a wildcard: want %s", quote("."+rest))
	}
	if strings.ContainsAny(name, "[]:/") {
		return "", errors.New("want the domain alone, without brackets, port and path")
	}
	name, err := hostname.Parse(name)
	if err != nil {
		return "", fmt.Errorf("not a valid host name: %w", err)
	}
	return dot + name, nil
}

// checkPolicy holds a literal policy against what Postfix accepts (postconf(5),
// smtp_tls_policy_maps; TLS_README). Postfix defers all mail for a domain
// whose policy it cannot read, so a slip is better found here.
func checkPolicy(policy string) error {
	if policy == OverrideSkip || policy == OverrideLookup {
		return nil
	}
	if len(policy) > maxPolicy {
		return fmt.Errorf("%s: longer than %d bytes: %s", show(policy), maxPolicy, wantOverride)
	}
	if !printable.Is(policy) {
		return fmt.Errorf("%s: want printable ASCII on one line", show(policy))
	}
	words, err := policyWords(policy)
	if err != nil {
		return fmt.Errorf("%s: %w", show(policy), err)
	}
	if len(words) == 0 {
		return fmt.Errorf("%s: %s", show(policy), wantOverride)
	}
	level := strings.ToLower(words[0])
	if !slices.Contains(levels(), level) {
		return fmt.Errorf("%s: not a Postfix security level: want \"skip\", \"lookup\", or one of %s",
			quote(words[0]), strings.Join(levels(), ", "))
	}
	if level == "none" && len(words) > 1 {
		return fmt.Errorf("%s: %q means no TLS at all: want no attribute after it", show(policy), "none")
	}
	seen := make(map[string]bool)
	for _, w := range words[1:] {
		if err := checkAttribute(level, w, seen); err != nil {
			return err
		}
	}
	return nil
}

// policyWords splits a policy as Postfix does: at spaces and commas outside of
// braces. A word in braces keeps its spaces and loses the braces.
func policyWords(policy string) ([]string, error) {
	var words []string
	for {
		policy = strings.TrimLeft(policy, " ,")
		if policy == "" {
			return words, nil
		}
		var word string
		if policy[0] == '{' {
			end := strings.IndexByte(policy, '}')
			if end < 0 || strings.Contains(policy[1:end], "{") {
				return nil, errors.New("braces do not match: want { name = value }")
			}
			word, policy = strings.TrimSpace(policy[1:end]), policy[end+1:]
			if policy != "" && policy[0] != ' ' && policy[0] != ',' {
				return nil, errors.New("text after a closing brace: want a space there")
			}
		} else {
			end := strings.IndexAny(policy+" ", " ,")
			word, policy = policy[:end], policy[end:]
			if strings.ContainsAny(word, "{}") {
				return nil, errors.New("a brace inside a word: want { name = value }")
			}
		}
		words = append(words, word)
	}
}

// checkAttribute checks one name=value of a policy.
func checkAttribute(level, word string, seen map[string]bool) error {
	name, val, ok := strings.Cut(word, "=")
	if !ok {
		return fmt.Errorf("%s: not an attribute: want name=value", quote(word))
	}
	name, val = strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(val)
	a, ok := attribute(name)
	switch {
	case !ok && slices.Contains(tlsrptAttributes(), name):
		return fmt.Errorf("%s: a TLSRPT attribute: want it left out, it belongs to MTA-STS policies only", quote(word))
	case !ok:
		return fmt.Errorf("%s: not an attribute of a Postfix policy: want one of %s", quote(word), attributeNames())
	case a.levels != nil && !slices.Contains(a.levels, level):
		return fmt.Errorf("%s: Postfix refuses it with %s: want it with %s", quote(word), level, strings.Join(a.levels, ", "))
	case val == "" && !a.empty:
		return fmt.Errorf("%s: empty: want a value", quote(word))
	case a.once && seen[name]:
		return fmt.Errorf("%s: given twice: want it once", quote(word))
	case a.values != nil && !slices.Contains(a.values, strings.ToLower(val)):
		return fmt.Errorf("%s: want %s", quote(word), strings.Join(a.values, " or "))
	case name == "servername" && hostname.Check(val) != nil:
		return fmt.Errorf("%s: want a host name, or hostname or nexthop", quote(word))
	}
	seen[name] = true
	return nil
}
