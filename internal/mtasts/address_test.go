package mtasts

import (
	"net/netip"
	"strings"
	"testing"
)

// BEHAVIOUR §3: a message to a hostile domain must not make the daemon open
// connections inside the operator's network.
func TestNotPublic(t *testing.T) {
	for _, tc := range []struct{ addr, why string }{
		{"1.1.1.1", ""},
		{"100.63.255.255", ""},
		{"100.128.0.0", ""},
		{"172.15.255.255", ""},
		{"172.32.0.0", ""},
		{"192.0.1.0", ""},
		{"198.17.255.255", ""},
		{"198.20.0.0", ""},
		{"223.255.255.255", ""},
		{"2606:4700::1111", ""},
		{"2001:200::1", ""},
		{"2a00::1", ""},
		{"3ffe::1", ""},
		{"::ffff:1.1.1.1", ""},      // IPv4 behind an IPv6 socket
		{"64:ff9b::1.1.1.1", ""},    // what DNS64 makes of a public address
		{"2002:0101:0101::1", ""},   // 6to4 of a public address
		{"2620:4f:8000::1", ""},     // AS112, globally reachable
		{"3fff:1000::1", ""},        // behind the documentation block
		{"192.88.98.255", ""},       // beside the 6to4 relays
		{"2001:db7:ffff::1", ""},    // beside the documentation block
		{"2001:db9::1", ""},         // and behind it
		{"203.0.112.255", ""},       // beside a documentation block
		{"198.51.101.0", ""},        // behind one
		{"11.0.0.0", ""},            // behind 10/8
		{"169.253.255.255", ""},     // beside link-local
		{"192.167.255.255", ""},     // beside private
		{"126.255.255.255", ""},     // beside loopback
		{"2001:0200:0:ffff::1", ""}, // behind the protocol assignments
		{"2000::1", ""},             // first of global unicast
		{"3fef:ffff::ffff", ""},     // beside the documentation block
		{"0.0.0.0", "this network"}, // Linux connects to loopback
		{"0.1.2.3", "this network"},
		{"10.0.0.1", "private"},
		{"10.255.255.255", "private"},
		{"100.64.0.1", "shared address space"},
		{"100.127.255.255", "shared address space"},
		{"127.0.0.1", "loopback"},
		{"127.255.255.255", "loopback"},
		{"169.254.169.254", "link-local"},
		{"172.16.0.1", "private"},
		{"172.31.255.255", "private"},
		{"192.0.0.8", "protocol assignments"},
		{"192.0.2.1", "documentation"},
		{"192.88.99.1", "6to4 relay"},
		{"192.168.1.1", "private"},
		{"198.18.0.1", "benchmarking"},
		{"198.19.255.255", "benchmarking"},
		{"198.51.100.1", "documentation"},
		{"203.0.113.1", "documentation"},
		{"224.0.0.1", "multicast"},
		{"239.255.255.255", "multicast"},
		{"240.0.0.1", "reserved"},
		{"255.255.255.255", "broadcast"},

		{"::", "unspecified"},
		{"::1", "loopback"},
		{"::10.0.0.1", "IPv4-compatible"},
		{"::1.1.1.1", "IPv4-compatible"},
		{"::ffff:10.0.0.1", "private"},
		{"::ffff:127.0.0.1", "loopback"},
		{"::ffff:169.254.169.254", "link-local"},
		{"::ffff:0:10.0.0.1", "not global unicast"}, // IPv4-translated (2765)
		{"64:ff9b::10.0.0.1", "NAT64 form of 10.0.0.1: private"},
		{"64:ff9b::127.0.0.1", "NAT64 form of 127.0.0.1: loopback"},
		{"64:ff9b:1::10.0.0.1", "NAT64 of a local network"},
		{"64:ff9b:1:ffff::1", "NAT64 of a local network"},
		{"64:ff9b:2::1", "not global unicast"},
		{"100::1", "discard-only"},
		{"100:0:0:1::1", "dummy"},
		{"2001::1", "Teredo"},
		{"2001:0:4136:e378:8000:63bf:3fff:fdd2", "Teredo"},
		{"2001:2::1", "protocol assignments"},
		{"2001:1ff:ffff::1", "protocol assignments"},
		{"2001:db8::1", "documentation"},
		{"2002:0a00:0001::1", "6to4 form of 10.0.0.1: private"},
		{"2002:7f00:0001::1", "6to4 form of 127.0.0.1: loopback"},
		{"3fff::1", "documentation"},
		{"4000::1", "not global unicast"},
		{"1fff::1", "not global unicast"},
		{"5f00::1", "segment routing"},
		{"fc00::1", "unique local"},
		{"fdff::1", "unique local"},
		{"fe80::1", "link-local"},
		{"fe80::1%eth0", "link-local"},
		{"fec0::1", "site-local"},
		{"ff02::1", "multicast"},
	} {
		got := NotPublic(netip.MustParseAddr(tc.addr), nil)
		if tc.why == "" && got != "" || !strings.HasPrefix(got, tc.why) {
			t.Errorf("%s: %q, want %q", tc.addr, got, tc.why)
		}
	}
}

func TestNotPublicUnlessConfigured(t *testing.T) {
	allow := []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd00::/8"), netip.MustParsePrefix("64:ff9b:1::/96")}
	for addr, allowed := range map[string]bool{
		"10.1.2.3":           true,
		"10.2.2.3":           false,
		"::ffff:10.1.2.3":    true,
		"64:ff9b::10.1.2.3":  true,
		"64:ff9b::10.2.2.3":  false,
		"64:ff9b:1::1.1.1.1": true,
		"fd00::1":            true,
		"fc00::1":            false,
		"127.0.0.1":          false,
	} {
		if why := NotPublic(netip.MustParseAddr(addr), allow); (why == "") != allowed {
			t.Errorf("%s: %q", addr, why)
		}
	}
}
