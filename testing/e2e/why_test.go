//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// whyMail is a message that TLS policy, or what it rests on, holds back.
type whyMail struct {
	recipient string
	cause     string // empty: another reason
	older     string // the cause before Postfix 3.10, which ignores MX patterns
	service   string // of whyServices; empty: as Postfix delivers it anyway
}

// whyMails provoke each cause that 'tlspolicyd why' knows.
func whyMails() []whyMail {
	const name, settings = "mx-certificate-name-mismatch", "postfix-tls-configuration"
	return []whyMail{
		{recipient: "a@mismatch.open.test", cause: name},
		{recipient: "verbose@mismatch.open.test", cause: name, service: "whyverbose"},
		{recipient: "quiet@mismatch.open.test", cause: name, service: "whyquiet"},
		{recipient: "a@misnamed.clear.test", cause: name},
		{recipient: "a@tlsa211-name.audit.test", cause: name},
		{recipient: "a@seconddown.rows.test", cause: name},
		{recipient: "a@unlisted.open.test", cause: "mx-not-in-policy", older: name},
		{recipient: "a@onedown.rows.test", cause: "mx-not-in-policy", older: name},
		{recipient: "a@ended.clear.test", cause: "mx-certificate-expired"},
		{recipient: "a@early.clear.test", cause: "mx-certificate-not-yet-valid"},
		{recipient: "a@self.clear.test", cause: "mx-certificate-untrusted"},
		{recipient: "roots@sts.open.test", cause: "mx-certificate-untrusted", service: "whyroots"},
		{recipient: "finger@sts.open.test", cause: "dane-mismatch", service: "whyfingerprint"},
		{recipient: "a@plaintext.open.test", cause: "starttls-missing"},
		{recipient: "a@plain.audit.test", cause: "starttls-missing"},
		{recipient: "a@keyless.clear.test", cause: "starttls-refused"},
		{recipient: "a@anonymous.clear.test", cause: "smtp-tls-failed"},
		{recipient: "a@old.audit.test", cause: "smtp-tls-failed"},
		{recipient: "proxy@sts.open.test", cause: "smtp-tls-failed", service: "whyreuse"},
		{recipient: "a@newkey.audit.test", cause: "dane-mismatch"},
		{recipient: "dane@absent.open.test", cause: "dane-destination-unsigned", service: "whydane"},
		{recipient: "dane@stsonly.signed.test", cause: "dane-records-missing", service: "whydane"},
		{recipient: "dane@unusableonly.rows.test", cause: "dane-unusable", service: "whydane"},
		{recipient: "dane@tampered.signed.test", cause: "dane-lookup-failed", service: "whydane"},
		{recipient: "nodnssec@dane.signed.test", cause: settings, service: "whynodnssec"},
		{recipient: "typo@sts.open.test", cause: settings, service: "whytypo"},
		{recipient: "a@tampered.signed.test", cause: "policy-lookup-failed"},
		{recipient: "socket@sts.open.test", cause: "socket-unreachable", service: "whysocket"},
		{recipient: "a@expired.test", cause: "dns-lookup-failed"},
		{recipient: "a@closed.audit.test"},
		{recipient: "a@blocking.audit.test"},
		{recipient: "a@nowhere.open.test"},
	}
}

const whyServices = `
whyverbose unix - - y - - smtp
  -o smtp_tls_loglevel=2
whyquiet unix - - y - - smtp
  -o smtp_tls_loglevel=0
whyroots unix - - y - - smtp
  -o smtp_tls_CAfile=
whyfingerprint unix - - y - - smtp
  -o { smtp_tls_policy_maps = inline:{ { sts.open.test = fingerprint match=00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00 } } }
  -o syslog_name=postfix/fingerprint
whydane unix - - y - - smtp
  -o smtp_tls_policy_maps=static:dane-only
whynodnssec unix - - y - - smtp
  -o smtp_dns_support_level=enabled
  -o smtp_tls_policy_maps=static:dane-only
whytypo unix - - y - - smtp
  -o smtp_tls_policy_maps=static:scure
whysocket unix - - y - - smtp
  -o smtp_tls_policy_maps=socketmap:unix:run/tlspolicyd/absent.sock:postfix
whyreuse unix - - y - - smtp
  -o smtp_tls_connection_reuse=yes
`

// whyReport is what `tlspolicyd why --json` says.
type whyReport struct {
	Messages, Waiting int
	Unrecognized      struct{ Deliveries int }
	Causes            []struct {
		Code     string
		NextHops []struct {
			NextHop                                string `json:"next_hop"`
			Messages, Waiting, Delivered, Returned int
			Hosts                                  []struct{ Host, Evidence string }
			Daemon                                 struct{ Answers []struct{ Postfix string } }
		} `json:"next_hops"`
	}
}

