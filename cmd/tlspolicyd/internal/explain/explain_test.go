package explain

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"tlspolicyd/internal/dnsclient"
	"tlspolicyd/internal/mtasts"
	"tlspolicyd/policymap/policy"
	"tlspolicyd/testing/lab"
)

// zone is what explain looks at in these tests, beside the policy hosts
// of newWorld.
const zone = `
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

func policyText(mode string) string {
	return "version: STSv1\nmode: " + mode + "\nmx: mx.enforce.test\nmx: *.backup.test\nmax_age: 604800\n"
}

// newWorld is a small internet and an Explainer in it.
func newWorld(t *testing.T) (*lab.World, *Explainer) {
	t.Helper()
	w := lab.New()
	t.Cleanup(w.Close)
	w.Zone(zone)
	w.TLSA("mx1.dane.test", 25)
	w.TLSA("mx1.dane.test", 587)
	w.TLSA("mail.provider.test", 25)
	w.Fault("failing.mixed.test", "AAAA", lab.ServFail)
	w.Fault("_25._tcp.failing.mixed.test", "TLSA", lab.ServFail)
	w.Fault("bogus.test", "", lab.Bogus)
	w.Fault("_mta-sts.bogus.test", "", lab.Refused)
	w.Insecure("unsigned.test", "unsigned.mixed.test")

	w.PolicyHost("enforce.test", policyText("enforce")).AddAddr(netip.MustParseAddr("192.168.1.1"))
	w.PolicyHost("unsigned.test", policyText("testing"))
	w.PolicyHost("nullmx.test", policyText("enforce"))
	w.PolicyHost("broken.test", policyText("enfroce"))
	w.PolicyHost("toolong.test", policyText("enforce")+strings.Repeat("ignored: "+strings.Repeat("x", 300)+"\r\n", 90)+"\nmx: late\n")
	w.PolicyHost("control.test", "version: STSv1\nmode: enforce\x1b[2J\x07\xc2\x9b\u202e\nmx: mx.enforce.test\n")
	w.PolicyHost("badcert.test", policyText("enforce")).Fault(lab.HostFault{Cert: lab.WrongName})
	w.PolicyHost("expired.test", policyText("enforce")).Fault(lab.HostFault{Cert: lab.Expired})
	w.PolicyHost("redirect.test", policyText("enforce")).Fault(lab.HostFault{Redirect: "https://elsewhere.test/policy"})
	w.PolicyHost("private.test", policyText("enforce"))
	w.Replace("mta-sts.private.test", "A", "10.0.0.1")

	resolver, err := dnsclient.New(dnsclient.Config{Servers: []netip.AddrPort{w.DNSAddr()}, Dial: w.Dial})
	if err != nil {
		t.Fatal(err)
	}
	return w, &Explainer{
		Resolver: resolver, Servers: resolver.Servers(), ADTrusted: resolver.Trusted(),
		Fetcher: &mtasts.Fetcher{
			RootCAs: w.Roots(), Dial: w.Dial,
			AllowNetworks: []netip.Prefix{netip.MustParsePrefix(lab.Network)},
		},
		Overrides: policy.Overrides{"skip.test": {Policy: "skip"}, ".partner.test": {Policy: "secure match=mx.partner.test servername=hostname"}},
	}
}

func textOf(t *testing.T, r Report) string {
	t.Helper()
	var out bytes.Buffer
	if err := r.WriteText(&out); err != nil {
		t.Fatal(err)
	}
	return out.String()
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
func TestText(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	w, x := newWorld(t)
	defer w.Close()
	for _, test := range []struct {
		file, key string
	}{
		{"enforce", "enforce.test"},
		{"dane", "dane.test"},
		{"dane-some-hosts", "mixed.test"},
		{"smarthost", "[mx1.dane.test]:587"},
		{"policy-error", "broken.test"},
		{"policy-error-late", "toolong.test"},
		{"policy-control-bytes", "control.test"},
		{"record-hostile", "hostile.test"},
		{"record-several", "several.test"},
		{"certificate-wrong-name", "badcert.test"},
		{"certificate-expired", "expired.test"},
		{"redirect", "redirect.test"},
		{"policy-host-private", "private.test"},
		{"mx-unsigned-testing", "unsigned.test"},
		{"null-mx", "nullmx.test"},
		{"implicit-mx", "notxt.test"},
		{"nxdomain", "gone.test"},
		{"servfail", "bogus.test"},
		{"override-skip", "skip.test:587"},
		{"override-parent", "mail.partner.test"},
		{"parent", ".enforce.test"},
		{"address", "[192.0.2.1]"},
	} {
		t.Run(test.file, func(t *testing.T) {
			got := steady(textOf(t, x.Report(t.Context(), test.key)))
			path := filepath.Join("testdata", test.file+".txt")
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
