package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tlspolicyd/cmd/tlspolicyd/internal/audit/check"
	"tlspolicyd/testing/lab"
)

// suggestWorld is an internet with a domain that publishes nothing but MX records.
func suggestWorld(t *testing.T) (w *lab.World, o *options, configFile string) {
	t.Helper()
	w = lab.New()
	t.Cleanup(w.Close)
	w.Zone("new.test. MX 10 mx1.new.test.\nnew.test. MX 20 mx2.new.test.\nnull.test. MX 0 .\n")
	w.SMTPHost("mx1.new.test", lab.SMTP{})
	w.SMTPHost("mx2.new.test", lab.SMTP{})
	return w, &options{dial: w.Dial}, writeLabConfig(t, w)
}

// suggestion is the JSON.
type suggestion struct {
	Domain, Mode string
	InTheWay     []struct{ Code string } `json:"in_the_way"`
	Steps        []check.Step
}

// suggested runs the command.
func suggested(t *testing.T, o *options, args ...string) suggestion {
	t.Helper()
	var out, errs bytes.Buffer
	if status := runWith(t.Context(), o, append([]string{"suggest", "--json"}, args...), nil, &out, &errs); status != exitDone {
		t.Fatalf("status %d: %s", status, errs.String())
	}
	var s suggestion
	if err := json.Unmarshal(out.Bytes(), &s); err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
	return s
}

// stepsNow are the steps that are to be done now.
func stepsNow(s suggestion) (names []string) {
	for _, step := range s.Steps {
		if step.Needed {
			names = append(names, step.Name)
		}
	}
	return names
}

// publish does the steps that are needed, as an operator would: records into the
// zone, the file onto the web server, which begins to answer with it.
func publish(w *lab.World, web **lab.PolicyHost, s suggestion) {
	lines := map[string]string{}
	for _, step := range s.Steps {
		if step.Needed {
			lines[step.Name] = step.Lines
		}
	}
	if file := lines["policy-file"]; file != "" {
		if *web == nil {
			*web = w.PolicyHost(s.Domain, file)
		}
		(*web).SetPolicy(file)
	}
	for _, name := range []string{"tlsrpt-record", "sts-record", "tlsa-records"} {
		for record := range strings.Lines(lines[name]) {
			if record, _, _ = strings.Cut(record, " ;"); !strings.HasPrefix(record, ";") {
				owner, _, _ := strings.Cut(record, " ")
				if name != "tlsa-records" {
					w.Replace(owner, "TXT")
				}
				w.Zone(record)
			}
		}
	}
}

// findings are those of check that are not ok.
func findings(t *testing.T, o *options, configFile, domain string) (list []string) {
	t.Helper()
	_, stdout, stderr := runCheck(t, o, "", "--config", configFile, "--json", domain)
	var r struct {
		Topics []struct {
			Findings []struct{ Code, Grade string }
		}
	}
	if err := json.Unmarshal([]byte(stdout), &r); err != nil {
		t.Fatalf("%v: %s%s", err, stdout, stderr)
	}
	for _, topic := range r.Topics {
		for _, f := range topic.Findings {
			if f.Grade != "ok" {
				list = append(list, f.Grade+" "+f.Code)
			}
		}
	}
	return list
}

// What suggest prints is published step by step, and comes out clean in check.
func TestSuggestLeadsToACleanCheck(t *testing.T) {
	w, o, configFile := suggestWorld(t)
	wants := []struct {
		mode            string
		needed, without []string // steps; findings of check afterwards
	}{
		{"testing", []string{"tlsrpt-record", "policy-file", "web-server-nginx", "web-server-caddy", "web-server-apache", "sts-record", "tlsa-records"}, []string{"warn policy-mode-testing"}},
		{"enforce", []string{"policy-file", "sts-record"}, nil},
		{"enforce", nil, nil},
	}
	var web *lab.PolicyHost
	for i, want := range wants {
		s := suggested(t, o, "--config", configFile, "new.test")
		if s.Mode != want.mode || !slices.Equal(stepsNow(s), want.needed) || len(s.InTheWay) != 0 {
			t.Fatalf("round %d: mode %s, needed %q, in the way %+v; want %s, %q", i, s.Mode, stepsNow(s), s.InTheWay, want.mode, want.needed)
		}
		publish(w, &web, s)
		if got := findings(t, o, configFile, "new.test"); !slices.Equal(got, want.without) {
			t.Errorf("round %d: check finds %q, want %q", i, got, want.without)
		}
	}

	// A mail host is added, and its certificate has expired: mode enforce stays.
	w.Zone("new.test. MX 30 mx3.new.test.\n")
	w.SMTPHost("mx3.new.test", lab.SMTP{Cert: lab.Expired})
	s := suggested(t, o, "--config", configFile, "new.test")
	if s.Mode != "enforce" || !slices.Equal(stepsNow(s), []string{"policy-file", "sts-record", "tlsa-records"}) || len(s.InTheWay) == 0 {
		t.Errorf("a new mail host: mode %s, needed %q, in the way %+v", s.Mode, stepsNow(s), s.InTheWay)
	}

	// Taking it away: mode none with a new id.
	last := s.Steps[len(s.Steps)-1]
	if last.Name != "remove" || last.Lines != "version: STSv1\nmode: none\nmax_age: 86400\n" || !strings.Contains(last.Text, "wait 30 days") {
		t.Errorf("got %+v", last)
	}
}

