//go:build e2e

package e2e

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

const (
	receiverDir = workDir + "/receiver"
	maildir     = receiverDir + "/mail"

	// nobody is the user of everything that needs no other.
	nobody = 65534
)

// listeners are the receiving MX hosts, one address each.
func listeners() map[string]string {
	return map[string]string{
		"good": goodHost, "mismatch": mismatchHost, "plain": plainHost, "dane": daneHost, "rolled": rolledHost,
		"second": secondHost,
	}
}

// startReceiver starts a Postfix that takes every message at every listener and
// puts it into one maildir.
func startReceiver(root, name string, certificates map[string]keyPair) (*postfix, error) {
	mainCF := `
smtpd_tls_security_level = may
smtpd_tls_loglevel = 1
virtual_mailbox_domains = static:all
virtual_mailbox_maps = static:mail/
virtual_mailbox_base = ` + receiverDir + `
virtual_uid_maps = static:` + fmt.Sprint(nobody) + `
virtual_gid_maps = static:` + fmt.Sprint(nobody) + "\n"
	var masterCF string
	for listener, address := range listeners() {
		masterCF += address + ":25 inet n - n - - smtpd -o myhostname=" + listener + ".receiver.test\n"
		pair, ok := certificates[listener]
		if !ok {
			masterCF += "  -o smtpd_tls_security_level=none\n"
			continue
		}
		masterCF += "  -o smtpd_tls_chain_files=" + receiverDir + "/" + listener + ".pem\n"
		if err := write(receiverDir+"/"+listener+".pem", pair.pem); err != nil {
			return nil, err
		}
	}
	p, err := newPostfix(root, name, mainCF, masterCF)
	if err != nil {
		return nil, err
	}
	err = errors.Join(os.MkdirAll(maildir, 0o755), os.Chown(maildir, nobody, nobody))
	if err != nil {
		return nil, err
	}
	return p, p.start()
}

// sender is a Postfix that sends what it is given by SMTP.
type sender struct {
	*postfix
	address string
}

// startSender starts a Postfix with the settings that README.md recommends.
func startSender(root, name, address, mapName string) (*sender, error) {
	mainCF := `
smtpd_relay_restrictions = permit_mynetworks, reject
transport_maps = inline:{ smarthost.invalid=smtp:[mx.dane.signed.test] }
smtp_dns_support_level = dnssec
smtp_tls_security_level = dane
smtp_tls_loglevel = 1
smtp_tls_CAfile = ` + workDir + `/ca.pem
smtp_tls_policy_maps = socketmap:unix:run/tlspolicyd/socketmap.sock:` + mapName + "\n"
	if mapName == "postfix-tlsrpt" {
		mainCF += "smtp_tlsrpt_enable = yes\nsmtp_tlsrpt_socket_name = run/tlsrpt/tlsrpt.sock\n"
	}
	p, err := newPostfix(root, name, mainCF, address+":2525 inet n - n - - smtpd\n")
	if err != nil {
		return nil, err
	}
	return &sender{postfix: p, address: net.JoinHostPort(address, "2525")}, p.start()
}

// outcome is how the first try to deliver a message ended, from the mail log.
type outcome struct {
	id     string // unique text of the message
	relay  string // host[address]:port
	dsn    string
	status string // sent, deferred, bounced
	text   string // in brackets behind the status
	log    string // all lines since the message was handed over
}

// send hands a message over and waits for the end of the first try.
func (s *sender) send(t *testing.T, recipient string) outcome {
	t.Helper()
	offset := s.logSize()
	o := outcome{id: rand.Text()}
	queueID, err := submit(s.address, recipient, o.id)
	if err != nil {
		t.Fatalf("hand over a message to %s: %v", recipient, err)
	}
	s.firstTry(t, offset, queueID, &o)
	return o
}

// firstTry waits for the end of the first try to deliver a message.
func (s *sender) firstTry(t *testing.T, offset int64, queueID string, o *outcome) {
	t.Helper()
	match, err := s.waitForLog(offset, regexp.QuoteMeta(queueID)+
		`: to=<[^>]*>, relay=(\S+), .*dsn=([0-9.]+), status=(\w+) \((.*)\)`)
	if err != nil {
		t.Fatal(err)
	}
	o.relay, o.dsn, o.status, o.text = match[1], match[2], match[3], match[4]
	o.log = s.logFrom(offset)
}

// submit speaks SMTP and returns the queue id under which Postfix took it.
func submit(address, recipient, id string) (queueID string, err error) {
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	smtp := textproto.NewConn(conn)
	dialogue := []struct {
		line string
		code int
	}{
		{"", 220},
		{"EHLO client.test", 250},
		{"MAIL FROM:<sender@client.test>", 250},
		{"RCPT TO:<" + recipient + ">", 250},
		{"DATA", 354},
		{"Subject: " + id + "\r\n\r\n" + id + "\r\n.", 250},
	}
	var message string
	for _, step := range dialogue {
		if step.line != "" {
			if err := smtp.PrintfLine("%s", step.line); err != nil {
				return "", err
			}
		}
		if _, message, err = smtp.ReadResponse(step.code); err != nil {
			return "", err
		}
	}
	_, queueID, ok := strings.Cut(message, "queued as ")
	if !ok {
		return "", fmt.Errorf("no queue id in %q", message)
	}
	return queueID, nil
}

// received returns the message with the id as it lies in the maildir.
func received(id string) (text string, err error) {
	names, err := filepath.Glob(maildir + "/new/*")
	if err != nil {
		return "", err
	}
	for _, name := range names {
		content, err := os.ReadFile(name)
		if err != nil {
			return "", err
		}
		if strings.Contains(string(content), "Subject: "+id) {
			return string(content), nil
		}
	}
	return "", fmt.Errorf("message %s is not in the receiving mailbox", id)
}

// wantDelivered checks that the message was sent to the host and has arrived
// there, over a connection of the given kind: "Verified", "Trusted",
// "Untrusted", or "" for one without TLS.
func wantDelivered(t *testing.T, o outcome, host, listener, kind string) {
	t.Helper()
	address := listeners()[listener]
	if o.status != "sent" || o.relay != host+"["+address+"]:25" {
		t.Fatalf("status=%s relay=%s (%s), want it sent to %s[%s]\n%s", o.status, o.relay, o.text, host, address, o.log)
	}
	tls := kind + " TLS connection established to " + host + "[" + address + "]:25"
	if kind != "" && !strings.Contains(o.log, tls) {
		t.Errorf("log has no %q:\n%s", tls, o.log)
	}
	if kind == "" && strings.Contains(o.log, "TLS connection established to "+host) {
		t.Errorf("want no TLS:\n%s", o.log)
	}
	mustWait(t, func() error {
		text, err := received(o.id)
		if err == nil && !strings.Contains(text, "by "+listener+".receiver.test (Postfix)") {
			err = fmt.Errorf("message was not received by listener %s:\n%s", listener, text)
		}
		return err
	})
}

// wantDeferred checks that the message was held back with this status, and that
// no listener has it.
func wantDeferred(t *testing.T, o outcome, dsn, text string) {
	t.Helper()
	if o.status != "deferred" || o.dsn != dsn || !strings.Contains(o.text, text) {
		t.Fatalf("status=%s dsn=%s (%s), want it deferred with %s %q\n%s", o.status, o.dsn, o.text, dsn, text, o.log)
	}
	if text, err := received(o.id); err == nil {
		t.Errorf("a deferred message was received:\n%s", text)
	}
}
