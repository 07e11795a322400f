//go:build linux

package soak

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"tlspolicyd/internal/dnsclient"
	"tlspolicyd/internal/mtasts"
	"tlspolicyd/policymap"
	"tlspolicyd/store/bolt"
	"tlspolicyd/testing/lab"
)

// clockFaults sets the wall clock by a year. Not that of the machine: a time
// namespace leaves the wall clock alone, and Go reads it without a system call
// that could be intercepted. So this is the daemon's map on its database with a
// wall clock of the test's (policymap.Options.Wall), and not its process.
func clockFaults(t *testing.T, table *faultTable) {
	const year = 365 * 24 * time.Hour
	w := newWorld(t)
	db, err := bolt.Open(filepath.Join(t.TempDir(), "policies.db"), bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	resolver, err := dnsclient.New(dnsclient.Config{Servers: []netip.AddrPort{w.dns}})
	if err != nil {
		t.Fatal(err)
	}
	var set atomic.Int64
	stepped := make(chan time.Duration, 10)
	m := policymap.New(policymap.Options{
		Store: db,
		Config: policymap.Config{Resolver: resolver, Fetcher: &mtasts.Fetcher{
			Resolver: resolver, RootCAs: w.Roots(), Dial: w.Dial,
			AllowNetworks: []netip.Prefix{netip.MustParsePrefix(lab.Network)},
		}},
		Observer: clockWitness{nil, stepped},
		Wall:     func() time.Time { return time.Now().Add(time.Duration(set.Load())) },
	})
	defer m.Close()
	ask := func(l lookup) timedReply {
		began := time.Now()
		reply := string(m.Lookup(context.Background(), []byte("postfix"), []byte(l.key)))
		if reply != l.want {
			t.Errorf("%s: got %q, want %q", l.key, reply, l.want)
		}
		return timedReply{reply, time.Since(began)}
	}
	var known []lookup
	for range 60 {
		l := w.insist()
		known = append(known, l)
		ask(l)
	}
	for _, step := range []struct {
		name string
		by   time.Duration
	}{{"clock a year ahead", year}, {"clock back by a year", -year}} {
		set.Add(int64(step.by))
		began := time.Now()
		if by := follow(w, m, stepped); by.Round(time.Hour) != step.by {
			t.Errorf("followed a step of %v, want %v", by, step.by)
		}
		row := faultRow{name: step.name, how: "the map's wall clock is set, in the test's process", recovered: time.Since(began)}
		w.Down(true) // no policy may have ended
		for _, l := range known {
			row.cached.more(ask(l))
		}
		row.cached.reply = "as before"
		w.Down(false)
		row.fresh = ask(w.dane())
		for range 5 {
			row.fresh.more(ask(w.insist()))
		}
		table.add(row)
	}
}

// clockWitness tells of steps.
type clockWitness struct {
	policymap.Observers // nobody
	stepped             chan time.Duration
}

func (c clockWitness) ClockStepped(by time.Duration) {
	c.stepped <- by
}

// follow waits until the map has seen that its clock was set. It looks whenever
// something is due, and after a minute at most: policies that are soon due save
// the test that minute.
func follow(w *world, m *policymap.Map, stepped <-chan time.Duration) time.Duration {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case by := <-stepped:
			return by
		case <-tick.C:
			domain := fmt.Sprintf("short%d.sts.test", w.named.Add(1))
			w.PolicyHost(domain, policy(domain, 10))
			m.Lookup(context.Background(), []byte("postfix"), []byte(domain))
		}
	}
}
