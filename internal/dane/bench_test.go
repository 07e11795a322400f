package dane

import (
	"net/netip"
	"testing"

	"tlspolicyd/internal/dnsclient"
	"tlspolicyd/testing/lab"
)

// A domain with one mail host, looked up over real sockets on loopback: MX, A,
// AAAA and TLSA. The lab's part in it is about a third.
func BenchmarkLookup(b *testing.B) {
	w := lab.New()
	defer w.Close()
	w.Zone("example.test. MX 10 mx.test.\nmx.test. A 192.0.2.1\n" +
		"_25._tcp.mx.test. TLSA 3 1 1 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef")
	addr, err := w.ListenDNS("127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	r, err := dnsclient.New(dnsclient.Config{Servers: []netip.AddrPort{addr}})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if res := Lookup(b.Context(), r, Target{Domain: "example.test", Port: 25}); res.State != Full {
			b.Fatal(res.State, res.Err)
		}
	}
}
