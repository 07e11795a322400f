//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// second is a daemon beside the one that Postfix asks: its database may suffer.
type second struct {
	dir, config, database, admin string
	proc                         *process
}

// newSecond writes the configuration of a daemon in a directory of its own.
func newSecond(t *testing.T) *second {
	t.Helper()
	dir := workDir + "/second"
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.Chown(dir, nobody, nobody)); err != nil {
		t.Fatal(err)
	}
	s := &second{dir: dir, database: dir + "/policies.db", admin: dir + "/admin.sock"}
	first, err := os.ReadFile(daemonDir + "/tlspolicyd.toml")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(first), "[dns]")
	s.config = dir + "/tlspolicyd.toml"
	text := fmt.Sprintf("[listen]\nsocketmap = [\"unix:%s/socketmap.sock\"]\nadmin = \"unix:%s\"\n[dns]%s", dir, s.admin, rest)
	if err := write(s.config, strings.Replace(text, daemonDir+"/policies.db", s.database, 1)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.stop(t)
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return s
}

// other is a configuration that differs in one text.
func (s *second) other(t *testing.T, name, old, text string) string {
	t.Helper()
	before, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	path := s.dir + "/" + name + ".toml"
	if err := write(path, strings.Replace(string(before), old, text, 1)); err != nil {
		t.Fatal(err)
	}
	return path
}

func (s *second) start(t *testing.T, binary, config string) {
	t.Helper()
	proc, err := start("", nobody, binary, "serve", "--config", config)
	if err != nil {
		t.Fatal(err)
	}
	s.proc = proc
	mustWait(t, func() error {
		_, err := s.store()
		return err
	})
}

func (s *second) stop(t *testing.T) {
	t.Helper()
	if s.proc == nil {
		return
	}
	if err := s.proc.stop(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	s.proc = nil
}

// store is what the daemon says of its database, on its control socket.
func (s *second) store() (string, error) {
	client := &http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", s.admin)
		},
	}}
	resp, err := client.Get("http://control/readyz")
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if state, ok := strings.CutPrefix(strings.TrimSpace(line), "store: "); ok {
			if note, ok := strings.CutPrefix(state, "ok"); ok {
				state = strings.TrimPrefix(note, ", ")
			}
			return state, nil
		}
	}
	return "", fmt.Errorf("the daemon answers %s and nothing about its store", resp.Status)
}

// testDoctorDatabase goes through what may become of a database. The daemon that
// Postfix asks keeps its own.
func testDoctorDatabase(t *testing.T, h *doctorHost) {
	s := newSecond(t)
	binary := h.w.daemon.binary
	as := func(config string) doctorRun { return doctorRun{flags: []string{"--config", config}} }
	start := func(t *testing.T, h *doctorHost, _ []string) { s.start(t, binary, s.config) }
	elsewhere := s.other(t, "elsewhere", s.database, s.dir+"/other.db")
	disk := s.other(t, "disk", s.database, s.dir+"/disk/policies.db")
	full := s.other(t, "full", s.database, s.dir+"/full/policies.db")
	h.tryFaults(t, []hostFault{
		{
			name: "never started", want: []string{"warn database-missing", "fail daemon-down"},
			broken: as(s.config), repair: start, repaired: as(s.config),
		},
		{
			name: "others may read it", want: []string{"warn database-mode"}, broken: as(s.config), repaired: as(s.config),
			cause: func(t *testing.T, _ *doctorHost) { chmod(t, s.database, 0o644, 0o600) }, repair: byItsLines,
		},
		{
			name: "others may write to it", want: []string{"fail database-mode"}, broken: as(s.config), repaired: as(s.config),
			cause: func(t *testing.T, _ *doctorHost) { chmod(t, s.database, 0o666, 0o600) }, repair: byItsLines,
		},
		{
			name: "it belongs to root", want: []string{"fail database-owner"}, broken: as(s.config), repaired: as(s.config),
			cause: func(t *testing.T, _ *doctorHost) {
				if err := os.Chown(s.database, 0, 0); err != nil {
					t.Fatal(err)
				}
			},
			repair: byItsLines,
		},
		{
			name: "open in a daemon of another configuration", want: []string{"unknown database-inconclusive"},
			broken: as(s.other(t, "strange", s.admin, s.dir+"/strange.sock")), repaired: as(s.config),
		},
		{
			name: "little room", want: []string{"warn disk-low"}, broken: as(disk), repaired: as(disk),
			cause:  func(t *testing.T, h *doctorHost) { h.smallDisk(t, s.dir+"/disk", "size=32m") },
			repair: func(t *testing.T, h *doctorHost, _ []string) { h.remount(t, s.dir+"/disk", "size=128m") },
		},
		{
			name: "no room", want: []string{"fail disk-full"}, broken: as(disk), repaired: as(disk),
			cause:  func(t *testing.T, h *doctorHost) { h.smallDisk(t, s.dir+"/disk", "size=1m") },
			repair: func(t *testing.T, h *doctorHost, _ []string) { h.remount(t, s.dir+"/disk", "size=128m") },
		},
		{
			name: "no room for the daemon", want: []string{"fail database-failed", "fail disk-full"}, broken: as(full), repaired: as(full),
			cause: func(t *testing.T, h *doctorHost) {
				s.stop(t)
				h.smallDisk(t, s.dir+"/full", "size=4m")
				s.start(t, binary, full)
				s.fill(t, h)
			},
			repair: func(t *testing.T, h *doctorHost, _ []string) {
				h.remount(t, s.dir+"/full", "size=128m")
				s.learn(t, h, func(state string) bool { return state == "" })
				s.stop(t)
				s.start(t, binary, s.config)
			},
		},
		{
			name: "damaged again and again while in use", want: []string{"fail database-failed"}, broken: as(s.config), repaired: as(s.config),
			cause: func(t *testing.T, _ *doctorHost) { s.ruin(t) },
			repair: func(t *testing.T, h *doctorHost, _ []string) {
				s.stop(t)
				start(t, h, nil)
			},
		},
		{
			name: "damaged at rest", want: []string{"warn database-damaged"}, broken: as(s.config), repaired: as(s.config),
			cause: func(t *testing.T, _ *doctorHost) {
				s.stop(t)
				if err := os.Truncate(s.database, 5000); err != nil {
					t.Fatal(err)
				}
			},
			repair: start,
		},
		{
			name: "written by a newer version", want: []string{"fail database-newer"}, broken: as(s.config), repaired: as(elsewhere),
			cause: func(t *testing.T, _ *doctorHost) {
				s.stop(t)
				s.setSchema(t, "99")
			},
			repair: func(t *testing.T, _ *doctorHost, _ []string) { s.start(t, binary, elsewhere) },
		},
	})
}

