//go:build linux

package soak

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tlspolicyd/socketmap"
	"tlspolicyd/store/bolt"
)

// machineFault is something that fails around a daemon, below the network.
type machineFault struct {
	name string
	how  string // it is brought about
	root bool   // takes root

	// The daemon, and the world if it must be a special one.
	world     func(t *testing.T) *world
	where     func(t *testing.T, s *site)
	intercept bool

	begin, end func(r *faultRun)

	// disk: the database cannot be written, which the log tells, and what was
	// learned meanwhile is written afterwards.
	disk bool
	// lost: what was on disk is.
	lost bool
}

var machineFaults = []machineFault{
	{
		name: "disk full", how: "a tmpfs of 3 MB in a mount namespace, filled up", root: true, disk: true,
		where: func(t *testing.T, s *site) {
			s.flags = syscall.CLONE_NEWNS
			s.before = "mount --make-rprivate / && mount -t tmpfs -o size=3m none " + filepath.Dir(s.database()) + ` && exec "$@"`
		},
		begin: func(r *faultRun) { r.fill() },
		end: func(r *faultRun) {
			if err := os.Remove(r.inside("filler")); err != nil {
				r.t.Fatal(err)
			}
		},
	},
	{
		name: "file system turns read-only", how: "write calls on the database fail with EROFS", intercept: true, disk: true,
		begin: func(r *faultRun) { r.d.calls.set(trouble{errno: syscall.EROFS}) },
		end:   func(r *faultRun) { r.d.calls.set(trouble{}) },
	},
	{
		name: "fsync fails", how: "fdatasync fails with EIO", intercept: true, disk: true,
		begin: func(r *faultRun) { r.d.calls.set(trouble{calls: syncs, errno: syscall.EIO}) },
		end:   func(r *faultRun) { r.d.calls.set(trouble{}) },
	},
	{
		name: "fsync is slow", how: "each fdatasync takes 1 s longer", intercept: true,
		begin: func(r *faultRun) { r.d.calls.set(trouble{calls: syncs, delay: time.Second}) },
		end:   func(r *faultRun) { r.d.calls.set(trouble{}) },
	},
	{
		name: "fsync hangs", how: "fdatasync does not return", intercept: true,
		begin: func(r *faultRun) { r.d.calls.set(trouble{calls: syncs, hang: true}) },
		end:   func(r *faultRun) { r.d.calls.set(trouble{}) },
	},
	{
		name: "no file descriptor left", how: "RLIMIT_NOFILE, used up by idle connections",
		begin: func(r *faultRun) { r.useUpFiles() },
		end:   func(r *faultRun) { r.limitFiles(20_000) },
	},
	{
		name: "database cut to nothing", how: "truncate(2) while it is open", lost: true,
		begin: func(r *faultRun) {
			if err := os.Truncate(r.d.database(), 0); err != nil {
				r.t.Fatal(err)
			}
		},
		end: func(r *faultRun) {
			r.d.await("the file to be set aside", func() bool { return r.d.logged("set aside") })
		},
	},
	{
		name: "database removed", how: "rm while it is open",
		begin: func(r *faultRun) {
			if err := os.Remove(r.d.database()); err != nil {
				r.t.Fatal(err)
			}
		},
		end: func(r *faultRun) {
			r.d.await("the file to be written anew", func() bool { return r.d.logged("database written anew") })
		},
	},
	{
		name: "directory of the database removed", how: "rm -r while it is open",
		begin: func(r *faultRun) {
			if err := os.RemoveAll(filepath.Dir(r.d.database())); err != nil {
				r.t.Fatal(err)
			}
		},
		end: func(r *faultRun) {
			r.d.await("the file to be written anew", func() bool { return r.d.logged("database written anew") })
		},
	},
	{
		name: "/etc/resolv.conf vanishes", how: "removed, in a mount namespace, and back with another resolver", root: true,
		world: func(t *testing.T) *world { return newWorldAt(t, ownAddress(0)+":53") },
		where: func(t *testing.T, s *site) {
			etc := filepath.Join(s.dir, "etc")
			if err := os.Mkdir(etc, 0o755); err != nil {
				t.Fatal(err)
			}
			writeResolvConf(t, s, ownAddress(0))
			s.flags = syscall.CLONE_NEWNS
			s.before = "mount --make-rprivate / && mount --bind " + etc + ` /etc && exec "$@"`
		},
		begin: func(r *faultRun) {
			if err := os.Remove(filepath.Join(r.d.dir, "etc", "resolv.conf")); err != nil {
				r.t.Fatal(err)
			}
			pause(1100 * time.Millisecond) // it is read once a second
		},
		end: func(r *faultRun) {
			if _, err := r.w.ListenDNS(ownAddress(1) + ":53"); err != nil {
				r.t.Fatal(err)
			}
			writeResolvConf(r.t, r.d.site, ownAddress(1))
			c := r.d.client()
			defer c.Close()
			r.d.await("the other resolver to be asked", func() bool {
				r.d.want(c, r.w.plain())
				return r.d.logged("resolvers changed")
			})
		},
	},
}

var syncs = []uint32{unix.SYS_FDATASYNC, unix.SYS_FSYNC}

// What the machine does to the daemon. Whatever it is, what is cached is
// answered as ever, the daemon goes on, and works as before once it is over,
// without a restart; and what a client was told is not lost.
func TestFaultsOfTheMachine(t *testing.T) {
	table := newFaultTable()
	for _, f := range machineFaults {
		t.Run(f.name, func(t *testing.T) {
			if f.root && os.Getuid() != 0 {
				t.Skip("NOT TESTED: a mount namespace of its own takes root")
			}
			newFaultRun(t, f).run(table)
		})
	}
	t.Run("clock", func(t *testing.T) { clockFaults(t, table) })
	t.Logf("\n%s", table)
	table.keep(t)
}

