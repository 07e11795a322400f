package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"tlspolicyd/cmd/tlspolicyd/internal/config"
	"tlspolicyd/internal/dnsclient"
	"tlspolicyd/testing/lab"
)

// explainZone is what explain looks at in these tests, beside the policy hosts
// of explainWorld.
const explainZone = `
	enforce.test.            MX 10 mx.enforce.test.
	mx.enforce.test.         A  192.0.2.1
	dane.test.               MX 20 mx2.dane.test.
	dane.test.               MX 10 mx1.dane.test.
	mx1.dane.test.           A  192.0.2.2
	mx1.dane.test.           AAAA 2001:db8::2
	mx2.dane.test.           CNAME mail.provider.test.
	mail.provider.test.      A  192.0.2.3
	mixed.test.              MX 0 mx1.dane.test.
	mixed.test.              MX 0 unusable.mixed.test.
	mixed.test.              MX 5 nowhere.mixed.test.
	mixed.test.              MX 7 failing.mixed.test.
	mixed.test.              MX 9 unsigned.mixed.test.
	unusable.mixed.test.     A  192.0.2.4
	_25._tcp.unusable.mixed.test. TLSA 0 0 1 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff
	_25._tcp.unusable.mixed.test. TLSA 3 1 1 0011
	failing.mixed.test.      A  192.0.2.5
	unsigned.mixed.test.     A  192.0.2.6
	broken.test.             MX 10 mx.enforce.test.
	toolong.test.            MX 10 mx.enforce.test.
	control.test.            MX 10 mx.enforce.test.
	badcert.test.            MX 10 mx.enforce.test.
	expired.test.            MX 10 mx.enforce.test.
	redirect.test.           MX 10 mx.enforce.test.
	private.test.            MX 10 mx.enforce.test.
	hostile.test.            MX 10 mx.enforce.test.
	hostile.test.            MX 20 ev\027]0\;il.hostile.test.
	_mta-sts.hostile.test.   TXT "v=STSv1; id=1\027[2J\155\007;"
	_mta-sts.hostile.test.   TXT "\226\128\174 other \\ record"
	several.test.            MX 10 mx.enforce.test.
	_mta-sts.several.test.   TXT "v=STSv1; id=1;"
	_mta-sts.several.test.   TXT "v=STSv1; id=2;"
	notxt.test.              A  192.0.2.7
	_mta-sts.notxt.test.     MX 10 mx.enforce.test.
	unsigned.test.           MX 10 mx1.dane.test.
	nullmx.test.             MX 0 .
	bogus.test.              MX 10 mx.enforce.test.
`

const explainOverrides = `
[override]
"skip.test" = "skip"
".partner.test" = "secure match=mx.partner.test servername=hostname"
`

func explainPolicyText(mode string) string {
	return "version: STSv1\nmode: " + mode + "\nmx: mx.enforce.test\nmx: *.backup.test\nmax_age: 604800\n"
}

