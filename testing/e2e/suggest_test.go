//go:build e2e

package e2e

import (
	"encoding/json"
	"errors"
	"strings"
	"syscall"
	"testing"
)

const (
	freshDir    = workDir + "/fresh"
	freshPolicy = "127.0.2.3" // an nginx as suggest prints it
)

// freshZone is a domain that publishes nothing but a mail host and an address for
// its policy host, and what a test adds.
func freshZone(more string) testZone {
	return testZone{origin: "fresh.test", signing: signed, records: "@ MX 10 mx\nmx A " + goodHost + "\nmta-sts A " + freshPolicy + "\n" + more}
}

// suggestion is what `tlspolicyd suggest --json` says.
type suggestion struct {
	Mode  string
	Steps []struct {
		Name, Lines string
		Needed      bool
	}
}

// suggest returns the mode, and the lines of all steps that are needed.
func (d *daemon) suggest(t *testing.T, domain string) (mode string, lines map[string]string) {
	t.Helper()
	stdout, stderr, err := command("", d.binary, "suggest", "--json", "--config", daemonDir+"/tlspolicyd.toml", domain)
	var s suggestion
	if err := errors.Join(err, json.Unmarshal([]byte(stdout), &s)); err != nil {
		t.Fatalf("suggest: %v, %s: %s", err, stderr, stdout)
	}
	lines = map[string]string{}
	for _, step := range s.Steps {
		if step.Needed {
			lines[step.Name] = step.Lines
		}
	}
	return s.Mode, lines
}

// testSuggest publishes what suggest prints: records in a zone that is signed, the
// file behind a real nginx with the block that was printed. check then finds
// nothing wrong.
func testSuggest(t *testing.T, w *world) {
	const domain = "fresh.test"
	t.Cleanup(func() {
		if err := w.names.republish(freshZone("")); err != nil {
			t.Error(err)
		}
	})
	check := func(want ...string) {
		t.Helper()
		wantEqual(t, "findings", w.daemon.audits(t, daemonDir+"/tlspolicyd.toml", []string{domain})[domain].wrong(), want)
	}
	publish := func(lines map[string]string, records string) {
		t.Helper()
		if err := write(freshDir+"/.well-known/mta-sts.txt", lines["policy-file"]); err != nil {
			t.Fatal(err)
		}
		if err := w.names.republish(freshZone(records)); err != nil {
			t.Fatal(err)
		}
	}

	mode, lines := w.daemon.suggest(t, domain)
	if mode != "testing" {
		t.Fatalf("got mode %s, want testing", mode)
	}
	nginx := w.startSuggested(t, lines["web-server-nginx"])
	defer nginx()
	fixed := lines["tlsrpt-record"] + lines["tlsa-records"]
	publish(lines, fixed+lines["sts-record"])
	check("warn policy-mode-testing")

	mode, lines = w.daemon.suggest(t, domain)
	if mode != "enforce" {
		t.Fatalf("got mode %s, want enforce", mode)
	}
	publish(lines, fixed+lines["sts-record"])
	check()
	wantDelivered(t, w.postfix37.send(t, "a@"+domain), "mx."+domain, "good", "Verified")
	if _, lines = w.daemon.suggest(t, domain); len(lines) != 0 {
		t.Errorf("got %q, want nothing to do", lines)
	}
}

// startSuggested starts an nginx with a server block, whose address, folder and
// certificate are those of the test.
func (w *world) startSuggested(t *testing.T, block string) (stop func()) {
	t.Helper()
	cert, err := w.ca.certificate("mta-sts.fresh.test")
	if err != nil {
		t.Fatal(err)
	}
	for old, now := range map[string]string{
		"listen 443 ssl;":      "listen " + freshPolicy + ":443 ssl;",
		"listen [::]:443 ssl;": "",
		"/etc/letsencrypt/live/mta-sts.fresh.test/fullchain.pem": freshDir + ".pem",
		"/etc/letsencrypt/live/mta-sts.fresh.test/privkey.pem":   freshDir + ".pem",
		"/var/www/mta-sts.fresh.test":                            freshDir,
	} {
		if strings.Count(block, old) != 1 {
			t.Fatalf("%q is not once in the block:\n%s", old, block)
		}
		block = strings.Replace(block, old, now, 1)
	}
	config := "daemon off;\npid " + freshDir + ".pid;\nerror_log stderr;\nevents { }\nhttp {\naccess_log off;\ninclude /etc/nginx/mime.types;\n"
	for _, name := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		config += name + "_temp_path " + freshDir + "-tmp-" + name + ";\n"
	}
	if err := errors.Join(write(freshDir+".pem", cert.pem), write(freshDir+".conf", config+block+"}\n")); err != nil {
		t.Fatal(err)
	}
	p, err := start(w.bookworm, 0, "/usr/sbin/nginx", "-e", "stderr", "-c", freshDir+".conf")
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := p.stop(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
	}
}
