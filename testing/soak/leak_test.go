//go:build linux

package soak

import (
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	"tlspolicyd/testing/lab"
)

// After work of every kind, good and bad, the daemon has as many file
// descriptors and goroutines as before.
func TestNothingLeaks(t *testing.T) {
	w := newWorld(t)
	s := newSite(t, w, "fetch.timeout = \"1s\"\nfetch.wait = \"100ms\"\ndns.timeout = \"100ms\"")
	d := s.start(t)
	known := w.insist()
	c := d.client()
	defer c.Close()
	d.await("the first answer", func() bool { return ask(c, known.key) == known.want }) // in 100 ms a busy machine may not do it
	files, goroutines := d.files(), d.metric("go_goroutines")

	end := time.Now().Add(scale(3*time.Second, 5*time.Minute))
	var working sync.WaitGroup
	lookups := make([]int, 8)
	for n := range lookups {
		working.Go(func() {
			for time.Now().Before(end) {
				d.work(w, n)
				lookups[n]++
			}
		})
	}
	for time.Now().Before(end) {
		if err := d.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		d.metric("go_goroutines")
		pause(100 * time.Millisecond)
	}
	working.Wait()

	d.await("everything to be closed", func() bool {
		d.want(c, known)
		return d.files() <= files && d.metric("go_goroutines") <= goroutines
	})
	total := 0
	for _, n := range lookups {
		total += n
	}
	t.Logf("after %d pieces of work: %d files, %d goroutines, %d MB", total, d.files(), d.metric("go_goroutines"), d.memory()>>20)
	c.Close()
	d.stop()
}

// work does one thing that a client may do, about a domain with one of the
// troubles that there are.
func (d *daemon) work(w *world, n int) {
	network := []string{"unix", "tcp"}[n%2]
	l := w.insist()
	switch rand.IntN(8) {
	case 0:
		w.Fault(l.key, "MX", lab.Truncate) // TCP
	case 1:
		w.Fault(l.key, "", lab.DropOnce)
	case 2:
		w.Fault(l.key, "", lab.ServFail)
	case 3:
		l.key = fmt.Sprintf("d%d.sts.test", w.named.Add(1))
		w.PolicyHost(l.key, policy(l.key, 86400)).Fault(lab.HostFault{Stall: lab.Stall(1 + rand.IntN(4))})
	case 4: // goes away without its answer
		if c, err := d.dial(network); err == nil {
			_, _ = io.WriteString(c, frame("postfix "+l.key)) // whatever becomes of it
			c.Close()
		}
		return
	case 5: // sends nonsense, or half a request
		if c, err := d.dial(network); err == nil {
			_, _ = io.WriteString(c, []string{"GET / HTTP/1.1\r\n", "20:postfix "}[rand.IntN(2)])
			c.Close()
		}
		return
	}
	d.askAnew(network, l.key)
}
