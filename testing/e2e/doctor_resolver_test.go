//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// resolverFaults are about the name servers of the daemon and of Postfix.
func resolverFaults(t *testing.T, h *doctorHost) []hostFault {
	const (
		plain    = "127.0.0.54" // does not validate
		credible = "127.0.0.55" // accepts wrong signatures
		lost     = "127.0.0.56" // has a trust anchor of another root
		silent   = "127.0.0.57"
		remote   = "10.53.0.1" // not a loopback address

		forwarder = "127.0.0.11" // where containers have one
	)
	chrootConf := h.queue() + "/etc/resolv.conf"
	// askOnly has smtp(8) ask one server until askAgain.
	askOnly := func(server string) func(*testing.T, *doctorHost) {
		return func(t *testing.T, _ *doctorHost) {
			keep(t, chrootConf)
			if err := write(chrootConf, "nameserver "+server+"\n"); err != nil {
				t.Fatal(err)
			}
		}
	}
	askAgain := func(t *testing.T, _ *doctorHost, _ []string) {
		text, err := os.ReadFile(workDir + "/resolv.conf")
		if err == nil {
			err = write(chrootConf, string(text))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	unbound := func(address string, replace ...string) func(*testing.T, *doctorHost) {
		return func(t *testing.T, h *doctorHost) { h.anotherUnbound(t, address, replace...) }
	}
	// with runs doctor for a daemon that is to ask other servers.
	with := func(name, servers string) doctorRun {
		return doctorRun{flags: []string{"--config", variant(t, name, `servers = ["`+resolverAddr+`"]`, "servers = "+servers)}}
	}
	return []hostFault{
		{
			name: "a resolver that does not validate", want: []string{"fail resolver-not-validating", "warn resolver-differs"},
			cause: unbound(plain, "validator iterator", "iterator"), broken: with("plain", `["`+plain+`"]`),
		},
		{
			name: "a resolver that accepts wrong signatures", want: []string{"fail resolver-accepts-bogus"},
			cause: unbound(credible, "val-log-level: 2", "val-permissive-mode: yes"), broken: with("credible", `["`+credible+`"]`),
		},
		{
			name: "a resolver with an old trust anchor", want: []string{"fail resolver-failed"},
			cause: unbound(lost, dnsDir+"/anchor", dnsDir+"/old-anchor"), broken: with("lost", `["`+lost+`", "`+resolverAddr+`"]`),
		},
		{
			name: "one of two resolvers is silent", want: []string{"warn resolver-no-answer"},
			broken: with("silent", `["`+resolverAddr+`", "`+silent+`"]`),
		},
		{
			name: "no name whose signature is broken", want: []string{"unknown resolver-inconclusive"},
			broken: doctorRun{flags: []string{"--broken-name", "nosuch.open.test"}},
		},
		{
			name: "a resolver on another host", want: []string{"warn resolver-untrusted"},
			cause: func(t *testing.T, h *doctorHost) {
				borrowAddress(t, remote)
				h.anotherUnbound(t, remote, "access-control: 127.0.0.0/8", "access-control: 10.0.0.0/8")
			},
			broken:   with("remote", `["`+remote+`"]`),
			repaired: with("trusted", `["`+remote+"\"]\ntrust_ad = true"),
			left:     []string{"resolver-differs"},
		},
		{
			name: "the copy of resolv.conf is old", want: []string{"fail chroot-resolv-conf-stale"}, repair: byItsLines,
			cause: askOnly("127.0.0.99"),
		},
		{
			name: "the copy of resolv.conf is old, and its resolver does not validate", want: []string{"fail chroot-resolv-conf-stale"}, repair: byItsLines,
			cause: func(t *testing.T, h *doctorHost) {
				h.anotherUnbound(t, plain, "validator iterator", "iterator")
				askOnly(plain)(t, h)
			},
		},
		{
			name: "ordinary user and a closed copy", want: []string{"unknown resolv-conf-unreadable"},
			broken: doctorRun{user: lp},
			cause:  func(t *testing.T, _ *doctorHost) { chmod(t, chrootConf, 0o600, 0o644) },
		},
		{
			name: "the resolver is stopped", want: []string{"fail resolver-no-answer"},
			cause: func(t *testing.T, h *doctorHost) {
				if err := h.w.names.unbound.stop(syscall.SIGTERM); err != nil {
					t.Fatal(err)
				}
			},
			repair: func(t *testing.T, h *doctorHost, _ []string) {
				if err := h.w.names.startUnbound(); err != nil {
					t.Fatal(err)
				}
			},
		},
		{
			name: "no resolver on this host, and no network", want: []string{"unknown network-down"},
			cause: askOnly("10.53.0.9"), broken: with("away", `["10.53.0.9"]`), repair: askAgain,
		},
		{
			name: "a resolver that is cut off", want: []string{"unknown dns-isolated"},
			cause: func(t *testing.T, h *doctorHost) {
				borrowAddress(t, remote)
				h.anotherUnbound(t, remote, "access-control: 127.0.0.0/8", "access-control: 10.0.0.0/8",
					"remote-control:", "  local-zone: \".\" always_nxdomain\nremote-control:")
				askOnly(remote)(t, h)
			},
			broken: doctorRun{flags: append(with("cut-off", `["`+remote+`"]`).flags, "--signed-name", ".")}, repair: askAgain,
		},
		{
			name: "a forwarder", want: []string{"warn resolver-forwarder"},
			cause: unbound(forwarder), broken: with("forwarder", `["`+forwarder+`"]`),
		},
	}
}

// variant writes another configuration of the daemon, and returns its path.
func variant(t *testing.T, name string, replace ...string) string {
	t.Helper()
	text, err := os.ReadFile(daemonDir + "/tlspolicyd.toml")
	if err != nil {
		t.Fatal(err)
	}
	path := daemonDir + "/" + name + ".toml"
	if err := write(path, strings.NewReplacer(replace...).Replace(string(text))); err != nil {
		t.Fatal(err)
	}
	return path
}

// anotherUnbound runs a resolver with other settings until the end of the test.
func (h *doctorHost) anotherUnbound(t *testing.T, address string, replace ...string) {
	t.Helper()
	anchor, err := os.ReadFile(dnsDir + "/anchor")
	if err != nil {
		t.Fatal(err)
	}
	// A DS record ends in the digest, which is that of another key then.
	old := strings.TrimSpace(string(anchor))
	old = old[:len(old)-8] + "00000000\n"
	text := strings.NewReplacer(append(replace, "interface: "+resolverAddr, "interface: "+address)...).Replace(unboundConfig)
	path := fmt.Sprintf("%s/unbound-%s.conf", dnsDir, address)
	for path, text := range map[string]string{dnsDir + "/old-anchor": old, path: text} {
		if err := write(path, text); err != nil {
			t.Fatal(err)
		}
	}
	proc, err := start(h.w.bookworm, 0, "/usr/sbin/unbound", "-d", "-p", "-c", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = proc.stop(syscall.SIGTERM) })
	mustWait(t, func() error {
		_, err := ask(address, "open.test", 1)
		return err
	})
}

// borrowAddress gives loopback one more address until the end of the test.
func borrowAddress(t *testing.T, address string) {
	t.Helper()
	const label = "lo:doctor"
	if err := addAddress(label, address); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		down, err := unix.NewIfreq(label)
		if err == nil {
			down.SetUint16(0)
			err = unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, down)
		}
		if err != nil {
			t.Error(err)
		}
	})
}
