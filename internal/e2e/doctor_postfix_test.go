//go:build e2e

package e2e

import (
	"os"
	"slices"
	"testing"
)

// postfixAilments are mistakes in main.cf and master.cf.
func postfixAilments(p *patient) []ailment {
	list := slices.Concat(mapAilments(p), levelAilments(), authorityAilments())
	if p.sender == p.w.postfix310 {
		return append(list, newPostfixAilments()...)
	}
	return append(list, oldPostfixAilments()...)
}

// mapAilments are about smtp_tls_policy_maps.
func mapAilments(p *patient) []ailment {
	const maps = "smtp_tls_policy_maps="
	ours, other := p.ours(), "socketmap:inet:127.0.0.1:8642:QUERY"
	mapName, wrongName := p.mapName()
	wrong := "fail map-tlsrpt-too-new"
	if mapName == "postfix-tlsrpt" {
		wrong = "warn map-tlsrpt-missing"
	}
	behind := settings("behind another program", "warn map-behind-other", maps+other+", "+ours)
	behind.left = []string{"map-before-other"} // what is there is not thrown away
	before := settings("before another program", "warn map-before-other", maps+ours+" "+other)
	before.mend = func(t *testing.T, p *patient, _ []string) { p.change(t, maps+ours) }
	return []ailment{
		settings("absolute path under chroot", "fail map-unreachable", maps+"socketmap:unix:"+daemonDir+"/socketmap.sock:"+mapName),
		settings("map of the other version", wrong, maps+"socketmap:unix:run/tlspolicyd/socketmap.sock:"+wrongName),
		settings("misspelt map", "fail map-name-unknown", maps+"socketmap:unix:run/tlspolicyd/socketmap.sock:pstfix"),
		settings("no map", "fail map-absent", maps),
		settings("behind a table for everything", "fail map-shadowed", maps+"static:may "+ours),
		behind, before,
		settings("proxymap that may not", "fail map-proxy-refused", maps+"proxy:"+ours, "proxy_read_maps=$mynetworks"),
		settings("in one with a table", "warn map-nested", maps+"unionmap:{inline:{x.invalid=may}, "+ours+"}"),
		settings("misspelt inside of another", "fail map-name-unknown", maps+"unionmap:{socketmap:unix:run/tlspolicyd/socketmap.sock:pstfix}"),
		{
			name: "its answers are changed", want: []string{"warn map-nested"},
			spoil: func(t *testing.T, p *patient) { p.change(t, maps+"pipemap:{"+ours+", regexp:{{/^dane/ may}}}") },
			mend:  func(t *testing.T, p *patient, _ []string) { p.change(t, maps+ours) },
		},
		{
			name: "a table that was not written", want: []string{"fail map-file-missing"}, mend: byItsLines,
			spoil: func(t *testing.T, p *patient) { p.change(t, maps+"texthash:"+p.dir+"/gone, "+ours) },
		},
		{
			name: "a table that was not made", want: []string{"fail map-file-missing"}, mend: byItsLines,
			spoil: func(t *testing.T, p *patient) {
				if err := write(p.dir+"/exceptions", "partner.invalid encrypt\n"); err != nil {
					t.Fatal(err)
				}
				p.change(t, maps+"hash:"+p.dir+"/exceptions, "+ours)
			},
		},
		{
			name: "only a table", want: []string{"fail map-absent"}, mend: byItsLines,
			spoil: func(t *testing.T, p *patient) { p.change(t, maps+p.table(t)) },
		},
		{
			name: "another program in our place", want: []string{"fail map-absent"}, mend: byItsLines,
			spoil: func(t *testing.T, p *patient) {
				p.change(t, maps+"socketmap:unix:run/tlspolicyd/other.sock:postfix")
				other := p.queue() + "/run/tlspolicyd/other.sock"
				t.Cleanup(serveNothing(t, other))
				t.Cleanup(func() { os.Remove(other) })
			},
			left: []string{"map-before-other"},
		},
		{
			name: "a service without our map", want: []string{"warn service-without-map"}, mend: byItsLines,
			spoil: func(t *testing.T, p *patient) { p.override(t, "relay/unix/smtp_tls_policy_maps=static:may") },
		},
	}
}

// override sets a parameter for one service of master.cf.
func (p *patient) override(t *testing.T, setting string) {
	t.Helper()
	p.change(t)
	if _, _, err := p.run("postconf", "-P", setting); err != nil {
		t.Fatal(err)
	}
	p.cool(t)
}

