// Package sharetest is the contract of share.Fleet as a test that every engine
// runs, and an engine in memory.
package sharetest

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"tlspolicyd/share"
)

// Policy files for tests; the first lives for a week.
const (
	File  = "version: STSv1\nmode: enforce\nmx: mx.example.test\nmax_age: 604800\n"
	Other = "version: STSv1\nmode: enforce\nmx: other.example.test\nmax_age: 604800\n"
)

// Run runs the contract. join returns a member of one new fleet for each test: the
// members that a test asks for are hosts of the same fleet.
func Run(t *testing.T, fleet func(t *testing.T) (join func(host string, keys share.Keys) share.Fleet)) {
	t.Helper()
	key := share.Keys{[]byte("a key of this fleet alone")}
	for name, test := range map[string]func(t *testing.T, join func(string, share.Keys) share.Fleet){
		"what one offers the others get": func(t *testing.T, join func(string, share.Keys) share.Fleet) {
			a, b := join("a.test", key), join("b.test", key)
			want(t, b, "example.test", share.ErrNone, "")
			a.Offer("example.test", share.Policy{File: []byte(File), ID: "1", Age: time.Hour}, share.Lease{})
			p := stored(t, a, b, "example.test", File)
			if p.ID != "1" || p.Host != "a.test" || p.Age < time.Hour || p.Age > time.Hour+time.Minute {
				t.Errorf("got id %q, host %q, age %v", p.ID, p.Host, p.Age)
			}
			want(t, a, "other.test", share.ErrNone, "")
		},
		"one at a time has the lease": func(t *testing.T, join func(string, share.Keys) share.Fleet) {
			a, b := join("a.test", key), join("b.test", key)
			lease := claim(t, a, "example.test")
			if twice, _, err := b.Claim(t.Context(), "example.test"); twice != (share.Lease{}) || !errors.Is(err, share.ErrNone) {
				t.Errorf("granted twice: %v, %v", twice, err)
			}
			claim(t, b, "other.test")
			b.Release("example.test", share.Lease{Token: "not this one"})
			a.Release("example.test", lease)
			lease = claim(t, b, "example.test")
			b.Offer("example.test", share.Policy{File: []byte(File), ID: "1"}, lease)
			if p := claimed(t, a, "example.test"); string(p.File) != File {
				t.Errorf("the lease after an offer comes with %q", p.File)
			}
			want(t, a, "example.test", nil, File)
		},
		"a lease that was lost writes nothing": func(t *testing.T, join func(string, share.Keys) share.Fleet) {
			a, b := join("a.test", key), join("b.test", key)
			lost := claim(t, a, "example.test")
			a.Release("example.test", lost)
			b.Offer("example.test", share.Policy{File: []byte(Other), ID: "2"}, claim(t, b, "example.test"))
			stored(t, b, a, "example.test", Other)
			a.Offer("example.test", share.Policy{File: []byte(File), ID: "1"}, lost)
			fenced(t, a, 1)
			want(t, b, "example.test", nil, Other)
		},
		"what is over is not shared": func(t *testing.T, join func(string, share.Keys) share.Fleet) {
			a, b := join("a.test", key), join("b.test", key)
			a.Offer("once.test", share.Policy{File: []byte(strings.Replace(File, "604800", "0", 1))}, share.Lease{})
			a.Offer("over.test", share.Policy{File: []byte(File), Age: 604800 * time.Second}, share.Lease{})
			a.Offer("broken.test", share.Policy{File: []byte("x")}, share.Lease{})
			fenced(t, a, 3)
			for _, domain := range []string{"once.test", "over.test", "broken.test"} {
				want(t, b, domain, share.ErrNone, "")
			}
		},
		"another key is not believed": func(t *testing.T, join func(string, share.Keys) share.Fleet) {
			other := share.Keys{[]byte("a key of someone else")}
			a, stranger, both, none := join("a.test", key), join("b.test", other), join("c.test", append(other, key...)), join("d.test", nil)
			a.Offer("example.test", share.Policy{File: []byte(File)}, share.Lease{})
			stored(t, a, both, "example.test", File)
			if _, err := stranger.Ask(t.Context(), "example.test"); err == nil || errors.Is(err, share.ErrNone) {
				t.Errorf("believed: %v", err)
			}
			if n := stranger.Stats().Refused; n != 1 {
				t.Errorf("%d were refused", n)
			}
			none.Offer("unsigned.test", share.Policy{File: []byte(File)}, share.Lease{})
			stored(t, none, none, "unsigned.test", File)
			if _, err := a.Ask(t.Context(), "unsigned.test"); err == nil {
				t.Error("an unsigned entry is believed")
			}
		},
		"all are seen, then changes": func(t *testing.T, join func(string, share.Keys) share.Fleet) {
			a, b := join("a.test", key), join("b.test", key)
			a.Offer("one.test", share.Policy{File: []byte(File)}, share.Lease{})
			stored(t, a, b, "one.test", File)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			seen := make(chan string, 10)
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				b.Watch(ctx, func(domain string, p share.Policy) { seen <- domain + " " + p.Host })
			}()
			before := make(map[string]bool)
			for _, domain := range []string{"one.test", "two.test", "three.test"} {
				a.Offer(domain, share.Policy{File: []byte(File)}, share.Lease{})
				got := <-seen
				for before[got] { // what is written while all are read may be seen twice
					got = <-seen
				}
				if before[got] = true; got != domain+" a.test" {
					t.Errorf("saw %q, want %q", got, domain)
				}
				b.Offer("own.test", share.Policy{File: []byte(File)}, share.Lease{})
			}
			cancel()
			<-ended
		},
		"all are listed, and deleted": func(t *testing.T, join func(string, share.Keys) share.Fleet) {
			a := join("a.test", key)
			for _, domain := range []string{"one.test", "two.test"} {
				a.Offer(domain, share.Policy{File: []byte(File)}, share.Lease{})
				stored(t, a, a, domain, File)
			}
			if got := list(t, a); len(got) != 2 || string(got["one.test"].File) != File {
				t.Errorf("got %v", got)
			}
			if n, err := a.Delete(t.Context(), "one.test", "unknown.test"); n != 1 || err != nil {
				t.Error(n, err)
			}
			if got := list(t, a); len(got) != 1 {
				t.Errorf("got %v", got)
			}
			stop := errors.New("enough")
			if err := a.Each(t.Context(), func(string, share.Policy) error { return stop }); !errors.Is(err, stop) {
				t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) { test(t, fleet(t)) })
	}
}

