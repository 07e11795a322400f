package load

import (
	"context"
	"fmt"
	"time"

	"tlspolicyd/internal/dane"
	"tlspolicyd/store"
)

// Kind is what is known of a domain in a cache of the usual mixture.
type Kind uint8

const (
	Negative Kind = iota // neither DANE nor MTA-STS: one half
	DANE                 // every host has TLSA records: a quarter
	STS                  // an MTA-STS policy in enforce mode: a quarter
)

// KindOf is the kind of domain i of the mixture.
func KindOf(i int) Kind { return [...]Kind{Negative, STS, Negative, DANE}[i%4] }

// Domain is the name of domain i, of the usual length. Neighbours are far apart
// in order of name, as domains are that are learned one after the other.
func Domain(i int) string {
	return fmt.Sprintf("d%08x.%s.test", uint32(i)*2654435761, [...]string{"none", "dane", "sts"}[KindOf(i)])
}

// Want is the payload of the right reply about domain i from the map "postfix".
func Want(i int) string {
	switch KindOf(i) {
	case DANE:
		return "OK dane-only"
	case STS:
		return "OK secure match=mx1." + Domain(i) + ":mx2." + Domain(i) + " servername=hostname"
	}
	return "NOTFOUND "
}

// Record is what a daemon knows at a time of domain i, up to a million. It was
// looked up shortly before, with the longest TTLs, so that nothing has to be
// looked up again for a day; refreshes are due all over that day.
func Record(i int, at time.Time) store.Record {
	const ttl = 24 * time.Hour
	domain := Domain(i)
	known := at.Add(-time.Minute)
	rec := store.Record{
		Domain: domain, LastUsed: at.Add(time.Duration(i-2_000_000) * 20 * time.Millisecond), Due: due(i, at),
		STS: &store.STS{CheckedAt: known, TXTTTL: ttl, TXTError: "no TXT record with v=STSv1"},
		DANE: []store.DANE{{
			Port: 25, MX: uint8(dane.MXInsecure), KnownAt: known, ExpiresAt: known.Add(ttl),
			Hosts: hosts(domain, dane.Insecure, known),
		}},
	}
	switch KindOf(i) {
	case DANE:
		rec.Class = store.Positive
		rec.DANE[0].MX, rec.DANE[0].Hosts = uint8(dane.MXSecure), hosts(domain, dane.Usable, known)
	case STS:
		rec.Class = store.Positive
		rec.STS = &store.STS{
			Policy:   fmt.Appendf(nil, "version: STSv1\r\nmode: enforce\r\nmx: mx1.%[1]s\r\nmx: mx2.%[1]s\r\nmax_age: 604800\r\n", domain),
			PolicyID: "20261124T120000", FetchedAt: known,
			TXTID: "20261124T120000", CheckedAt: known, TXTTTL: ttl,
		}
	}
	return rec
}

// hosts is the evidence about two mail hosts.
func hosts(domain string, v dane.Verdict, known time.Time) []store.Host {
	return []store.Host{
		{Name: "mx1." + domain, Preference: 10, Verdict: uint8(v), KnownAt: known},
		{Name: "mx2." + domain, Preference: 20, Verdict: uint8(v), KnownAt: known},
	}
}

// due is when domain i is refreshed next: one after the other, the jitter of the
// refresher apart.
func due(i int, at time.Time) time.Time {
	jitter := time.Duration(uint32(i)*2654435761>>16) % 7200 * time.Second
	return at.Add(time.Hour + time.Duration(i)*75*time.Millisecond + jitter)
}

// Fill puts domains 0 to n-1 into a store, as many at a time as an import does.
func Fill(ctx context.Context, s store.Store, n int, at time.Time) error {
	recs := make([]store.Record, 0, 4000)
	for i := range n {
		recs = append(recs, Record(i, at))
		if len(recs) < cap(recs) && i < n-1 {
			continue
		}
		if err := s.Put(ctx, recs...); err != nil {
			return err
		}
		recs = recs[:0]
	}
	return nil
}

// Keys are the domains of these numbers.
func Keys(numbers []int) []string {
	keys := make([]string, len(numbers))
	for i, n := range numbers {
		keys[i] = Domain(n)
	}
	return keys
}
