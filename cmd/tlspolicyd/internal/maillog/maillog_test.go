package maillog

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tlspolicyd/internal/printable"
)

// noon is after every line of the tests.
func noon() time.Time { return time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC) }

// read reads a log.
func read(f Filter, log string) Report {
	c := Collector{Filter: f, Now: noon()}
	for l := range strings.Lines(log) {
		c.Add([]byte(strings.TrimSuffix(l, "\n")))
	}
	return c.Report()
}

func causes(r Report) (codes []string) {
	for _, c := range r.Causes {
		codes = append(codes, c.Code)
	}
	return codes
}

// The logs in testdata are those of testing/e2e/why_test.go, by three versions of
// Postfix. Each message there was held back on purpose.
func TestRealLogs(t *testing.T) {
	const name = "mx-certificate-name-mismatch"
	wants := map[string]string{
		"a@mismatch.open.test":        name,
		"verbose@mismatch.open.test":  name,
		"quiet@mismatch.open.test":    name,
		"a@misnamed.clear.test":       name,
		"a@tlsa211-name.audit.test":   name,
		"a@seconddown.rows.test":      name,
		"a@unlisted.open.test":        "mx-not-in-policy",
		"a@onedown.rows.test":         "mx-not-in-policy",
		"a@ended.clear.test":          "mx-certificate-expired",
		"many7@ended.clear.test":      "mx-certificate-expired", // suspended in between
		"a@early.clear.test":          "mx-certificate-not-yet-valid",
		"a@self.clear.test":           "mx-certificate-untrusted",
		"roots@sts.open.test":         "mx-certificate-untrusted",
		"finger@sts.open.test":        "dane-mismatch", // Postfix makes TLSA records of fingerprints
		"a@plaintext.open.test":       "starttls-missing",
		"a@plain.audit.test":          "starttls-missing",
		"a@keyless.clear.test":        "starttls-refused",
		"a@anonymous.clear.test":      "smtp-tls-failed",
		"a@old.audit.test":            "smtp-tls-failed",
		"proxy@sts.open.test":         "smtp-tls-failed",
		"a@newkey.audit.test":         "dane-mismatch",
		"dane@absent.open.test":       "dane-destination-unsigned",
		"dane@stsonly.signed.test":    "dane-records-missing",
		"dane@unusableonly.rows.test": "dane-unusable",
		"dane@tampered.signed.test":   "dane-lookup-failed",
		"nodnssec@dane.signed.test":   "postfix-tls-configuration",
		"typo@sts.open.test":          "postfix-tls-configuration",
		"a@tampered.signed.test":      "policy-lookup-failed",
		"socket@sts.open.test":        "socket-unreachable",
		"late@wildcard.open.test":     "socket-unreachable",
		"a@expired.test":              "dns-lookup-failed",
		"a@closed.audit.test":         "", // nothing listens
		"a@blocking.audit.test":       "",
		"a@nowhere.open.test":         "",
	}
	for _, file := range []string{"postfix-3.7.log", "postfix-3.10.log", "postfix-3.11.log"} {
		text, err := os.ReadFile("testdata/" + file)
		if err != nil {
			t.Fatal(err)
		}
		for recipient, want := range wants {
			if file == "postfix-3.7.log" && want == "mx-not-in-policy" {
				want = name // Postfix looks at MX patterns since 3.10
			}
			r := read(Filter{Recipient: recipient}, string(text))
			if got := strings.Join(causes(r), " "); got != want {
				t.Errorf("%s: %s: got %q, want %q", file, recipient, got, want)
			}
			if want == "" && r.Other.Deliveries == 0 {
				t.Errorf("%s: %s: its deferral is not counted: %+v", file, recipient, r)
			}
		}
		// At the end every message was returned, but the one that was delivered when
		// the daemon was there again.
		all := read(Filter{}, string(text))
		if all.Waiting != 0 || all.Unparsed != 0 || all.Unrecognized.Deliveries != 0 {
			t.Errorf("%s: %d wait, %d lines unparsed, unrecognized: %+v", file, all.Waiting, all.Unparsed, all.Unrecognized)
		}
		for recipient, want := range map[string]string{
			"a@mismatch.open.test":       "num=62:hostname mismatch",
			"roots@sts.open.test":        "untrusted issuer /CN=e2e authority",
			"a@plain.audit.test":         "",
			"a@keyless.clear.test":       "454 4.7.0 TLS not available due to local problem",
			"a@anonymous.clear.test":     "alert handshake failure",
			"dane@tampered.signed.test":  "name=_25._tcp.mx.tampered.signed.test type=TLSA",
			"a@tampered.signed.test":     "temporary error: TLSA lookup of _25._tcp.mx.tampered.signed.test: SERVFAIL",
			"socket@sts.open.test":       "table socketmap:unix:run/tlspolicyd/absent.sock:postfix lookup error: No such file or directory",
			"nodnssec@dane.signed.test":  "dane.signed.test: dane-only configured with dnssec lookups disabled",
			"typo@sts.open.test":         `next-hop destination "sts.open.test": invalid security level "scure"`,
			"dane@absent.open.test":      "",
			"verbose@mismatch.open.test": ", common name ",
		} {
			host := read(Filter{Recipient: recipient}, string(text)).Causes[0].NextHops[0].Hosts[0]
			if !strings.Contains(host.Evidence, want) || want == "" && host.Evidence != "" || host.Host == "" {
				t.Errorf("%s: %s: got %+v, want evidence %q", file, recipient, host, want)
			}
		}
		late := read(Filter{Domain: "wildcard.open.test"}, string(text)).Causes[0].NextHops[0]
		if late.Messages != 1 || late.Delivered != 1 {
			t.Errorf("%s: got %+v, want one message, delivered later", file, late)
		}
		// Every cause is provoked.
		for _, cause := range Causes() {
			known := []string{"mx-certificate-not-verified"} // by lines that are missing
			if file == "postfix-3.7.log" {
				known = append(known, "mx-not-in-policy")
			}
			if !slices.Contains(causes(all), cause.Code) && !slices.Contains(known, cause.Code) {
				t.Errorf("%s has no %s", file, cause.Code)
			}
		}
	}
}

