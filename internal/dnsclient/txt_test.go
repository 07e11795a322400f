package dnsclient

import (
	"bytes"
	"testing"

	"github.com/miekg/dns"
)

// BEHAVIOUR §3: the strings of one record are joined without a space, byte for
// byte as on the wire.
func TestTXTIsAsOnTheWire(t *testing.T) {
	for want, strs := range map[string][]string{
		"v=STSv1; id=1;": {"v=STSv1; ", "id=1;"},
		"a\x00\xffb\"\\": {`a\000\255b\"\\`},
		`\1x`:            {`\\1x`},
		"12":             {`\1`, `\2`},
		"":               {},
		"a":              {`a\`},
	} {
		if got := TXT(&dns.TXT{Txt: strs}); string(got) != want {
			t.Errorf("%q: got %q want %q", strs, got, want)
		}
	}
}

// FuzzTXT sends bytes through a message, as a resolver would.
func FuzzTXT(f *testing.F) {
	f.Add([]byte("v=STSv1; id=1;"), 3)
	f.Add([]byte{0, '\\', '"', 255, '1', '2', '3', '\\', '0', '6', '5'}, 2)
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		if len(b) > 1000 || cut < 1 || cut > 255 {
			return
		}
		// RDATA by hand, so that only the way back is under test.
		var rdata []byte
		for rest := b; ; {
			n := min(cut, len(rest))
			rdata = append(append(rdata, byte(n)), rest[:n]...)
			if rest = rest[n:]; len(rest) == 0 {
				break
			}
		}
		h := dns.RR_Header{Name: ".", Rrtype: dns.TypeTXT, Class: dns.ClassINET, Rdlength: uint16(len(rdata))}
		rr, _, err := dns.UnpackRRWithHeader(h, rdata, 0)
		if err != nil {
			t.Fatal(err)
		}
		if got := TXT(rr.(*dns.TXT)); !bytes.Equal(got, b) {
			t.Errorf("got %q want %q", got, b)
		}
	})
}
