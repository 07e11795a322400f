//go:build e2e

package e2e

import (
	"os"
	"slices"
	"testing"
)

// postfixAilments are mistakes in main.cf and master.cf.
func postfixAilments(h *doctorHost) []hostFault {
	list := slices.Concat(mapAilments(h), levelAilments(), authorityAilments())
	if h.sender == h.w.postfix310 {
		return append(list, newPostfixAilments()...)
	}
	return append(list, oldPostfixAilments()...)
}

// mapAilments are about smtp_tls_policy_maps.
func mapAilments(h *doctorHost) []hostFault {
	const maps = "smtp_tls_policy_maps="
	ours, other := h.ours(), "socketmap:inet:127.0.0.1:8642:QUERY"
	mapName, wrongName := h.mapName()
	wrong := "fail map-tlsrpt-too-new"
	if mapName == "postfix-tlsrpt" {
		wrong = "warn map-tlsrpt-missing"
	}
	behind := settings("behind another program", "warn map-behind-other", maps+other+", "+ours)
	behind.left = []string{"map-before-other"} // what is there is not thrown away
	before := settings("before another program", "warn map-before-other", maps+ours+" "+other)
	before.mend = func(t *testing.T, h *doctorHost, _ []string) { h.change(t, maps+ours) }
	whole := "proxy:unionmap:{inline:{x.invalid=may}, " + ours + "}"
	return []hostFault{
		settings("absolute path under chroot", "fail map-unreachable", maps+"socketmap:unix:"+daemonDir+"/socketmap.sock:"+mapName),
		settings("map of the other version", wrong, maps+"socketmap:unix:run/tlspolicyd/socketmap.sock:"+wrongName),
		settings("misspelt map", "fail map-name-unknown", maps+"socketmap:unix:run/tlspolicyd/socketmap.sock:pstfix"),
		settings("no map", "fail map-absent", maps),
		settings("behind a table for everything", "fail map-shadowed", maps+"static:may "+ours),
		behind, before,
		settings("proxymap that may not", "fail map-proxy-refused", maps+"proxy:"+ours, "proxy_read_maps=$mynetworks"),
		{
			name: "two that proxymap may not", want: []string{"fail map-proxy-refused", "warn map-nested"}, mend: byItsLines,
			spoil: func(t *testing.T, h *doctorHost) {
				h.change(t, maps+"unionmap:{proxy:inline:{x.invalid=may}, proxy:"+ours+"}", "proxy_read_maps=$mynetworks")
			},
		},
		settings("in one that proxymap may open whole", "warn map-nested", maps+whole, "proxy_read_maps="+whole),
		settings("in one with a table", "warn map-nested", maps+"unionmap:{inline:{x.invalid=may}, "+ours+"}"),
		settings("misspelt inside of another", "fail map-name-unknown", maps+"unionmap:{socketmap:unix:run/tlspolicyd/socketmap.sock:pstfix}"),
		{
			name: "its answers are changed", want: []string{"warn map-nested"},
			spoil: func(t *testing.T, h *doctorHost) { h.change(t, maps+"pipemap:{"+ours+", regexp:{{/^dane/ may}}}") },
			mend:  func(t *testing.T, h *doctorHost, _ []string) { h.change(t, maps+ours) },
		},
		{
			name: "a table that was not written", want: []string{"fail map-file-missing"}, mend: byItsLines,
			spoil: func(t *testing.T, h *doctorHost) { h.change(t, maps+"texthash:"+h.dir+"/gone, "+ours) },
		},
		{
			name: "a table that was not made", want: []string{"fail map-file-missing"}, mend: byItsLines,
			spoil: func(t *testing.T, h *doctorHost) {
				if err := write(h.dir+"/exceptions", "partner.invalid encrypt\n"); err != nil {
					t.Fatal(err)
				}
				h.change(t, maps+"hash:"+h.dir+"/exceptions, "+ours)
			},
		},
		{
			name: "only a table", want: []string{"fail map-absent"}, mend: byItsLines,
			spoil: func(t *testing.T, h *doctorHost) { h.change(t, maps+h.table(t)) },
		},
		{
			name: "another program in our place", want: []string{"fail map-absent"}, mend: byItsLines,
			spoil: func(t *testing.T, h *doctorHost) {
				h.change(t, maps+"socketmap:unix:run/tlspolicyd/other.sock:postfix")
				other := h.queue() + "/run/tlspolicyd/other.sock"
				t.Cleanup(serveNothing(t, other))
				t.Cleanup(func() { os.Remove(other) })
			},
			left: []string{"map-before-other"},
		},
		{
			name: "a service without our map", want: []string{"warn service-without-map"}, mend: byItsLines,
			spoil: func(t *testing.T, h *doctorHost) { h.override(t, "relay/unix/smtp_tls_policy_maps=static:may") },
		},
	}
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

// levelAilments are about how Postfix looks hosts up and what TLS it wants.
func levelAilments() []hostFault {
	return []hostFault{
		settings("no DNSSEC", "fail dnssec-off", "smtp_dns_support_level="),
		{
			name: "a service without DNSSEC", want: []string{"fail dnssec-off"}, mend: byItsLines,
			spoil: func(t *testing.T, h *doctorHost) { h.override(t, "relay/unix/smtp_dns_support_level=enabled") },
		},
		settings("hosts not by DNS", "fail host-lookup-without-dns", "smtp_host_lookup=native"),
		settings("no TLS by default", "warn tls-level-none", "smtp_tls_security_level="),
		settings("TLS for everybody", "warn tls-level-strict", "smtp_tls_security_level=encrypt"),
		settings("TLSA records of unsigned MX not used", "warn insecure-mx-policy", "smtp_tls_dane_insecure_mx_policy=may"),
	}
}

// authorityAilments are about whom Postfix believes.
func authorityAilments() []hostFault {
	return []hostFault{
		settings("CAfile missing", "fail postfix-ca-missing", "smtp_tls_CAfile=/nowhere/ca.pem"),
		settings("no CAfile", "fail postfix-ca-none", "smtp_tls_CAfile="),
		{
			name: "CApath outside of the chroot", want: []string{"fail postfix-ca-chroot"}, mend: byItsLines,
			spoil: func(t *testing.T, h *doctorHost) {
				if err := write(h.dir+"/certs/0a1b2c3d.0", h.w.ca.pem); err != nil {
					t.Fatal(err)
				}
				h.change(t, "smtp_tls_CAfile=", "smtp_tls_CApath="+h.dir+"/certs")
			},
		},
		{
			name: "another list of authorities", want: []string{"warn postfix-ca-differs"}, mend: byItsLines,
			spoil: func(t *testing.T, h *doctorHost) {
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

// oldPostfixAilments are those of releases that Debian no longer has: the
// parameter with the version is set to theirs, which is what doctor goes by.
func oldPostfixAilments() []hostFault {
	upgrade := func(t *testing.T, h *doctorHost, _ []string) {
		if _, _, err := h.run("postconf", "-X", "mail_version"); err != nil {
			t.Fatal(err)
		}
		h.cool(t)
	}
	old := settings("Postfix 3.3", "fail postfix-too-old", "mail_version=3.3.22")
	old.mend = upgrade
	return []hostFault{
		old,
		{
			name: "Postfix 3.4.9 with glibc", want: []string{"warn trust-ad-missing"}, mend: byItsLines,
			spoil: func(t *testing.T, h *doctorHost) {
				h.change(t, "mail_version=3.4.9")
				keep(t, workDir+"/resolv.conf")
				keep(t, h.queue()+"/etc/resolv.conf")
			},
		},
	}
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

// newPostfixAilments are about what came with Postfix 3.10.
func newPostfixAilments() []hostFault {
	const socket = "smtp_tlsrpt_socket_name="
	lost := settings("TLSRPT without a collector", "warn tlsrpt-no-socket", socket+"run/tlsrpt/other.sock")
	lost.mend = func(t *testing.T, h *doctorHost, _ []string) { h.change(t, socket+"run/tlsrpt/tlsrpt.sock") }
	return []hostFault{
		settings("MX names not held against the policy", "warn sts-patterns-off", "smtp_tls_enforce_sts_mx_patterns=no"),
		settings("TLSRPT without the name of a socket", "warn tlsrpt-no-socket", socket),
		lost,
	}
}

// instanceAilments are about which Postfix doctor looks at.
func instanceAilments(h *doctorHost) []hostFault {
	return []hostFault{
		{
			name: "no Postfix", want: []string{"unknown postfix-absent"},
			spoil: func(t *testing.T, h *doctorHost) { h.cover(t, "/dev/null", "/usr/sbin/postconf") },
			mend:  func(t *testing.T, h *doctorHost, _ []string) { h.uncover(t, "/usr/sbin/postconf") },
		},
		{
			name: "no main.cf", want: []string{"unknown postfix-unread"},
			spoil: func(t *testing.T, h *doctorHost) { move(t, h.config()+"/main.cf", h.config()+"/main.cf.away") },
			mend: func(t *testing.T, h *doctorHost, _ []string) {
				move(t, h.config()+"/main.cf.away", h.config()+"/main.cf")
			},
		},
		{
			name: "another instance", want: []string{"ok postfix-instances"},
			spoil: func(t *testing.T, h *doctorHost) {
				h.cover(t, h.config(), "/etc/postfix")
				h.change(t, "multi_instance_directories="+h.w.postfix310.config())
			},
			broken: doctorRun{flags: []string{"--postfix-config", ""}}, // Postfix's default
			mend: func(t *testing.T, h *doctorHost, lines []string) {
				if want := "tlspolicyd doctor --postfix-config " + h.w.postfix310.config(); !slices.Equal(lines, []string{want}) {
					t.Errorf("got %q, want %q", lines, want)
				}
			},
			mended: doctorRun{flags: []string{"--postfix-config", h.w.postfix310.config()}},
			// It is not of the Debian whose postconf is asked.
			left: []string{"map-tlsrpt-too-new"},
		},
	}
}
