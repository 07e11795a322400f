package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tlspolicyd/cmd/tlspolicyd/internal/config"
	"tlspolicyd/cmd/tlspolicyd/internal/explain"
	"tlspolicyd/internal/dnsclient"
	"tlspolicyd/testing/lab"
)

// explainZone is what the command explains in these tests.
const explainZone = `
	dane.test.          MX 10 mx.dane.test.
	mx.dane.test.       A  192.0.2.2
	enforce.test.       MX 10 mx.enforce.test.
	mx.enforce.test.    A  192.0.2.1
	unsigned.test.      MX 10 mx.enforce.test.
	bogus.test.         MX 10 mx.enforce.test.
`

const explainOverrides = `
[override]
"skip.test" = "skip"
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
	w.TLSA("mx.dane.test", 25)
	w.Fault("bogus.test", "", lab.Bogus)
	w.Insecure("unsigned.test")
	w.PolicyHost("enforce.test", explainPolicyText("enforce"))
	w.PolicyHost("unsigned.test", explainPolicyText("testing"))

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
	w.Replace("_25._tcp.mx.dane.test", "TLSA")
	status, text := runExplain(t, configFile, "unsigned.test")
	if status != exitDone || !strings.Contains(text, "postfix         OK secure match=mx.enforce.test:.backup.test servername=hostname\n") {
		t.Errorf("status %d:\n%s", status, text)
	}
}

// §3: explain resolves afresh, so a second look sees what has changed.
func TestExplainKeepsNothing(t *testing.T) {
	w, configFile := explainWorld(t, "")
	if status, text := runExplain(t, configFile, "enforce.test"); status != exitDone || !strings.Contains(text, "\n  proxy           http://127.0.0.1:") {
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
	x, err := newExplainer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	x.Resolver = gatedResolver{x.Resolver, "dane.test", "_mta-sts.enforce.test", make(chan struct{})}
	var keys []string
	err = explainKeys(t.Context(), x, 2, []string{"dane.test", "enforce.test"}, new(progress), func(r explain.Report) error {
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

// walk calls visit for every field below v.
func walk(v any, path string, visit func(path string, v any)) {
	switch v := v.(type) {
	case map[string]any:
		for name, value := range v {
			field := strings.TrimPrefix(path+"."+name, ".")
			visit(field, value)
			walk(value, field, visit)
		}
	case []any:
		for _, value := range v {
			walk(value, path+"[]", visit)
		}
	}
}

// isKind holds a JSON value against the type in docs/explain.md.
func isKind(v any, kind string) bool {
	if rest, nullable := strings.CutSuffix(kind, " or null"); nullable {
		return v == nil || isKind(v, rest)
	}
	switch v := v.(type) {
	case string:
		if kind == "time" {
			at, err := time.Parse(time.RFC3339, v)
			return err == nil && at.Location() == time.UTC
		}
		return kind == "string"
	case bool:
		return kind == "boolean"
	case float64:
		return kind == "number" || kind == "integer" && v == math.Trunc(v)
	case map[string]any:
		return kind == "object"
	case []any:
		item, ok := strings.CutPrefix(kind, "array of ")
		for _, i := range v {
			ok = ok && isKind(i, strings.TrimSuffix(item, "s"))
		}
		return ok
	}
	return false
}