const (
	expired  = "server certificate verification failed for mx.a.test[192.0.2.1]:25: certificate has expired\n"
	deferred = "4cX1yz2Qk3z5: to=<u@a.test>, relay=mx.a.test[192.0.2.1]:25, delay=0, delays=0/0/0/0, dsn=4.7.5, status=deferred (Server certificate not verified)\n"
)

func TestFormsOfLogs(t *testing.T) {
	day := time.Date(2026, 11, 28, 10, 7, 3, 0, time.UTC)
	for _, tc := range []struct {
		name, head string
		want       time.Time
	}{
		{"rsyslog and postlogd", "Nov 28 10:07:03 mail postfix/smtp[962]: ", day},
		{"a day of one digit", "Nov  8 10:07:03 mail postfix/smtp[962]: ", day.AddDate(0, 0, -20)},
		{"last year", "Dec 24 10:07:03 mail postfix/smtp[962]: ", time.Date(2025, 12, 24, 10, 7, 3, 0, time.UTC)},
		{"29 February", "Feb 29 10:07:03 mail postfix/smtp[962]: ", time.Date(2024, 2, 29, 10, 7, 3, 0, time.UTC)},
		{"rsyslog since Debian 12", "2026-11-28T11:07:03.500000+01:00 mail postfix/smtp[962]: ", day.Add(time.Second / 2)},
		{"journalctl", "2026-11-28T11:07:03.500000+0100 mail postfix/smtp[962]: ", day.Add(time.Second / 2)},
		{"a syslog_name", "2026-11-28T10:07:03Z mail out.example/submission/smtp[962]: ", day},
		{"LMTP", "Nov 28 10:07:03 mail postfix/lmtp[962]: ", day},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := read(Filter{}, tc.head+expired+tc.head+deferred)
			if !slices.Equal(causes(r), []string{"mx-certificate-expired"}) {
				t.Fatalf("got %+v", r)
			}
			if g := r.Causes[0].NextHops[0]; !g.Since.Equal(tc.want) || !r.From.Equal(tc.want) || !r.To.Equal(tc.want) {
				t.Errorf("got %v, from %v to %v, want %v", g.Since, r.From, r.To, tc.want)
			}
		})
	}
}

