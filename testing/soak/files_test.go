//go:build linux

package soak

import (
	"io"
	"net"
	"testing"
)

// Without file descriptors nobody can be let in. The daemon says so, does not
// spin, and when there are some again everybody is answered, with new domains
// that take DNS, HTTPS and the database.
func TestAcceptWithoutFileDescriptors(t *testing.T) {
	w := newWorld(t)
	d := newSite(t, w, "").start(t)
	r := faultRun{t: t, d: d}
	r.limitFiles(3)
	var waiting []net.Conn
	var asked []lookup
	for range 30 {
		c, err := d.dial("unix")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		l := w.insist()
		if _, err := io.WriteString(c, frame("postfix "+l.key)); err != nil {
			t.Fatal(err)
		}
		waiting, asked = append(waiting, c), append(asked, l)
	}
	d.await("the log to tell", func() bool { return d.logged("cannot accept connections") })
	d.wantIdle()
	r.limitFiles(20_000)
	for i, c := range waiting {
		if got := receive(c); got != asked[i].want {
			t.Errorf("%s: got %q, want %q", asked[i].key, got, asked[i].want)
		}
	}
	d.stop()
}
