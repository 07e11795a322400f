package doctor

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tlspolicyd/cmd/tlspolicyd/internal/audit"
)

// What else is in smtp_tls_policy_maps stays, as it was written and in its order,
// but for socketmaps that make Postfix defer mail.
func TestRepair(t *testing.T) {
	const mine = "texthash:$config_directory/tls_policy"
	const other, gone = "socketmap:inet:127.0.0.1:8461:postfix", "socketmap:inet:127.0.0.1:9999:QUERY"
	for name, c := range map[string]struct{ raw, want string }{
		"nothing":                       {"", ourTable},
		"right already":                 {mine + " " + ourTable, mine + ", " + ourTable},
		"only a table of one's own":     {mine, mine + ", " + ourTable},
		"the wrong map":                 {mine + "," + strings.Replace(ourTable, "-tlsrpt", "", 1), mine + ", " + ourTable},
		"a misspelt map":                {"socketmap:unix:run/tlspolicyd/socketmap.sock:x " + mine, ourTable + ", " + mine},
		"after another program":         {mine + " " + other + " cidr:/x " + ourTable, mine + ", " + ourTable + ", " + other + ", cidr:/x"},
		"after static:":                 {"static:may " + ourTable, ourTable + ", static:may"},
		"tables in braces":              {"inline:{ {a = may}, b=none } " + mine, "inline:{ {a = may}, b=none }, " + mine + ", " + ourTable},
		"a path that leads nowhere":     {"socketmap:unix:/var/tlspolicyd.sock:postfix-tlsrpt", ourTable},
		"a path of another name":        {mine + " socketmap:unix:run/tlspolicd.sock:postfix cidr:/x", mine + ", " + ourTable + ", cidr:/x"},
		"a forgotten map name":          {"socketmap:unix:run/tlspolicyd/socketmap.sock " + mine, ourTable + ", " + mine},
		"a port where nothing listens":  {mine + " " + gone, mine + ", " + ourTable},
		"the same after our table":      {ourTable + " " + gone + " " + mine, ourTable + ", " + mine},
		"the same before our table":     {gone + " " + mine + " " + ourTable, mine + ", " + ourTable},
		"our map twice":                 {ourTable + " " + mine + " " + ourTable, ourTable + ", " + mine},
		"a name of postfix-tlspol's":    {strings.Replace(ourTable, "postfix-tlsrpt", "QUERYwithTLSRPT", 1), strings.Replace(ourTable, "postfix-tlsrpt", "QUERYwithTLSRPT", 1)},
		"that name, of the other kind":  {strings.Replace(ourTable, "postfix-tlsrpt", "QUERY", 1), ourTable},
		"proxy: that is allowed stays":  {"proxy:" + ourTable, "proxy:" + ourTable},
		"proxy: that is not goes":       {"proxy:socketmap:unix:" + hostSocket + ":postfix", ourTable},
		"a hostile table, quoted whole": {"inline:{a='; rm -rf /; echo $(id) `id`'}", "inline:{a='; rm -rf /; echo $(id) `id`'}, " + ourTable},
	} {
		t.Run(name, func(t *testing.T) {
			f := healthy()
			f.setMaps(c.raw)
			f.param("proxy_read_maps", "$x proxy:"+ourTable)
			f.Sockets = append(
				f.Sockets,
				Probe{Target: Target{"unix", queueDir + "/var/tlspolicyd.sock", queueDir}, Missing: true},
				Probe{Target: Target{"unix", queueDir + "/run/tlspolicd.sock", queueDir}, Missing: true},
				Probe{Target: Target{"unix", queueSocket, ""}, Own: true, Ours: true},
				Probe{Target: Target{"tcp", "127.0.0.1:8461", ""}, Reply: "NOTFOUND"},
				Probe{Target: Target{"tcp", "127.0.0.1:9999", ""}, Err: "connection refused"},
			)
			s := f.Postfix.clients()[0]
			got := f.repaired(s, c.raw, c.raw)
			if got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			// A shell hands exactly that to postconf.
			line := strings.Replace(f.repair(s), "postconf -e", "printf %s", 1)
			out, err := exec.Command("sh", "-c", line).Output()
			if want := policyMaps + "=" + c.want; err != nil || string(out) != want {
				t.Errorf("the shell makes %q of it (%v), want %q", out, err, want)
			}
			// After it no mail is deferred because of the list.
			f.setMaps(got)
			for _, one := range judgeMaps(*f) {
				if one.Grade == audit.Fail {
					t.Errorf("afterwards: %+v", one)
				}
			}
		})
	}
}