const (
	one   = "Nov 28 10:07:03 mail postfix/smtp[1]: "
	other = "Nov 28 10:07:03 mail postfix/smtp[2]: "
	proxy = "Nov 28 10:07:03 mail postfix/tlsproxy[3]: "
	qmgr  = "Nov 28 10:07:04 mail postfix/qmgr[9]: "
)

func TestLinesThatBelongTogether(t *testing.T) {
	const (
		noPolicy = ": to=<u@a.test>, relay=none, delay=0, delays=0/0/0/0, dsn=4.7.5, status=deferred (client TLS configuration problem)\n"
		down     = "warning: table socketmap:unix:run/x:postfix lookup error: Connection refused\n"
		temp     = "warning: socketmap:unix:run/x:postfix socketmap server temporary error: MX lookup of b.test: SERVFAIL\n"
		policy   = "warning: TLS policy lookup for [relay.test]:587/relay.test: client TLS configuration problem\n"
		sent     = ": to=<u@a.test>, relay=relay.test[192.0.2.1]:587, delay=0, delays=0/0/0/0, dsn=2.0.0, status=sent (250 Ok)\n"
		two      = ": to=<v@b.test>, relay=none, delay=0, delays=0/0/0/0, dsn=4.7.5, status=deferred (client TLS configuration problem)\n"
	)
	for _, tc := range []struct {
		name, log string
		want      []string
	}{
		{"two processes at once", one + down + other + temp + one + "AAAAAA1" + noPolicy, []string{"socket-unreachable"}},
		{"a delivery of the same process before", one + down + one + "AAAAAA1" + two + one + temp + one + "AAAAAA2" + two, []string{"policy-lookup-failed", "socket-unreachable"}},
		{"no line between two deliveries", one + down + one + "AAAAAA1" + two + one + "AAAAAA2" + two, []string{"postfix-tls-configuration", "socket-unreachable"}},
		{"two recipients of a message", one + down + one + "AAAAAA1" + two + one + "AAAAAA1" + noPolicy, []string{"socket-unreachable"}},
		{"a connection by tlsproxy", proxy + expired + one + deferred, []string{"mx-certificate-expired"}},
		{"a session that is used again", one + expired + one + deferred + one + deferred, []string{"mx-certificate-expired"}},
		{"the reason is not in the log", one + deferred, []string{"mx-certificate-not-verified"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := read(Filter{}, tc.log)
			if got := slices.Sorted(slices.Values(causes(r))); !slices.Equal(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
	t.Run("a relay", func(t *testing.T) {
		log := one + down + one + policy + one + "AAAAAA1" + noPolicy
		g := read(Filter{Domain: "relay.test"}, log).Causes[0].NextHops[0]
		if g.NextHop != "[relay.test]:587" || g.Waiting != 1 || g.Hosts[0].Host != "relay.test" {
			t.Errorf("got %+v", g)
		}
		g = read(Filter{Domain: "a.test"}, log+one+"AAAAAA1"+sent).Causes[0].NextHops[0]
		if g.Waiting != 0 || g.Delivered != 1 {
			t.Errorf("got %+v, want it delivered", g)
		}
	})
}

func TestWhatBecomesOfAMessage(t *testing.T) {
	const (
		id   = "4cX1yz2Qk3z5"
		held = one + expired + one + deferred
		move = one + id + ": to=<u@a.test>, relay=mx2.a.test[192.0.2.2]:25, delay=0, delays=0/0/0/0, dsn=4.7.4, status=deferred (TLS is required, but was not offered by host mx2.a.test[192.0.2.2])\n"
	)
	for _, tc := range []struct {
		name, log                    string
		waiting, delivered, returned int
	}{
		{"waits", held, 1, 0, 0},
		{"tried again", held + held, 1, 0, 0},
		{"delivered", held + one + id + ": to=<u@a.test>, relay=mx.a.test[192.0.2.1]:25, delay=0, delays=0/0/0/0, dsn=2.0.0, status=sent (250 Ok)\n" + qmgr + id + ": removed\n", 0, 1, 0},
		{"expired", held + qmgr + id + ": from=<s@c.test>, status=expired, returned to sender\n" + qmgr + id + ": removed\n", 0, 0, 1},
		{"deleted by the operator", held + "Nov 28 10:07:04 mail postfix/postsuper[8]: " + id + ": removed\n", 0, 0, 0},
		{"bounced at once", one + expired + one + strings.Replace(deferred, "deferred", "bounced", 1), 0, 0, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := read(Filter{}, tc.log)
			g := r.Causes[0].NextHops[0]
			if r.Messages != 1 || r.Waiting != tc.waiting || g.Waiting != tc.waiting || g.Delivered != tc.delivered || g.Returned != tc.returned {
				t.Errorf("got %+v with %+v", r, g)
			}
		})
	}
	t.Run("another cause later", func(t *testing.T) {
		r := read(Filter{}, held+move)
		if r.Messages != 1 || r.Waiting != 1 || len(r.Causes) != 2 || r.Causes[0].Code != "starttls-missing" || r.Causes[1].Waiting != 0 {
			t.Errorf("got %+v, want it to wait for the last cause", r)
		}
	})
}

func TestFilter(t *testing.T) {
	log := one + expired + one + deferred
	for _, tc := range []struct {
		name   string
		filter Filter
		want   int
	}{
		{"queue id", Filter{QueueID: "4cX1yz2Qk3z5"}, 1},
		{"queue id in the wrong case", Filter{QueueID: "4CX1yz2Qk3z5"}, 0},
		{"recipient", Filter{Recipient: "U@A.test"}, 1},
		{"another recipient", Filter{Recipient: "u@b.test"}, 0},
		{"domain", Filter{Domain: "a.test"}, 1},
		{"mail host", Filter{Domain: "mx.a.test"}, 1},
		{"another domain", Filter{Domain: "b.test"}, 0},
		{"since", Filter{Since: noon().AddDate(0, 0, -2)}, 1},
		{"since later", Filter{Since: noon()}, 0},
	} {
		if r := read(tc.filter, log); r.Messages != tc.want {
			t.Errorf("%s: got %d messages, want %d", tc.name, r.Messages, tc.want)
		}
	}
}

// What is not understood is counted.
func TestUnknownLines(t *testing.T) {
	r := read(Filter{}, one+deferred+"\n"+
		"-- Boot 2f4e --\nkernel: [ 12.3] oops\nNov 28 mail\n"+
		one+"AAAAAA1: to=<u@a.test>, relay=none, delay=0, delays=0/0/0/0, dsn=4.7.0, status=deferred (Sender requested REQUIRETLS, but no way)\n"+
		one+"AAAAAA2: to=<u@a.test>, relay=none, delay=0, delays=0/0/0/0, dsn=4.2.0, status=deferred (greylisted)\n"+
		"Nov 28 10:07:03 mail dovecot: imap-login: Login\n")
	if r.Lines != 8 || r.Unparsed != 5 {
		t.Errorf("%d of %d lines unparsed, want 5 of 8", r.Unparsed, r.Lines)
	}
	want := Tally{1, "Sender requested REQUIRETLS, but no way"}
	if r.Unrecognized != want || r.Other != (Tally{1, "greylisted"}) {
		t.Errorf("got %+v and %+v", r.Unrecognized, r.Other)
	}
}

func TestHostileTextIsPrintable(t *testing.T) {
	const evil = "\x1b[31m\u202e\x00\xff"
	r := read(Filter{}, one+"server certificate verification failed for mx"+evil+"[192.0.2.1]:25: "+evil+"\n"+
		one+"AAAAAA1: to=<"+evil+"@a"+evil+".test>, relay=mx"+evil+"[192.0.2.1]:25, delay=0, delays=0/0/0/0, dsn=4.7.5, status=deferred (Server certificate not verified "+evil+")\n")
	checkPrintable(t, r)
	if g := r.Causes[0].NextHops[0]; g.Hosts[0].Evidence != `\x1b[31m\xe2\x80\xae\x00\xff` {
		t.Errorf("got %+v", g)
	}
}

func checkPrintable(t *testing.T, r Report) {
	t.Helper()
	for _, c := range r.Causes {
		for _, g := range c.NextHops {
			texts := []string{g.NextHop, g.QueueID, g.Reason, r.Other.Last, r.Unrecognized.Last}
			for _, h := range g.Hosts {
				texts = append(texts, h.Host, h.Evidence)
			}
			for _, text := range texts {
				if !printable.Is(text) || len(text) > 2*maxText {
					t.Errorf("%q", text)
				}
			}
		}
	}
}

// However large the log, what is kept of it is bounded.
func TestMemoryIsBounded(t *testing.T) {
	c := Collector{Now: noon()}
	add := func(format string, i int) {
		c.Add(fmt.Appendf(nil, "Nov 28 10:07:03 mail postfix/smtp[%d]: "+format, i))
	}
	const held = "AAAAAA%[1]d: to=<u@d%[2]s.test>, relay=mx.test[192.0.2.1]:25, delay=0, delays=0/0/0/0, dsn=4.7.5, status=deferred (Server certificate not verified)"
	for i := range maxGroups + 10 {
		add("warning: something", i)
		add("server certificate verification failed for mx%[1]d.test[192.0.2.1]:25: certificate has expired", i)
		add(strings.ReplaceAll(held, "%[2]s", "%[1]d"), i)
	}
	for i := maxGroups + 10; i < maxMessages+10; i++ {
		add(strings.ReplaceAll(held, "%[2]s", "0"), i)
	}
	r := c.Report()
	if len(c.processes) > maxProcesses || len(c.failures) > maxFailures || len(c.messages) > maxMessages || len(c.groups) > maxGroups+1 || len(c.latest) > maxGroups+1 {
		t.Errorf("%d processes, %d failures, %d messages, %d groups", len(c.processes), len(c.failures), len(c.messages), len(c.groups))
	}
	others := slices.ContainsFunc(r.Causes[0].NextHops, func(g *Group) bool { return g.NextHop == "" && g.Messages == 10 })
	if !r.Truncated || r.Messages != maxMessages || !others {
		t.Errorf("got %d messages, truncated: %t", r.Messages, r.Truncated)
	}
}

func FuzzCollector(f *testing.F) {
	for _, file := range []string{"postfix-3.7.log", "postfix-3.10.log"} {
		text, err := os.ReadFile("testdata/" + file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text[:min(len(text), 8000)]))
	}
	f.Add(one + expired + one + deferred)
	f.Fuzz(func(t *testing.T, log string) {
		r := read(Filter{}, log)
		checkPrintable(t, r)
		if r.Waiting > r.Messages || r.Unparsed > r.Lines {
			t.Errorf("got %+v", r)
		}
		for _, c := range r.Causes {
			waiting := 0
			for _, g := range c.NextHops {
				if g.Waiting < 0 || g.Waiting > g.Messages {
					t.Errorf("got %+v", g)
				}
				waiting += g.Waiting
			}
			if waiting != c.Waiting {
				t.Errorf("%s: %d wait, its next hops have %d", c.Code, c.Waiting, waiting)
			}
		}
		if _, err := json.Marshal(r); err != nil {
			t.Error(err)
		}
	})
}

// docs/why.md lists exactly the causes.
func TestDocumentListsTheCauses(t *testing.T) {
	text, err := os.ReadFile("../../../../docs/why.md")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, c := range Causes() {
		want = append(want, fmt.Sprintf("| `%s` | %s | %s |", c.Code, c.Side, c.Meaning))
	}
	got := regexp.MustCompile("(?m)^\\| `[a-z-]+` \\| (?:remote|local|either) \\|.*$").FindAllString(string(text), -1)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("docs/why.md (-causes +listed):\n%s", d)
	}
}

func BenchmarkCollector(b *testing.B) {
	text, err := os.ReadFile("testdata/postfix-3.10.log")
	if err != nil {
		b.Fatal(err)
	}
	lines := strings.SplitAfter(string(text), "\n")
	b.ReportAllocs()
	c := Collector{Now: noon()}
	for i := 0; b.Loop(); i++ {
		c.Add([]byte(lines[i%len(lines)]))
	}
}
