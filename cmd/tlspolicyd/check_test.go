package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"go.uber.org/goleak"

	"tlspolicyd/testing/lab"
)

// checkZone has no policy hosts and no mail hosts: checkWorld adds them.
const checkZone = `
	good.test.            MX 10 mx1.good.test.
	good.test.            MX 20 mx2.good.test.
	_smtp._tls.good.test. TXT "v=TLSRPTv1; rua=mailto:reports@good.test"
	bad.test.             MX 10 mx1.good.test.
	bad.test.             MX 20 mx.bad.test.
	_mta-sts.lost.test.   TXT "v=STSv1; id=1;"
	lost.test.            MX 10 mx1.good.test.
	plain.test.           MX 10 mx.plain.test.
	nullmx.test.          MX 0 .
	_smtp._tls.bad.test.  TXT "v=TLSRPTv1; rua=reports@bad.test"
`

// checkWorld is a small internet. DNS and policy hosts are behind real sockets,
// mail hosts are reached by options.dial.
func checkWorld(t *testing.T) (o *options, configFile string) {
	t.Helper()
	w := lab.New()
	t.Cleanup(w.Close)
	w.Zone(checkZone)
	for i, name := range []string{"mx1.good.test", "mx2.good.test"} {
		w.SMTPHost(name, lab.SMTP{}).AddAddr(netip.AddrFrom16([16]byte{0xfd, 15: byte(i + 1)}))
		w.TLSA(name, 25)
	}
	w.SMTPHost("mx.bad.test", lab.SMTP{Cert: lab.Expired})
	w.SMTPHost("mx.plain.test", lab.SMTP{NoSTARTTLS: true})
	w.PolicyHost("good.test", "version: STSv1\r\nmode: enforce\r\nmx: *.good.test\r\nmax_age: 2592000\r\n")
	w.PolicyHost("bad.test", "version: STSv1\nmode: enforce\nmx: mx.bad.test\nmx: old.bad.test\nmax_age: 86400\nmax-age: 604800\n")
	w.Replace("_mta-sts.bad.test", "TXT", `"v=STSv1; id=20260101T000000;"`)
	w.Insecure("bad.test", "lost.test", "plain.test")
	w.PolicyHost("lost.test", "version: STSv1\nmode: enforce\nmx: mx1.good.test\nmax_age: 2592000\n").
		Fault(lab.HostFault{Path: "/.well-known/mta-sts/mta-sts.txt"})

	return &options{dial: w.Dial}, writeLabConfig(t, w)
}

// writeLabConfig has the command ask the lab: DNS and policy hosts are behind real
// sockets.
func writeLabConfig(t *testing.T, w *lab.World) (configFile string) {
	t.Helper()
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
	text := fmt.Sprintf("[dns]\nservers = [%q]\n[fetch]\nproxy = \"http://%s\"\nca_file = %q\nallow_networks = [%q, \"fd00::/64\"]\n",
		servers, proxy, filepath.Join(dir, "ca.pem"), lab.Network)
	configFile = filepath.Join(dir, "tlspolicyd.toml")
	if err := os.WriteFile(configFile, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return configFile
}

// runCheck runs the command.
func runCheck(t *testing.T, o *options, stdin string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	status = runWith(t.Context(), &options{dial: o.dial}, append([]string{"check"}, args...), strings.NewReader(stdin), &out, &errs)
	return status, out.String(), errs.String()
}

// settled takes what changes from run to run out of an output.
func settled(text string) string {
	for _, change := range [][2]string{
		{`\d{4}-\d\d-\d\d(T\d\d:\d\d:\d\dZ)?`, "DATE"},
		{`(?m)expires\s+DATE,\s+\d+\s+days\s+left`, "expires DATE, N days left"},
		{`TLSA 3 1 1 [0-9a-f]{16}`, "TLSA 3 1 1 DIGEST"},
		{`id=\d{14};`, "id=NOW;"},
		{`(?m)^(tlspolicyd_check_(certificate_days_left|duration_seconds|timestamp_seconds)\{.*\}) .*$`, "$1 N"},
	} {
		text = regexp.MustCompile(change[0]).ReplaceAllString(text, change[1])
	}
	return text
}

// The whole output. To take over a changed text, run with UPDATE_GOLDEN=1 and
// read the difference.
func TestCheckOutput(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) }) // when the world is closed
	o, configFile := checkWorld(t)
	all := []string{"good.test", "bad.test", "lost.test", "plain.test", "nullmx.test", "gone.test"}
	for _, test := range []struct {
		file   string
		args   []string
		status int
	}{
		{"healthy", []string{"good.test"}, exitDone},
		{"broken", []string{"bad.test"}, exitNo},
		{"lost", []string{"lost.test"}, exitNo},
		{"plain", []string{"plain.test"}, exitNo},
		{"null-mx", []string{"nullmx.test"}, exitDone},
		{"nxdomain", []string{"Gone.TEST."}, exitNo},
		{"several", all, exitNo},
		{"several-healthy", []string{"good.test", "nullmx.test"}, exitDone},
		{"nagios", []string{"--nagios", "bad.test"}, 2},
		{"nagios-ok", []string{"--nagios", "good.test"}, 0},
		{"nagios-several", append([]string{"--nagios"}, all...), 2},
		{"prometheus", []string{"--prometheus", "good.test", "lost.test"}, exitDone},
	} {
		t.Run(test.file, func(t *testing.T) {
			status, text, hints := runCheck(t, o, "", append(test.args, "--config", configFile)...)
			if status != test.status || hints != "" {
				t.Errorf("status %d, want %d; stderr %q", status, test.status, hints)
			}
			got := settled(text)
			path := filepath.Join("testdata", "check", test.file+".txt")
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
		})
	}
}

