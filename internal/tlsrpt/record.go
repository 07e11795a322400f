package tlsrpt

import (
	"bytes"
	"context"
	"strings"

	"github.com/miekg/dns"

	"tlspolicyd/internal/dnsclient"
)

// LookupRecord returns the TLSRPT record of a domain, given in A-labels; "" where
// it has none (8460 §3). It has Postfix's form and is chosen by Postfix's rule: the
// collector makes one report for each different record.
func LookupRecord(ctx context.Context, r dnsclient.Resolver, domain string) (string, error) {
	name := "_smtp._tls." + domain
	if !dnsclient.Askable(name) {
		return "", nil
	}
	answer, err := r.Lookup(ctx, name, dns.TypeTXT)
	if err != nil {
		return "", err
	}
	found := ""
	for _, rr := range answer.Records {
		txt, ok := rr.(*dns.TXT)
		if !ok {
			continue
		}
		record := printableASCII(dnsclient.TXT(txt))
		rest, ok := strings.CutPrefix(record, "v=TLSRPTv1")
		if !ok || !strings.HasPrefix(strings.TrimLeft(rest, " "), ";") {
			continue
		}
		if found != "" { // with two of them there is none
			return "", nil
		}
		found = record
	}
	return found, nil
}

// printableASCII puts a blank in the place of each byte that is not printable, as
// Postfix does with TXT records before it reads them (dns_lookup.c).
func printableASCII(text []byte) string {
	out := bytes.Clone(text)
	for i, c := range out {
		if c < ' ' || c > '~' {
			out[i] = ' '
		}
	}
	return string(out)
}
