package doctor

import (
	"os/exec"
	"strings"
	"testing"

	"tlspolicyd/cmd/tlspolicyd/internal/audit"
)

// What else is in smtp_tls_policy_maps stays, as it was written and in its order.
func TestRepair(t *testing.T) {
	const mine = "texthash:$config_directory/tls_policy"
	for name, c := range map[string]struct{ raw, want string }{
		"nothing":                       {"", ourTable},
		"right already":                 {mine + " " + ourTable, mine + ", " + ourTable},
		"only a table of one's own":     {mine, mine + ", " + ourTable},
		"the wrong map":                 {mine + "," + strings.Replace(ourTable, "-tlsrpt", "", 1), mine + ", " + ourTable},
		"a misspelt map":                {"socketmap:unix:run/tlspolicyd/socketmap.sock:x " + mine, ourTable + ", " + mine},
		"behind another program":        {mine + " socketmap:inet:127.0.0.1:8461:postfix cidr:/x " + ourTable, mine + ", " + ourTable + ", socketmap:inet:127.0.0.1:8461:postfix, cidr:/x"},
		"behind static:":                {"static:may " + ourTable, ourTable + ", static:may"},
		"tables in braces":              {"inline:{ {a = may}, b=none } " + mine, "inline:{ {a = may}, b=none }, " + mine + ", " + ourTable},
		"a path that leads nowhere":     {"socketmap:unix:/var/tlspolicyd.sock:postfix-tlsrpt", ourTable},
		"our map twice":                 {ourTable + " " + mine + " " + ourTable, ourTable + ", " + mine},
		"a name of postfix-tlspol's":    {strings.Replace(ourTable, "postfix-tlsrpt", "QUERYwithTLSRPT", 1), strings.Replace(ourTable, "postfix-tlsrpt", "QUERYwithTLSRPT", 1)},
		"that name, of the other kind":  {strings.Replace(ourTable, "postfix-tlsrpt", "QUERY", 1), ourTable},
		"in a unionmap":                 {"cidr:/x unionmap:{" + mine + ", " + ourTable + "} cidr:/y", "cidr:/x, " + mine + ", " + ourTable + ", cidr:/y"},
		"in a unionmap, misspelt":       {"unionmap:{socketmap:unix:run/tlspolicyd/socketmap.sock:x}", ourTable},
		"in a unionmap in another":      {"unionmap:{a:b, unionmap:{c:d " + ourTable + "}}", ourTable + ", a:b, c:d"},
		"in a unionmap of proxymap's":   {"proxy:unionmap:{" + mine + ", " + ourTable + "}", "proxy:" + mine + ", proxy:" + ourTable},
		"in a pipemap":                  {"pipemap:{" + ourTable + ",pcre:/x}", "pipemap:{" + ourTable + ",pcre:/x}"},
		"in a pipemap, misspelt":        {"pipemap:{socketmap:unix:run/tlspolicyd/socketmap.sock:x,pcre:/x}", "pipemap:{" + ourTable + ",pcre:/x}"},
		"in a pipemap, and by itself":   {"pipemap:{" + ourTable + ",pcre:/x} " + ourTable, ourTable + ", pipemap:{" + ourTable + ",pcre:/x}"},
		"proxy: stays":                  {"proxy:" + strings.Replace(ourTable, "-tlsrpt", "", 1), "proxy:" + ourTable},
		"a hostile table, quoted whole": {"inline:{a='; rm -rf /; echo $(id) `id`'}", "inline:{a='; rm -rf /; echo $(id) `id`'}, " + ourTable},
	} {
		t.Run(name, func(t *testing.T) {
			f := healthy()
			f.setMaps(c.raw)
			f.Sockets = append(
				f.Sockets,
				Probe{Target: Target{"unix", queueDir + "/var/tlspolicyd.sock", queueDir}, Missing: true},
				Probe{Target: Target{"unix", queueSocket, ""}, Own: true, Ours: true},
			)
			s := f.Postfix.clients()[0]
			if got := f.repaired(s, c.raw, c.raw); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			// A shell hands exactly that to postconf.
			line := strings.Replace(f.repair(s), "postconf -e", "printf %s", 1)
			out, err := exec.Command("sh", "-c", line).Output()
			if want := policyMaps + "=" + c.want; err != nil || string(out) != want {
				t.Errorf("the shell makes %q of it (%v), want %q", out, err, want)
			}
		})
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
	f.Clock.Synchronised = false
	f.Postfix.ConfigDir = "/etc/my postfix"
	got := Script(Judge(*f), f.Postfix)
	want := `#!/bin/sh
# Made by tlspolicyd doctor --fix. Read it, then run it as root. It changes main.cf only.
set -e

# fail dnssec-off: Postfix does not ask DNS for DNSSEC, and defers all mail that is to go by dane-only.
#   seen: smtp_dns_support_level = enabled
postconf -c '/etc/my postfix' -e smtp_dns_support_level=dnssec

# warn map-behind-other: Another program is asked first, and tlspolicyd only where that has no policy.
#   seen: socketmap:inet:127.0.0.1:8461:postfix and socketmap:unix:run/tlspolicyd/socketmap.sock:postfix
# warn map-tlsrpt-missing: By this map Postfix does not learn the patterns of a policy, so that *.example.net passes for hosts of any depth, and reports lack the policy.
#   seen: socketmap:unix:run/tlspolicyd/socketmap.sock:postfix
postconf -c '/etc/my postfix' -e 'smtp_tls_policy_maps=socketmap:unix:run/tlspolicyd/socketmap.sock:postfix-tlsrpt, socketmap:inet:127.0.0.1:8461:postfix'

postfix -c '/etc/my postfix' reload

# What is not in main.cf, for you to do:

# warn clock-unsynchronised: Nothing keeps the clock right, as far as the kernel knows: certificates and signatures are judged by it.
#   seen: 2026-12-01T00:00:00Z
# systemctl enable --now systemd-timesyncd
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
// them.
func TestLines(t *testing.T) {
	const queueConf = "cp /etc/resolv.conf " + queueDir + "/etc/resolv.conf && postfix -c /etc/postfix-out reload"
	for code, c := range map[string]struct {
		is   func(*Facts)
		want string
	}{
		TLSLevelStrict:    {func(f *Facts) { f.param("smtp_tls_security_level", "encrypt") }, "postconf -c /etc/postfix-out -e smtp_tls_security_level=dane"},
		ServiceWithoutMap: {func(f *Facts) { f.Postfix.Services[2].Overrides[policyMaps] = "" }, "postconf -c /etc/postfix-out -X -P relay/unix/smtp_tls_policy_maps"},
		ChrootResolvConf:  {func(f *Facts) { f.Resolver.Chroot.Servers = nil }, queueConf},
		MapFileMissing: {
			func(f *Facts) {
				f.setMaps("hash:tls " + ourTable)
				f.Postfix.Missing = []string{queueDir + "/tls", queueDir + "/tls.db"}
			},
			"touch " + queueDir + "/tls && postmap -c /etc/postfix-out hash:" + queueDir + "/tls && postfix -c /etc/postfix-out reload",
		},
		TrustADMissing: {
			func(f *Facts) { f.plain37(); f.setVersion(Version{3, 4, 9}) },
			"echo 'options trust-ad' >> /etc/resolv.conf && " + queueConf,
		},
	} {
		f := healthy()
		f.Postfix.ConfigDir = "/etc/postfix-out"
		c.is(f)
		found := false
		for _, topic := range Judge(*f) {
			for _, one := range topic.Findings {
				if one.Code != code {
					continue
				}
				if found = true; one.Fix != c.want {
					t.Errorf("%s: got %q, want %q", code, one.Fix, c.want)
				}
			}
		}
		if !found {
			t.Errorf("%s is not found", code)
		}
	}
}
