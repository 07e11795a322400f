//go:build e2e

package e2e

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

const (
	checkDir    = workDir + "/check"
	checkSigned = "audit.test" // zone of the domains that check audits
	checkOpen   = "clear.test" // the same, without DNSSEC
)

// checkDomain is a mail domain with something wrong with it, or with a setting that
// is seldom met. Without any it has all there is: DANE, a policy in mode
// enforce, certificates that fit both, reports.
type checkDomain struct {
	name   string // the first label of its domain
	open   bool   // no DNSSEC, and so no DANE
	hosts  string // its mail hosts, names of mailServers; empty: good
	dns    string // lines "OWNER TYPE DATA"; owners that are named lose their usual records
	policy string // the policy file; empty: the usual one
	path   string // where that lies; empty: where it belongs
	site   string // more settings of its nginx server
	ending bool   // the certificate of its policy host ends soon

	want   []string // findings that are not ok, as "grade code"
	ok     []string // some of those that are
	status string   // of a real delivery; empty: no message is sent
}

func (p checkDomain) domain() string {
	if p.open {
		return p.name + "." + checkOpen
	}
	return p.name + "." + checkSigned
}

func (p checkDomain) mailHosts() []string {
	if p.hosts == "" {
		return []string{"good"}
	}
	return strings.Fields(p.hosts)
}

// mailServer is one listener of Postfix, at an address of its own.
type mailServer struct {
	name    string
	service string     // line of master.cf behind the address; empty: smtpd
	options []string   // of smtpd
	cert    certOption // of the certificate
	chain   bool       // sends the certificate of the authority as well
}

// certOption says what certificate a listener has.
type certOption int

const (
	certGood     certOption = iota
	certNone                // no certificate is configured
	certExpired             // ended
	certEarly               // not begun
	certEnding              // in the last fifth of its life
	certMisnamed            // for another host
	certSelf                // self-signed
)

// checkWorld is what the domains of check have: a web server and a mail server.
// They run only while check is tested.
type checkWorld struct {
	keys  map[string]keyPair           // of listeners
	certs map[string]*x509.Certificate // the same, and that of the authority as "ca"
	web   map[string]keyPair           // of policy hosts, by domain
}

// newCheckWorld makes the keys that the zones need.
func newCheckWorld(ca *authority) (*checkWorld, error) {
	c := &checkWorld{
		keys: map[string]keyPair{}, web: map[string]keyPair{},
		certs: map[string]*x509.Certificate{"ca": ca.cert},
	}
	now := time.Now()
	begin := now.Add(-20 * time.Hour)
	var mxNames []string
	for _, p := range checkDomains() {
		mxNames = append(mxNames, p.domain(), "*."+p.domain())
		end := now.Add(24 * time.Hour)
		if p.ending {
			end = now.Add(time.Hour)
		}
		pair, err := ca.certificateFor(begin, end, "mta-sts."+p.domain())
		if err != nil {
			return nil, err
		}
		c.web[p.domain()] = pair
	}
	for _, s := range mailServers() {
		issuer, begin, end, names := ca, begin, now.Add(24*time.Hour), mxNames
		switch s.cert {
		case certNone:
			continue
		case certExpired:
			end = now.Add(-10 * time.Minute)
		case certEarly:
			begin = now.Add(10 * time.Hour)
		case certEnding:
			end = now.Add(time.Hour)
		case certMisnamed:
			names = []string{"unrelated.invalid"}
		case certSelf:
			issuer = nil
		}
		pair, err := issuer.certificateFor(begin, end, names...)
		if err != nil {
			return nil, err
		}
		if s.chain {
			pair.pem += ca.pem
		}
		if c.certs[s.name], err = pair.certificate(); err != nil {
			return nil, err
		}
		c.keys[s.name] = pair
	}
	return c, nil
}

