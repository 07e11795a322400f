package mtasts

import (
	"fmt"
	"net/netip"
)

// A mail address makes this program fetch a file from wherever the recipient's
// DNS points. Without the check below that could be a service inside the
// operator's network.

// reserved lists what is not globally reachable (IANA special-purpose address
// registries, 6890). The more specific prefix comes first.
func reserved() []struct{ prefix, why string } {
	return []struct{ prefix, why string }{
		{"0.0.0.0/8", "this network (791)"},
		{"10.0.0.0/8", "private (1918)"},
		{"100.64.0.0/10", "shared address space of carrier-grade NAT (6598)"},
		{"127.0.0.0/8", "loopback"},
		{"169.254.0.0/16", "link-local (3927)"},
		{"172.16.0.0/12", "private (1918)"},
		{"192.0.0.0/24", "protocol assignments (6890)"},
		{"192.0.2.0/24", "documentation (5737)"},
		{"192.88.99.0/24", "6to4 relay (7526)"},
		{"192.168.0.0/16", "private (1918)"},
		{"198.18.0.0/15", "benchmarking (2544)"},
		{"198.51.100.0/24", "documentation (5737)"},
		{"203.0.113.0/24", "documentation (5737)"},
		{"224.0.0.0/4", "multicast"},
		{"255.255.255.255/32", "broadcast"},
		{"240.0.0.0/4", "reserved (1112)"},

		{"::/128", "unspecified"},
		{"::1/128", "loopback"},
		{"::/96", "IPv4-compatible (4291)"},
		{"64:ff9b:1::/48", "NAT64 of a local network (8215)"},
		{"100::/64", "discard-only (6666)"},
		{"100:0:0:1::/64", "dummy (9780)"},
		{"2001::/32", "Teredo (4380)"},
		{"2001:db8::/32", "documentation (3849)"},
		{"2001::/23", "protocol assignments (2928)"},
		{"3fff::/20", "documentation (9637)"},
		{"5f00::/16", "segment routing (9602)"},
		{"fc00::/7", "unique local (4193)"},
		{"fe80::/10", "link-local"},
		{"fec0::/10", "site-local (3879)"},
		{"ff00::/8", "multicast"},
	}
}

// NotPublic returns why an address must not be connected to because it is not
// publicly reachable, or "" when it is, or is in one of the allowed networks.
func NotPublic(a netip.Addr, allow []netip.Prefix) string {
	// A socket connected to an IPv4-mapped address speaks IPv4 with the address
	// in it (4291 §2.5.5.2), so that is the one to judge.
	a = a.Unmap().WithZone("")
	for _, p := range allow {
		if p.Contains(a) {
			return ""
		}
	}
	if v4, how := translated(a); how != "" {
		if why := NotPublic(v4, allow); why != "" {
			return fmt.Sprintf("%s form of %s: %s", how, v4, why)
		}
		return ""
	}
	for _, r := range reserved() {
		if netip.MustParsePrefix(r.prefix).Contains(a) {
			return r.why
		}
	}
	// Nothing else outside 2000::/3 has been allocated (4291 §2.4).
	if a.Is6() && a.As16()[0]&0xe0 != 0x20 {
		return "not global unicast"
	}
	return ""
}

// translated returns the IPv4 address that a gateway on the way would connect
// to instead of an IPv6 address.
func translated(a netip.Addr) (v4 netip.Addr, how string) {
	if !a.Is6() {
		return netip.Addr{}, ""
	}
	b := a.As16()
	switch {
	case netip.MustParsePrefix("64:ff9b::/96").Contains(a): // 6052 §2.1; a DNS64 resolver makes these of public ones
		return netip.AddrFrom4([4]byte(b[12:16])), "NAT64"
	case b[0] == 0x20 && b[1] == 0x02: // 2002::/16 (3056 §2)
		return netip.AddrFrom4([4]byte(b[2:6])), "6to4"
	}
	return netip.Addr{}, ""
}
