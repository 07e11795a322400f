package policymap

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// maxKey bounds what is looked at as a next hop, in bytes. A domain has 253
// at most; U-labels, brackets and a service name need some more.
const maxKey = 1024

// NextHop is what a key asks about. The zero value is no next hop.
type NextHop struct {
	Domain  string // policy domain: A-labels, lower case, no final dot; the host itself when Literal
	Literal bool   // "[host]": no MX lookup (postconf(5), relayhost)
	Port    uint16 // 25 unless the key says otherwise
}

// String returns the canonical key: the form without a port stands for port 25.
func (h NextHop) String() string {
	s := h.Domain
	if h.Literal {
		s = "[" + s + "]"
	}
	if h.Port != 25 {
		s += ":" + strconv.Itoa(int(h.Port))
	}
	return s
}

// ParseNextHop reads a key in any of the forms that Postfix uses for a next
// hop. It reports false for keys about which nothing can be known: parent
// domains (".example.com"), addresses, paths, unknown services and names that
// are no host names.
func ParseNextHop(key string) (NextHop, bool) {
	host, port, literal, ok := splitKey(key)
	if !ok {
		return NextHop{}, false
	}
	domain, ok := hostName(host)
	if !ok {
		return NextHop{}, false
	}
	return NextHop{Domain: domain, Literal: literal, Port: port}, true
}

// splitKey takes brackets and port off a key. The host is not checked yet.
func splitKey(key string) (host string, port uint16, literal, ok bool) {
	host, service := hostPart(key)
	if host == "" || key[0] == '.' {
		return "", 0, false, false
	}
	literal = key[0] == '['
	if service == "" {
		return host, 25, literal, true
	}
	port, ok = servicePort(service[1:])
	return host, port, literal, ok
}

// hostPart splits a key before the ":" of its service and takes the brackets
// off the host. The host is empty where the key has another form.
func hostPart(key string) (host, service string) {
	if key == "" || len(key) > maxKey || strings.IndexByte(key, '/') >= 0 {
		return "", ""
	}
	if key[0] != '[' {
		i := strings.IndexByte(key, ':')
		if i < 0 {
			return key, ""
		}
		return key[:i], key[i:]
	}
	end := strings.IndexByte(key, ']')
	if end < 0 {
		return "", ""
	}
	host, service = key[1:end], key[end+1:]
	if service != "" && service[0] != ':' {
		return "", ""
	}
	return host, service
}

// servicePort turns a port number or a service name of /etc/services, which is
// where Postfix looks too, into a port.
func servicePort(service string) (uint16, bool) {
	if service == "" || len(service) > 32 {
		return 0, false
	}
	if service[0] >= '0' && service[0] <= '9' {
		n, err := strconv.ParseUint(service, 10, 16)
		return uint16(n), err == nil && n > 0
	}
	for _, c := range []byte(service) {
		if !isLDH(c) && c != '_' {
			return 0, false // "host:[::1]" and the like
		}
	}
	// The pure Go resolver reads the file and never asks a name service.
	n, err := (&net.Resolver{PreferGo: true}).LookupPort(context.Background(), "tcp", service)
	if err != nil {
		return mailPort(service)
	}
	return uint16(n), n > 0 && n < 1<<16
}

// mailPort knows the services of mail where the system does not: a container
// need not have /etc/services, while Postfix, which is elsewhere, has.
func mailPort(service string) (uint16, bool) {
	switch strings.ToLower(service) {
	case "lmtp":
		return 24, true
	case "smtp":
		return 25, true
	case "smtps", "submissions":
		return 465, true
	case "submission":
		return 587, true
	}
	return 0, false
}

// hostName returns the A-label form of a host name, in lower case and without
// the final dot. Addresses and names that break RFC 1123 §2.1 are refused.
func hostName(s string) (string, bool) {
	s = strings.TrimSuffix(s, ".")
	if !isASCII(s) {
		if !utf8.ValidString(s) {
			return "", false
		}
		// IDNA2008, non-transitional: what a mail user typed as a U-label.
		ascii, err := idna.New(idna.MapForLookup(), idna.BidiRule(), idna.Transitional(false),
			idna.StrictDomainName(true)).ToASCII(s)
		if err != nil {
			return "", false
		}
		s = strings.TrimSuffix(ascii, ".")
	}
	s = strings.ToLower(s)
	if !validHostName(s) {
		return "", false
	}
	return s, true
}

func isASCII(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

func validHostName(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	label := ""
	for label = range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := 0; i < len(label); i++ {
			if !isLDH(label[i]) {
				return false
			}
		}
	}
	// RFC 1123 §2.1, RFC 3696 §2: a name whose last label is a number is an
	// address, or somebody's attempt at one.
	if _, err := strconv.ParseUint(label, 0, 64); err == nil {
		return false
	}
	if strings.Trim(label, "0123456789") == "" {
		return false
	}
	_, err := netip.ParseAddr(s)
	return err != nil
}

func isLDH(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-'
}
