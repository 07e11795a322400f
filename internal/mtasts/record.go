package mtasts

import (
	"context"
	"fmt"

	"github.com/miekg/dns"

	"tlspolicyd/internal/dnsclient"
)

const recordLabel = "_mta-sts." // 8461 §3.1

// RecordResult is the outcome of looking for a domain's MTA-STS record. It is
// one of three: Found, proved absent or invalid (neither Found nor Failed, Err
// says why), or Failed.
type RecordResult struct {
	Record Record // when Found
	Found  bool   // there is exactly one record and it is valid

	// Failed: the lookup gave no answer, so nothing is known. This says nothing
	// about the domain's policy: one that is in force stays so (8461 §5.1).
	Failed bool

	Answer dnsclient.Answer // TTL, AD bit, aliases; zero when Failed
	Texts  [][]byte         // every TXT record at the name, for the operator

	// Err is nil when Found; when Failed it is the resolver's error; else it is
	// ErrNoRecord, ErrManyRecords or a *RecordError.
	Err error
}

// LookupRecord looks for the MTA-STS record of a policy domain, given in
// A-labels without final dot (8461 §3.1).
func LookupRecord(ctx context.Context, r dnsclient.Resolver, domain string) RecordResult {
	name := recordLabel + domain
	if len(name) > maxHostLength { // no such name can exist: an answer, not a failure
		return RecordResult{Err: fmt.Errorf("%w: the name %s would be too long", ErrNoRecord, quote(name))}
	}
	answer, err := r.Lookup(ctx, name, dns.TypeTXT)
	if err != nil {
		return RecordResult{Failed: true, Err: err}
	}
	res := RecordResult{Answer: answer}
	for _, rr := range answer.Records {
		if txt, ok := rr.(*dns.TXT); ok {
			res.Texts = append(res.Texts, dnsclient.TXT(txt))
		}
	}
	res.Record, res.Err = ParseRecord(res.Texts)
	res.Found = res.Err == nil
	return res
}
