//go:build e2e

package e2e

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// doctorFinding is what "tlspolicyd doctor --json" prints of one finding.
type doctorFinding struct {
	Code, Grade, Subject, Text, Evidence, Fix string
}

func (s *sender) doctorArgs(more ...string) []string {
	return append([]string{
		"doctor", "--config", daemonDir + "/tlspolicyd.toml", "--postfix-config", s.config(),
		"--signed-name", "dane.signed.test", "--broken-name", "expired.test",
	}, more...)
}

// doctor looks the sender's host over, from inside its folder.
func (s *sender) doctor(t *testing.T, binary string, more ...string) (all []doctorFinding) {
	t.Helper()
	began := time.Now()
	stdout, stderr, err := command(s.root, append([]string{binary}, s.doctorArgs(append(more, "--json")...)...)...)
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("doctor took %v", took)
	}
	var report struct {
		Topics []struct{ Findings []doctorFinding }
	}
	if jsonErr := json.Unmarshal([]byte(stdout), &report); jsonErr != nil {
		t.Fatalf("doctor: %v, %v: %s", err, jsonErr, stderr)
	}
	for _, topic := range report.Topics {
		all = append(all, topic.Findings...)
	}
	return all
}

// troubles are the findings that are not ok. Whether somebody keeps the clock of
// the machine right is not up to this world.
func troubles(all []doctorFinding) (list []doctorFinding) {
	for _, f := range all {
		if f.Grade != "ok" && f.Code != "clock-unsynchronised" {
			list = append(list, f)
		}
	}
	return list
}

func codesOf(all []doctorFinding) (codes []string) {
	for _, f := range all {
		codes = append(codes, f.Code)
	}
	return codes
}

// healed runs the script of doctor --fix, and wants nothing wrong afterwards.
func (s *sender) healed(t *testing.T, binary string) {
	t.Helper()
	script, stderr, _ := command(s.root, append([]string{binary}, s.doctorArgs("--fix")...)...)
	if !strings.Contains(script, "\npostconf -c ") {
		t.Fatalf("the script changes nothing:\n%s%s", script, stderr)
	}
	path := s.dir + "/mend.sh"
	if err := write(path, script); err != nil {
		t.Fatal(err)
	}
	if _, _, err := command(s.root, "/bin/sh", path); err != nil {
		t.Fatalf("%v\n%s", err, script)
	}
	s.cool(t)
	if left := troubles(s.doctor(t, binary)); len(left) > 0 {
		t.Errorf("after the script:\n%s\nthere is still %+v", script, left)
	}
}

