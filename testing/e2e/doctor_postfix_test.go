//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// postfixFaults are mistakes in main.cf and master.cf.
func postfixFaults(h *doctorHost) []hostFault {
	list := slices.Concat(mapFaults(h), levelFaults(), authorityFaults())
	if h.sender == h.w.postfix310 {
		return append(list, newPostfixFaults()...)
	}
	return append(list, oldPostfixFaults()...)
}

// mapFaults are about smtp_tls_policy_maps.
func mapFaults(h *doctorHost) []hostFault {
	const maps, dir = "smtp_tls_policy_maps=", "socketmap:unix:run/tlspolicyd/"
	ours, other := h.ours(), dir+"other.sock:QUERY"
	mapName, wrongName := h.mapName()
	wrong := "fail map-tlsrpt-unsupported"
	if mapName == "postfix-tlsrpt" {
		wrong = "warn map-tlsrpt-unused"
	}
	// beside has another program that answers.
	beside := func(name, want, list string) hostFault {
		fault := settings(name, want, maps+list)
		fault.cause = func(t *testing.T, h *doctorHost) {
			h.change(t, maps+list)
			path := h.queue() + "/run/tlspolicyd/other.sock"
			t.Cleanup(func() { os.Remove(path) })
			t.Cleanup(serveNothing(t, path))
		}
		fault.left = []string{"map-before-other"} // it is not thrown away
		return fault
	}
	before := beside("before another program", "warn map-before-other", ours+" "+other)
	before.repair = func(t *testing.T, h *doctorHost, _ []string) { h.change(t, maps+ours) }
	return []hostFault{
		settings("absolute path under chroot", "fail map-unreachable", maps+"socketmap:unix:"+daemonDir+"/socketmap.sock:"+mapName),
		settings("map of the other version", wrong, maps+dir+"socketmap.sock:"+wrongName),
		settings("misspelt map", "fail map-name-unknown", maps+dir+"socketmap.sock:pstfix"),
		settings("no map", "fail map-missing", maps),
		settings("after a table for everything", "fail map-shadowed", maps+"static:may "+ours),
		beside("after another program", "warn map-after-other", other+", "+ours),
		beside("another program instead", "fail map-missing", other),
		before,
		settings("proxymap is not allowed", "fail map-proxy-refused", maps+"proxy:"+ours, "proxy_read_maps=$mynetworks"),
		{
			name: "only a table", want: []string{"fail map-missing"}, repair: byItsLines,
			cause: func(t *testing.T, h *doctorHost) { h.change(t, maps+h.table(t)) },
		},
		{
			name: "a service without our map", want: []string{"warn map-missing-in-service"}, repair: byItsLines,
			cause: func(t *testing.T, h *doctorHost) { h.override(t, "relay/unix/smtp_tls_policy_maps=static:may") },
		},
	}
}

// testDoctorDelivery has mail deferred by what doctor finds, and delivered after
// its lines have been run.
func testDoctorDelivery(t *testing.T, h *doctorHost) {
	const maps, dir = "smtp_tls_policy_maps=", "socketmap:unix:run/tlspolicyd/"
	for _, c := range []struct {
		name, maps, code string
		try              bool // a delivery before; smtp(8) stops at a malformed entry, and is not started again for a while
	}{
		{"a wrong path", dir + "socketmap.sok:postfix", "map-unreachable", true},
		{"a dead port", "socketmap:inet:127.0.0.1:8642:QUERY", "map-unreachable", true},
		{"a dead port before ours", "socketmap:inet:127.0.0.1:8642:QUERY, " + h.ours(), "map-unreachable", true},
		{"a forgotten map name", dir + "socketmap.sock", "map-malformed", false},
		{"a forgotten map name after ours", h.ours() + " " + dir + "socketmap.sock", "map-malformed", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Cleanup(func() { h.reload(t) }) // after the files are back
			h.change(t, maps+c.maps)
			h.reload(t)
			if c.try {
				if o := h.send(t, "a@sts.open.test"); o.status != deferred {
					t.Errorf("before the fix: %+v", o)
				}
			}
			byItsLines(t, h, []string{want(t, h.doctor(t, doctorRun{}), c.code).Fix})
			h.reload(t)
			wantDelivered(t, h.send(t, "a@sts.open.test"), "mx.sts.open.test", "good", "Verified")
		})
	}
	t.Run("a stale copy of resolv.conf", func(t *testing.T) {
		t.Cleanup(func() { h.reload(t) }) // after the file is back
		conf := h.queue() + "/etc/resolv.conf"
		keep(t, conf)
		h.anotherUnbound(t, "127.0.0.54", "validator iterator", "iterator")
		if err := write(conf, "nameserver 127.0.0.54\n"); err != nil {
			t.Fatal(err)
		}
		h.reload(t)
		if o := h.send(t, "a@dane.signed.test"); o.status != deferred {
			t.Errorf("before the fix: %+v", o)
		}
		byItsLines(t, h, []string{want(t, h.doctor(t, doctorRun{}), "chroot-resolv-conf-stale").Fix})
		wantDelivered(t, h.send(t, "a@dane.signed.test"), "mx.dane.signed.test", "dane", "Verified")
	})
}

// reload has Postfix read what was changed, and waits until the clients that have
// not read it are gone.
func (h *doctorHost) reload(t *testing.T) {
	t.Helper()
	before := h.clients()
	if _, _, err := h.run("postfix", "reload"); err != nil {
		t.Fatal(err)
	}
	mustWait(t, func() error {
		for _, pid := range h.clients() {
			if slices.Contains(before, pid) {
				return fmt.Errorf("smtp(8) with the process id %s has not ended", pid)
			}
		}
		return nil
	})
}

