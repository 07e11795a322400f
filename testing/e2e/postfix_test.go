//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// postfix is one Postfix instance with its own configuration, queue and log.
type postfix struct {
	root string // folder of the Debian release it is from
	dir  string // of the instance, the same inside and outside root
	proc *process
}

// Everything that an instance needs beside its purpose; no lookup may leave
// the test, and a message is tried once.
const postfixCommon = `
compatibility_level = 3.6
mydestination =
alias_maps =
alias_database =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
smtpd_peername_lookup = no
maillog_file_prefixes = /run
queue_run_delay = 1h
minimal_backoff_time = 1h
maximal_backoff_time = 1h
notify_classes =
`

// Services as Debian ships them: smtp(8) and its helpers are chrooted in the
// queue directory, virtual(8), proxymap(8) and postlogd(8) are not.
const postfixServices = `
pickup    unix  n - y 60 1 pickup
cleanup   unix  n - y - 0 cleanup
qmgr      unix  n - n 300 1 qmgr
tlsmgr    unix  - - y 1000? 1 tlsmgr
rewrite   unix  - - y - - trivial-rewrite
bounce    unix  - - y - 0 bounce
defer     unix  - - y - 0 bounce
trace     unix  - - y - 0 bounce
proxymap  unix  - - n - - proxymap
smtp      unix  - - y - - smtp
relay     unix  - - y - - smtp
error     unix  - - y - - error
retry     unix  - - y - - error
virtual   unix  - n n - - virtual
anvil     unix  - - y - 1 anvil
scache    unix  - - y - 1 scache
postlog   unix-dgram n - n - 1 postlogd
`

// newPostfix writes an instance below workDir and starts it.
func newPostfix(root, name, mainCF, masterCF string) (*postfix, error) {
	p := &postfix{root: root, dir: filepath.Join(workDir, name)}
	err := errors.Join(
		os.MkdirAll(p.dir+"/data", 0o755),
		write(p.config()+"/main.cf", postfixCommon+
			"queue_directory = "+p.queue()+"\n"+
			"data_directory = "+p.dir+"/data\n"+
			"maillog_file = "+p.log()+"\n"+
			"myhostname = "+name+".test\n"+mainCF),
		write(p.config()+"/master.cf", postfixServices+masterCF),
	)
	if err != nil {
		return nil, err
	}
	// What Debian's start-up script copies into the chroot.
	for _, name := range []string{"resolv.conf", "hosts", "nsswitch.conf", "services"} {
		text, err := os.ReadFile(root + "/etc/" + name)
		if err != nil {
			return nil, err
		}
		if err := write(p.queue()+"/etc/"+name, string(text)); err != nil {
			return nil, err
		}
	}
	_, _, err = command(root, "/bin/chown", "postfix", p.dir+"/data")
	return p, err
}

func (p *postfix) config() string { return p.dir + "/etc" }
func (p *postfix) queue() string  { return p.dir + "/queue" }
func (p *postfix) log() string    { return filepath.Join(logDir, filepath.Base(p.dir)+".mail.log") }

func (p *postfix) start() (err error) {
	if _, _, err := p.run("postfix", "check"); err != nil {
		return err
	}
	p.proc, err = start(p.root, 0, "/usr/sbin/postfix", "-c", p.config(), "start-fg")
	if err != nil {
		return err
	}
	_, err = p.waitForLog(0, `daemon started -- version \S+`)
	return err
}

// run runs one of the instance's commands.
func (p *postfix) run(name string, args ...string) (stdout, stderr string, err error) {
	return command(p.root, append([]string{"/usr/sbin/" + name, "-c", p.config()}, args...)...)
}

// logSize is a position in the log to search from.
func (p *postfix) logSize() int64 {
	info, err := os.Stat(p.log())
	if err != nil {
		return 0
	}
	return info.Size()
}

// logFrom is the log from a position on.
func (p *postfix) logFrom(offset int64) string {
	text, err := os.ReadFile(p.log())
	if err != nil {
		return ""
	}
	return string(text[min(offset, int64(len(text))):])
}

// waitForLog waits for a line after a position and returns what it matched.
func (p *postfix) waitForLog(offset int64, pattern string) (match []string, err error) {
	re := regexp.MustCompile(pattern)
	err = waitFor(func() error {
		if match = re.FindStringSubmatch(p.logFrom(offset)); match == nil {
			return fmt.Errorf("%s has no line with %q:\n%s", p.log(), pattern, p.logFrom(offset))
		}
		return nil
	})
	return match, err
}

// reply is what postmap -q makes of a socketmap reply.
type reply struct {
	value  string // of an OK
	reason string // of a TEMP, TIMEOUT or PERM, as Postfix logs it
	found  bool
}

// query asks a map as postmap -q does, which is how an administrator tests it.
func (p *postfix) query(t *testing.T, table, key string) reply {
	t.Helper()
	r, err := p.tryQuery(table, key)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (p *postfix) tryQuery(table, key string) (reply, error) {
	stdout, stderr, err := p.run("postmap", "-q", key, table)
	_, reason, failed := strings.Cut(stderr, "socketmap server ")
	switch {
	case failed:
		reason, _, _ = strings.Cut(reason, "\n")
		return reply{reason: reason}, nil
	case err == nil:
		return reply{value: strings.TrimSuffix(stdout, "\n"), found: true}, nil
	case stderr == "" && stdout == "":
		return reply{}, nil
	}
	return reply{}, fmt.Errorf("postmap -q %q %s: %w", key, table, err)
}