// faultRun is one fault and what is measured meanwhile.
type faultRun struct {
	machineFault
	t    *testing.T
	w    *world
	d    *daemon
	c    *socketmap.Client
	told policies
}

func newFaultRun(t *testing.T, f machineFault) *faultRun {
	r := &faultRun{machineFault: f, t: t}
	if f.world == nil {
		f.world = newWorld
	}
	r.w = f.world(t)
	s := newSite(t, r.w, "")
	if f.where != nil {
		f.where(t, s)
	}
	if f.intercept {
		r.d = s.startIntercepted(t)
	} else {
		r.d = s.start(t)
	}
	r.c = r.d.client()
	t.Cleanup(r.c.Close)
	return r
}

func (r *faultRun) run(table *faultTable) {
	for range scale(20, 500) {
		r.learn()
	}
	before := r.d.memory()
	row := faultRow{name: r.name, how: r.how}

	r.begin(r)
	row.cached = r.timed(r.told.all[0], r.told.all[0].want)
	for n := range scale(3, 10) {
		l := r.w.insist()
		r.told.add(l)
		if n == 0 {
			row.fresh = r.timed(l, l.want)
		} else {
			row.fresh.more(r.timed(l, l.want))
		}
	}
	for _, l := range r.told.some(100) {
		row.cached.more(r.timed(l, l.want))
	}
	if r.disk {
		r.d.await("the log to tell", func() bool { return r.d.logged("database cannot be written") })
	}
	r.d.wantIdle()
	row.grown = r.d.memory() - before

	r.end(r)
	over := time.Now()
	r.timed(r.w.plain(), "NOTFOUND ")
	r.timed(r.w.dane(), "OK dane-only")
	if r.disk {
		r.d.await("the log to tell that it is over", func() bool { return r.d.logged("database can be written again") })
	}
	r.learn()
	row.recovered = time.Since(over)
	table.add(row)
	r.afterwards()
}

// afterwards kills the daemon: what it told anybody is on disk by now.
func (r *faultRun) afterwards() {
	if r.lost {
		r.told.all = r.told.all[len(r.told.all)-1:]
	}
	s := newSite(r.t, r.w, "")
	r.d.await("all that was told to be written", func() bool {
		copyFile(r.t, r.inside("policies.db"), s.database())
		return r.isIn(s.database())
	})
	r.c.Close()
	r.d.kill()
	r.w.Down(true)
	r.told.check(s.start(r.t), r.told.all)
}

// isIn reports whether a database holds all that was told. It is a copy made
// while the daemon writes, so it may be none.
func (r *faultRun) isIn(path string) bool {
	db, err := bolt.Open(path, bolt.Options{})
	if err != nil {
		return false
	}
	defer db.Close()
	for _, l := range r.told.all {
		rec, err := db.Get(l.key)
		policy := rec.STS != nil && len(rec.STS.Policy) > 0
		if err != nil || len(rec.DANE) == 0 || policy != strings.Contains(l.want, "secure") {
			return false
		}
	}
	return true
}

// learn asks for a new domain and notes what was told.
func (r *faultRun) learn() {
	l := r.w.insist()
	r.d.want(r.c, l)
	r.told.add(l)
}

// timed asks, compares and measures. A want that ends in … is a beginning.
func (r *faultRun) timed(l lookup, want string) timedReply {
	r.t.Helper()
	asked := time.Now()
	got := ask(r.c, l.key)
	took := time.Since(asked)
	if head, open := strings.CutSuffix(want, "…"); got != want && !(open && strings.HasPrefix(got, head)) {
		r.t.Fatalf("%s: got %q, want %q: %s", l.key, got, want, r.d.said())
	}
	return timedReply{strings.ReplaceAll(got, l.key, "DOMAIN"), took}
}

// inside is a file beside the database, as the daemon sees it.
func (r *faultRun) inside(name string) string {
	return filepath.Join("/proc", fmt.Sprint(r.d.cmd.Process.Pid), "root", filepath.Dir(r.d.database()), name)
}

// fill fills the disk, and then the room in the database.
func (r *faultRun) fill() {
	f, err := os.Create(r.inside("filler"))
	if err != nil {
		r.t.Fatal(err)
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	for !r.d.logged("database cannot be written") {
		r.learn()
	}
}

// useUpFiles sets the limit of files and opens connections until it is reached.
func (r *faultRun) useUpFiles() {
	const limit = 100
	r.limitFiles(limit)
	for r.d.files() < limit {
		c := r.d.client()
		r.t.Cleanup(c.Close)
		if _, err := c.Lookup(r.t.Context(), "postfix", ".idle.test"); err != nil {
			r.t.Fatal(err)
		}
	}
}

// limitFiles sets how many files the daemon may have open.
func (r *faultRun) limitFiles(n uint64) {
	if err := unix.Prlimit(r.d.cmd.Process.Pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: 20_000}, nil); err != nil {
		r.t.Fatal(err)
	}
}

// ownAddress is an address of loopback, the first or the second, that no other
// process with this test uses: resolv.conf(5) knows port 53 only.
func ownAddress(n int) string {
	pid := os.Getpid() // 22 bits at most
	return fmt.Sprintf("127.%d.%d.%d", 64*(1+n)|pid>>16&63, pid>>8&255, pid&255)
}

func writeResolvConf(t *testing.T, s *site, server string) {
	t.Helper()
	path := filepath.Join(s.dir, "etc", "resolv.conf")
	if err := os.WriteFile(path, []byte("nameserver "+server+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
}