// explainWorld is a small internet behind real sockets and the configuration
// file that leads there.
func explainWorld(t *testing.T, extra string) (w *lab.World, configFile string) {
	t.Helper()
	w = lab.New()
	t.Cleanup(w.Close)
	w.Zone(explainZone)
	w.TLSA("mx1.dane.test", 25)
	w.TLSA("mx1.dane.test", 587)
	w.TLSA("mail.provider.test", 25)
	w.Fault("failing.mixed.test", "AAAA", lab.ServFail)
	w.Fault("_25._tcp.failing.mixed.test", "TLSA", lab.ServFail)
	w.Fault("bogus.test", "", lab.Bogus)
	w.Fault("_mta-sts.bogus.test", "", lab.Refused)
	w.Insecure("unsigned.test", "unsigned.mixed.test")

	w.PolicyHost("enforce.test", explainPolicyText("enforce")).AddAddr(netip.MustParseAddr("192.168.1.1"))
	w.PolicyHost("unsigned.test", explainPolicyText("testing"))
	w.PolicyHost("nullmx.test", explainPolicyText("enforce"))
	w.PolicyHost("broken.test", explainPolicyText("enfroce"))
	w.PolicyHost("toolong.test", explainPolicyText("enforce")+strings.Repeat("ignored: "+strings.Repeat("x", 300)+"\r\n", 90)+"\nmx: late\n")
	w.PolicyHost("control.test", "version: STSv1\nmode: enforce\x1b[2J\x07\xc2\x9b\u202e\nmx: mx.enforce.test\n")
	w.PolicyHost("badcert.test", explainPolicyText("enforce")).Fault(lab.HostFault{Cert: lab.WrongName})
	w.PolicyHost("expired.test", explainPolicyText("enforce")).Fault(lab.HostFault{Cert: lab.Expired})
	w.PolicyHost("redirect.test", explainPolicyText("enforce")).Fault(lab.HostFault{Redirect: "https://elsewhere.test/policy"})
	w.PolicyHost("private.test", explainPolicyText("enforce"))
	w.Replace("mta-sts.private.test", "A", "10.0.0.1")

	servers, err := w.ListenDNS("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	proxy, err := w.ListenProxy("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := w.WriteCA(filepath.Join(dir, "ca.pem")); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(extra, "[dns]") {
		extra = "[dns]\nservers = [\"RESOLVER\"]\n" + extra
	}
	text := fmt.Sprintf("[fetch]\nproxy = \"http://%s\"\nca_file = %q\nallow_networks = [%q]\n", proxy, filepath.Join(dir, "ca.pem"), lab.Network)
	text += strings.ReplaceAll(extra, "RESOLVER", servers.String()) + explainOverrides
	configFile = filepath.Join(dir, "tlspolicyd.toml")
	if err := os.WriteFile(configFile, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return w, configFile
}

// runExplain runs the command.
func runExplain(t *testing.T, configFile string, args ...string) (status int, stdout string) {
	t.Helper()
	var out, errs bytes.Buffer
	status = run(t.Context(), append([]string{"explain", "--config", configFile}, args...), nil, &out, &errs)
	if errs.Len() > 0 {
		t.Errorf("explain %q: stderr: %s", args, errs.String())
	}
	return status, out.String()
}

// steady takes what changes from run to run out of the text: times, ports,
// keys and dates, and the AAAA lookup of the policy host, which is abandoned
// when the connection over IPv4 was quick.
func steady(text string) string {
	for _, change := range [][2]string{
		{`(?m)^  AAAA  mta-sts\..*\n(        .*\n)*`, ""},
		{`127\.0\.0\.1:\d+`, "127.0.0.1:PORT"},
		{`(?m)^(  time|  took)( +).*$`, "$1${2}TIME"},
		{`(?m) +\d+\.\d ms$`, " TIME"},
		{`3 1 1 [0-9a-f]{64}`, "3 1 1 DIGEST"},
		{`3 1 1 [0-9a-f]{32}\.\.\.`, "3 1 1 DIGEST..."},
		{`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)`, "TIME"},
		{`from \d{4}-\d\d-\d\d to TIME \(\d+ days left\)`, "from DATE to TIME (N days left)"},
	} {
		text = regexp.MustCompile(change[0]).ReplaceAllString(text, change[1])
	}
	return text
}

// The whole text, for the situations of docs/behaviour.md §2 to §5. To take
// over a changed text, run with UPDATE_GOLDEN=1 and read the difference.
func TestExplainText(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	w, configFile := explainWorld(t, "")
	defer w.Close()
	for _, test := range []struct {
		file, key string
		status    int
	}{
		{"enforce", "enforce.test", exitDone},
		{"dane", "dane.test", exitDone},
		{"dane-some-hosts", "mixed.test", exitDone},
		{"smarthost", "[mx1.dane.test]:587", exitDone},
		{"policy-error", "broken.test", exitNo},
		{"policy-error-late", "toolong.test", exitNo},
		{"policy-control-bytes", "control.test", exitNo},
		{"record-hostile", "hostile.test", exitNo},
		{"record-several", "several.test", exitNo},
		{"certificate-wrong-name", "badcert.test", exitNo},
		{"certificate-expired", "expired.test", exitNo},
		{"redirect", "redirect.test", exitNo},
		{"policy-host-private", "private.test", exitNo},
		{"mx-unsigned-testing", "unsigned.test", exitDone},
		{"null-mx", "nullmx.test", exitNo},
		{"implicit-mx", "notxt.test", exitNo},
		{"nxdomain", "gone.test", exitNo},
		{"servfail", "bogus.test", exitUnknown},
		{"override-skip", "skip.test:587", exitNo},
		{"override-parent", "mail.partner.test", exitDone},
		{"parent", ".enforce.test", exitNo},
		{"address", "[192.0.2.1]", exitNo},
	} {
		t.Run(test.file, func(t *testing.T) {
			status, text := runExplain(t, configFile, test.key)
			if status != test.status {
				t.Errorf("status %d, want %d", status, test.status)
			}
			got := steady(text)
			path := filepath.Join("testdata", "explain", test.file+".txt")
			if os.Getenv("UPDATE_GOLDEN") != "" {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", path, diff)
			}
			for line := range strings.Lines(got) {
				if n := len([]rune(line)); n > 101 {
					t.Errorf("line of %d columns: %s", n, line)
				}
			}
		})
	}
}

// §4: AD bits count only where the path to every resolver is trusted.
func TestExplainSaysThatADBitsDoNotCount(t *testing.T) {
	_, far := explainWorld(t, "[dns]\nservers = [\"RESOLVER\", \"192.0.2.53\"]\n")
	status, text := runExplain(t, far, "dane.test")
	if status != exitNo {
		t.Errorf("status %d, want %d: no AD bit counts", status, exitNo)
	}
	for _, want := range []string{"DO NOT COUNT", "192.0.2.53:53", "dns.trust_ad=true", "MX answer       not secure (no AD)"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
	_, trusted := explainWorld(t, "[dns]\ntrust_ad = true\nservers = [\"RESOLVER\", \"192.0.2.53\"]\n")
	status, text = runExplain(t, trusted, "dane.test")
	if status != exitDone || !strings.Contains(text, "count: the path to the resolver is trusted") {
		t.Errorf("status %d with dns.trust_ad:\n%s", status, text)
	}
}

// §5: the operator's choice is part of the answer.
func TestExplainFollowsThePolicySettings(t *testing.T) {
	w, configFile := explainWorld(t, "[policy]\ntesting = \"enforce\"\n")
	w.Replace("_25._tcp.mx1.dane.test", "TLSA")
	status, text := runExplain(t, configFile, "unsigned.test")
	if status != exitDone || !strings.Contains(text, "postfix         OK secure match=mx.enforce.test:.backup.test servername=hostname\n") {
		t.Errorf("status %d:\n%s", status, text)
	}
}

// §3: explain resolves afresh, so a second look sees what has changed.
func TestExplainKeepsNothing(t *testing.T) {
	w, configFile := explainWorld(t, "")
	if status, text := runExplain(t, configFile, "enforce.test"); status != exitDone {
		t.Fatalf("status %d:\n%s", status, text)
	}
	w.Replace("_mta-sts.enforce.test", "TXT")
	if status, text := runExplain(t, configFile, "enforce.test"); status != exitNo {
		t.Errorf("status %d after the record has gone:\n%s", status, text)
	}
}

func TestExplainSeveralKeys(t *testing.T) {
	w, configFile := explainWorld(t, "")
	w.Delay(50e6, "dane.test") // 50 ms: the first is done last
	keys := []string{"dane.test", ".enforce.test", "enforce.test"}
	status, text := runExplain(t, configFile, keys...)
	if status != exitNo {
		t.Errorf("status %d, want %d: one key has no policy", status, exitNo)
	}
	var got []string
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, "== "); ok {
			key, _, _ := strings.Cut(rest, ": ")
			got = append(got, key)
		}
	}
	if diff := cmp.Diff(keys, got); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
	if status, _ := runExplain(t, configFile, "bogus.test", ".enforce.test", "dane.test"); status != exitUnknown {
		t.Errorf("status %d, want %d: one key could not be told", status, exitUnknown)
	}
}

// A key may come from somebody's mail address: it must not reach the terminal
// as it is, nor be lost for a script.
func TestExplainHostileKey(t *testing.T) {
	_, configFile := explainWorld(t, "")
	status, text := runExplain(t, configFile, "a\x1b[2J\u202e.test")
	if want := `== "a\x1b[2J\u202e.test": nothing to look up` + "\n"; status != exitNo || !strings.HasPrefix(text, want) {
		t.Errorf("status %d, text %q, want it to begin with %q", status, text, want)
	}
	status, text = runExplain(t, configFile, "--json", "a\x1b[2J\u202e.test")
	if want := `{"key":"a\u001b[2J\u202e.test",`; status != exitNo || !strings.HasPrefix(text, want) {
		t.Errorf("status %d, text %q, want it to begin with %q", status, text, want)
	}
}

// gatedResolver holds the answer about one name back until another was asked for.
type gatedResolver struct {
	dnsclient.Resolver
	held, opener string
	open         chan struct{}
}

func (g gatedResolver) Lookup(ctx context.Context, name string, qtype uint16) (dnsclient.Answer, error) {
	switch name {
	case g.held:
		<-g.open
	case g.opener:
		close(g.open)
	}
	return g.Resolver.Lookup(ctx, name, qtype)
}

func TestExplainLooksKeysUpSideBySide(t *testing.T) {
	_, configFile := explainWorld(t, "")
	cfg, err := config.Load(configFile)
	if err != nil {
		t.Fatal(err)
	}
	x, err := newExplanations(cfg)
	if err != nil {
		t.Fatal(err)
	}
	x.explainer.Resolver = gatedResolver{x.explainer.Resolver, "dane.test", "_mta-sts.enforce.test", make(chan struct{})}
	var keys []string
	err = x.run(t.Context(), io.Discard, []string{"dane.test", "enforce.test"}, func(_ io.Writer, r explainReport) error {
		keys = append(keys, r.Key)
		return nil
	})
	if err != nil || len(keys) != 2 || keys[0] != "dane.test" {
		t.Errorf("keys %q, error %v", keys, err)
	}
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

func TestExplainOutputThatCannotBeWritten(t *testing.T) {
	for _, flags := range [][]string{nil, {"--json"}} {
		var errs bytes.Buffer
		status := run(t.Context(), append([]string{"explain", ".a.test", ".b.test"}, flags...), nil, brokenPipe{}, &errs)
		if want := "tlspolicyd: write the output: broken pipe\n"; status != exitUnknown || errs.String() != want {
			t.Errorf("%v: status %d, stderr %q, want %q", flags, status, errs.String(), want)
		}
	}
}
