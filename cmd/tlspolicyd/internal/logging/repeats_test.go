package logging

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// repeats returns a repeats and what it wrote since the last call, without time.
func newTestRepeats(level slog.Level) (*repeats, func() []string) {
	var out buffer
	r := newRepeats(slog.New(newHandler(Options{Level: level}, func(e entry) { _, _ = out.Write(e.line) })))
	return r, func() []string {
		var lines []string
		for line := range strings.Lines(out.take()) {
			_, line, _ = strings.Cut(strings.TrimSuffix(line, "\n"), " ")
			lines = append(lines, line)
		}
		return lines
	}
}

func servfail(domain string) failure {
	reason := "MX lookup of " + domain + ": SERVFAIL"
	return failure{slog.LevelWarn, "not resolved", reason, domain, []slog.Attr{slog.String("domain", domain), slog.String("reason", reason)}}
}

func wantLines(t *testing.T, got []string, want ...string) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestADomainThatFailsAgainAndAgainGetsOneLineAndThenCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, wrote := newTestRepeats(slog.LevelInfo)
		since := time.Now().Format(time.RFC3339) // where the test runs
		for range 6 {
			r.add(servfail("broken.test"))
			time.Sleep(10 * time.Second)
		}
		synctest.Wait()
		wantLines(t, wrote(),
			`WARN  not resolved domain=broken.test reason="MX lookup of broken.test: SERVFAIL"`,
			`WARN  not resolved (repeated) times=5 domains=1 within=1m0s cause="MX lookup of *: SERVFAIL" since=`+since+` `+
				`last.domain=broken.test last.reason="MX lookup of broken.test: SERVFAIL"`)
		// A day of it: six lines an hour at most.
		for range 24 * 360 {
			r.add(servfail("broken.test"))
			time.Sleep(10 * time.Second)
		}
		if n := len(wrote()); n < 24*5 || n > 24*6+4 {
			t.Errorf("%d lines a day", n)
		}
		r.close()
	})
}

// Nothing answers any more: thousands of domains fail for one reason.
func TestAnOutageWritesAFewLinesWhateverItStrikes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, wrote := newTestRepeats(slog.LevelInfo)
		for i := range 3000 {
			r.add(servfail(fmt.Sprintf("d%d.test", i)))
		}
		lines := wrote()
		if len(lines) != detailed || !strings.Contains(lines[4], "domain=d4.test") {
			t.Errorf("at first %q, want %d in detail", lines, detailed)
		}
		time.Sleep(firstPeriod)
		synctest.Wait()
		lines = wrote()
		if len(lines) != 1 || !strings.Contains(lines[0], " times=2995 domains=2995 within=1m0s ") || !strings.Contains(lines[0], " last.domain=d2999.test ") {
			t.Errorf("after a minute %q", lines)
		}
		// It goes on: new domains are named now and then, and told of later and later.
		for i := range 3600 {
			r.add(servfail(fmt.Sprintf("e%d.test", i)))
			time.Sleep(time.Second)
		}
		if n := len(wrote()); n < 2*detailed || n > 9*(detailed+1) {
			t.Errorf("%d lines in an hour", n)
		}
		r.close()
	})
}

func TestDifferentCausesAndKindsAreToldApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, wrote := newTestRepeats(slog.LevelInfo)
		for range 2 {
			r.add(failure{Level: slog.LevelWarn, Message: "a", Cause: "timeout", Subject: "x.test"})
			r.add(failure{Level: slog.LevelWarn, Message: "a", Cause: "connect", Subject: "x.test"})
			r.add(failure{Level: slog.LevelError, Message: "b", Cause: "connect", Subject: "x.test"})
		}
		wantLines(t, wrote(), "WARN  a", "WARN  a", "ERROR b")
		r.close()
		wrote()
	})
}

func TestAFailureThatWasForgottenIsNewAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, wrote := newTestRepeats(slog.LevelInfo)
		f := failure{Level: slog.LevelWarn, Message: "a", Cause: "timeout", Subject: "x.test"}
		r.add(f)
		time.Sleep(forgetAfter - time.Second)
		r.add(f)
		wantLines(t, wrote(), "WARN  a")
		time.Sleep(2*firstPeriod + forgetAfter)
		synctest.Wait()
		if lines := wrote(); len(lines) != 1 || !strings.Contains(lines[0], " times=1 ") {
			t.Errorf("got %q", lines)
		}
		r.add(f)
		wantLines(t, wrote(), "WARN  a")
		r.close()
		wantLines(t, wrote())
	})
}

func TestCloseTellsWhatWasOnlyCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, wrote := newTestRepeats(slog.LevelInfo)
		since := time.Now().Format(time.RFC3339)
		for range 4 {
			r.add(failure{Level: slog.LevelWarn, Message: "a", Cause: "timeout", Subject: "x.test"})
		}
		time.Sleep(7 * time.Second)
		wrote()
		r.close()
		wantLines(t, wrote(), `WARN  a (repeated) times=3 domains=1 within=7s cause=timeout since=`+since)
		r.add(failure{Level: slog.LevelWarn, Message: "a", Cause: "timeout", Subject: "x.test"})
		wantLines(t, wrote())
	})
}

func TestWhatTheLevelHidesIsNotCounted(t *testing.T) {
	r, wrote := newTestRepeats(slog.LevelError)
	for range 2 * detailed {
		r.add(servfail("broken.test"))
	}
	r.close()
	wantLines(t, wrote())
}

// Reasons come from outside: however they differ, memory is bounded.
func TestCausesWithoutEndAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, wrote := newTestRepeats(slog.LevelInfo)
		for i := range 10 * maxCauses {
			for n := range detailed + 1 {
				r.add(failure{Level: slog.LevelWarn, Message: "a", Cause: fmt.Sprintf("cause%d", i), Subject: fmt.Sprint(n)})
			}
		}
		if len(r.causes) != maxCauses+1 {
			t.Errorf("%d causes", len(r.causes))
		}
		r.close()
		if n := len(wrote()); n > (maxCauses+1)*(detailed+1) {
			t.Errorf("%d lines", n)
		}
	})
}

func TestSubjectsWithoutEndAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, wrote := newTestRepeats(slog.LevelInfo)
		for i := range 2 * maxSubjects {
			r.add(servfail(fmt.Sprintf("d%d.test", i)))
		}
		for _, c := range r.causes {
			if len(c.subjects) != maxSubjects {
				t.Errorf("%d subjects", len(c.subjects))
			}
			for i := range maxSubjects {
				c.known[fmt.Sprint(i)] = struct{}{}
			}
			c.left = 1
			r.add(servfail("new.test"))
			if len(c.known) != 1 {
				t.Errorf("%d subjects known", len(c.known))
			}
		}
		r.close()
		if lines := wrote(); !strings.Contains(lines[len(lines)-1], fmt.Sprintf(" times=%d domains=%d ", 2*maxSubjects-detailed, maxSubjects)) {
			t.Errorf("got %q", lines[len(lines)-1])
		}
	})
}

func TestACauseIsTheReasonWithoutNamesAndNumbers(t *testing.T) {
	for reason, want := range map[string]string{
		"MX lookup of example.test: SERVFAIL (DNSSEC Bogus)":                          "MX lookup of *: SERVFAIL (DNSSEC Bogus)",
		"TLSA lookup of _25._tcp.mx.example.test: no answer":                          "TLSA lookup of *: no answer",
		"DNS lookups for example.test: no answer within 14.5s":                        "DNS lookups for *: no answer within *",
		"dial tcp [2001:db8::1]:443: connect: network is unreachable":                 "dial tcp *: connect: network is unreachable",
		"connect to 192.0.2.1:443: connection refused":                                "connect to *: connection refused",
		`policy file line 2: mode "enfroce": want enforce, testing or none`:           "policy file line 2: mode *: want enforce, testing or none",
		`HTTP status 301 Moved to "https://a.test/x y z": redirects are not followed`: "HTTP status 301 Moved to * redirects are not followed",
		`an open "quote that never`:                                                   "an open *",
		strings.Repeat("word ", 100):                                                  strings.TrimSpace(strings.Repeat("word ", 41)),
		"":                                                                            "",
	} {
		if got := causeOf(reason); got != want {
			t.Errorf("%q:\ngot  %q\nwant %q", reason, got, want)
		}
	}
}
