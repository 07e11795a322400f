package policy

import (
	"context"
	"net"
	"strconv"
	"strings"

	"tlspolicyd/internal/hostname"
)

// maxKey bounds what is looked at as a next hop, in bytes. A domain has 253
// at most; U-labels, brackets and a service name need some more.
const maxKey = 1024

// NextHop is what a key asks about. The zero value is not a next hop.
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
// hop. It returns false for keys about which nothing can be known: parent
// domains (".example.com"), addresses, paths, unknown services and names that
// are not host names.
func ParseNextHop(key string) (NextHop, bool) {
	host, port, literal, ok := splitKey(key)
	if !ok {
		return NextHop{}, false
	}
	domain, err := hostname.Parse(host)
	if err != nil {
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
		if !hostname.IsLetterDigit(c) && c != '-' && c != '_' {
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

// mailPort knows the mail services where the system does not: a container may
// lack /etc/services while Postfix, outside of it, has the file.
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

// WhyNotLookedUp says, for the operator, why nothing is looked up for a key that
// ParseNextHop does not accept.
func WhyNotLookedUp(key string) string {
	host, _ := hostPart(key)
	_, err := hostname.Parse(host)
	switch {
	case key != "" && key[0] == '.':
		return "a parent domain: a parent's policy never covers a child (RFC 8461 §3.4)"
	case host == "":
		return "not a next hop: a path, an empty key or unbalanced brackets"
	case err == nil:
		return "the service name is unknown on this host"
	}
	return "an address, or not a valid host name"
}