// testDoctor breaks the hosts in one way after another, sees what doctor says,
// and lets its script mend what is in main.cf.
func testDoctor(t *testing.T, w *world) {
	for _, s := range []*sender{w.postfix37, w.postfix310} {
		t.Run(s.postfix.dir[len(workDir)+1:], func(t *testing.T) {
			all := s.doctor(t, w.daemon.binary)
			if bad := troubles(all); len(bad) > 0 {
				t.Errorf("a healthy host has %+v", bad)
			}
			for _, want := range []string{"map-present", "socket-answers", "resolver-validates", "database-good", "postfix-ca", "daemon-runs"} {
				if !slices.Contains(codesOf(all), want) {
					t.Errorf("a healthy host lacks %s: %v", want, codesOf(all))
				}
			}
			testDoctorSettings(t, w, s)
			if _, _, err := s.run("postfix", "reload"); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("host", func(t *testing.T) { testDoctorHost(t, w) })
}

// testDoctorSettings are mistakes in main.cf and master.cf.
func testDoctorSettings(t *testing.T, w *world, s *sender) {
	mapName, wrongName, wrongCode := "postfix", "postfix-tlsrpt", "map-tlsrpt-too-new"
	if s == w.postfix310 {
		mapName, wrongName, wrongCode = wrongName, mapName, "map-tlsrpt-missing"
	}
	ours := "socketmap:unix:run/tlspolicyd/socketmap.sock:" + mapName
	table := "texthash:" + s.config() + "/tls_policy"
	for _, test := range []struct{ name, setting, code, grade string }{
		{"absolute path under chroot", "smtp_tls_policy_maps=socketmap:unix:" + daemonDir + "/socketmap.sock:" + mapName, "map-unreachable", "fail"},
		{"no DNSSEC", "smtp_dns_support_level=", "dnssec-off", "fail"},
		{"map of the other version", "smtp_tls_policy_maps=socketmap:unix:run/tlspolicyd/socketmap.sock:" + wrongName, wrongCode, ""},
		{"misspelt map", "smtp_tls_policy_maps=socketmap:unix:run/tlspolicyd/socketmap.sock:pstfix", "map-name-unknown", "fail"},
		{"no map", "smtp_tls_policy_maps=", "map-absent", "fail"},
		{"only a table", "smtp_tls_policy_maps=" + table, "map-absent", "fail"},
		{"behind a table for everything", "smtp_tls_policy_maps=" + table + " static:may " + ours, "map-shadowed", "fail"},
		{"behind another program", "smtp_tls_policy_maps=socketmap:inet:127.0.0.1:8642:QUERY, " + ours, "map-behind-other", "warn"},
		{"CAfile missing", "smtp_tls_CAfile=/nowhere/ca.pem", "postfix-ca-missing", "fail"},
		{"no CAfile", "smtp_tls_CAfile=", "postfix-ca-none", "fail"},
		{"hosts not by DNS", "smtp_host_lookup=native", "host-lookup-without-dns", "fail"},
		{"no TLS by default", "smtp_tls_security_level=", "tls-level-none", "warn"},
		{"TLSA records of unsigned MX not used", "smtp_tls_dane_insecure_mx_policy=may", "insecure-mx-policy", "warn"},
		{"proxymap that may not", "smtp_tls_policy_maps=proxy:" + ours + "\nproxy_read_maps=$mynetworks", "map-proxy-refused", "fail"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s.change(t, strings.Split(test.setting, "\n")...)
			bad := troubles(s.doctor(t, w.daemon.binary))
			i := slices.IndexFunc(bad, func(f doctorFinding) bool { return f.Code == test.code })
			if i < 0 || test.grade != "" && bad[i].Grade != test.grade {
				t.Fatalf("got %+v, want %s", bad, test.code)
			}
			// What else is there is not thrown away, and stays a warning. A reload
			// takes its time, so the older Postfix does without most of them.
			if test.code != "map-behind-other" && (s == w.postfix310 || test.code == wrongCode) {
				s.healed(t, w.daemon.binary)
			}
		})
	}
	t.Run("a table stays before ours", func(t *testing.T) {
		s.change(t, "smtp_tls_policy_maps="+table+", socketmap:unix:run/tlspolicyd/socketmap.sock:x")
		s.healed(t, w.daemon.binary)
		got, _, err := s.run("postconf", "-h", "smtp_tls_policy_maps")
		if want := table + ", " + ours + "\n"; err != nil || got != want {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	})
	t.Run("a service without our map", func(t *testing.T) {
		s.change(t)
		if _, _, err := s.run("postconf", "-P", "relay/unix/smtp_tls_policy_maps=static:may"); err != nil {
			t.Fatal(err)
		}
		s.cool(t)
		want(t, s.doctor(t, w.daemon.binary), "service-without-map")
	})
}

// change sets parameters, and puts both files back at the end of the test. A
// Postfix that was reloaded meanwhile is reloaded by testDoctor.
func (s *sender) change(t *testing.T, settings ...string) {
	t.Helper()
	for _, name := range []string{"main.cf", "master.cf"} {
		before, err := os.ReadFile(s.config() + "/" + name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := write(s.config()+"/"+name, string(before)); err != nil {
				t.Error(err)
			}
			s.cool(t)
		})
	}
	for _, setting := range settings {
		if _, _, err := s.run("postconf", "-e", setting); err != nil {
			t.Fatal(err)
		}
		s.cool(t)
	}
}

// cool makes both files look a minute old: Postfix waits for a second or two
// before it reads one that was changed just now.
func (s *sender) cool(t *testing.T) {
	t.Helper()
	before := time.Now().Add(-time.Minute)
	for _, name := range []string{"main.cf", "master.cf"} {
		if err := os.Chtimes(s.config()+"/"+name, before, before); err != nil {
			t.Error(err)
		}
	}
}

func want(t *testing.T, all []doctorFinding, code string) doctorFinding {
	t.Helper()
	i := slices.IndexFunc(all, func(f doctorFinding) bool { return f.Code == code })
	if i < 0 {
		t.Fatalf("got %+v, want %s", troubles(all), code)
	}
	return all[i]
}

// testDoctorHost are mistakes around Postfix.
func testDoctorHost(t *testing.T, w *world) {
	s := w.postfix37
	socket := s.queue() + "/run/tlspolicyd/socketmap.sock"
	t.Run("socket with mode 0600", func(t *testing.T) {
		chmod(t, socket, 0o600, 0o666)
		want(t, s.doctor(t, w.daemon.binary), "socket-denied")
	})
	t.Run("directory with mode 0700", func(t *testing.T) {
		chmod(t, s.queue()+"/run/tlspolicyd", 0o700, 0o755)
		f := want(t, s.doctor(t, w.daemon.binary), "socket-denied")
		if !strings.Contains(f.Evidence, s.queue()+"/run/tlspolicyd is closed") {
			t.Errorf("got %+v, want the directory named", f)
		}
	})
	t.Run("another program answers", func(t *testing.T) {
		s.change(t, "smtp_tls_policy_maps=socketmap:unix:run/tlspolicyd/other.sock:postfix")
		stop := serveNothing(t, s.queue()+"/run/tlspolicyd/other.sock")
		defer stop()
		want(t, s.doctor(t, w.daemon.binary), "map-absent")
	})
	t.Run("copy of resolv.conf is old", func(t *testing.T) {
		path := s.queue() + "/etc/resolv.conf"
		if err := write(path, "nameserver 127.0.0.99\n"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := write(path, "nameserver "+resolverAddr+"\n"); err != nil {
				t.Error(err)
			}
		})
		want(t, s.doctor(t, w.daemon.binary), "chroot-resolv-conf")
	})
	t.Run("resolver that does not validate", func(t *testing.T) {
		const other = "127.0.0.54"
		text := strings.NewReplacer(resolverAddr, other, "validator iterator", "iterator").Replace(unboundConfig)
		if err := write(dnsDir+"/unbound-plain.conf", text); err != nil {
			t.Fatal(err)
		}
		proc, err := start(w.bookworm, 0, "/usr/sbin/unbound", "-d", "-p", "-c", dnsDir+"/unbound-plain.conf")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = proc.stop(syscall.SIGTERM) }()
		mustWait(t, func() error { return answers(other, ".") })
		config, err := os.ReadFile(daemonDir + "/tlspolicyd.toml")
		if err != nil {
			t.Fatal(err)
		}
		plain := daemonDir + "/plain.toml"
		if err := write(plain, strings.Replace(string(config), resolverAddr, other, 1)); err != nil {
			t.Fatal(err)
		}
		all := s.doctor(t, w.daemon.binary, "--config", plain)
		want(t, all, "resolver-not-validating")
		want(t, all, "resolver-differs")
	})
	t.Run("ordinary user", func(t *testing.T) {
		cmd := exec.Command(w.daemon.binary, s.doctorArgs()...)
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: s.root, Credential: &syscall.Credential{Uid: 7, Gid: 7}}
		out, err := cmd.CombinedOutput()
		var ended *exec.ExitError
		if !errors.As(err, &ended) || ended.ExitCode() != 3 || !strings.Contains(string(out), "Run doctor as root") {
			t.Errorf("got %v, want exit status 3 and advice\n%s", err, out)
		}
	})
	t.Run("no daemon", func(t *testing.T) {
		if err := w.daemon.proc.stop(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := w.daemon.start(); err != nil {
				t.Error(err)
			}
		})
		all := s.doctor(t, w.daemon.binary)
		want(t, all, "socket-missing")
		want(t, all, "daemon-down")
		if f := want(t, all, "database-good"); !strings.Contains(f.Text, "schema 1") {
			t.Errorf("got %+v, want the file looked at", f)
		}
	})
	t.Run("no network", func(t *testing.T) {
		if err := w.names.unbound.stop(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := w.names.startUnbound(); err != nil {
				t.Error(err)
			}
		})
		want(t, s.doctor(t, w.daemon.binary), "network-down")
	})
}

func chmod(t *testing.T, path string, mode, before os.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Chmod(path, before); err != nil {
			t.Error(err)
		}
	})
}

// serveNothing is a socketmap server of somebody else: it has no policy for
// anybody, by any map.
func serveNothing(t *testing.T, path string) (stop func()) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err == nil {
		err = os.Chmod(path, 0o666)
	}
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				buf := make([]byte, 4096)
				for {
					if _, err := conn.Read(buf); err != nil {
						return
					}
					if _, err := conn.Write([]byte("9:NOTFOUND ,")); err != nil {
						return
					}
				}
			}()
		}
	}()
	return func() { l.Close() }
}
