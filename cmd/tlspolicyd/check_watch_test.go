package main

import (
	"bytes"
	"context"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"tlspolicyd/cmd/tlspolicyd/internal/audit"
	"tlspolicyd/cmd/tlspolicyd/internal/audit/check"
	"tlspolicyd/cmd/tlspolicyd/internal/audit/smtpprobe"
	"tlspolicyd/internal/dnsclient"
	"tlspolicyd/internal/mtasts"
	"tlspolicyd/testing/lab"
)

// watchWorld is a small internet in the bubble's memory, with one healthy domain.
func watchWorld(t *testing.T) (*lab.World, *lab.SMTPHost, check.Options) {
	t.Helper()
	w := lab.New()
	w.Zone("good.test. MX 10 mx.good.test.\n_smtp._tls.good.test. TXT \"v=TLSRPTv1; rua=mailto:r@good.test\"")
	mx := w.SMTPHost("mx.good.test", lab.SMTP{})
	w.TLSA("mx.good.test", 25)
	w.PolicyHost("good.test", "version: STSv1\nmode: enforce\nmx: mx.good.test\nmax_age: 2592000\n")
	resolver, err := dnsclient.New(dnsclient.Config{Servers: []netip.AddrPort{w.DNSAddr()}, Dial: w.Dial})
	if err != nil {
		t.Fatal(err)
	}
	return w, mx, check.Options{
		Resolver: resolver, Servers: resolver.Servers(), Trusted: true,
		Fetcher: &mtasts.Fetcher{
			Resolver: resolver, RootCAs: w.Roots(), Dial: w.Dial,
			AllowNetworks: []netip.Prefix{netip.MustParsePrefix(lab.Network)},
		},
		Prober: smtpprobe.Prober{Dial: w.Dial},
	}
}

// sharedBuffer is written by one goroutine and emptied by another.
type sharedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *sharedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

// take returns what was written since the last call.
func (b *sharedBuffer) take() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.text.Reset()
	return b.text.String()
}

// After the first result only changes are printed; what this host cannot see is
// no change of the domain.
func TestCheckWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, mx, o := watchWorld(t)
		defer w.Close()
		var out, hints sharedBuffer
		c := &checking{options: o, domains: []string{"good.test"}, out: &out, hints: &hints}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- c.repeat(ctx, time.Hour) }()
		// printed waits for the next look and returns what it has printed.
		printed := func() string {
			time.Sleep(time.Hour) // by the bubble's clock
			synctest.Wait()
			text := out.take()
			return regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`).ReplaceAllString(text, "TIME")
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if text := out.take(); !strings.HasPrefix(text, "== good.test: all well\n") {
			t.Errorf("first: %q", text)
		}
		for _, step := range []struct {
			situation string
			arrange   func()
			want      string
		}{
			{"nothing has changed", func() {}, ""},
			{
				"a certificate has ended", func() { mx.Set(lab.SMTP{Cert: lab.Expired}) },
				"TIME  good.test  FAIL  mx.good.test: The certificate has expired. (mx-certificate-expired)\n",
			},
			{"and still has", func() {}, ""},
			{
				"no DNS here", func() { w.Down(true) },
				"TIME  good.test  ?     This host gets no answer from DNS, whatever it asks: its network or its resolver fails, and nothing is known of the domain. (dns-down)\n",
			},
			{"and still none", func() {}, ""},
			{
				"DNS again: nothing else has changed", func() { w.Down(false) },
				"TIME  good.test  gone  This host gets answers from DNS again. (dns-down)\n",
			},
			{
				"the certificate is good again, the id is new", func() { mx.Set(lab.SMTP{}); w.Replace("_mta-sts.good.test", "TXT", `"v=STSv1; id=2;"`) },
				"TIME  good.test  ok    Exactly one MTA-STS record, and it is valid; its id is 2. (sts-record-ok)\n" +
					"TIME  good.test  ok    mx.good.test: TLS 1.3, and a valid certificate for this host. (smtp-ok)\n" +
					"TIME  good.test  gone  mx.good.test: The certificate has expired. (mx-certificate-expired)\n",
			},
		} {
			step.arrange()
			if d := cmp.Diff(step.want, printed()); d != "" {
				t.Errorf("%s (-want +got):\n%s", step.situation, d)
			}
		}
		cancel()
		if err := <-ended; err != nil || hints.take() != "" {
			t.Errorf("ended with %v, or with a word on stderr", err)
		}
	})
}

// With --json a domain in which something has changed is printed whole.
func TestCheckWatchJSON(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, mx, o := watchWorld(t)
		defer w.Close()
		var out sharedBuffer
		c := &checking{options: o, domains: []string{"good.test", "gone.test"}, out: &out, hints: &bytes.Buffer{}, json: true}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- c.repeat(ctx, time.Hour) }()
		time.Sleep(2 * time.Hour)
		mx.Set(lab.SMTP{NoSTARTTLS: true})
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		var got []string
		for line := range strings.Lines(out.take()) {
			got = append(got, regexp.MustCompile(`"domain":"(.*?)","grade":"(.*?)"`).FindString(line))
		}
		want := []string{
			`"domain":"good.test","grade":"ok"`, `"domain":"gone.test","grade":"fail"`, `"domain":"good.test","grade":"fail"`,
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
		cancel()
		if err := <-ended; err == nil || err.Error() != "exit status 1" {
			t.Errorf("ended with %v, want the status of the last look", err)
		}
	})
}

// The real program ends on an interrupt, without a word.
func TestCheckWatchInterrupted(t *testing.T) {
	_, configFile := checkWorld(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// As testscript does it: the test binary under the program's name is the program.
	program := filepath.Join(t.TempDir(), programName)
	if err := os.Symlink(self, program); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "check", "--watch", "1h", "--config", configFile, "gone.test")
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	text := make([]byte, 4096)
	n, err := out.Read(text) // the first look is printed
	if err != nil || !strings.HasPrefix(string(text[:n]), "== gone.test: 1 failure\n") {
		t.Errorf("%v, %q", err, text[:n])
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	err = cmd.Wait()
	if cmd.ProcessState.ExitCode() != exitNo || errs.Len() > 0 {
		t.Errorf("%v, stderr %q", err, errs.String())
	}
}

// A mail host that is down is distinguished from a blocked port by those after
// it in the list, and the order of the list is kept.
func TestRoundWaitsForWhoseFaultItIs(t *testing.T) {
	for _, test := range []struct {
		name  string
		after string // in the list
		want  audit.Grade
	}{
		{"another answers", "good.test", audit.Fail},
		{"none does", "dead2.test", audit.Unknown},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, _, o := watchWorld(t)
				defer w.Close()
				for _, name := range []string{"dead", "dead2"} {
					w.Zone(name + ".test. MX 10 mx." + name + ".test.\nmx." + name + ".test. A 10.20.99.1")
					w.TLSA("mx."+name+".test", 25)
				}
				w.Silent(netip.MustParseAddr("10.20.99.1"))
				c := &checking{options: o, domains: []string{"dead.test", test.after}, out: &bytes.Buffer{}, hints: &bytes.Buffer{}}
				var order []string
				reports, err := c.round(t.Context(), func(r check.Report) error {
					order = append(order, r.Domain)
					return nil
				})
				if err != nil || reports[0].Grade != test.want || !slices.Equal(order, c.domains) {
					t.Errorf("%v, %v, %v, want %v", order, reports[0].Grade, err, test.want)
				}
			})
		})
	}
}
