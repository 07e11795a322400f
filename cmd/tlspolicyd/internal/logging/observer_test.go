package logging

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"tlspolicyd/internal/defect"
	"tlspolicyd/internal/mtasts"
	"tlspolicyd/policymap"
	"tlspolicyd/policymap/policy"
)

// linesOf returns the lines that an Observer writes, without their time.
func linesOf(t *testing.T, level slog.Level, do func(*Observer)) []string {
	t.Helper()
	var out bytes.Buffer
	log := New(&out, Options{Format: Text, Level: level})
	j := NewObserver(log.Logger)
	do(j)
	j.Close()
	if err := log.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(out.String()) {
		_, line, _ = strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		lines = append(lines, line)
	}
	return lines
}

// docs/operations.md has these lines: what changes here changes there.
func TestTheLinesOfTheJournal(t *testing.T) {
	reason := "MX lookup of example.test: SERVFAIL"
	for name, tt := range map[string]struct {
		log  func(*Observer)
		want string
	}{
		"a policy": {
			func(j *Observer) {
				j.Resolved(policymap.Resolution{
					Key: "example.test", Decision: policy.Decision{Level: policy.Secure, Row: policy.RowEnforce, Why: "no DANE"},
					STS: policy.STSEnforce, Reply: "OK secure match=.example.test servername=hostname", Took: 34567891,
				})
			},
			`INFO  resolved domain=example.test answer="secure match=.example.test servername=hostname" row=sts-enforce why="no DANE" mta_sts=enforce took=34.6ms`,
		},
		"no policy, of a next hop with a port": {
			func(j *Observer) {
				j.Resolved(policymap.Resolution{
					Key: "[mx.example.test]:587", Decision: policy.Decision{Row: policy.RowNone, Why: "none"},
					STSWhy: "no TXT record", Reply: "NOTFOUND ", Took: 1500 * time.Microsecond,
				})
			},
			`INFO  resolved domain=mx.example.test next_hop=[mx.example.test]:587 answer=NOTFOUND row=no-policy why=none mta_sts="no TXT record" took=1.5ms`,
		},
		"mail waits": {
			func(j *Observer) {
				j.Resolved(policymap.Resolution{
					Key:      "example.test",
					Decision: policy.Decision{Level: policy.Temporary, Row: policy.RowUnknown, Why: "a failed lookup is not an absence", Reason: reason},
					Reply:    "TEMP " + reason, Took: 14500 * time.Millisecond,
				})
			},
			`WARN  not resolved, mail is deferred domain=example.test answer="TEMP MX lookup of example.test: SERVFAIL" reason="MX lookup of example.test: SERVFAIL"` +
				` row=unknown why="a failed lookup is not an absence" mta_sts=absent took=14.5s`,
		},
		"mail waits for a policy that cannot be written for Postfix": {
			func(j *Observer) {
				j.Resolved(policymap.Resolution{
					Key: "example.test", Decision: policy.Decision{Level: policy.Secure, Row: policy.RowEnforce, Why: "w"},
					STS: policy.STSEnforce, Reply: "TEMP too many mx patterns", Took: time.Second,
				})
			},
			`WARN  not resolved, mail is deferred domain=example.test answer="TEMP too many mx patterns" reason="too many mx patterns" row=sts-enforce why=w mta_sts=enforce took=1s`,
		},
		"as last known": {
			func(j *Observer) {
				j.Resolved(policymap.Resolution{
					Key: "example.test", Decision: policy.Decision{Level: policy.DANEOnly, Row: policy.RowFull, Why: "w", Reason: reason, Stale: true},
					Reply: "OK dane-only", Took: time.Microsecond,
				})
			},
			`WARN  not resolved, answered from the last known facts domain=example.test answer=dane-only reason="MX lookup of example.test: SERVFAIL" row=dane-full why=w mta_sts=absent took=1µs`,
		},
		"a change": {
			func(j *Observer) {
				j.Changed(policy.Change{Key: "example.test", What: "MTA-STS", Old: "testing a.test", New: "enforce a.test"})
			},
			`INFO  policy changed domain=example.test what=MTA-STS old="testing a.test" new="enforce a.test"`,
		},
		"a weaker policy": {
			func(j *Observer) {
				j.Changed(policy.Change{Key: "example.test:587", What: "DANE", Old: "Full", New: "None", Weaker: true})
			},
			`WARN  policy got weaker domain=example.test next_hop=example.test:587 what=DANE old=Full new=None`,
		},
		"a failed fetch": {
			func(j *Observer) {
				j.Fetched(policymap.Fetch{
					Domain: "example.test", Background: true, Took: 3 * time.Second,
					Err: &mtasts.FetchError{Host: "mta-sts.example.test", Stage: mtasts.StageConnect, Reason: "connection refused"},
				})
			},
			`WARN  policy not fetched domain=example.test stage=connect reason="policy host mta-sts.example.test: connection refused" background=true took=3s`,
		},
		"a fetch": {
			func(j *Observer) { j.Fetched(policymap.Fetch{Domain: "example.test", Took: time.Hour}) },
			`DEBUG policy fetched domain=example.test background=false took=1h0m0s`,
		},
		"a full disk": {
			func(j *Observer) { j.StoreFailed("example.test", errors.New("no space left on device")) },
			`ERROR the database cannot be written: what was learned is in memory only and will be lost with a restart reason="no space left on device" domain=example.test`,
		},
		"a database that cannot be read through": {
			func(j *Observer) { j.StoreFailed("", errors.New("input/output error")) },
			`ERROR the database cannot be written: what was learned is in memory only and will be lost with a restart reason="input/output error"`,
		},
		"the clock": {
			func(j *Observer) { j.ClockStepped(-90*time.Minute + time.Millisecond) },
			`WARN  the clock was set; stored times were adjusted, no policy was shortened or prolonged by=-1h30m0s`,
		},
		"a defect": {
			func(j *Observer) {
				j.Panicked("example.test:587", &defect.Error{Text: "index out of range [3]", Stack: "goroutine 1 [running]:\nmain.f()"})
			},
			`ERROR lookup panicked domain=example.test next_hop=example.test:587 panic="index out of range [3]" stack="goroutine 1 [running]:\nmain.f()"`,
		},
		"a hit": {func(j *Observer) { j.Answered(false, policy.Secure, policymap.Cached) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if d := cmp.Diff(tt.want, strings.Join(linesOf(t, slog.LevelDebug, tt.log), "\n")); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

// A resolver that is down strikes every domain. It is reported
// in a handful of lines, and so is a policy host that fails, or a full disk.
func TestAnOutageDoesNotFillTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, log := range map[string]func(*Observer, string){
			"resolver": func(j *Observer, domain string) {
				j.Resolved(policymap.Resolution{Key: domain, Decision: policy.Decision{
					Level: policy.Temporary, Reason: "MX lookup of " + domain + ": no answer",
				}, Reply: "TEMP MX lookup of " + domain + ": no answer"})
			},
			"resolver, states known": func(j *Observer, domain string) {
				j.Resolved(policymap.Resolution{Key: domain, Decision: policy.Decision{
					Level: policy.DANE, Stale: true, Reason: "MX lookup of " + domain + ": no answer",
				}})
			},
			"HTTPS": func(j *Observer, domain string) {
				j.Fetched(policymap.Fetch{Domain: domain, Took: time.Second, Err: &mtasts.FetchError{
					Host: "mta-sts." + domain, Stage: mtasts.StageConnect, Reason: "connect to 192.0.2." + domain + ": no route to host",
				}})
			},
			"disk": func(j *Observer, domain string) { j.StoreFailed(domain, errors.New("no space left on device")) },
		} {
			lines := linesOf(t, slog.LevelInfo, func(j *Observer) {
				for i := range 5000 {
					log(j, fmt.Sprintf("d%d.test", i))
				}
			})
			if len(lines) > 6 || !strings.Contains(lines[len(lines)-1], " (repeated) times=49") {
				t.Errorf("%s: %d lines, the last: %s", name, len(lines), lines[len(lines)-1])
			}
		}
	})
}
