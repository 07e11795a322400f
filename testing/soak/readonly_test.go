//go:build linux

package soak

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// A daemon whose database is on a file system that is read-only when it starts
// answers what it knows from the file, and looks up what it does not know.
func TestStartOnAReadOnlyFileSystem(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("NOT TESTED: a mount namespace of its own takes root")
	}
	w := newWorld(t)
	s := newSite(t, w, "")
	d := s.start(t)
	c := d.client()
	var known policies
	for range 20 {
		l := w.insist()
		d.want(c, l)
		known.add(l)
	}
	c.Close()
	d.stop()

	db := filepath.Dir(s.database())
	s.flags = syscall.CLONE_NEWNS
	s.before = "mount --make-rprivate / && mount --bind " + db + " " + db + " && mount -o remount,bind,ro " + db + ` && exec "$@"`
	d = s.start(t)
	c = d.client()
	defer c.Close()
	for range 20 {
		l := w.insist()
		d.want(c, l)
		known.add(l)
	}
	w.Down(true)
	known.check(d, known.all)
	if !d.logged("database cannot be opened for writing") || !d.logged("records=20") {
		t.Errorf("the log: %s", d.said())
	}
}
