package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"tlspolicyd/testing/lab/postfix"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// equal compares settings by value.
func diff(want, got Config) string {
	return cmp.Diff(want, got, cmpopts.EquateEmpty(),
		cmp.Comparer(func(a, b *url.Userinfo) bool { return a.String() == b.String() }),
		cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }))
}

// Every mistake is one line with file, line, column, key, what is wrong and
// what would be right. Each file of testdata/bad holds one mistake; its first
// line is the error without the file's name.
func TestEachMistakeIsToldInOneLineWithItsPlace(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.toml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			first, _, _ := strings.Cut(string(data), "\n")
			want := name + ":" + strings.TrimPrefix(first, "# ")
			_, err = Load(name)
			if err == nil {
				t.Fatalf("accepted, want %s", want)
			}
			if err.Error() != want {
				t.Errorf("got  %s\nwant %s", err, want)
			}
			if _, ok := errors.AsType[*Error](err); !ok {
				t.Errorf("%T is no *Error", err)
			}
		})
	}
}

// docs/architecture.md, Configuration: every key has a default.
func TestAnEmptyFileGivesTheDefaults(t *testing.T) {
	t.Setenv("RUNTIME_DIRECTORY", "/run/tlspolicyd")
	t.Setenv("STATE_DIRECTORY", "/var/lib/tlspolicyd")
	want := Config{
		Listen: Listen{
			Socketmap:      []string{"unix:/run/tlspolicyd/socketmap.sock"},
			SocketMode:     0o666,
			Admin:          "unix:/run/tlspolicyd/admin.sock",
			MaxConnections: 4096,
		},
		DNS:     DNS{Timeout: 5 * time.Second},
		Fetch:   Fetch{Wait: 5 * time.Second, Timeout: 60 * time.Second, Concurrency: 32},
		Cache:   Cache{Path: "/var/lib/tlspolicyd/policies.db", MaxEntries: 1000000, MaxBytes: 1 << 30},
		Refresh: Refresh{Interval: 24 * time.Hour, UnusedFor: 720 * time.Hour},
		Share:   Share{Prefix: "tlspolicyd", Timeout: 250 * time.Millisecond, VerifyAfter: 168 * time.Hour},
		Policy:  Policy{InsecureMX: MTASTS, Partial: DANE, Testing: IgnoreTesting, PostfixLevel: "may"},
		Log:     Log{Level: slog.LevelInfo, Format: LogAuto},
	}
	got, err := Parse(nil, "empty.toml")
	if err != nil {
		t.Fatal(err)
	}
	if d := diff(want, got); d != "" {
		t.Errorf("empty file (-want +got):\n%s", d)
	}
	if d := diff(want, Default()); d != "" {
		t.Errorf("Default (-want +got):\n%s", d)
	}
}

// full sets every key to something that is not its default.
func full() Config {
	return Config{
		Listen: Listen{
			Socketmap:      []string{"unix:/run/a/b.sock", "tcp:127.0.0.1:8461", "tcp:[::1]:8461"},
			SocketMode:     0o660,
			SocketGroup:    "postfix",
			Admin:          "",
			HTTP:           "127.0.0.1:9461",
			HTTPHosts:      []string{"mail.example.test"},
			MaxConnections: 100,
		},
		DNS: DNS{
			Servers: []netip.AddrPort{
				netip.MustParseAddrPort("127.0.0.1:53"), netip.MustParseAddrPort("127.0.0.1:5353"),
				netip.MustParseAddrPort("[::1]:53"), netip.MustParseAddrPort("[fe80::1%eth0]:5353"),
			},
			TrustAD: true,
			Timeout: 1500 * time.Millisecond,
		},
		Fetch: Fetch{
			Wait: 2 * time.Second, Timeout: 30 * time.Second, CAFile: "/etc/ssl/own.pem",
			AllowNetworks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fc00::/7")},
			Proxy:         &url.URL{Scheme: "http", Host: "proxy.test:3128"},
			Concurrency:   4,
		},
		Cache:   Cache{Path: "/srv/p.db", MaxEntries: 5000, MaxBytes: 33554432},
		Refresh: Refresh{Interval: 90 * time.Minute, UnusedFor: 48 * time.Hour},
		Share: Share{
			URL:            EngineURL{Network: "tcp", Hosts: []string{"v1.test:26379", "[2001:db8::1]:6379"}, TLS: true, Database: 3},
			SentinelMaster: "mail", Cluster: true, Username: "tlspolicyd",
			PasswordFile: "${CREDENTIALS_DIRECTORY}/password", KeyFile: "/etc/tlspolicyd/share.key",
			CAFile: "/etc/ssl/valkey.pem", CertFile: "/etc/ssl/me.pem", CertKeyFile: "/etc/ssl/me.key",
			Prefix: "mail:out", Timeout: 100 * time.Millisecond, VerifyAfter: 24 * time.Hour,
		},
		Policy: Policy{InsecureMX: DANE, Partial: MTASTS, Testing: EnforceTesting, PostfixLevel: "encrypt", OverrideFile: []string{"/dev/null"}},
		Override: map[string]string{
			"broken.test":        "skip",
			".partner.test":      "secure match=mx.partner.test servername=hostname",
			"ok.partner.test":    "lookup",
			"xn--bcher-kva.test": "encrypt",
			"old.test":           "secure match=.old.test:mx.old.test, protocols=>=TLSv1.2 { exclude = aNULL, RC4 } connection_reuse=yes enable_rpk=no",
			"plain.test":         "none",
		},
		TLSRPT: TLSRPT{Socket: "/var/spool/postfix/run/tlsrpt/tlsrpt.sock"},
		Log:    Log{Level: slog.LevelDebug, Format: LogJSON},
	}
}