// ruin overwrites the file while the daemon has it open, and what it puts in the
// place of that as repaired: it sets one file aside, and no more within an hour.
func (s *second) ruin(t *testing.T) {
	t.Helper()
	s.overwrite(t)
	mustWait(t, func() error {
		state, err := s.store() // which notices, the first time
		if aside, _ := filepath.Glob(s.database + ".*"); err == nil && (state != "" || len(aside) == 0) {
			err = fmt.Errorf("no other file is in its place: the daemon says %q", state)
		}
		return err
	})
	s.overwrite(t)
	mustWait(t, func() error {
		state, err := s.store()
		if err == nil && state == "" {
			err = errors.New("the daemon reports no fault of its database")
		}
		return err
	})
}

func (s *second) overwrite(t *testing.T) {
	t.Helper()
	info, err := os.Stat(s.database)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(s.database, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(bytes.Repeat([]byte{0xff}, int(info.Size())), 0); err != nil {
		t.Fatal(err)
	}
}

// fill leaves no room on the daemon's disk, and waits until it has noticed.
func (s *second) fill(t *testing.T, h *doctorHost) {
	t.Helper()
	f, err := os.Create(s.dir + "/full/filler")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for block := make([]byte, 4096); err == nil; {
		_, err = f.Write(block)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	s.learn(t, h, func(state string) bool { return state != "" })
}

// learn has the daemon learn of domains until it says something of its database.
func (s *second) learn(t *testing.T, h *doctorHost, enough func(state string) bool) {
	t.Helper()
	n := 0
	mustWait(t, func() error {
		n++
		_, _, _ = command("", h.w.daemon.binary, "lookup", "--socket", "unix:"+s.dir+"/socketmap.sock", fmt.Sprintf("d%d.open.test", n))
		_, _, _ = command("", h.w.daemon.binary, "cache", "refresh", "--config", s.config, "sts.open.test")
		state, err := s.store()
		if err == nil && !enough(state) {
			err = fmt.Errorf("the daemon says %q of its database", state)
		}
		return err
	})
}

// setSchema makes the file one of another version.
func (s *second) setSchema(t *testing.T, version string) {
	t.Helper()
	db, err := bbolt.Open(s.database, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error { return tx.Bucket([]byte("meta")).Put([]byte("schema"), []byte(version)) })
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}

// smallDisk mounts one, both for a daemon and for doctor in its folder.
func (h *doctorHost) smallDisk(t *testing.T, dir, options string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Fatal(err)
	}
	err := errors.Join(os.Chown(dir, nobody, nobody), unix.Mount(dir, h.root+dir, "", unix.MS_BIND, ""))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(unix.Unmount(h.root+dir, 0), unix.Unmount(dir, 0)); err != nil {
			t.Error(err)
		}
	})
}

func (h *doctorHost) remount(t *testing.T, dir, options string) {
	t.Helper()
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT, options); err != nil {
		t.Fatal(err)
	}
}