// why reads the log of a Postfix.
func (d *daemon) why(t *testing.T, s *sender, args ...string) (r whyReport) {
	t.Helper()
	argv := []string{d.binary, "why", "--json", "--log", s.log(), "--config", daemonDir + "/tlspolicyd.toml"}
	stdout, stderr, err := command("", append(argv, args...)...)
	if jsonErr := json.Unmarshal([]byte(stdout), &r); jsonErr != nil || stderr != "" {
		t.Fatalf("why: %v, %v, %s: %s", jsonErr, err, stderr, stdout)
	}
	if (err != nil) != (len(r.Causes) > 0) {
		t.Errorf("why %q: %v, with %d causes", args, err, len(r.Causes))
	}
	return r
}

// causes are the codes of a report.
func (r whyReport) causes() (codes []string) {
	for _, c := range r.Causes {
		codes = append(codes, c.Code)
	}
	return codes
}

// testWhy holds back messages for each reason there is, and has 'tlspolicyd why'
// find it in the log of each Postfix.
func testWhy(t *testing.T, w *world) {
	w.checked.start(t, w.bookworm)
	t.Run("Postfix of Debian 12", func(t *testing.T) { w.testWhyOf(t, w.postfix37, true) })
	t.Run("Postfix of Debian 13", func(t *testing.T) { w.testWhyOf(t, w.postfix310, false) })
}

func (w *world) testWhyOf(t *testing.T, s *sender, older bool) {
	mails := whyMails()
	var transports string
	for _, m := range mails {
		if m.service != "" {
			transports += m.recipient + "=" + m.service + ":, "
		}
	}
	s.addTransports(t, transports, whyServices)
	offset := s.logSize()
	for _, m := range mails {
		s.sendAll(t, []string{m.recipient})
	}
	for _, m := range mails {
		want := []string{m.cause}
		if older && m.older != "" {
			want = []string{m.older}
		}
		if m.cause == "" {
			want = nil
		}
		wantEqual(t, m.recipient, w.daemon.why(t, s, m.recipient).causes(), want)
	}

	t.Run("the daemon is down, and comes back", func(t *testing.T) {
		if err := w.daemon.crash(); err != nil {
			t.Fatal(err)
		}
		s.sendAll(t, []string{"late@wildcard.open.test"})
		wantEqual(t, "causes without a daemon", w.daemon.why(t, s, "late@wildcard.open.test").causes(), []string{"socket-unreachable"})
		if err := w.daemon.start(); err != nil {
			t.Fatal(err)
		}
		if _, _, err := s.run("postqueue", "-f"); err != nil {
			t.Fatal(err)
		}
		mustWait(t, func() error {
			hop := w.daemon.why(t, s, "late@wildcard.open.test").Causes[0].NextHops[0]
			if hop.Delivered != 1 || hop.Waiting != 0 {
				return fmt.Errorf("got %+v, want it delivered", hop)
			}
			return nil
		})
	})
	t.Run("deliveries are suspended", func(t *testing.T) {
		before := w.daemon.why(t, s, "ended.clear.test").Messages // other tests may have sent some
		const more = 8
		for i := range more {
			s.sendAll(t, []string{fmt.Sprintf("many%d@ended.clear.test", i)})
		}
		if _, _, err := s.run("postqueue", "-f"); err != nil {
			t.Fatal(err)
		}
		if _, err := s.waitForLog(offset, "delivery temporarily suspended: Server certificate not verified"); err != nil {
			t.Fatal(err)
		}
		r := w.daemon.why(t, s, "ended.clear.test")
		wantEqual(t, "causes", r.causes(), []string{"mx-certificate-expired"})
		if r.Messages != before+more || r.Waiting < more+1 {
			t.Errorf("%d of %d messages wait, want %d of them", r.Waiting, r.Messages, before+more)
		}
	})
	t.Run("what the daemon knows", func(t *testing.T) {
		hop := w.daemon.why(t, s, "a@mismatch.open.test").Causes[0].NextHops[0]
		if len(hop.Daemon.Answers) != 1 || !strings.HasPrefix(hop.Daemon.Answers[0].Postfix, "OK secure match=mx.mismatch.open.test") {
			t.Errorf("got %+v", hop.Daemon)
		}
	})
	t.Run("messages are returned", func(t *testing.T) {
		mustWait(t, func() error {
			for _, argv := range [][]string{{"postsuper", "-e", "ALL"}, {"postqueue", "-f"}} {
				if _, _, err := s.run(argv[0], argv[1:]...); err != nil {
					return err
				}
			}
			if r := w.daemon.why(t, s); r.Waiting > 0 || r.Messages == 0 {
				return fmt.Errorf("%d of %d messages wait", r.Waiting, r.Messages)
			}
			return nil
		})
		if r := w.daemon.why(t, s); r.Unrecognized.Deliveries > 0 {
			t.Errorf("got %+v, want each reason recognized", r)
		}
	})
	if dir := os.Getenv("TLSPOLICYD_E2E_MAILLOG"); dir != "" { // for cmd/tlspolicyd/internal/maillog/testdata
		if err := write(filepath.Join(dir, filepath.Base(s.log())), s.logFrom(offset)); err != nil {
			t.Error(err)
		}
	}
}
