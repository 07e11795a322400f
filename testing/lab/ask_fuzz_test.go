package lab

import (
	"testing"

	"github.com/miekg/dns"
)

// Whatever reaches the resolver's socket, it answers or stays silent.
func FuzzAsk(f *testing.F) {
	w := New()
	f.Cleanup(w.Close)
	w.Zone("a.test. A 192.0.2.1\nalias.test. CNAME a.test.\n*.wild.test. MX 10 a.test.")
	for _, name := range []string{"a.test.", "alias.test.", "x.wild.test.", ".", `\000.c1.endless.invalid.`} {
		b, err := new(dns.Msg).SetQuestion(name, dns.TypeA).SetEdns0(1232, true).Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, m := range w.ask(raw, resolver{udp: true}).messages {
			if err := new(dns.Msg).Unpack(m); err != nil {
				t.Errorf("answer %x: %v", m, err)
			}
		}
	})
}
