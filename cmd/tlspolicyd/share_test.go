package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tlspolicyd/cmd/tlspolicyd/internal/config"
	"tlspolicyd/share"
)

// secretFile writes a file that is to have a mode.
func secretFile(t *testing.T, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// Each mistake in [share] names the setting and what to do, and no error shows a
// secret.
func TestSecretsOfTheEngine(t *testing.T) {
	const secret = "s3cret of more than sixteen characters"
	open, good, group := secretFile(t, secret, 0o644), secretFile(t, secret+"\n", 0o400), secretFile(t, secret, 0o640)
	remote := config.EngineURL{Network: "tcp", Hosts: []string{"valkey.test:6379"}}
	secure := config.EngineURL{Network: "tcp", Hosts: []string{"valkey.test:6379"}, TLS: true}
	local := config.EngineURL{Network: "tcp", Hosts: []string{"127.0.0.1:6379"}}
	for name, tt := range map[string]struct {
		share config.Share
		want  string // "": good
	}{
		"nothing":              {config.Share{KeyFile: "/absent"}, ""},
		"on loopback":          {config.Share{URL: local}, ""},
		"with a key":           {config.Share{URL: remote, KeyFile: good, PasswordFile: group}, ""},
		"without a key":        {config.Share{URL: remote}, "share.key_file: missing: want the key that signs what is shared"},
		"key for all to read":  {config.Share{URL: remote, KeyFile: open}, "share.key_file: " + open + ": every local user can read it (mode 0644): 'chmod o-rwx " + open + "'"},
		"password likewise":    {config.Share{URL: local, PasswordFile: open}, "share.password_file: " + open + ": every local user can read it"},
		"no such file":         {config.Share{URL: remote, KeyFile: "/absent"}, "share.key_file: stat /absent: no such file"},
		"a directory":          {config.Share{URL: remote, KeyFile: t.TempDir()}, "want a file of a few lines"},
		"short key":            {config.Share{URL: remote, KeyFile: secretFile(t, "s3cret", 0o400)}, "key of 6 characters: want at least 16"},
		"empty key":            {config.Share{URL: remote, KeyFile: secretFile(t, "\n", 0o400)}, "no key in it"},
		"two passwords":        {config.Share{URL: config.EngineURL{Network: "unix", Hosts: []string{"/s"}, Password: "s3cret"}, PasswordFile: good}, "share.url has a password too"},
		"Sentinel and cluster": {config.Share{URL: local, Cluster: true, SentinelMaster: "x"}, "share.cluster: there is a share.sentinel_master too"},
		"CA without TLS":       {config.Share{URL: remote, KeyFile: good, CAFile: "/ca.pem"}, "share.url is without TLS: want rediss://"},
		"no such CA":           {config.Share{URL: secure, KeyFile: good, CAFile: "/absent"}, "share.ca_file: open /absent"},
		"half a certificate":   {config.Share{URL: secure, KeyFile: good, CertFile: good}, "want both or none"},
		"no certificate in it": {config.Share{URL: secure, KeyFile: good, CertFile: good, CertKeyFile: good}, "share.cert_file, share.cert_key_file: tls: failed to find any PEM data"},
	} {
		t.Run(name, func(t *testing.T) {
			err := checkShare(tt.share)
			if (err == nil) != (tt.want == "") || err != nil && (!strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "s3cret")) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// A credential of systemd is read by the daemon only: elsewhere its path is unknown,
// and to "config check" in ExecReload= it is closed.
func TestCredentialsOfSystemd(t *testing.T) {
	s := config.Share{URL: config.EngineURL{Network: "tcp", Hosts: []string{"valkey.test:6379"}}, KeyFile: "${CREDENTIALS_DIRECTORY}/secret"}
	if err := checkShare(s); err != nil {
		t.Error(err)
	}
	t.Setenv("CREDENTIALS_DIRECTORY", filepath.Join(t.TempDir(), "closed"))
	if err := checkShare(s); err != nil {
		t.Error(err)
	}
	t.Setenv("CREDENTIALS_DIRECTORY", t.TempDir())
	if err := checkShare(s); err == nil || !strings.Contains(err.Error(), "share.key_file: stat ") {
		t.Errorf("the credential is missing: %v", err)
	}
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	if _, err := fleetSettings(s); err == nil || !strings.Contains(err.Error(), "LoadCredential=secret:/path") {
		t.Error(err)
	}
	t.Setenv("CREDENTIALS_DIRECTORY", filepath.Dir(secretFile(t, "a key of this fleet alone\n", 0o440)))
	if set, err := fleetSettings(s); err != nil || len(set.Keys) != 1 {
		t.Errorf("%d keys, %v", len(set.Keys), err)
	}
}

// A reload with another engine, or with none, changes nothing until the restart: the
// engine in use is not believed without the key.
func TestReloadWithoutTheKeyKeepsIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "engine")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go answerUnsigned(listener)
	cfg := config.Default()
	cfg.Share.URL = config.EngineURL{Network: "unix", Hosts: []string{path}}
	cfg.Share.KeyFile = secretFile(t, "a key of more than sixteen characters", 0o400)
	f, err := newFleet(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	local := config.EngineURL{Network: "tcp", Hosts: []string{"127.0.0.1:6379"}}
	for _, next := range []config.Share{cfg.Share, {}, {URL: local, Timeout: cfg.Share.Timeout}} {
		if err := f.renew(config.Config{Share: next}); err != nil {
			t.Fatal(err)
		}
		_, err := f.engine().Ask(t.Context(), "example.test")
		if err == nil || errors.Is(err, share.ErrNone) || !strings.Contains(err.Error(), "signature") {
			t.Errorf("%+v: %v", next.URL, err)
		}
	}
}

// User and password in share.url are no part of where the engine is: a reload puts
// them in force.
func TestReloadAppliesThePasswordOfTheURL(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	logins := make(chan string, 10)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			var args []string
			for lines := bufio.NewScanner(conn); len(args) < 7 && lines.Scan(); {
				args = append(args, lines.Text())
			}
			_, _ = io.WriteString(conn, "-WRONGPASS no\r\n")
			_ = conn.Close()
			logins <- strings.Join(args, " ")
		}
	}()
	cfg := func(user, password string) config.Config {
		text := fmt.Sprintf("share.timeout = \"5s\"\nshare.url = \"redis://%s:%s@%s\"", user, password, listener.Addr())
		cfg, err := config.Parse([]byte(text), "test.toml")
		if err != nil {
			t.Fatal(err)
		}
		return cfg
	}
	f, err := newFleet(cfg("mail", "first"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	for _, next := range [][2]string{{"mail", "first"}, {"mail", "second"}, {"other", "third"}} {
		if err := f.renew(cfg(next[0], next[1])); err != nil {
			t.Fatal(err)
		}
		_, _ = f.engine().Ask(t.Context(), "example.test")
		if got, want := <-logins, fmt.Sprintf("*3 $4 AUTH $%d %s $%d %s", len(next[0]), next[0], len(next[1]), next[1]); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// answerUnsigned is an engine that has the same unsigned entry for each domain.
func answerUnsigned(listener net.Listener) {
	const file = "version: STSv1\nmode: none\nmax_age: 604800\n"
	var entry strings.Builder
	for _, v := range []string{"1", file, "1", "1700000000000", "1", "evil.test", ""} {
		fmt.Fprintf(&entry, "$%d\r\n%s\r\n", len(v), v)
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			for lines := bufio.NewScanner(conn); lines.Scan(); {
				if lines.Text() == "EVAL" {
					fmt.Fprintf(conn, "*2\r\n*2\r\n$10\r\n1700000060\r\n$1\r\n0\r\n*7\r\n%s", &entry)
				}
			}
		}()
	}
}