// What a domain has is kept where it is as good or better.
func TestSuggestKeepsWhatIsThere(t *testing.T) {
	o, configFile := checkWorld(t)
	for _, tc := range []struct {
		domain, mode string
		now          []string
		file         string // "": as it is
		inTheWay     bool
		text         string // of the policy file
	}{
		{"good.test", "enforce", []string{}, "", false, "Nothing to do"},
		// Short-lived, with a pattern for no host, and without one of the hosts.
		{"bad.test", "enforce", []string{"tlsrpt-record", "policy-file", "sts-record"}, "mode: enforce\nmx: mx.bad.test\nmx: mx1.good.test\nmax_age: 2592000\n", true, "Mode enforce stays"},
		{"lost.test", "testing", []string{"tlsrpt-record", "policy-file", "web-server-nginx", "web-server-caddy", "web-server-apache", "sts-record"}, "mode: testing\nmx: mx1.good.test\nmax_age: 86400\n", false, "if that is in mode enforce, repair the web server instead"},
		{"plain.test", "testing", []string{"tlsrpt-record", "policy-file", "web-server-nginx", "web-server-caddy", "web-server-apache", "sts-record"}, "mode: testing\nmx: mx.plain.test\nmax_age: 86400\n", true, "Mode testing"},
	} {
		s := suggested(t, o, "--config", configFile, tc.domain)
		file := s.Steps[1]
		if s.Mode != tc.mode || !slices.Equal(stepsNow(s), tc.now) || !strings.HasSuffix(file.Lines, tc.file) ||
			len(s.InTheWay) > 0 != tc.inTheWay || !strings.Contains(file.Text, tc.text) {
			t.Errorf("%s: mode %s, now %q, in the way %+v, file %+v", tc.domain, s.Mode, stepsNow(s), s.InTheWay, file)
		}
	}
}

func TestSuggestKeys(t *testing.T) {
	w, o, configFile := suggestWorld(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "next.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	var web *lab.PolicyHost
	s := suggested(t, o, "--config", configFile, "new.test", "--next-key", file)
	publish(w, &web, s)
	tlsa := func(s suggestion) check.Step {
		return s.Steps[slices.IndexFunc(s.Steps, func(step check.Step) bool { return step.Name == "tlsa-records" })]
	}
	if got := strings.Count(tlsa(s).Lines, "; the next key\n"); got != 2 {
		t.Errorf("%d records for the next key, want 2:\n%s", got, tlsa(s).Lines)
	}
	if s := suggested(t, o, "--config", configFile, "new.test", "--next-key", file); tlsa(s).Needed {
		t.Errorf("the records are published, got %+v", tlsa(s))
	}
	if got := findings(t, o, configFile, "new.test"); !slices.Equal(got, []string{"warn policy-mode-testing"}) {
		t.Errorf("check finds %q", got)
	}

	w.Insecure("new.test")
	if got := tlsa(suggested(t, o, "--config", configFile, "new.test")); got.Needed || got.Lines != "" || !strings.Contains(got.Text, "not signed with DNSSEC") {
		t.Errorf("without DNSSEC: got %+v", got)
	}
	for path, want := range map[string]string{file + ".not": "no such file", configFile: "want a PEM file"} {
		var out, errs bytes.Buffer
		if status := runWith(t.Context(), o, []string{"suggest", "new.test", "--next-key", path}, nil, &out, &errs); status != exitUsage || !strings.Contains(errs.String(), want) {
			t.Errorf("--next-key %s: status %d, %s", path, status, errs.String())
		}
	}
}

func TestSuggestText(t *testing.T) {
	w, o, configFile := suggestWorld(t)
	run := func(domain string) (int, string, string) {
		var out, errs bytes.Buffer
		status := runWith(t.Context(), o, []string{"suggest", "--config", configFile, domain}, nil, &out, &errs)
		return status, out.String(), errs.String()
	}
	status, out, errs := run("new.test")
	for _, want := range []string{
		"== new.test: mode testing\n", "1. tlsrpt-record (now)\n", "          mode: testing\n", "          mx: mx1.new.test\n",
		"    server_name mta-sts.new.test;\n", "mta-sts.new.test {\n", "<VirtualHost *:443>\n", "; _25._tcp.mx1.new.test. IN TLSA 3 1 1 SHA256-OF-THE-NEXT-KEY\n",
		". enforce\n", ". remove\n",
	} {
		if status != exitDone || errs != "" || !strings.Contains(out, want) {
			t.Fatalf("status %d, %s, no %q:\n%s", status, errs, want, out)
		}
	}
	if status, out, errs := run("null.test"); status != exitNo || out != "" || !strings.Contains(errs, "null MX") {
		t.Errorf("null MX: status %d, %s%s", status, out, errs)
	}
	w.Fault("_mta-sts.new.test", "TXT", lab.ServFail)
	if status, out, errs := run("new.test"); status != exitNo || out != "" || !strings.Contains(errs, "MTA-STS record") {
		t.Errorf("a record that cannot be looked up: status %d, %s%s", status, out, errs)
	}
}
