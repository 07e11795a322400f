package smtpprobe_test

import (
	"context"
	"crypto/tls"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"tlspolicyd/cmd/tlspolicyd/internal/audit/smtpprobe"
	"tlspolicyd/testing/lab"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestProbe(t *testing.T) {
	const nowhere = "10.99.0.1" // nothing is there
	for _, test := range []struct {
		situation string
		how       lab.SMTP
		stage     smtpprobe.Stage
		cause     smtpprobe.Cause
		reason    string // part of it
	}{
		{"a good host", lab.SMTP{}, smtpprobe.Done, smtpprobe.NoCause, ""},
		{"TLS 1.0 is seen, not refused", lab.SMTP{TLSMax: tls.VersionTLS10}, smtpprobe.Done, smtpprobe.NoCause, ""},
		{"a bad certificate is seen, not refused", lab.SMTP{Cert: lab.SelfSigned}, smtpprobe.Done, smtpprobe.NoCause, ""},
		{"nothing listens", lab.SMTP{Refuse: true}, smtpprobe.Connect, smtpprobe.Refused, "connection refused"},
		{"STARTTLS is not offered", lab.SMTP{NoSTARTTLS: true}, smtpprobe.Offer, smtpprobe.NoCause, "not offered"},
		{"STARTTLS is refused", lab.SMTP{STARTTLS: "454 4.7.0 TLS not available"}, smtpprobe.STARTTLS, smtpprobe.Rejected, "454 4.7.0 TLS not available"},
		{"a greeting of two lines", lab.SMTP{Greeting: "220-wait\r\n220 mx.test"}, smtpprobe.Done, smtpprobe.NoCause, ""},
		{"sent away", lab.SMTP{Greeting: "554 5.7.1 blocked \x1b[2J"}, smtpprobe.Greeting, smtpprobe.Rejected, `554 5.7.1 blocked \x1b[2J`},
		{"EHLO is refused", lab.SMTP{EHLO: "550 no"}, smtpprobe.EHLO, smtpprobe.Rejected, "550 no"},
		{"another protocol", lab.SMTP{Greeting: "SSH-2.0-x"}, smtpprobe.Greeting, smtpprobe.NoSMTP, "SSH-2.0-x"},
		{"a greeting without end", lab.SMTP{Endless: true}, smtpprobe.Greeting, smtpprobe.NoSMTP, "more than 16384 bytes"},
		{"a line of 64 KiB", lab.SMTP{LongLine: true}, smtpprobe.Greeting, smtpprobe.NoSMTP, "more than 2048 bytes"},
		{"a greeting that drips", lab.SMTP{Drip: time.Second}, smtpprobe.Greeting, smtpprobe.Slow, "greeting"},
		{"no greeting", lab.SMTP{Stall: lab.BeforeGreeting}, smtpprobe.Greeting, smtpprobe.Slow, "greeting"},
		{"no reply to EHLO", lab.SMTP{Stall: lab.BeforeEHLO}, smtpprobe.EHLO, smtpprobe.Slow, "EHLO"},
		{"no handshake", lab.SMTP{Stall: lab.BeforeTLS}, smtpprobe.TLS, smtpprobe.Slow, "TLS handshake"},
		{"no TLS after STARTTLS", lab.SMTP{Garbage: true}, smtpprobe.TLS, "", ""},
	} {
		t.Run(test.situation, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := lab.New()
				defer w.Close()
				host := w.SMTPHost("mx.test", test.how)
				got := probe(t, w, host.Addr())
				wantCause := test.cause
				if test.how.Garbage { // which of the two is a matter of when it arrives
					wantCause = got.Cause
					if got.Cause != smtpprobe.Broken && got.Cause != smtpprobe.NoSMTP {
						t.Errorf("cause %q", got.Cause)
					}
				}
				if got.Stage != test.stage || got.Cause != wantCause || !strings.Contains(got.Reason, test.reason) {
					t.Errorf("got %+v, want %s, %q, %q", got, test.stage, test.cause, test.reason)
				}
				if done := got.Stage == smtpprobe.Done; done != (len(got.Chain) > 0) || done != (got.TLSVersion != 0) {
					t.Errorf("%s with %d certificates, TLS %x", got.Stage, len(got.Chain), got.TLSVersion)
				}
				if !got.Reached() {
					t.Error("not reached")
				}
			})
		})
	}
	for situation, arrange := range map[string]func(*lab.World){
		"silence": func(w *lab.World) { w.Silent(netip.MustParseAddr(nowhere)) },
		"local":   func(w *lab.World) { w.NoRoute(netip.MustParseAddr(nowhere)) },
	} {
		t.Run(situation, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := lab.New()
				defer w.Close()
				arrange(w)
				began := time.Now()
				got := probe(t, w, netip.MustParseAddr(nowhere))
				if string(got.Cause) != situation || got.Reached() || got.Stage != smtpprobe.Connect {
					t.Errorf("got %+v", got)
				}
				if took := time.Since(began); took > smtpprobe.DefaultConnectTimeout {
					t.Errorf("took %v", took)
				}
			})
		})
	}
}

// A probe whose caller has no time left shows nothing of the other side.
func TestNoTimeLeft(t *testing.T) {
	for situation, test := range map[string]struct {
		left  time.Duration
		cause smtpprobe.Cause
	}{
		"none at all":                      {0, smtpprobe.Unfinished},
		"less than a connection may take":  {smtpprobe.DefaultConnectTimeout / 2, smtpprobe.Unfinished},
		"just as much":                     {smtpprobe.DefaultConnectTimeout, smtpprobe.Unfinished},
		"more, and still there is silence": {smtpprobe.DefaultConnectTimeout + 1, smtpprobe.Silence},
	} {
		t.Run(situation, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := lab.New()
				defer w.Close()
				addr := netip.MustParseAddr("10.99.0.1")
				w.Silent(addr)
				ctx, cancel := context.WithTimeout(t.Context(), test.left)
				defer cancel()
				p := &smtpprobe.Prober{Dial: w.Dial}
				got := p.Probe(ctx, "mx.test", netip.AddrPortFrom(addr, 25))
				if got.Stage != smtpprobe.Connect || got.Cause != test.cause || got.Reached() || got.Took != min(test.left, smtpprobe.DefaultConnectTimeout) {
					t.Errorf("got %+v, want %s", got, test.cause)
				}
			})
		})
	}
}

// probe probes an address, and checks how long that took.
func probe(t *testing.T, w *lab.World, addr netip.Addr) smtpprobe.Result {
	t.Helper()
	const limit = 20 * time.Second
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	began := time.Now()
	p := &smtpprobe.Prober{Name: "probe.test", Dial: w.Dial}
	got := p.Probe(ctx, "mx.test", netip.AddrPortFrom(addr, 25))
	if took := time.Since(began); took > limit+time.Minute { // the minute is for a slow machine
		t.Errorf("took %v", took)
	}
	return got
}
