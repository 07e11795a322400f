package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tlspolicyd/cmd/tlspolicyd/internal/config"
)

// Whoever may create files in the temporary directory could otherwise answer
// for the daemon, or read what it is asked.
func TestADirectoryOfSomebodyElseIsRefused(t *testing.T) {
	temp := t.TempDir()
	make := func(name string, prepare func(path string) error) string {
		path := filepath.Join(temp, name)
		if err := prepare(path); err != nil {
			t.Fatal(err)
		}
		return path
	}
	own := make("own", func(p string) error { return os.Mkdir(p, 0o700) })
	foreign := "/" // root's
	if os.Geteuid() == 0 {
		foreign = make("foreign", func(p string) error {
			if err := os.Mkdir(p, 0o700); err != nil {
				return err
			}
			return os.Chown(p, 65534, 65534)
		})
	}
	for name, tt := range map[string]struct {
		dir string
		ok  bool
	}{
		"own":             {own, true},
		"absent":          {filepath.Join(temp, "absent"), true},
		"somebody else's": {foreign, false},
		"open to others":  {make("open", func(p string) error { return os.Mkdir(p, 0o755) }), false},
		"symbolic link":   {make("link", func(p string) error { return os.Symlink(own, p) }), false},
		"no directory":    {make("file", func(p string) error { return os.WriteFile(p, nil, 0o600) }), false},
	} {
		t.Run(name, func(t *testing.T) {
			err := checkOwn(tt.dir)
			if (err == nil) != tt.ok {
				t.Errorf("checkOwn: %v", err)
			}
			if err != nil && !strings.Contains(err.Error(), "XDG_RUNTIME_DIR") {
				t.Errorf("%v: does not say what to do", err)
			}
			// The daemon and the one who asks it hold to the same rule.
			dirs := config.Dirs{Runtime: tt.dir, State: filepath.Join(temp, "state"), Shared: true}
			cfg := config.Default()
			cfg.Cache.Path = filepath.Join(dirs.State, "policies.db")
			cfg.Listen.Socketmap = []string{"unix:" + filepath.Join(tt.dir, "socketmap.sock")}
			if _, err := daemonAddresses(cfg.Listen.Socketmap[0], cfg.Listen.Socketmap[0], "unix:/x", dirs); (err == nil) != tt.ok {
				t.Errorf("lookup: %v", err)
			}
			if err := makeDirs(cfg, dirs, cfg.Listen.Socketmap); (err == nil) != tt.ok {
				t.Errorf("serve: %v", err)
			}
		})
	}
}

func TestDirectoriesAreMadeWithTheirModes(t *testing.T) {
	temp := t.TempDir()
	cfg := config.Default()
	cfg.Cache.Path = filepath.Join(temp, "home", "u", ".local", "state", "tlspolicyd", "policies.db")
	sockets := []string{"unix:" + filepath.Join(temp, "run", "s.sock"), "unix:" + filepath.Join(temp, "private", "s.sock"), "tcp:127.0.0.1:0", ""}
	dirs := config.Dirs{Runtime: filepath.Join(temp, "private"), Shared: true}
	for range 2 { // the second time they are there
		if err := makeDirs(cfg, dirs, sockets); err != nil {
			t.Fatal(err)
		}
		for dir, want := range map[string]os.FileMode{"run": 0o755, "private": 0o700, "home/u/.local/state/tlspolicyd": 0o700} {
			info, err := os.Stat(filepath.Join(temp, dir))
			if err != nil {
				t.Fatal(err)
			}
			if got := info.Mode().Perm(); got != want {
				t.Errorf("%s: mode %v, want %v", dir, got, want)
			}
		}
	}
}

// A user who runs a daemon without a configuration reaches that one, other users
// the system's.
func TestWhereTheDaemonIs(t *testing.T) {
	const user, system, other = "unix:/run/user/1000/tlspolicyd/socketmap.sock", "unix:/run/tlspolicyd/socketmap.sock", "tcp:127.0.0.1:8461"
	for name, tt := range map[string]struct{ configured, byDefault, want string }{
		"user":             {user, user, user + " " + system},
		"root":             {system, system, system},
		"configured":       {other, system, other},
		"user, configured": {other, user, other},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := daemonAddresses(tt.configured, tt.byDefault, system, config.Dirs{})
			if err != nil || strings.Join(got, " ") != tt.want {
				t.Errorf("got %v, %v; want %s", got, err, tt.want)
			}
		})
	}
}
