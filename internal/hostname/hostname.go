// Package hostname is the one rule for what a host name is. Next hops, the
// names of overrides, the patterns of policy files and the server names of TLS
// policies all follow it.
package hostname

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// The limits of a host name as text (RFC 1035 §2.3.4, RFC 1123 §2.1).
const (
	maxName  = 253
	maxLabel = 63
)

// ErrAddress: the name is an address, or some programs read it as one.
var ErrAddress = errors.New("want a host name, not an address")

// Parse returns a host name in its canonical form: A-labels, lower case, no
// final dot. U-labels are converted by IDNA2008, non-transitional.
func Parse(s string) (string, error) {
	s = strings.TrimSuffix(s, ".")
	if strings.ContainsFunc(s, func(r rune) bool { return r >= utf8.RuneSelf }) {
		if !utf8.ValidString(s) {
			return "", errors.New("not UTF-8")
		}
		ascii, err := idna.New(idna.MapForLookup(), idna.BidiRule(), idna.Transitional(false),
			idna.StrictDomainName(true)).ToASCII(s)
		if err != nil {
			return "", errors.New("not a valid international domain name")
		}
		s = strings.TrimSuffix(ascii, ".")
	}
	if err := Check(s); err != nil {
		return "", err
	}
	return strings.ToLower(s), nil
}

// Check returns why a name is not a host name, in words that can follow the
// name, or nil. It must be in A-labels and without a final dot; letter case does
// not matter. Underscores are allowed, as Postfix allows them. An address is not
// a host name (ErrAddress), nor is a name with a number as its last label: no top-level
// domain is numeric (RFC 3696 §2), and some programs read it as an address.
func Check(name string) error {
	switch {
	case name == "":
		return errors.New("want a host name")
	case len(name) > maxName:
		return fmt.Errorf("host name has %d characters: want 253 at most", len(name))
	case strings.HasSuffix(name, "."):
		return errors.New("want a host name without final dot")
	}
	if _, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil {
		return ErrAddress
	}
	var label string
	for label = range strings.SplitSeq(name, ".") {
		if err := checkLabel(label); err != nil {
			return err
		}
	}
	if numeric(label) {
		return fmt.Errorf("%w: the last label is a number", ErrAddress)
	}
	return nil
}

func checkLabel(label string) error {
	switch {
	case label == "":
		return errors.New("empty label")
	case len(label) > maxLabel:
		return fmt.Errorf("label has %d characters: want 63 at most", len(label))
	}
	for _, c := range []byte(label) {
		switch {
		case c >= utf8.RuneSelf:
			return errors.New("want A-labels (xn--) in place of non-ASCII characters")
		case !IsLetterDigit(c) && c != '-' && c != '_':
			return fmt.Errorf("%q is not allowed in a host name", c)
		}
	}
	if label[0] == '-' || label[len(label)-1] == '-' {
		return errors.New("label begins or ends with a hyphen")
	}
	return nil
}

// numeric reports whether inet_aton(3) would read a label as a number: decimal,
// octal or hexadecimal.
func numeric(label string) bool {
	if strings.Trim(label, "0123456789") == "" {
		return true
	}
	hex, ok := strings.CutPrefix(strings.ToLower(label), "0x")
	return ok && strings.Trim(hex, "0123456789abcdef") == ""
}

// IsLetterDigit reports whether c is an ASCII letter or digit.
func IsLetterDigit(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}
