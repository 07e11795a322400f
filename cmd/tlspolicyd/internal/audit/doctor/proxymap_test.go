package doctor

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// settings are what a shell makes of a line of postconf -e.
func settings(t *testing.T, line string) map[string]string {
	t.Helper()
	out, err := exec.Command("sh", "-c", strings.ReplaceAll(line, "postconf -e", `printf '%s\n'`)).Output()
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	return parseParams(string(out))
}

// What a repair takes out of a unionmap, or gives another name, may still be
// opened by proxymap(8).
func TestRepairIsAllowed(t *testing.T) {
	const (
		mine   = "texthash:/etc/postfix/tls_policy"
		both   = "proxy:unionmap:{" + mine + ", " + ourTable + "}"
		apart  = "proxy:" + mine + ", proxy:" + ourTable
		misfit = "proxy:socketmap:unix:run/tlspolicyd/socketmap.sock:postfix"
	)
	for name, c := range map[string]struct{ maps, raw, readable, want, read string }{
		"a unionmap by name":          {both, "$x " + both, "y:z " + both, apart, strings.Replace(apart, ",", "", 1) + " $x " + both},
		"one of the two is named too": {both, both + " proxy:" + mine, both + " proxy:" + mine, apart, "proxy:" + ourTable + " " + both + " proxy:" + mine},
		"the wrong map by name":       {misfit, misfit, misfit, "proxy:" + ourTable, "proxy:" + ourTable + " " + misfit},
		"all of the setting":          {both, "$relay_domains $smtp_tls_policy_maps", both, apart, ""},
		"all of it, in braces":        {both, "${smtp_tls_policy_maps}", both, apart, ""},
		"a setting of a like name":    {misfit, "$smtp_tls_policy_maps_x", misfit, "proxy:" + ourTable, "proxy:" + ourTable + " $smtp_tls_policy_maps_x"},
	} {
		t.Run(name, func(t *testing.T) {
			f := healthy()
			f.setMaps(c.maps)
			f.Postfix.RawProxy = c.raw
			f.param(readMaps, c.readable)
			s := f.Postfix.clients()[0]
			got := settings(t, f.repair(s))
			if got[policyMaps] != c.want || got[readMaps] != c.read {
				t.Errorf("got %q, want %q and %q", got, c.want, c.read)
			}
			if c.read == "" {
				return
			}
			// The host that this makes has nothing more to mend there.
			f.setMaps(got[policyMaps])
			f.Postfix.RawProxy = got[readMaps]
			f.param(readMaps, got[readMaps])
			if found := codesOf(Judge(*f)); found[MapProxyRefused] != nil || found[MapNested] != nil {
				t.Errorf("after the repair: %v", found)
			}
		})
	}
}

// An override in master.cf is never among what proxy_read_maps names by
// $smtp_tls_policy_maps.
func TestRepairOfOverrideIsAllowed(t *testing.T) {
	f := healthy()
	f.Postfix.Services[2].Overrides[policyMaps] = "proxy:unionmap:{x:y," + ourTable + "}"
	f.param(readMaps, ourTable+" "+f.Postfix.Services[2].Overrides[policyMaps])
	want := "postconf -P relay/unix/smtp_tls_policy_maps=proxy:" + ourTable + ",proxy:x:y && " +
		"postconf -e 'proxy_read_maps=proxy:" + ourTable + " proxy:x:y $smtp_tls_policy_maps'"
	if got := f.repair(f.Postfix.Services[2]); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// Two tables that proxymap(8) refuses, in one list or in two, and a list that is
// repaired as well: each line of the script leaves all of them allowed.
func TestScriptAllowsAll(t *testing.T) {
	const (
		mine   = "proxy:texthash:/etc/postfix/tls_policy"
		misfit = "proxy:socketmap:unix:run/tlspolicyd/socketmap.sock:postfix"
		hosts  = "proxy:socketmap:unix:" + hostSocket + ":postfix-tlsrpt"
	)
	for name, c := range map[string]struct {
		is   func(*Facts)
		want []string
	}{
		"two in a unionmap": {func(f *Facts) { f.setMaps("unionmap:{" + mine + ", proxy:" + ourTable + "}") }, []string{mine, "proxy:" + ourTable}},
		"one by a new name": {func(f *Facts) { f.setMaps(misfit) }, []string{"proxy:" + ourTable}},
		"one of a service": {func(f *Facts) {
			f.setMaps("proxy:" + ourTable)
			f.Postfix.Services[2].Overrides[policyMaps] = hosts
		}, []string{"proxy:" + ourTable, hosts}},
	} {
		t.Run(name, func(t *testing.T) {
			f := healthy()
			c.is(f)
			f.Postfix.RawProxy = "$mynetworks"
			lines := 0
			for line := range strings.Lines(Script(Judge(*f), f.Postfix)) {
				if !strings.HasPrefix(line, "postconf -e ") || !strings.Contains(line, readMaps) {
					continue
				}
				lines++
				allowed := splitTables(settings(t, line)[readMaps])
				for _, w := range append(c.want, "$mynetworks") {
					if !slices.Contains(allowed, w) {
						t.Errorf("%s is not allowed by %s", w, line)
					}
				}
			}
			if lines == 0 {
				t.Error("the script does not allow anything")
			}
		})
	}
}
