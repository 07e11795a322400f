//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"
)

// Each case is one of the rows of "A fleet" in docs/figures.md. It checks the
// answers and returns the figures.

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// right checks that a host answered what is right for domains of the fleet.
func (f *fleet) right(h *fleetHost, domains []string, a *answersOf) error {
	want := 0
	for _, d := range domains {
		if slices.Index(f.domains, d) < f.policies {
			want++
		}
	}
	if a.secure != want || a.notFound != len(domains)-want || len(a.wrong) > 0 {
		return fmt.Errorf("%s: %d secure, want %d; %d NOTFOUND, want %d; others: %q",
			h.name, a.secure, want, a.notFound, len(domains)-want, a.wrong[:min(len(a.wrong), 5)])
	}
	return nil
}

// learn asks one host for domains and checks the answers.
func (h *fleetHost) learn(domains []string, clients int) error {
	a, err := h.ask(domains, clients)
	if err != nil {
		return err
	}
	return h.fleet.right(h, domains, a)
}

// oneAfterAnother has each host asked for all domains, the next one when the
// one before is through.
func (f *fleet) oneAfterAnother(t *testing.T) (fetches int) {
	t.Helper()
	must(t, f.fresh())
	fetches, err := f.fetchedBy(func() (err error) {
		for _, h := range f.hosts {
			err = errors.Join(err, h.learn(f.domains, 20))
		}
		return err
	})
	must(t, err)
	return fetches
}

// allAtOnce has all hosts asked for the same domains in the same order at the
// same time.
func (f *fleet) allAtOnce(t *testing.T) (fetches int) {
	t.Helper()
	must(t, f.fresh())
	fetches, err := f.fetchedBy(func() error {
		return each(f.hosts, func(h *fleetHost) error { return h.learn(f.domains, 20) })
	})
	must(t, err)
	return fetches
}

// refreshing counts the fetches of some refresh intervals after all hosts
// learned all policies. An interval stands for a day.
func (f *fleet) refreshing(t *testing.T, interval time.Duration, days int) (fetches int) {
	t.Helper()
	old := f.refresh
	f.refresh = interval
	defer func() { f.refresh = old }()
	f.allAtOnce(t)
	fetches, err := f.fetchedBy(func() error {
		time.Sleep(time.Duration(days) * interval) // no test: figures of that time
		return nil
	})
	must(t, err)
	return fetches
}

// firstMessage asks a host that knows nothing and gets neither TXT records nor
// the policy host, and before a host that gets all, for the time of DANE.
func (f *fleet) firstMessage(t *testing.T, how string) (blocked, dane *answersOf) {
	t.Helper()
	a, b := f.hosts[0], f.hosts[1]
	policies, others := f.domains[:f.policies], f.domains[f.policies:]
	must(t, errors.Join(b.forget(), a.learn(policies, 20)))
	must(t, errors.Join(cut(b.name, fleetWeb), b.resolve(f.blocking(how)), b.start()))
	f.waitShared(t, b)
	blocked, err1 := b.ask(policies, 20)
	must(t, errors.Join(err1, b.forget(), connect(b.name, fleetWeb), b.resolve(""), b.start()))
	dane, err2 := b.ask(others, 20)
	must(t, err2)
	return blocked, dane
}

// waitShared waits until a host with a share sees the engine.
func (f *fleet) waitShared(t *testing.T, hosts ...*fleetHost) {
	t.Helper()
	if f.share == "" {
		return
	}
	for _, h := range hosts {
		mustWait(t, func() error {
			if h.metric("tlspolicyd_share_up") != 1 {
				return errors.New(h.name + " does not see the engine")
			}
			return nil
		})
	}
}
