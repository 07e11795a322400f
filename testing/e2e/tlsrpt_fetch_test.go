//go:build e2e

package e2e

import (
	_ "embed"
	"encoding/json"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// reportedTXT are the records at _smtp._tls of domains whose policy cannot be
// fetched. What Postfix makes of them is what our reports must have.
func reportedTXT() map[string][]string {
	return map[string][]string{
		"one":     {`"v=TLSRPTv1; rua=mailto:reports@one.reported.test"`},
		"split":   {`"v=TLSRP" "Tv1; rua=mail" "to:reports@split.reported.test"`},
		"bytes":   {`"v=TLSRPTv1\009; rua=mailto:\195\188@bytes.reported.test\000\127 <&>\"\\"`},
		"long":    {`"v=TLSRPTv1; rua=mailto:` + strings.Repeat("a", 200) + `" "` + strings.Repeat("b", 255) + `" "` + strings.Repeat("c", 255) + `" "` + strings.Repeat("d", 255) + `" "` + strings.Repeat("e", 200) + `@long.reported.test"`},
		"beside":  {`"v=spf1 -all"`, `"v=TLSRPTv1; rua=mailto:reports@beside.reported.test"`, `"v=TLSRPTv2; rua=mailto:x@x.test"`, `"V=TLSRPTv1; rua=mailto:x@x.test"`},
		"odd":     {`"v=TLSRPTv1;"`},
		"inforce": {`"v=TLSRPTv1; rua=mailto:reports@inforce.reported.test"`},
		// Neither reports about these.
		"two":     {`"v=TLSRPTv1; rua=mailto:a@two.reported.test"`, `"v=TLSRPTv1; rua=mailto:b@two.reported.test"`},
		"version": {`"v=TLSRPTv10; rua=mailto:a@version.reported.test"`},
		"none":    nil,
	}
}

func reportedZone() testZone {
	z := testZone{origin: "reported.test", signing: unsigned}
	for name, records := range reportedTXT() {
		z.records += name + " MX 10 mx." + name + "\nmx." + name + " A " + goodHost + "\n" +
			"_mta-sts." + name + ` TXT "v=STSv1; id=1;"` + "\nmta-sts." + name + " A " + policyHost + "\n"
		for _, record := range records {
			z.records += "_smtp._tls." + name + " TXT " + record + "\n"
		}
	}
	return z
}

func reportedPolicies() (all []policy) {
	for name := range reportedTXT() {
		domain := name + ".reported.test"
		all = append(all, enforced(domain, "*."+domain, "mx."+domain, "MX."+domain))
	}
	return all
}

func reportedGoodNames() (names []string) {
	for name := range reportedTXT() {
		names = append(names, "mx."+name+".reported.test")
	}
	return names
}

// raw is a datagram. Ours has a version, which Debian's libtlsrpt does not write.
type raw struct {
	Version string `json:"dpv"`
	Domain  string `json:"d"`
	Record  string `json:"pr"`
	text    string
}

func (r *reportSocket) read(t *testing.T) raw {
	t.Helper()
	_ = r.conn.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, 1<<17)
	n, err := r.conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	d := raw{text: string(buf[:n])}
	if err := json.Unmarshal(buf[:n], &d); err != nil {
		t.Fatalf("%q: %v", buf[:n], err)
	}
	return d
}

// pair reads the datagrams of tlspolicyd and of Postfix about a domain.
func (r *reportSocket) pair(t *testing.T, domain string) (ours, theirs raw) {
	t.Helper()
	for ours.text == "" || theirs.text == "" {
		switch d := r.read(t); {
		case !strings.EqualFold(d.Domain, domain):
			t.Errorf("a report about %s: %s", d.Domain, d.text)
		case d.Version != "":
			ours = d
		default:
			theirs = d
		}
	}
	return ours, theirs
}