// levelAilments are about how Postfix looks hosts up and what TLS it wants.
func levelAilments() []ailment {
	return []ailment{
		settings("no DNSSEC", "fail dnssec-off", "smtp_dns_support_level="),
		{
			name: "a service without DNSSEC", want: []string{"fail dnssec-off"}, mend: byItsLines,
			spoil: func(t *testing.T, p *patient) { p.override(t, "relay/unix/smtp_dns_support_level=enabled") },
		},
		settings("hosts not by DNS", "fail host-lookup-without-dns", "smtp_host_lookup=native"),
		settings("no TLS by default", "warn tls-level-none", "smtp_tls_security_level="),
		settings("TLS for everybody", "warn tls-level-strict", "smtp_tls_security_level=encrypt"),
		settings("TLSA records of unsigned MX not used", "warn insecure-mx-policy", "smtp_tls_dane_insecure_mx_policy=may"),
	}
}

// authorityAilments are about whom Postfix believes.
func authorityAilments() []ailment {
	return []ailment{
		settings("CAfile missing", "fail postfix-ca-missing", "smtp_tls_CAfile=/nowhere/ca.pem"),
		settings("no CAfile", "fail postfix-ca-none", "smtp_tls_CAfile="),
		{
			name: "CApath outside of the chroot", want: []string{"fail postfix-ca-chroot"}, mend: byItsLines,
			spoil: func(t *testing.T, p *patient) {
				if err := write(p.dir+"/certs/0a1b2c3d.0", p.w.ca.pem); err != nil {
					t.Fatal(err)
				}
				p.change(t, "smtp_tls_CAfile=", "smtp_tls_CApath="+p.dir+"/certs")
			},
		},
		{
			name: "another list of authorities", want: []string{"warn postfix-ca-differs"}, mend: byItsLines,
			spoil: func(t *testing.T, p *patient) {
				other, err := newAuthority()
				if err != nil {
					t.Fatal(err)
				}
				if err := write(p.dir+"/other-ca.pem", other.pem); err != nil {
					t.Fatal(err)
				}
				p.change(t, "smtp_tls_CAfile="+p.dir+"/other-ca.pem")
			},
		},
	}
}

// oldPostfixAilments are those of releases that Debian no longer has: the
// parameter with the version is set to theirs, which is what doctor goes by.
func oldPostfixAilments() []ailment {
	upgrade := func(t *testing.T, p *patient, _ []string) {
		if _, _, err := p.run("postconf", "-X", "mail_version"); err != nil {
			t.Fatal(err)
		}
		p.cool(t)
	}
	old := settings("Postfix 3.3", "fail postfix-too-old", "mail_version=3.3.22")
	old.mend = upgrade
	return []ailment{
		old,
		{
			name: "Postfix 3.4.9 with glibc", want: []string{"warn trust-ad-missing"}, mend: byItsLines,
			spoil: func(t *testing.T, p *patient) {
				p.change(t, "mail_version=3.4.9")
				keep(t, workDir+"/resolv.conf")
				keep(t, p.queue()+"/etc/resolv.conf")
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
func newPostfixAilments() []ailment {
	const socket = "smtp_tlsrpt_socket_name="
	lost := settings("TLSRPT without a collector", "warn tlsrpt-no-socket", socket+"run/tlsrpt/other.sock")
	lost.mend = func(t *testing.T, p *patient, _ []string) { p.change(t, socket+"run/tlsrpt/tlsrpt.sock") }
	return []ailment{
		settings("MX names not held against the policy", "warn sts-patterns-off", "smtp_tls_enforce_sts_mx_patterns=no"),
		settings("TLSRPT without the name of a socket", "warn tlsrpt-no-socket", socket),
		lost,
	}
}

// instanceAilments are about which Postfix doctor looks at.
func instanceAilments(p *patient) []ailment {
	return []ailment{
		{
			name: "no Postfix", want: []string{"unknown postfix-absent"},
			spoil: func(t *testing.T, p *patient) { p.cover(t, "/dev/null", "/usr/sbin/postconf") },
			mend:  func(t *testing.T, p *patient, _ []string) { p.uncover(t, "/usr/sbin/postconf") },
		},
		{
			name: "no main.cf", want: []string{"unknown postfix-unread"},
			spoil: func(t *testing.T, p *patient) { move(t, p.config()+"/main.cf", p.config()+"/main.cf.away") },
			mend:  func(t *testing.T, p *patient, _ []string) { move(t, p.config()+"/main.cf.away", p.config()+"/main.cf") },
		},
		{
			name: "another instance", want: []string{"ok postfix-instances"},
			spoil: func(t *testing.T, p *patient) {
				p.cover(t, p.config(), "/etc/postfix")
				p.change(t, "multi_instance_directories="+p.w.postfix310.config())
			},
			ill: visit{flags: []string{"--postfix-config", ""}}, // Postfix's default
			mend: func(t *testing.T, p *patient, lines []string) {
				if want := "tlspolicyd doctor --postfix-config " + p.w.postfix310.config(); !slices.Equal(lines, []string{want}) {
					t.Errorf("got %q, want %q", lines, want)
				}
			},
			well: visit{flags: []string{"--postfix-config", p.w.postfix310.config()}},
			// It is not of the Debian whose postconf is asked.
			left: []string{"map-tlsrpt-too-new"},
		},
	}
}