// An entry that is right is not replaced where the daemon only does not run.
func TestRepairOfStoppedDaemon(t *testing.T) {
	f := healthy()
	f.Sockets[0].Ours, f.Sockets[0].Err = false, "connection refused"
	f.Sockets[1].Ours, f.Sockets[1].Missing = false, true
	if got := f.repaired(f.Postfix.clients()[0], ourTable, ourTable); got != ourTable {
		t.Errorf("got %s", got)
	}
	for _, one := range judgeMaps(*f) {
		if one.Code != "map-ok" {
			t.Errorf("got %+v", one)
		}
	}
}

// A $name that stands for several tables is written out.
func TestRepairNamesOfLists(t *testing.T) {
	f := healthy()
	got := f.repaired(f.Postfix.clients()[0], "$my_maps", "cidr:/x texthash:/y")
	if want := "cidr:/x, texthash:/y, " + ourTable; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestBestAddress(t *testing.T) {
	s := Service{Name: "smtp"}
	f := healthy()
	f.Sockets = []Probe{{Target: Target{"unix", hostSocket, ""}, Own: true}, {Target: Target{"tcp", "127.0.0.1:8461", ""}, Own: true}}
	if _, got, _ := f.bestAddress(s); got != hostSocket {
		t.Errorf("got %s, want the one there is", got)
	}
	s.Chrooted = true
	if _, got, _ := f.bestAddress(s); got != "127.0.0.1:8461" {
		t.Errorf("got %s, want what a chrooted service reaches", got)
	}
	f.Sockets = nil
	if _, got, _ := f.bestAddress(s); got != defaultPath {
		t.Errorf("got %s, want the default", got)
	}
}

func TestScript(t *testing.T) {
	f := healthy()
	f.param("smtp_dns_support_level", "enabled")
	f.setMaps("socketmap:inet:127.0.0.1:8461:postfix " + strings.Replace(ourTable, "-tlsrpt", "", 1))
	f.Sockets = append(f.Sockets, Probe{Target: Target{"tcp", "127.0.0.1:8461", ""}, Reply: "NOTFOUND"})
	f.Clock.Synchronized = false
	f.Postfix.ConfigDir = "/etc/my postfix"
	got := Script(Judge(*f), f.Postfix)
	want := `#!/bin/sh
# Made by tlspolicyd doctor --fix. Read it, then run it as root. It changes main.cf only.
set -e

# fail postfix-dnssec-off: Postfix does not request DNSSEC, and defers all mail under dane-only.
#   seen: smtp_dns_support_level = enabled
postconf -c '/etc/my postfix' -e smtp_dns_support_level=dnssec

# warn map-after-other: Another program is asked first, and tlspolicyd only where that has no policy.
#   seen: socketmap:inet:127.0.0.1:8461:postfix and socketmap:unix:run/tlspolicyd/socketmap.sock:postfix
# warn map-tlsrpt-unused: With this map Postfix does not get the patterns of a policy: *.example.net matches hosts of any depth, and TLSRPT reports lack the policy.
#   seen: socketmap:unix:run/tlspolicyd/socketmap.sock:postfix
postconf -c '/etc/my postfix' -e 'smtp_tls_policy_maps=socketmap:unix:run/tlspolicyd/socketmap.sock:postfix-tlsrpt, socketmap:inet:127.0.0.1:8461:postfix'

postfix -c '/etc/my postfix' reload

# What is not in main.cf, for you to do:

# warn clock-unsynchronized: The kernel reports that nothing synchronizes the clock, by which certificates and signatures are judged.
#   seen: 2026-12-01T00:00:00Z
# systemctl enable --now chrony.service
`
	if got != want {
		t.Errorf("got:\n%s", got)
	}
	if got := Script(Judge(*healthy()), healthy().Postfix); !strings.HasSuffix(got, "\n# Nothing in main.cf needs to be changed.\n") {
		t.Errorf("for a healthy host:\n%s", got)
	}
}

// Nothing that a finding quotes becomes a line of the script.
func TestScriptCannotBeInjected(t *testing.T) {
	evil := audit.Finding{
		Code: "x", Grade: audit.Fail, Text: "a\nrm -rf /", Evidence: "b\r\nrm -rf /", Fix: "mv 'a\nrm -rf /'",
	}
	for line := range strings.Lines(Script([]audit.Topic{{Findings: []audit.Finding{evil}}}, Postfix{})) {
		if line != "\n" && line != "set -e\n" && !strings.HasPrefix(line, "#") {
			t.Errorf("the script has the line %q", line)
		}
	}
}

// Lines that are more than a setting, as they are printed. testing/e2e runs
// those that need no systemd.
func TestLines(t *testing.T) {
	const dropIn = "mkdir -p /etc/systemd/system/tlspolicyd.socket.d && printf '%s\\n' '[Socket]' "
	const restart = " && systemctl daemon-reload && systemctl restart tlspolicyd.socket tlspolicyd.service"
	stale := func(f *Facts) { f.Resolver.Chroot.Servers = nil }
	for name, c := range map[string]struct {
		code string
		is   func(*Facts)
		want string
	}{
		"a level for all": {"postfix-level-strict", func(f *Facts) { f.param("smtp_tls_security_level", "encrypt") }, "postconf -c /etc/postfix-out -e smtp_tls_security_level=dane"},
		"an override":     {"map-missing-in-service", func(f *Facts) { f.Postfix.Services[2].Overrides[policyMaps] = "" }, "postconf -c /etc/postfix-out -X -P relay/unix/smtp_tls_policy_maps"},
		"an override with a dead entry": {
			"map-malformed", func(f *Facts) { f.Postfix.Services[2].Overrides[policyMaps] = "x:y,socketmap:unix:z" },
			"postconf -c /etc/postfix-out -P relay/unix/smtp_tls_policy_maps=x:y," + ourTable,
		},
		"a stale copy": {"chroot-resolv-conf-stale", stale, "cp /etc/resolv.conf " + queueDir + "/etc/resolv.conf && systemctl restart postfix"},
		"a stale copy without systemd": {
			"chroot-resolv-conf-stale", func(f *Facts) { stale(f); f.Units.Systemd = false },
			"cp /etc/resolv.conf " + queueDir + "/etc/resolv.conf && postfix -c /etc/postfix-out reload",
		},
		"a closed socket of systemd": {
			"socket-denied", func(f *Facts) { f.Sockets[0].Denied = queueSocket },
			dropIn + "SocketMode=0666 >/etc/systemd/system/tlspolicyd.socket.d/zz-mode.conf" + restart,
		},
		"a closed socket of the daemon": {
			"socket-denied", func(f *Facts) { f.Sockets[0].Denied, f.Units.Socket.Listen = queueSocket, nil },
			"chmod 0666 " + queueSocket,
		},
		"another queue_directory": {
			"socket-missing", func(f *Facts) { f.param("queue_directory", "/srv/postfix") },
			dropIn + "ListenStream=/srv/postfix/run/tlspolicyd/socketmap.sock >/etc/systemd/system/tlspolicyd.socket.d/zz-queue-directory.conf" + restart,
		},
		"a database of mode 000": {"database-mode", func(f *Facts) { f.Database.Mode = 0 }, "chmod 0600 /var/lib/tlspolicyd/policies.db"},
		"a closed configuration": {
			"config-unreadable", func(f *Facts) { f.Config.Denied = f.Config.Path },
			"chgrp tlspolicyd /etc/tlspolicyd/tlspolicyd.toml && chmod 0640 /etc/tlspolicyd/tlspolicyd.toml && systemctl restart tlspolicyd",
		},
	} {
		f := healthy()
		f.Postfix.ConfigDir = "/etc/postfix-out"
		c.is(f)
		var fixes []string
		for _, topic := range Judge(*f) {
			for _, one := range topic.Findings {
				if one.Code == c.code {
					fixes = append(fixes, one.Fix)
				}
			}
		}
		if d := cmp.Diff([]string{c.want}, fixes); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
}