// testFailedFetches: the daemon reports what Postfix does not see, the policies
// that it cannot fetch (RFC 8460 §4.3), and the collector takes both to be about
// the same domain with the same record.
func testFailedFetches(t *testing.T, w *world) {
	s := w.postfix310
	unpublish := func(t *testing.T, domain string) {
		t.Helper()
		if err := os.Remove(webDir + "/" + domain + "/.well-known/mta-sts.txt"); err != nil {
			t.Fatal(err)
		}
	}
	w.reports.drain(t)
	for _, name := range []string{"two", "version", "none", "one", "split", "bytes", "long", "beside", "odd"} {
		t.Run(name, func(t *testing.T) {
			domain := name + ".reported.test"
			unpublish(t, domain)
			if o := s.send(t, "a@"+domain); o.status != "sent" {
				t.Fatalf("status=%s (%s)", o.status, o.text)
			}
			if slices.Contains([]string{"two", "version", "none"}, name) {
				return // a report about it would be met by the next ones
			}
			ours, theirs := w.reports.pair(t, domain)
			if ours.Domain != theirs.Domain || ours.Record != theirs.Record {
				t.Errorf("ours:    %s\nPostfix: %s", ours.text, theirs.text)
			}
			var got report
			if err := json.Unmarshal([]byte(ours.text), &got); err != nil {
				t.Fatal(err)
			}
			if p := got.Policies[0]; got.complete() != nil || p.Type != reportSTS || p.Domain != domain || p.Failed != 1 ||
				p.Details[0].Code != reportFetchError || len(p.Strings) != 0 {
				t.Errorf("got %s", ours.text)
			}
		})
	}
	t.Run("letter case of the next hop", func(t *testing.T) {
		if o := s.send(t, "b@ODD.Reported.TEST"); o.status != "sent" {
			t.Fatalf("status=%s (%s)", o.status, o.text)
		}
		// Postfix keeps it, and the collector folds it.
		if theirs := w.reports.read(t); theirs.Version != "" || strings.ToLower(theirs.Domain) != "odd.reported.test" {
			t.Errorf("got %s", theirs.text)
		}
	})
	t.Run("a policy in force", func(t *testing.T) { testFailedFetchInForce(t, w, unpublish) })
}

//go:embed testdata/libtlsrpt.c
var libtlsrptC string

// testFailedFetchInForce holds the datagram against the one that libtlsrpt makes
// of the same failure, and its policy against the one that Postfix reports.
func testFailedFetchInForce(t *testing.T, w *world, unpublish func(*testing.T, string)) {
	const domain, program = "inforce.reported.test", workDir + "/libtlsrpt"
	if err := write(program+".c", libtlsrptC); err != nil {
		t.Fatal(err)
	}
	if _, _, err := command(w.trixie, "/usr/bin/tcc", "-o", program, program+".c", "-ltlsrpt"); err != nil {
		t.Fatal(err)
	}
	wantDelivered(t, w.postfix310.send(t, "a@"+domain), "mx."+domain, "good", "Verified")
	postfix := w.reports.next(t, domain)
	unpublish(t, domain)
	// It exits with 3, because the fetch fails.
	_, _, _ = command("", w.daemon.binary, "cache", "refresh", domain, "--config", daemonDir+"/tlspolicyd.toml")
	ours := w.reports.read(t)
	if ours.Version != "1" || ours.Domain != domain {
		t.Fatalf("got %s", ours.text)
	}
	_, _, err := command(
		w.trixie, program, reportPath, domain, "v=TLSRPTv1; rua=mailto:reports@"+domain, "301",
		"https://mta-sts."+domain+"/.well-known/mta-sts.txt", "HTTP status 404; the cached policy was used",
		"-s", "version: STSv1", "-s", "mode: enforce", "-s", "mx: *."+domain, "-s", "mx: mx."+domain, "-s", "mx: MX."+domain,
		"-s", "max_age: 604800", "-m", "*."+domain, "-m", "mx."+domain,
	)
	if err != nil {
		t.Fatal(err)
	}
	library := w.reports.read(t)
	got := strings.Replace(ours.text, `"dpv":"1",`, "", 1)
	if got, want := tokens(t, got), tokens(t, library.text); !slices.Equal(got, want) {
		t.Errorf("ours:      %q\nlibtlsrpt: %q", got, want)
	}
	var mine report
	if err := json.Unmarshal([]byte(ours.text), &mine); err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "policy strings", mine.Policies[0].Strings, postfix.Policies[0].Strings)
	wantEqual(t, "MX host patterns", mine.Policies[0].MXHosts, postfix.Policies[0].MXHosts)
}

// tokens are the names, values and brackets of a JSON text in their order, which
// matters: the collector keeps policies as text.
func tokens(t *testing.T, text string) (all []any) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	for {
		token, err := d.Token()
		switch {
		case errors.Is(err, io.EOF):
			return all
		case err != nil:
			t.Fatalf("%v in %s", err, text)
		}
		all = append(all, token)
	}
}