// addressOf is the address of a listener, or one where nothing listens; "shut"
// has one of its own.
func addressOf(listener string) string {
	for i, s := range mailServers() {
		if s.name == listener {
			return fmt.Sprintf("127.0.4.%d", i+1)
		}
	}
	if listener == "shut" {
		return "127.0.4.251"
	}
	return "127.0.4.250"
}

// zones are those of all domains.
func (c *checkWorld) zones() []testZone {
	sealed := testZone{origin: checkSigned, signing: signed}
	open := testZone{origin: checkOpen, signing: unsigned}
	for i, p := range checkDomains() {
		if p.open {
			open.records += c.records(p, i)
		} else {
			sealed.records += c.records(p, i)
		}
	}
	return []testZone{sealed, open}
}

// records are what stands in DNS for a domain, relative to its zone.
func (c *checkWorld) records(p checkDomain, i int) string {
	var b strings.Builder
	line := func(owner, data string) {
		if owner == "@" {
			owner = p.name
		} else {
			owner += "." + p.name
		}
		fmt.Fprintf(&b, "%s %s\n", owner, data)
	}
	own := map[string]bool{}
	for l := range strings.Lines(p.dns) {
		owner, data, _ := strings.Cut(strings.TrimSpace(l), " ")
		own[owner] = true
		if data != "" {
			data = strings.NewReplacer("GOOD", addressOf("good"), "CLOSED", addressOf("closed"), "WEB", policyAddress(i)).Replace(data)
			line(owner, c.tlsa(data))
		}
	}
	usual := func(owner, data string) {
		if !own[owner] {
			line(owner, data)
		}
	}
	usual("_mta-sts", `TXT "v=STSv1; id=1;"`)
	usual("mta-sts", "A "+policyAddress(i))
	usual("_smtp._tls", `TXT "v=TLSRPTv1; rua=mailto:reports@`+p.domain()+`"`)
	for n, host := range p.mailHosts() {
		usual("@", fmt.Sprintf("MX %d %s.%s", 10*(n+1), host, p.name))
		usual(host, "A "+addressOf(host))
		if key, ok := c.keys[host]; ok && !p.open {
			usual("_25._tcp."+host, "TLSA "+key.tlsa())
		}
	}
	return b.String()
}

// tlsa turns "TLSA-OF LISTENER USAGE SELECTOR MATCHING" into record data; what
// else there is stays as it is.
func (c *checkWorld) tlsa(data string) string {
	var of string
	var usage, selector, matching uint8
	if n, _ := fmt.Sscanf(data, "TLSA-OF %s %d %d %d", &of, &usage, &selector, &matching); n != 4 {
		return data
	}
	hash, err := dns.CertificateToDANE(selector, matching, c.certs[of])
	if err != nil {
		panic(err) // a mistake in the table
	}
	return fmt.Sprintf("TLSA %d %d %d %s", usage, selector, matching, hash)
}

func policyAddress(i int) string { return fmt.Sprintf("127.0.3.%d", i+1) }

// start runs the servers for as long as the test does.
func (c *checkWorld) start(t *testing.T, root string) {
	t.Helper()
	web, err := c.startWeb(root)
	if err != nil {
		t.Fatal(err)
	}
	mail, err := c.startMail(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(web.stop(syscall.SIGTERM), mail.proc.stop(syscall.SIGTERM)); err != nil {
			t.Error(err)
		}
	})
}