// clients are the process ids of the sender's smtp(8), which is chrooted.
func (h *doctorHost) clients() (pids []string) {
	all, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range all {
		comm, _ := os.ReadFile(dir + "/comm")
		root, _ := os.Readlink(dir + "/root")
		if string(comm) == "smtp\n" && strings.HasSuffix(root, h.queue()) {
			pids = append(pids, filepath.Base(dir))
		}
	}
	return pids
}

// override sets a parameter for one service of master.cf.
func (h *doctorHost) override(t *testing.T, setting string) {
	t.Helper()
	h.change(t)
	if _, _, err := h.run("postconf", "-P", setting); err != nil {
		t.Fatal(err)
	}
	h.cool(t)
}

// levelFaults are about how Postfix looks hosts up and what TLS it wants.
func levelFaults() []hostFault {
	return []hostFault{
		settings("no DNSSEC", "fail postfix-dnssec-off", "smtp_dns_support_level="),
		{
			name: "a service without DNSSEC", want: []string{"fail postfix-dnssec-off"}, repair: byItsLines,
			cause: func(t *testing.T, h *doctorHost) { h.override(t, "relay/unix/smtp_dns_support_level=enabled") },
		},
		settings("hosts not by DNS", "fail postfix-dns-off", "smtp_host_lookup=native"),
		settings("no TLS by default", "warn postfix-level-none", "smtp_tls_security_level="),
		settings("TLS for everybody", "warn postfix-level-strict", "smtp_tls_security_level=encrypt"),
		settings("TLSA records of unsigned MX not used", "warn postfix-insecure-mx-policy", "smtp_tls_dane_insecure_mx_policy=may"),
	}
}

// authorityFaults are about the certificate authorities of Postfix.
func authorityFaults() []hostFault {
	return []hostFault{
		settings("CAfile missing", "fail postfix-ca-missing", "smtp_tls_CAfile=/nowhere/ca.pem"),
		settings("no CAfile", "fail postfix-ca-none", "smtp_tls_CAfile="),
		{
			name: "CApath outside of the chroot", want: []string{"fail postfix-ca-chroot"}, repair: byItsLines,
			cause: func(t *testing.T, h *doctorHost) {
				if err := write(h.dir+"/certs/0a1b2c3d.0", h.w.ca.pem); err != nil {
					t.Fatal(err)
				}
				h.change(t, "smtp_tls_CAfile=", "smtp_tls_CApath="+h.dir+"/certs")
			},
		},
		{
			name: "another list of authorities", want: []string{"warn postfix-ca-differs"}, repair: byItsLines,
			cause: func(t *testing.T, h *doctorHost) {
				other, err := newAuthority()
				if err != nil {
					t.Fatal(err)
				}
				if err := write(h.dir+"/other-ca.pem", other.pem); err != nil {
					t.Fatal(err)
				}
				h.change(t, "smtp_tls_CAfile="+h.dir+"/other-ca.pem")
			},
		},
	}
}

// oldPostfixFaults are those of releases that Debian no longer has: the
// parameter with the version is set to theirs, which is what doctor goes by.
func oldPostfixFaults() []hostFault {
	upgrade := func(t *testing.T, h *doctorHost, _ []string) {
		if _, _, err := h.run("postconf", "-X", "mail_version"); err != nil {
			t.Fatal(err)
		}
		h.cool(t)
	}
	old := settings("Postfix 3.3", "fail postfix-version-old", "mail_version=3.3.22")
	old.repair = upgrade
	return []hostFault{old}
}

// keep puts a file back at the end of the test.
func keep(t *testing.T, path string) {
	t.Helper()
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(path, before, 0o644); err != nil {
			t.Error(err)
		}
	})
}

// newPostfixFaults are about what came with Postfix 3.10.
func newPostfixFaults() []hostFault {
	return []hostFault{settings("MX names not checked against the policy", "warn postfix-sts-patterns-off", "smtp_tls_enforce_sts_mx_patterns=no")}
}

// instanceFaults are about which Postfix doctor checks.
func instanceFaults(h *doctorHost) []hostFault {
	return []hostFault{
		{
			name: "no Postfix", want: []string{"unknown postfix-absent"},
			cause:  func(t *testing.T, h *doctorHost) { h.cover(t, "/dev/null", "/usr/sbin/postconf") },
			repair: func(t *testing.T, h *doctorHost, _ []string) { h.uncover(t, "/usr/sbin/postconf") },
		},
		{
			name: "no main.cf", want: []string{"unknown postfix-unreadable"},
			cause: func(t *testing.T, h *doctorHost) { move(t, h.config()+"/main.cf", h.config()+"/main.cf.away") },
			repair: func(t *testing.T, h *doctorHost, _ []string) {
				move(t, h.config()+"/main.cf.away", h.config()+"/main.cf")
			},
		},
		{
			name: "another instance", want: []string{"ok postfix-other-instances"},
			cause: func(t *testing.T, h *doctorHost) {
				h.cover(t, h.config(), "/etc/postfix")
				h.change(t, "multi_instance_directories="+h.w.postfix310.config())
			},
			broken: doctorRun{flags: []string{"--postfix-config", ""}}, // Postfix's default
			repair: func(t *testing.T, h *doctorHost, lines []string) {
				if want := "tlspolicyd doctor --postfix-config " + h.w.postfix310.config(); !slices.Equal(lines, []string{want}) {
					t.Errorf("got %q, want %q", lines, want)
				}
			},
			repaired: doctorRun{flags: []string{"--postfix-config", h.w.postfix310.config()}},
			// It is not of the Debian whose postconf is asked.
			left: []string{"map-tlsrpt-unsupported"},
		},
	}
}
