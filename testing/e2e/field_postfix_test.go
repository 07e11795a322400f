//go:build e2e

package e2e

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestFieldPostfix sends through the Postfix of Debian unstable, with smtp(8)
// chrooted and not.
func TestFieldPostfix(t *testing.T) {
	t.Cleanup(func() {
		if t.Failed() {
			dumpLogs()
		}
	})
	w, err := newWorld()
	if err != nil {
		t.Fatalf("cannot build the test's internet: %v", err)
	}
	root, err := mountRoot(filepath.Join(os.Getenv("TLSPOLICYD_E2E_CACHE"), "field-sid"), workDir+"/resolv.conf")
	if err != nil {
		t.Fatal(err)
	}
	version, _, err := command(root, "/usr/sbin/postconf", "-d", "-h", "mail_version")
	if err != nil {
		t.Fatal(err)
	}
	var report strings.Builder
	fmt.Fprintf(&report, "Postfix %s (Debian unstable)\n\n| smtp(8) | recipient | result |\n| --- | --- | --- |\n", strings.TrimSpace(version))
	for i, chrooted := range []bool{true, false} {
		how := "chrooted"
		if !chrooted {
			how = "not chrooted"
		}
		t.Run(how, func(t *testing.T) {
			name := fmt.Sprintf("unstable%d", i)
			if err := shareSockets(root, "postfix310", name); err != nil {
				t.Fatal(err)
			}
			s, err := startSender(root, name, fmt.Sprintf("127.0.0.%d", 4+i), "postfix-tlsrpt")
			if err != nil {
				t.Fatal(err)
			}
			if !chrooted {
				if err := s.unchroot(); err != nil {
					t.Fatal(err)
				}
			}
			for _, d := range []struct{ domain, host, listener string }{
				{"dane.signed.test", "mx.dane.signed.test", "dane"},
				{"sts.open.test", "mx.sts.open.test", "good"},
			} {
				o := s.send(t, "a@"+d.domain)
				wantDelivered(t, o, d.host, d.listener, "Verified")
				fmt.Fprintf(&report, "| %s | %s | %s, Verified |\n", how, d.domain, o.status)
			}
			o := s.send(t, "a@mismatch.open.test")
			wantDeferred(t, o, "4.7.5", "Server certificate not verified")
			fmt.Fprintf(&report, "| %s | mismatch.open.test | %s, certificate not verified |\n", how, o.status)
			if chrooted {
				w.checked.start(t, w.bookworm)
				w.testWhyOf(t, s, false)
				fmt.Fprintf(&report, "| %s | those of testing/e2e/why_test.go | 'tlspolicyd why' finds each cause in the log |\n", how)
			}
		})
	}
	requireTLS(t, w, root, &report)
	if path := os.Getenv(tableEnv); path != "" && !t.Failed() {
		if err := writeSection(path, "## Postfix of Debian unstable", report.String()); err != nil {
			t.Error(err)
		}
	}
}

// requireTLS sends messages that must not leave without verified TLS to a host
// that promises the same (RFC 8689). The policy must then come from DANE or
// MTA-STS, which Postfix knows from the daemon alone.
func requireTLS(t *testing.T, w *world, root string, report *strings.Builder) {
	const name = "requiretls"
	if err := shareSockets(root, "postfix310", name); err != nil {
		t.Fatal(err)
	}
	s, err := startSender(root, name, "127.0.0.6", "postfix-tlsrpt")
	if err != nil {
		t.Fatal(err)
	}
	// By default it is not enforced for hosts below mydomain, here "test".
	s.change(t, "mydomain=sender.invalid")
	report.WriteString("\nMessages with REQUIRETLS (RFC 8689), from this Postfix to another of its version, but for the first:\n\n" +
		"| recipient | tls= | result |\n| --- | --- | --- |\n")
	for i, c := range []struct{ domain, listener, tls, dsn, what string }{
		{"sts.open.test", "", "secure/!requiretls:none", "5.7.30", "MTA-STS; a server without REQUIRETLS (Postfix 3.7)"},
		{"dane.signed.test", "dane", "dane-only/requiretls", "2.0.0", "DANE"},
		{"sts.open.test", "good", "secure/requiretls", "2.0.0", "MTA-STS"},
		{"mismatch.open.test", "", "!secure/!requiretls:nocertmatch", "5.7.10", "MTA-STS, another name in the certificate"},
		{"testing.open.test", "", "may?/!requiretls:nocertmatch", "5.7.10", "MTA-STS in testing mode"},
		{"absent.open.test", "", "may?/!requiretls:nocertmatch", "5.7.10", "no policy"},
	} {
		if i == 1 {
			// A signal would end the script that has started master(8).
			if _, _, err := w.receiver.run("postfix", "stop"); err != nil {
				t.Fatal(err)
			}
			if w.receiver, err = startReceiver(root, "receiver311", w.mailHosts); err != nil {
				t.Fatal(err)
			}
		}
		t.Run("REQUIRETLS, "+c.what, func(t *testing.T) {
			o := s.sendRequiringTLS(t, "a@"+c.domain)
			if c.listener != "" {
				wantDelivered(t, o, "mx."+c.domain, c.listener, "Verified")
			} else if text, err := received(o.id); err == nil {
				t.Errorf("the message was received:\n%s", text)
			}
			if o.dsn != c.dsn || !strings.Contains(o.log, ", tls="+c.tls+", ") {
				t.Errorf("dsn=%s (%s), want %s and tls=%s\n%s", o.dsn, o.text, c.dsn, c.tls, o.log)
			}
			fmt.Fprintf(report, "| %s (%s) | `%s` | %s |\n", c.domain, c.what, c.tls, o.status)
		})
	}
}

// sendRequiringTLS hands a message over on the command line: a client on the
// network could ask for REQUIRETLS over TLS only.
func (s *sender) sendRequiringTLS(t *testing.T, recipient string) outcome {
	t.Helper()
	offset := s.logSize()
	o := outcome{id: rand.Text()}
	if _, _, err := command(s.root, "/bin/sh", "-c", "printf 'Subject: %s\n\n%s\n' \"$1\" \"$1\" | "+
		"/usr/sbin/sendmail -C \"$2\" -O requiretls=yes -f \"$1@client.test\" \"$3\"", "sh", o.id, s.config(), recipient); err != nil {
		t.Fatal(err)
	}
	match, err := s.waitForLog(offset, `(\w+): from=<`+o.id+`@client\.test>, size=`)
	if err != nil {
		t.Fatal(err)
	}
	s.firstTry(t, offset, match[1], &o)
	return o
}

// shareSockets puts the sockets that are in one queue directory into another.
// A mount that is made now is not seen in the folder, so it is made there too.
func shareSockets(root, from, to string) error {
	for _, name := range []string{"/queue/run/tlspolicyd", "/queue/run/tlsrpt"} {
		if err := os.MkdirAll(workDir+"/"+to+name, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(workDir+"/"+from+name, root+workDir+"/"+to+name, "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	return nil
}

// unchroot runs smtp(8) outside of the queue directory.
func (s *sender) unchroot() error {
	path := s.config() + "/master.cf"
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := write(path, strings.Replace(string(text), "smtp      unix  - - y", "smtp      unix  - - n", 1)); err != nil {
		return err
	}
	_, _, err = s.run("postfix", "reload")
	return err
}
