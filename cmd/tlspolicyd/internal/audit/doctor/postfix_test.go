package doctor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fakePostconf puts a postconf into PATH that prints the given answers, as
// Postfix 3.7 and 3.10 of Debian do (see testing/e2e for the real ones).
func fakePostconf(t *testing.T, script string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "postconf"), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":/usr/bin:/bin")
}

const answers37 = `
case "$*" in
"-c /etc/postfix-out -x") cat <<'END'
compatibility_level = 3.6
mail_owner = root
mail_version = 3.7.11
queue_directory = /var/spool/postfix-out
smtp_tls_policy_maps = texthash:/etc/postfix-out/tls_policy, socketmap:unix:run/tlspolicyd/socketmap.sock:postfix
END
;;
"-c /etc/postfix-out -h smtp_tls_policy_maps")
echo 'texthash:$config_directory/tls_policy, socketmap:unix:run/tlspolicyd/socketmap.sock:postfix' ;;
"-c /etc/postfix-out -F") cat <<'END'
smtp/inet/service = smtp
smtp/inet/chroot = y
smtp/inet/command = smtpd
smtp/unix/chroot = y
smtp/unix/command = smtp
relay/unix/chroot = -
relay/unix/command = smtp -o {smtp_tls_policy_maps=a:b c:d} -o smtp_helo_timeout=5
/run/x/unix/chroot = n
/run/x/unix/command = smtp
END
;;
"-c /etc/postfix-out -x -P")
echo 'postconf: warning: unused parameter' >&2
echo 'relay/unix/smtp_tls_policy_maps = a:b c:d'
echo 'relay/unix/smtp_helo_timeout = 5'
;;
*) exit 9 ;;
esac
`

func TestGatherPostfix(t *testing.T) {
	fakePostconf(t, answers37)
	p := gatherPostfix(t.Context(), "/etc/postfix-out")
	if !p.known() {
		t.Fatalf("got %+v", p)
	}
	if p.Version != (Version{3, 7, 11}) || p.queue() != "/var/spool/postfix-out" || p.User.UID != 0 || p.User.Name != "root" {
		t.Errorf("got %+v", p)
	}
	want := []Service{
		{Name: "smtp", Type: "inet", Chrooted: true, Program: "smtpd", Overrides: map[string]string{}},
		{Name: "smtp", Type: "unix", Chrooted: true, Program: "smtp", Overrides: map[string]string{}},
		{Name: "relay", Type: "unix", Program: "smtp", Overrides: map[string]string{"smtp_tls_policy_maps": "a:b c:d", "smtp_helo_timeout": "5"}},
		{Name: "/run/x", Type: "unix", Program: "smtp", Overrides: map[string]string{}},
	}
	if d := cmp.Diff(want, p.Services); d != "" {
		t.Error(d)
	}
	if want := "texthash:$config_directory/tls_policy, socketmap:unix:run/tlspolicyd/socketmap.sock:postfix"; p.RawMaps != want {
		t.Errorf("got %q", p.RawMaps)
	}
}

func TestGatherPostfixFails(t *testing.T) {
	for name, c := range map[string]struct{ script, want string }{
		"a mistake in main.cf":    {"echo 'postconf: fatal: open /x/main.cf: No such file' >&2; exit 1", "fatal: open /x/main.cf: No such file"},
		"it prints without end":   {"exec yes", "postconf: its output is too long"},
		"it says nothing":         {"exit 0", `mail_version: "" is not a version of Postfix`},
		"escapes in its message":  {`printf 'bad \033[31m\n' >&2; exit 1`, `bad \x1b[31m`},
		"no queue directory":      {"echo mail_version = 3.7.1", `queue_directory is ""`},
		"an error without a word": {"exit 4", "exit status 4"},
	} {
		t.Run(name, func(t *testing.T) {
			fakePostconf(t, c.script)
			if p := gatherPostfix(t.Context(), ""); p.known() || !strings.Contains(p.Err, c.want) {
				t.Errorf("got %q, want %q", p.Err, c.want)
			}
		})
	}
}

