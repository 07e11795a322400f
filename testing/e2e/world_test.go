//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// world is every real part, started once for all tests.
type world struct {
	bookworm, trixie string // folders for chroot(2)

	ca         *authority
	mailHosts  map[string]keyPair // their certificates, by listener
	names      *nameServers
	web        *policyHosts
	receiver   *postfix
	checked    *checkWorld // domains for check
	daemon     *daemon
	postfix37  *sender // Postfix of Debian 12, map "postfix"
	postfix310 *sender // Postfix of Debian 13, map "postfix-tlsrpt"
	reports    *reportSocket
}

func TestMain(m *testing.M) {
	if os.Getenv(insideEnv) == "" {
		os.Exit(enterNamespaces())
	}
	os.Exit(m.Run())
}

// TestEndToEnd builds the world once. A part that breaks what others use puts it
// right again, so that each can be run alone and in any order.
func TestEndToEnd(t *testing.T) {
	t.Cleanup(func() {
		if t.Failed() {
			dumpLogs()
		}
	})
	w, err := newWorld()
	if err != nil {
		t.Fatalf("cannot build the test's internet: %v", err)
	}
	t.Cleanup(func() { fmt.Println("real components: " + w.components()) })
	parts := []struct {
		name string
		test func(*testing.T, *world)
	}{
		{"Resolver", testResolver},
		{"Replies", testReplies},
		{"TemporaryReplies", testTemporaryReplies},
		{"ReplyWithTLSRPT", testReplyWithTLSRPT},
		{"Mail", testMail},
		{"Check", testCheck},
		{"WildcardDepth", testWildcardDepth},
		{"MailWithTLSRPT", testMailWithTLSRPT},
		{"FailedFetches", testFailedFetches},
		{"Rows", testRows},
		{"KeyChange", testKeyChange},
		{"Doctor", testDoctor},
		{"Why", testWhy},
		{"Suggest", testSuggest},
		{"Outage", testOutage},
		{"Forgery", testForgery},
		{"PolicyChange", testPolicyChange}, // waits a minute for the TTL
	}
	for _, part := range parts {
		t.Run(part.name, func(t *testing.T) { part.test(t, w) })
	}
}

func newWorld() (*world, error) {
	cache, binary := os.Getenv("TLSPOLICYD_E2E_CACHE"), os.Getenv("TLSPOLICYD_E2E_DAEMON")
	if cache == "" || binary == "" {
		return nil, errors.New("TLSPOLICYD_E2E_CACHE or TLSPOLICYD_E2E_DAEMON is not set: run it with make e2e")
	}
	if err := makePrivate(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(logDir, 0o755); err != nil {
		return nil, err
	}
	resolvConf := workDir + "/resolv.conf"
	if err := write(resolvConf, "nameserver "+resolverAddr+"\n"); err != nil {
		return nil, err
	}
	w := &world{}
	var err error
	if w.bookworm, err = mountRoot(filepath.Join(cache, "bookworm"), resolvConf); err != nil {
		return nil, err
	}
	if w.trixie, err = mountRoot(filepath.Join(cache, "trixie"), resolvConf); err != nil {
		return nil, err
	}
	if err := w.startInternet(); err != nil {
		return nil, err
	}
	return w, w.startOurSide(binary)
}

// startInternet starts what belongs to others: DNS, policy hosts, MX hosts.
func (w *world) startInternet() (err error) {
	if w.ca, err = newAuthority(); err != nil {
		return err
	}
	if err := write(workDir+"/ca.pem", w.ca.pem); err != nil {
		return err
	}
	good, err1 := w.ca.certificate(goodNames()...)
	mismatch, err2 := w.ca.certificate("unrelated.invalid")
	dane, err3 := selfSigned()
	rolled, err4 := selfSigned()
	second, err6 := w.ca.certificate(rowsSecondNames()...)
	var err5 error
	w.checked, err5 = newCheckWorld(w.ca)
	if err := errors.Join(err1, err2, err3, err4, err5, err6); err != nil {
		return err
	}
	all := append(zones(good, dane, rolled), w.checked.zones()...)
	if w.names, err = startNameServers(w.bookworm, all); err != nil {
		return err
	}
	if w.web, err = newPolicyHosts(w.bookworm, w.ca, policies()); err != nil {
		return err
	}
	if err := w.web.start(); err != nil {
		return err
	}
	w.mailHosts = map[string]keyPair{"good": good, "mismatch": mismatch, "dane": dane, "rolled": rolled, "second": second}
	w.receiver, err = startReceiver(w.bookworm, "receiver", w.mailHosts)
	return err
}

// startOurSide starts the daemon and the Postfix instances that ask it.
func (w *world) startOurSide(binary string) (err error) {
	sockets := []string{
		workDir + "/postfix37/queue/run/tlspolicyd",
		workDir + "/postfix310/queue/run/tlspolicyd",
	}
	if w.daemon, err = newDaemon(binary, sockets); err != nil {
		return err
	}
	if err := w.daemon.start(); err != nil {
		return err
	}
	if w.reports, err = listenReports(reportPath); err != nil {
		return err
	}
	w.postfix37, err = startSender(w.bookworm, "postfix37", "127.0.0.2", "postfix")
	if err != nil {
		return err
	}
	w.postfix310, err = startSender(w.trixie, "postfix310", "127.0.0.3", "postfix-tlsrpt")
	return err
}

func selfSigned() (keyPair, error) {
	var none *authority
	return none.certificate("self-signed.invalid")
}

// components names the real parts and their versions.
func (w *world) components() string {
	output := func(root string, argv ...string) string {
		stdout, stderr, err := command(root, argv...)
		if err != nil {
			return err.Error()
		}
		line, _, _ := strings.Cut(strings.TrimSpace(stdout+stderr), "\n")
		_, afterName, found := strings.Cut(line, "ersion ")
		if found {
			return afterName
		}
		return strings.TrimPrefix(line, "nginx version: nginx/")
	}
	version := func(p *postfix) string {
		return "postfix " + output(p.root, "/usr/sbin/postconf", "-c", p.config(), "-h", "mail_version")
	}
	debian := func(root string) string {
		text, _ := os.ReadFile(root + "/etc/debian_version")
		return "Debian " + strings.TrimSpace(string(text))
	}
	return strings.Join([]string{
		version(w.postfix37.postfix) + " (" + debian(w.bookworm) + ", sending, chrooted)",
		version(w.postfix310.postfix) + " (" + debian(w.trixie) + ", sending, chrooted, TLSRPT)",
		version(w.receiver) + " (receiving)",
		"unbound " + output(w.bookworm, "/usr/sbin/unbound", "-V"),
		"nsd " + output(w.bookworm, "/usr/sbin/nsd", "-v"),
		"nginx " + output(w.bookworm, "/usr/sbin/nginx", "-v"),
		"ldns-signzone " + output(w.bookworm, "/usr/bin/ldns-signzone", "-v"),
	}, ", ")
}