// startWeb starts an nginx with a server at an address of its own for each
// domain, so that settings that hold for an address hold for one.
func (c *checkWorld) startWeb(root string) (*process, error) {
	config := "daemon off;\npid " + checkDir + "/nginx.pid;\nerror_log stderr info;\nworker_processes 1;\n" +
		"events { worker_connections 512; }\nhttp {\n  access_log off;\n  types { text/plain txt; }\n"
	for _, name := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		config += "  " + name + "_temp_path " + checkDir + "/tmp-" + name + ";\n"
	}
	for i, p := range checkDomains() {
		dir := checkDir + "/" + p.domain()
		text, path := p.policy, p.path
		if text == "" {
			text = "version: STSv1\r\nmode: enforce\r\nmx: *." + p.domain() + "\r\nmax_age: 2592000\r\n"
		}
		if path == "" {
			path = "/.well-known/mta-sts.txt"
		}
		err := errors.Join(
			write(dir+path, strings.ReplaceAll(text, "DOMAIN", p.domain())),
			write(dir+".pem", c.web[p.domain()].pem),
		)
		if err != nil {
			return nil, err
		}
		config += "  server { listen " + policyAddress(i) + ":443 ssl; server_name mta-sts." + p.domain() + "; root " + dir +
			"; ssl_certificate " + dir + ".pem; ssl_certificate_key " + dir + ".pem; " + p.site + " }\n"
	}
	if err := write(checkDir+"/nginx.conf", config+"}\n"); err != nil {
		return nil, err
	}
	return start(root, 0, "/usr/sbin/nginx", "-e", "stderr", "-c", checkDir+"/nginx.conf")
}

// startMail starts a Postfix that takes every message, and throws it away.
func (c *checkWorld) startMail(root string) (*postfix, error) {
	mainCF := "smtpd_tls_security_level = may\nvirtual_mailbox_domains = static:all\nvirtual_mailbox_maps = static:x\n" +
		"virtual_transport = discard:\nsmtpd_delay_reject = no\n"
	masterCF := "discard unix - - y - - discard\n"
	for _, s := range mailServers() {
		if s.service != "" {
			masterCF += addressOf(s.name) + ":25 inet " + s.service + "\n"
			continue
		}
		masterCF += addressOf(s.name) + ":25 inet n - n - - smtpd\n"
		if key, ok := c.keys[s.name]; ok {
			file := checkDir + "/" + s.name + ".mx.pem"
			if err := write(file, key.pem); err != nil {
				return nil, err
			}
			masterCF += "  -o smtpd_tls_chain_files=" + file + "\n"
		}
		for _, o := range s.options {
			masterCF += "  -o { " + o + " }\n"
		}
	}
	p, err := newPostfix(root, "checked", mainCF, masterCF)
	if err != nil {
		return nil, err
	}
	return p, p.start()
}

// resolver starts another Unbound, with more settings, and returns the file
// name of a configuration that asks it.
func (w *world) resolver(t *testing.T, address, settings string) (config string) {
	t.Helper()
	file := checkDir + "/unbound-" + address + ".conf"
	text := strings.Replace(unboundConfig, resolverAddr, address, 1)
	text = strings.Replace(text, "remote-control:", settings+"remote-control:", 1)
	if err := write(file, text); err != nil {
		t.Fatal(err)
	}
	p, err := start(w.bookworm, 0, "/usr/sbin/unbound", "-d", "-p", "-c", file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.stop(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
	})
	mustWait(t, func() error {
		_, err := ask(address, ".", dns.TypeSOA)
		return err
	})
	return w.configured(t, address, resolverAddr, address)
}

// addAddress gives loopback one more address, under a label of its own.
func addAddress(label, address string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq(label)
	if err != nil {
		return err
	}
	if err := lo.SetInet4Addr(net.ParseIP(address).To4()); err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFADDR, lo); err != nil {
		return fmt.Errorf("add %s to loopback: %w", address, err)
	}
	return nil
}

// configured writes the daemon's configuration with a change.
func (w *world) configured(t *testing.T, name, old, now string) (config string) {
	t.Helper()
	text, err := os.ReadFile(daemonDir + "/tlspolicyd.toml")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(string(text), old) != 1 {
		t.Fatalf("the configuration does not hold %q once:\n%s", old, text)
	}
	config = checkDir + "/" + name + ".toml"
	if err := write(config, strings.Replace(string(text), old, now, 1)); err != nil {
		t.Fatal(err)
	}
	return config
}
