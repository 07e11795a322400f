//go:build linux

package soak

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Lookups arrive twice as fast as they can be served, one in four about a domain
// that nobody has asked for before. They take longer then; each is answered, and
// memory does not grow with those that wait.
func TestTwiceWhatItCanServe(t *testing.T) {
	w := newWorld(t)
	d := newSite(t, w, "").start(t)
	known := make([]lookup, 200)
	c := d.client()
	for i := range known {
		known[i] = w.insist()
		d.want(c, known[i])
	}
	c.Close()
	next := func(n int64) lookup {
		switch n % 4 {
		case 0:
			return w.dane()
		}
		return known[n%int64(len(known))]
	}

	// What it can serve: as fast as clients like Postfix ask.
	rate := d.capacity(next, scale(time.Second, 5*time.Second))
	atRest := d.memory()

	arrivals := make(chan time.Time, 1<<22)
	took := make(chan time.Duration, 1<<22)
	var serving sync.WaitGroup
	var n atomic.Int64
	for range 200 {
		serving.Go(func() {
			c := d.client()
			defer c.Close()
			for arrived := range arrivals {
				l := next(n.Add(1))
				if got := ask(c, l.key); got != l.want {
					t.Errorf("%s: got %q, want %q", l.key, got, l.want)
				}
				took <- time.Since(arrived)
			}
		})
	}
	const every = 5 * time.Millisecond
	began, length := time.Now(), scale(2*time.Second, 2*time.Minute)
	tick := time.NewTicker(every)
	defer tick.Stop()
	sent := 0
	for now := began; now.Sub(began) < length; now = <-tick.C {
		for due := int(2 * rate * now.Sub(began).Seconds()); sent < due; sent++ {
			arrivals <- now
		}
	}
	close(arrivals)
	highest := d.memory()
	serving.Wait()
	highest = max(highest, d.memory())
	close(took)
	var all []time.Duration
	for one := range took {
		all = append(all, one)
	}
	slices.Sort(all)
	if len(all) != sent || sent == 0 {
		t.Fatalf("%d of %d answered", len(all), sent)
	}
	t.Logf("serves %.0f/s; %d lookups came at twice that for %v: all answered, half of them within %v, the slowest after %v; memory %d MB, before %d MB",
		rate, sent, length, all[len(all)/2].Round(time.Millisecond), all[len(all)-1].Round(time.Millisecond), highest>>20, atRest>>20)
	if most := int64(200 << 20); highest > most && !raceDetector {
		t.Errorf("%d MB of memory, want less than %d", highest>>20, most>>20)
	}
	d.stop()
}

// capacity returns how many lookups a second are answered when 16 clients ask
// one after the other.
func (d *daemon) capacity(next func(int64) lookup, length time.Duration) float64 {
	var asking sync.WaitGroup
	var n atomic.Int64
	began := time.Now()
	for range 16 {
		asking.Go(func() {
			c := d.client()
			defer c.Close()
			for time.Since(began) < length {
				l := next(n.Add(1))
				if got := ask(c, l.key); got != l.want {
					d.t.Errorf("%s: got %q, want %q", l.key, got, l.want)
				}
			}
		})
	}
	asking.Wait()
	return float64(n.Load()) / time.Since(began).Seconds()
}