func TestParseVersion(t *testing.T) {
	for text, want := range map[string]Version{
		"3.10.13": {3, 10, 13}, "3.4.0": {3, 4, 0}, "3.11-20250304": {3, 11, 0}, "2.11.3": {2, 11, 3}, "3.5.0-RC1": {3, 5, 0},
	} {
		if got, err := parseVersion(text); err != nil || got != want {
			t.Errorf("%s: got %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "3", "a.b", "3.-1", "3.4.5.6", "3.99999"} {
		if got, err := parseVersion(text); err == nil {
			t.Errorf("%q: got %v, want an error", text, got)
		}
	}
	if (Version{3, 9, 9}).atLeast(3, 10, 0) || !(Version{4, 0, 0}).atLeast(3, 10, 5) || (Version{3, 10, 4}).atLeast(3, 10, 5) {
		t.Error("versions are not compared by their numbers")
	}
}

// Lists are cut as Postfix cuts them, with braces as one.
func TestTables(t *testing.T) {
	got := splitTables(" texthash:/a,socketmap:unix:run/x.sock:postfix\tinline:{ {a = b, c}, d=e } pipemap:{x:y,z:u}}")
	want := []string{"texthash:/a", "socketmap:unix:run/x.sock:postfix", "inline:{ {a = b, c}, d=e }", "pipemap:{x:y,z:u}}"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for text, want := range map[string]Table{
		"proxy:socketmap:unix:/run/a.sock:postfix": {Proxy: true, Type: "socketmap", Name: "unix:/run/a.sock:postfix", Network: "unix", Address: "/run/a.sock", Map: "postfix"},
		"socketmap:inet:[::1]:8461:QUERY":          {Type: "socketmap", Name: "inet:[::1]:8461:QUERY", Network: "tcp", Address: "[::1]:8461", Map: "QUERY"},
		"socketmap:unix":                           {Type: "socketmap", Name: "unix"},
		"socketmap:ipx:a:b":                        {Type: "socketmap", Name: "ipx:a:b"},
		"socketmap:unix:run/a.sock":                {Type: "socketmap", Name: "unix:run/a.sock"},
		"socketmap:unix:run/a.sock:":               {Type: "socketmap", Name: "unix:run/a.sock:"},
		"socketmap:inet:127.0.0.1:8461":            {Type: "socketmap", Name: "inet:127.0.0.1:8461"},
		"hash:/etc/postfix/tls":                    {Type: "hash", Name: "/etc/postfix/tls"},
	} {
		want.Text = text
		got := parseTable(text)
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
		if got.malformed() != (want.Type == "socketmap" && want.Network == "") {
			t.Errorf("%s: malformed %t", text, got.malformed())
		}
		if got.Network != "" && socketmapText(got) != text {
			t.Errorf("%s is written as %s", text, socketmapText(got))
		}
	}
}

func TestTarget(t *testing.T) {
	p := healthy().Postfix
	in, out := Service{Name: "smtp", Chrooted: true}, Service{Name: "smtp"}
	for _, c := range []struct {
		service Service
		table   string
		want    Target
	}{
		{in, "socketmap:unix:run/a.sock:postfix", Target{"unix", queueDir + "/run/a.sock", queueDir}},
		{in, "socketmap:unix:/run/a.sock:postfix", Target{"unix", queueDir + "/run/a.sock", queueDir}},
		{out, "socketmap:unix:run/a.sock:postfix", Target{"unix", queueDir + "/run/a.sock", ""}},
		{out, "socketmap:unix:/run/a.sock:postfix", Target{"unix", "/run/a.sock", ""}},
		{in, "proxy:socketmap:unix:/run/a.sock:postfix", Target{"unix", "/run/a.sock", ""}},
		{in, "socketmap:inet:127.0.0.1:8461:postfix", Target{"tcp", "127.0.0.1:8461", ""}},
	} {
		if got := p.target(c.service, parseTable(c.table)); got != c.want {
			t.Errorf("%s: got %+v, want %+v", c.table, got, c.want)
		}
	}
	p.Services[3].Chrooted = true
	if got := p.target(out, parseTable("proxy:socketmap:unix:/run/a.sock:postfix")); got.Root != queueDir {
		t.Errorf("got %+v, want proxymap(8) in its chroot", got)
	}
}
