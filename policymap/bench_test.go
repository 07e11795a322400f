package policymap

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"tlspolicyd/internal/dnsclient"
	"tlspolicyd/internal/mtasts"
	"tlspolicyd/store"
	"tlspolicyd/store/bolt"
	"tlspolicyd/testing/lab"
	"tlspolicyd/testing/load"
)

// benchHost is a map on a real bbolt file by the real clock; only the network
// is in memory.
func benchHost(b *testing.B) (*lab.World, *Map, store.Store) {
	b.Helper()
	w := lab.New()
	db, err := bolt.Open(filepath.Join(b.TempDir(), "policies.db"), bolt.Options{})
	if err != nil {
		b.Fatal(err)
	}
	resolver, err := dnsclient.New(dnsclient.Config{Servers: []netip.AddrPort{w.DNSAddr()}, Dial: w.Dial})
	if err != nil {
		b.Fatal(err)
	}
	m := New(Options{Store: db, Config: Config{Resolver: resolver, Fetcher: &mtasts.Fetcher{
		Resolver: resolver, RootCAs: w.Roots(), Dial: w.Dial,
		AllowNetworks: []netip.Prefix{netip.MustParsePrefix(lab.Network)},
	}}})
	b.Cleanup(func() {
		m.Close()
		db.Close()
		w.Close()
	})
	return w, m, db
}

// BenchmarkHit is a cached answer, on all cores at once: of one domain, which
// stays in the processor's cache, and of as many as memory holds.
func BenchmarkHit(b *testing.B) {
	_, m, db := benchHost(b)
	const most = 50_000
	if err := load.Fill(b.Context(), db, most, time.Now()); err != nil {
		b.Fatal(err)
	}
	name := []byte("postfix")
	keys := make([][]byte, most)
	for i := range keys {
		keys[i] = []byte(load.Domain(i))
		if got := m.Lookup(b.Context(), name, keys[i]); string(got) != load.Want(i) {
			b.Fatalf("%s: %s", keys[i], got)
		}
	}
	for _, domains := range []int{1, most} {
		b.Run(fmt.Sprintf("domains=%d", domains), func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i = (i + 7919) % domains {
					m.Lookup(context.Background(), name, keys[i])
				}
			})
		})
	}
}

// BenchmarkCold is a first lookup where DNS takes 20 ms and the policy host
// 60 ms. "over-ms" is what it costs above the slower of the DANE chain (three
// questions) and the MTA-STS chain (two questions and the policy host), the
// write to disk included.
func BenchmarkCold(b *testing.B) {
	const dns, http = 20 * time.Millisecond, 60 * time.Millisecond
	for _, c := range []struct {
		name  string
		tlsa  bool
		sts   bool
		chain time.Duration
	}{
		{"none", false, false, 3 * dns},
		{"dane", true, false, 3 * dns},
		{"mta-sts", false, true, 2*dns + http},
	} {
		b.Run(c.name, func(b *testing.B) {
			w, m, _ := benchHost(b)
			w.Delay(dns)
			w.DelayHTTP(http)
			w.Zone("mx.test. A 192.0.2.1")
			if c.tlsa {
				w.Zone("_25._tcp.mx.test. TLSA " + tlsa)
			}
			over := make([]time.Duration, 0, b.N)
			for i := range b.N {
				domain := fmt.Sprintf("d%d.test", i)
				w.Zone(domain + ". MX 10 mx.test.")
				if c.sts {
					w.PolicyHost(domain, enforce)
				}
				began := time.Now()
				m.Lookup(context.Background(), []byte("postfix"), []byte(domain))
				over = append(over, time.Since(began)-c.chain)
			}
			slices.Sort(over)
			b.ReportMetric(float64(over[len(over)/2].Microseconds())/1000, "over-ms(p50)")
			b.ReportMetric(float64(over[len(over)*9/10].Microseconds())/1000, "over-ms(p90)")
		})
	}
}

// BenchmarkHundredAskOneDomain has 100 connections ask for the same new domain.
func BenchmarkHundredAskOneDomain(b *testing.B) {
	w, m, _ := benchHost(b)
	w.Zone("mx.test. A 192.0.2.1")
	lookups := 0
	for i := range b.N {
		domain := fmt.Sprintf("d%d.test", i)
		w.Zone(domain + ". MX 10 mx.test.")
		w.PolicyHost(domain, enforce)
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() { m.Lookup(context.Background(), []byte("postfix"), []byte(domain)) })
		}
		wg.Wait()
		lookups += w.Count(domain, "MX")
	}
	b.ReportMetric(float64(lookups)/float64(b.N), "lookups/100-askers")
}