func TestCheckReadsAList(t *testing.T) {
	o, configFile := checkWorld(t)
	list := "# ours\ngood.test   # the main one\n\nGOOD.test\nnullmx.test\n"
	status, text, hints := runCheck(t, o, list, "--config", configFile, "--json", "-")
	if status != exitDone || hints != "" || strings.Count(text, "\n") != 2 {
		t.Errorf("status %d, stderr %q:\n%s", status, hints, text)
	}
	for list, want := range map[string]string{
		"good.test\n\na@good.test\n": "tlspolicyd: standard input, line 3: a@good.test: a mail address: want the part after the @\n",
		"# nothing\n":                "tlspolicyd: standard input has no domain\n",
		strings.Repeat("x", 70000):   "tlspolicyd: standard input, line 1: bufio.Scanner: token too long\n",
	} {
		status, text, hints := runCheck(t, o, list, "--config", configFile, "-")
		if status != exitUsage || text != "" || hints != want {
			t.Errorf("status %d, stdout %q, stderr %q, want %q", status, text, hints, want)
		}
	}
}

// Whoever reads the output with a program relies on docs/check.md: all that is
// documented is there, nothing else is, and the types are those documented.
func TestCheckJSONIsAsDocumented(t *testing.T) {
	documented := tableRows(t, "../../docs/check.md")
	o, configFile := checkWorld(t)
	status, text, hints := runCheck(t, o, "", "--config", configFile, "--json", "good.test", "bad.test", "plain.test", "gone.test", "nullmx.test")
	if status != exitNo || hints != "" {
		t.Errorf("status %d, stderr %q", status, hints)
	}
	seen := map[string]bool{}
	for line := range strings.Lines(text) {
		if strings.ContainsFunc(line, func(r rune) bool { return r > '~' || r < ' ' && r != '\n' }) {
			t.Errorf("not ASCII: %q", line)
		}
		var object map[string]any
		if err := json.Unmarshal([]byte(line), &object); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		walk(object, "", func(path string, v any) {
			seen[path] = true
			if kind, ok := documented[path]; !ok || !isKind(v, kind) {
				t.Errorf("%s: %s is %#v, documented as %q", object["domain"], path, v, kind)
			}
		})
	}
	for path := range documented {
		if !seen[path] {
			t.Errorf("%s is documented but was never seen", path)
		}
	}
}

// tableRows are the fields that a document lists with their types.
func tableRows(t *testing.T, path string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_.\\[\\]]+)` \\| (string|integer|time|array of objects) \\| ").FindAllStringSubmatch(string(text), -1) {
		rows[m[1]] = m[2]
	}
	return rows
}

// Metrics are those of docs/check.md, and a parser takes them.
func TestCheckMetricsAreAsDocumented(t *testing.T) {
	o, configFile := checkWorld(t)
	status, text, _ := runCheck(t, o, "", "--config", configFile, "--prometheus", "good.test", "bad.test")
	if status != exitDone {
		t.Errorf("status %d", status)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile("../../docs/check.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(tlspolicyd_check_[a-z_]+)` \\| (.*?) \\| ").FindAllStringSubmatch(string(doc), -1) {
		documented[m[1]] = true
		family := families[m[1]]
		if family == nil {
			t.Errorf("%s is documented but was not written", m[1])
			continue
		}
		for _, label := range family.Metric[0].Label {
			if !strings.Contains(m[2], "`"+label.GetName()+"`") {
				t.Errorf("%s: label %s is not documented", m[1], label.GetName())
			}
		}
	}
	for name := range families {
		if !documented[name] {
			t.Errorf("%s is not documented", name)
		}
	}
}

func TestCheckOutputThatCannotBeWritten(t *testing.T) {
	o, configFile := checkWorld(t)
	for _, flags := range [][]string{nil, {"--json"}, {"--nagios"}, {"--prometheus"}, {"gone.test"}} {
		var errs bytes.Buffer
		args := append([]string{"check", "--config", configFile, "nullmx.test"}, flags...)
		status := runWith(t.Context(), &options{dial: o.dial}, args, nil, brokenPipe{}, &errs)
		if want := "tlspolicyd: write the output: broken pipe\n"; status != exitUnknown || errs.String() != want {
			t.Errorf("%v: status %d, stderr %q, want %q", flags, status, errs.String(), want)
		}
	}
}