func want(t *testing.T, f share.Fleet, domain string, wantErr error, file string) {
	t.Helper()
	p, err := f.Ask(t.Context(), domain)
	if !errors.Is(err, wantErr) || string(p.File) != file {
		t.Errorf("%s: got %q, %v", domain, p.File, err)
	}
}

// stored waits until by has written what it offered last, and returns it as seen by
// another host.
func stored(t *testing.T, by, seen share.Fleet, domain, file string) share.Policy {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		p, err := seen.Ask(ctx, domain)
		if err == nil && string(p.File) == file {
			return p
		}
		if ctx.Err() != nil || by.Stats().Dropped > 0 {
			t.Fatalf("%s: got %q, %v", domain, p.File, err)
		}
		time.Sleep(time.Millisecond)
	}
}

// fenced waits until a number of policies were not written.
func fenced(t *testing.T, by share.Fleet, n uint64) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); by.Stats().Fenced < n; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d were not written, want %d", by.Stats().Fenced, n)
		}
	}
}

// claim gets the lease of a domain, when it is free.
func claim(t *testing.T, f share.Fleet, domain string) share.Lease {
	t.Helper()
	lease, _ := waitForLease(t, f, domain)
	return lease
}

// claimed gets it too, and returns the policy that it comes with.
func claimed(t *testing.T, f share.Fleet, domain string) share.Policy {
	t.Helper()
	_, p := waitForLease(t, f, domain)
	return p
}

func waitForLease(t *testing.T, f share.Fleet, domain string) (share.Lease, share.Policy) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		lease, p, err := f.Claim(ctx, domain)
		if lease.Token != "" {
			return lease, p
		}
		if err != nil && !errors.Is(err, share.ErrNone) || ctx.Err() != nil {
			t.Fatalf("%s: no lease: %v", domain, err)
		}
		time.Sleep(time.Millisecond)
	}
}

func list(t *testing.T, f share.Fleet) map[string]share.Policy {
	t.Helper()
	all := make(map[string]share.Policy)
	if err := f.Each(t.Context(), func(domain string, p share.Policy) error { all[domain] = p; return nil }); err != nil {
		t.Error(err)
	}
	return all
}