func TestEveryKeyReachesItsField(t *testing.T) {
	got, err := Load("testdata/full.toml")
	if err != nil {
		t.Fatal(err)
	}
	if d := diff(full(), got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	// Nothing in the list of settings was left out of the file.
	def := Default()
	set := got.settings()
	for i, s := range def.settings() {
		if cmp.Equal(s.get(), set[i].get()) {
			t.Errorf("%s has its default: the file does not set it", s.key)
		}
	}
}

// 'config show' prints a file that means the same.
func TestWhatIsShownReadsBackTheSame(t *testing.T) {
	odd := Default()
	odd.Cache.Path = "/srv/a \"b\"\\\t\x7f\u00fc\u2028.db"
	for name, c := range map[string]Config{"defaults": Default(), "every key": full(), "odd bytes": odd} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			if err := c.WriteTOML(&b); err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(b.String()) {
				if strings.HasPrefix(line, "#") && len(line) > 81 {
					t.Errorf("comment of more than 80 columns: %s", line)
				}
			}
			got, err := Parse(b.Bytes(), "shown.toml")
			if err != nil {
				t.Fatalf("%v in\n%s", err, b.String())
			}
			if d := diff(c, got); d != "" {
				t.Errorf("(-shown +read):\n%s", d)
			}
		})
	}
}

func TestJSONHasTheKeysOfTheFile(t *testing.T) {
	data, err := json.Marshal(full())
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Listen struct {
			Socketmap []string
			Mode      string `json:"socket_mode"`
		}
		DNS struct {
			Servers []string
			TrustAD bool `json:"trust_ad"`
			Timeout string
		}
		Override map[string]string
	}
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	if got.Listen.Mode != "0660" || len(got.Listen.Socketmap) != 3 || !got.DNS.TrustAD || got.DNS.Timeout != "1.5s" ||
		got.DNS.Servers[1] != "127.0.0.1:5353" || got.Override["broken.test"] != "skip" {
		t.Errorf("got %s", data)
	}
}

func TestANamedFileMustExist(t *testing.T) {
	_, err := Load(filepath.Join(t.TempDir(), "absent.toml"))
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want a file that does not exist", err)
	}
}

