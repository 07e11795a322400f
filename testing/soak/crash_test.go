//go:build linux

package soak

import (
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// docs/behaviour.md §6: after SIGKILL at any moment every policy that Postfix
// has been told about is still there, and is answered the same with no network
// at all. The database opens every time. The random numbers have no seed to tell:
// when a kill arrives is the kernel's choice.
func TestKilledUnderLoad(t *testing.T) {
	w := newWorld(t)
	s := newSite(t, w, "")
	told := &policies{}
	rounds, inStart := scale(10, 200), 0
	for range rounds {
		d := s.start(t)
		w.Down(true)
		told.check(d, told.some(500))
		w.Down(false)
		d.killUnderLoad(w, told)
		for rand.IntN(4) == 0 { // and while it starts, before anybody can ask
			d := s.launch(t, false)
			pause(rand.N(40 * time.Millisecond))
			d.kill()
			inStart++
		}
	}
	d := s.start(t)
	w.Down(true)
	told.check(d, told.all)
	d.kill()
	if aside, err := filepath.Glob(s.database() + ".*"); len(aside) > 0 || err != nil {
		t.Errorf("set aside: %q, %v", aside, err)
	}
	if len(told.all) < rounds {
		t.Errorf("only %d policies told", len(told.all))
	}
	t.Logf("killed %d times under load and %d times while starting: %d policies told, %d lost",
		rounds, inStart, len(told.all), told.lost)
}

// policies are what clients have been told.
type policies struct {
	mu   sync.Mutex
	all  []lookup
	last int // those before were known in the round before
	lost int
}

func (p *policies) add(l lookup) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all = append(p.all, l)
}

func (p *policies) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.all)
}

// some returns those that are new since the last call, and as many as n of the
// older ones.
func (p *policies) some(n int) []lookup {
	picked := append([]lookup(nil), p.all[p.last:]...)
	for range min(n, p.last) {
		picked = append(picked, p.all[rand.IntN(p.last)])
	}
	p.last = len(p.all)
	return picked
}

// check asks for each, over several connections.
func (p *policies) check(d *daemon, picked []lookup) {
	d.t.Helper()
	const clients = 4
	var asking sync.WaitGroup
	for n := range clients {
		asking.Go(func() {
			c := d.client()
			defer c.Close()
			for i := n; i < len(picked); i += clients {
				if got := ask(c, picked[i].key); got != picked[i].want {
					p.mu.Lock()
					p.lost++
					p.mu.Unlock()
					d.t.Errorf("after the restart %s: got %q, was told %q", picked[i].key, got, picked[i].want)
				}
			}
		})
	}
	asking.Wait()
	if d.t.Failed() {
		d.t.Fatalf("the daemon said: %s", d.said())
	}
}

// killUnderLoad has clients ask for new domains, as Postfix does, and kills the
// daemon while they do.
func (d *daemon) killUnderLoad(w *world, told *policies) {
	d.t.Helper()
	enough := told.count() + 1 + rand.IntN(150)
	reached := make(chan struct{})
	var once sync.Once
	var asking sync.WaitGroup
	for range 16 {
		asking.Go(func() {
			c := d.client()
			defer c.Close()
			for {
				l := w.insist()
				reply, err := c.Lookup(d.t.Context(), "postfix", l.key)
				if err != nil {
					once.Do(func() { close(reached) })
					return // it is dead
				}
				if reply.String() != l.want {
					d.t.Errorf("%s: got %q, want %q", l.key, reply, l.want)
				}
				told.add(l)
				if told.count() >= enough {
					once.Do(func() { close(reached) })
				}
			}
		})
	}
	<-reached
	d.wantAlive()
	pause(rand.N(3 * time.Millisecond)) // not only right after a reply
	d.kill()
	asking.Wait()
}

// pause lets a random time pass: for a moment that nothing can be awaited of.
func pause(d time.Duration) { <-time.After(d) }
