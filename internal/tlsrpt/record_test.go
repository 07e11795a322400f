package tlsrpt

import (
	"strings"
	"testing"

	"tlspolicyd/internal/mtasts"
	"tlspolicyd/testing/lab"
)

// Postfix's rule (smtp_tlsrpt.c, dns_lookup.c); TestEndToEnd/FailedFetches holds it
// against Postfix itself.
func TestLookupRecord(t *testing.T) {
	for _, tc := range []struct {
		name, domain, want string
		fails              bool
	}{
		{"one", "one.test", "v=TLSRPTv1; rua=mailto:a@one.test", false},
		{"several strings are joined without a blank", "split.test", "v=TLSRPTv1;rua=mailto:a@split.test", false},
		{"what is not printable becomes a blank", "bytes.test", "v=TLSRPTv1 ; rua=mailto:  @bytes.test  ", false},
		{"another record beside it", "beside.test", "v=TLSRPTv1;rua=mailto:a@beside.test", false},
		{"nothing that Postfix does not look at is checked", "odd.test", "v=TLSRPTv1;!", false},
		{"alias", "alias.test", "v=TLSRPTv1; rua=mailto:a@one.test", false},
		{"two", "two.test", "", false},
		{"another version", "version.test", "", false},
		{"letter case of the version", "case.test", "", false},
		{"no record", "nodata.test", "", false},
		{"no such name", "absent.test", "", false},
		{"a name that cannot exist", strings.Repeat("a.", 121) + "test", "", false},
		{"lookup fails", "broken.test", "", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *lab.World, f *mtasts.Fetcher) {
				w.Zone(`
					_smtp._tls.one.test. TXT "v=TLSRPTv1; rua=mailto:a@one.test"
					_smtp._tls.split.test. TXT "v=TLSRP" "Tv1;rua=mail" "to:a@split.test"
					_smtp._tls.bytes.test. TXT "v=TLSRPTv1\009; rua=mailto:\195\188@bytes.test\000\127"
					_smtp._tls.beside.test. TXT "v=spf1 -all"
					_smtp._tls.beside.test. TXT "v=TLSRPTv1;rua=mailto:a@beside.test"
					_smtp._tls.odd.test. TXT "v=TLSRPTv1;!"
					_smtp._tls.alias.test. CNAME _smtp._tls.one.test.
					_smtp._tls.two.test. TXT "v=TLSRPTv1; rua=mailto:a@two.test"
					_smtp._tls.two.test. TXT "v=TLSRPTv1; rua=mailto:b@two.test"
					_smtp._tls.version.test. TXT "v=TLSRPTv10; rua=mailto:a@two.test"
					_smtp._tls.case.test. TXT "V=TLSRPTv1; rua=mailto:a@two.test"
					_smtp._tls.nodata.test. A 192.0.2.1
				`)
				w.Fault("_smtp._tls.broken.test", "TXT", lab.ServFail)
				got, err := LookupRecord(t.Context(), f.Resolver, tc.domain)
				if got != tc.want || (err != nil) != tc.fails {
					t.Errorf("%q, %v; want %q", got, err, tc.want)
				}
			})
		})
	}
}