func TestAFileOfAbsurdSizeIsNotRead(t *testing.T) {
	name := filepath.Join(t.TempDir(), "big.toml")
	if err := os.WriteFile(name, bytes.Repeat([]byte("#\n"), maxFile/2+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(name); err == nil || !strings.Contains(err.Error(), "larger than 4 MiB") {
		t.Errorf("got %v", err)
	}
}

// Paths follow systemd's directories, then root's, then those of the XDG base
// directory specification.
func TestDefaultDirectories(t *testing.T) {
	for name, tt := range map[string]struct {
		uid  int
		env  map[string]string
		want Dirs
	}{
		"root":                        {0, nil, Dirs{Runtime: "/run/tlspolicyd", State: "/var/lib/tlspolicyd"}},
		"root with a login session":   {0, map[string]string{"XDG_RUNTIME_DIR": "/run/user/0", "HOME": "/root"}, Dirs{Runtime: "/run/tlspolicyd", State: "/var/lib/tlspolicyd"}},
		"systemd service":             {998, map[string]string{"RUNTIME_DIRECTORY": "/run/x", "STATE_DIRECTORY": "/var/lib/private/x"}, Dirs{Runtime: "/run/x", State: "/var/lib/private/x"}},
		"several directories":         {998, map[string]string{"RUNTIME_DIRECTORY": "/run/x:/run/y", "STATE_DIRECTORY": "/a/:/b"}, Dirs{Runtime: "/run/x", State: "/a"}},
		"service without a state dir": {998, map[string]string{"RUNTIME_DIRECTORY": "/run/x"}, Dirs{Runtime: "/run/x", State: "/var/lib/tlspolicyd"}},
		"user in a login session": {
			1000,
			map[string]string{"XDG_RUNTIME_DIR": "/run/user/1000", "HOME": "/home/u"},
			Dirs{Runtime: "/run/user/1000/tlspolicyd", State: "/home/u/.local/state/tlspolicyd"},
		},
		"user with a state home": {
			1000,
			map[string]string{"XDG_RUNTIME_DIR": "/run/user/1000", "HOME": "/home/u", "XDG_STATE_HOME": "/s"},
			Dirs{Runtime: "/run/user/1000/tlspolicyd", State: "/s/tlspolicyd"},
		},
		"relative values count for nothing": {
			1000,
			map[string]string{"RUNTIME_DIRECTORY": "x", "XDG_RUNTIME_DIR": "run", "XDG_STATE_HOME": "s", "HOME": "/home/u"},
			Dirs{Runtime: "/tmp/tlspolicyd-1000", State: "/home/u/.local/state/tlspolicyd", Shared: true},
		},
		"user without a session": {
			1000,
			map[string]string{"HOME": "/home/u"},
			Dirs{Runtime: "/tmp/tlspolicyd-1000", State: "/home/u/.local/state/tlspolicyd", Shared: true},
		},
		"user without a home": {1000, nil, Dirs{Runtime: "/tmp/tlspolicyd-1000", State: "/tmp/tlspolicyd-1000", Shared: true}},
	} {
		t.Run(name, func(t *testing.T) {
			got := dirs(func(k string) string { return tt.env[k] }, tt.uid, "/tmp")
			if got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

// Overrides are held against next hops (docs/behaviour.md §5), so their names
// are brought into the same form.
func TestOverrideNames(t *testing.T) {
	for in, want := range map[string]string{
		"example.test":         "example.test",
		"EXAMPLE.Test.":        "example.test",
		".Partner.test":        ".partner.test",
		"bücher.test":          "xn--bcher-kva.test",
		"BÜCHER.test":          "xn--bcher-kva.test",
		".faß.test":            ".xn--fa-hia.test", // IDNA2008 keeps the sharp s
		"r3---mx.example.test": "r3---mx.example.test",
		"my_dom.test":          "my_dom.test", // Postfix takes it
	} {
		if got, err := overrideName(in); got != want || err != nil {
			t.Errorf("%s: got %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{
		"", ".", "..test", "a..test", "-a.test", "a-.test", "a b.test", "192.0.2.1", "2001:db8::1",
		"[mx.test]", "mx.test:587", "/path", "*.test", strings.Repeat("a", 64) + ".test", strings.Repeat("a.", 127) + "test", "\xff.test", "ü\u200d.test",
	} {
		if got, err := overrideName(in); err == nil {
			t.Errorf("%q: accepted as %q", in, got)
		}
	}
}

// RFC 4291 section 2.2 reads "::1:53" as an address; an administrator means a
// port. Where both are possible brackets are wanted, and shown.
func TestAResolverThatCouldHaveAPort(t *testing.T) {
	for in, want := range map[string]string{
		"::1":                      "::1",
		"2001:db8::53":             "2001:db8::53",
		"2001:db8:1:2:3:4:5:53":    "2001:db8:1:2:3:4:5:53",
		"fe80::53%eth0":            "fe80::53%eth0",
		"[::1]:53":                 "::1",
		"[::1:53]":                 "[::1:53]",
		"[2001:db8::1:53]:5353":    "[2001:db8::1:53]:5353",
		"2001:db8::a:b":            "2001:db8::a:b",
		"::1:53":                   "",
		"2001:db8::1:5353":         "",
		"2001:db8::1:53%eth0":      "2001:db8::1:53%eth0",
		"2001:db8:1:2:3:4:5:6:53":  "",
		"[2001:db8:1:2:3:4:5:6:5]": "",
	} {
		got, err := parseServer(in)
		if want == "" {
			if err == nil {
				t.Errorf("%s: accepted as %s", in, got)
			}
			continue
		}
		if err != nil || formatServer(got) != want {
			t.Errorf("%s: got %s, %v; want %s", in, formatServer(got), err, want)
		}
	}
}

// Errors end up in the journal and in systemctl status: no password in them.
func TestErrorsKeepTheProxyPassword(t *testing.T) {
	for _, proxy := range []string{
		"http://user:s3cret@proxy.test:3128/x", "socks5://user:s3cret@proxy.test", "http://user:s3cret@proxy.test:99999",
		"//user:s3cret@", "http://user:s3cret@", "http://user:pass@s3cret@proxy.test/x", "http://user:%s3cret@proxy.test",
		"http://user:s3cret/@proxy.test", "http://user:" + strings.Repeat("s3cret", 100) + "@proxy.test",
	} {
		_, err := Parse([]byte("[fetch]\nproxy = "+strconv.Quote(proxy)+"\n"), "x.toml")
		if len(proxy) < 100 && err == nil {
			t.Errorf("%s is accepted", proxy)
		}
		if err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Error(err)
		}
	}
}

// checkOverride has Postfix read an override that was accepted: mail for a
// domain whose policy it cannot read waits.
func checkOverride(t *testing.T, name, policy string) {
	if policy == OverrideSkip || policy == OverrideLookup {
		return
	}
	r, err := postfix.ParseReply([]byte("OK " + policy))
	if err != nil || r.Status != postfix.OK {
		t.Errorf("%s: %q as a reply: %+v, %v", name, policy, r, err)
	}
	p, err := postfix.ParsePolicy(r.Data)
	if err != nil {
		t.Errorf("%s: accepted, and Postfix refuses %q: %v", name, policy, err)
	}
	if p.Type != "" || p.Strings != nil || p.MXPatterns != nil {
		t.Errorf("%s: %q has attributes of an MTA-STS policy", name, policy)
	}
}

func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/*.toml", "testdata/bad/*.toml"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, name := range files {
			data, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse(data, "fuzz.toml")
		if err != nil {
			e, ok := errors.AsType[*Error](err)
			if !ok {
				t.Fatalf("%T is no *Error: %v", err, err)
			}
			if e.Line < 1 || e.Column < 1 || e.Line > 1+bytes.Count(data, []byte("\n")) {
				t.Errorf("place outside of the file: %v", err)
			}
			if s := err.Error(); len(s) > 1000 || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) {
				t.Errorf("no printable line: %q", s)
			}
			return
		}
		for name, policy := range c.Override {
			checkOverride(t, name, policy)
		}
		var b bytes.Buffer
		if err := c.WriteTOML(&b); err != nil {
			t.Fatal(err)
		}
		again, err := Parse(b.Bytes(), "again.toml")
		if err != nil {
			t.Fatalf("shown settings are refused: %v\n%s", err, b.String())
		}
		if d := diff(c, again); d != "" {
			t.Errorf("shown settings differ:\n%s", d)
		}
	})
}

// Issue of secrets: a file that local users can read must not have one, and what
// is shown never has.
func TestPasswordOfTheEngine(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x.toml")
	text := "[share]\nurl = \"redis://mail:s3cret@valkey.test\"\n"
	for mode, want := range map[os.FileMode]string{
		0o640: "",
		0o644: file + ":2:7: share.url: there is a password in it, and every local user can read this file: " +
			"want the password in share.password_file, or 'chmod o-rwx' for this file",
	} {
		if err := os.WriteFile(file, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		c, err := Load(file)
		if (err == nil) != (want == "") || err != nil && err.Error() != want {
			t.Errorf("mode %o: %v", mode, err)
		}
		if err == nil && (c.Share.URL.Username != "mail" || c.Share.URL.Password != "s3cret") {
			t.Error("user and password were not read")
		}
		var shown strings.Builder
		_ = c.WriteTOML(&shown)
		asJSON, _ := json.Marshal(c)
		if all := fmt.Sprintf("%s %s %v %+v", &shown, asJSON, c, c); strings.Contains(all, "s3cret") {
			t.Errorf("the password is shown: %s", all)
		}
	}
}

func TestEngineURL(t *testing.T) {
	for text, want := range map[string]EngineURL{
		"unix:/run/valkey/v.sock":          {Network: "unix", Hosts: []string{"/run/valkey/v.sock"}},
		"unix:///run/valkey/v.sock":        {Network: "unix", Hosts: []string{"/run/valkey/v.sock"}},
		"redis://127.0.0.1":                {Network: "tcp", Hosts: []string{"127.0.0.1:6379"}},
		"redis://[::1]:7000,localhost/":    {Network: "tcp", Hosts: []string{"[::1]:7000", "localhost:6379"}},
		"rediss://u:p@w@a.test,b.test:1/2": {Network: "tcp", Hosts: []string{"a.test:6379", "b.test:1"}, TLS: true, Database: 2, Username: "u", Password: "p@w"},
	} {
		got, err := parseEngine(text)
		if d := cmp.Diff(want, got); err != nil || d != "" {
			t.Errorf("%s: %v\n%s", text, err, d)
		}
		if local := !want.TLS; got.Local() != local {
			t.Errorf("%s: local %v", text, got.Local())
		}
	}
}

func TestSecretPath(t *testing.T) {
	env := func(string) string { return "/run/credentials/x" }
	if got, err := SecretPath("${CREDENTIALS_DIRECTORY}/key", env); got != "/run/credentials/x/key" || err != nil {
		t.Error(got, err)
	}
	if _, err := SecretPath("${CREDENTIALS_DIRECTORY}/key", func(string) string { return "" }); err == nil || !strings.Contains(err.Error(), "LoadCredential=key:/path") {
		t.Error(err)
	}
}
