//go:build e2e && field

package e2e

import (
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
	_, err := newWorld()
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
		})
	}
	if path := os.Getenv(tableEnv); path != "" && !t.Failed() {
		if err := writeSection(path, "## Postfix of Debian unstable", report.String()); err != nil {
			t.Error(err)
		}
	}
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
