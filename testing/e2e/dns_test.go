//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/miekg/dns"
)

const dnsDir = workDir + "/dns"

// nameServers are NSD, which knows the zones, and Unbound, which validates them.
type nameServers struct {
	root    string
	config  strings.Builder // the zones, for NSD
	nsd     *process
	unbound *process
}

// startNameServers serves the zones below "test", "test" itself and a root
// whose key is the resolver's trust anchor.
func startNameServers(root string, children []testZone) (*nameServers, error) {
	n := &nameServers{root: root}
	if err := os.MkdirAll(dnsDir, 0o755); err != nil {
		return nil, err
	}
	glue := "ns.test. A " + authAddr + "\n"
	test := testZone{origin: "test", signing: signed, records: glue}
	for _, z := range children {
		ds, err := n.publish(z)
		if err != nil {
			return nil, err
		}
		test.records += z.origin + ". NS ns.test.\n" + ds
	}
	ds, err := n.publish(test)
	if err != nil {
		return nil, err
	}
	anchor, err := n.publish(testZone{origin: ".", signing: signed, records: "test. NS ns.test.\n" + glue + ds})
	if err != nil {
		return nil, err
	}
	err = errors.Join(
		write(dnsDir+"/anchor", anchor),
		write(dnsDir+"/hints", ". 3600 NS ns.test.\n"+"ns.test. 3600 A "+authAddr+"\n"),
		write(dnsDir+"/nsd.conf", nsdConfig+n.config.String()),
		write(dnsDir+"/unbound.conf", unboundConfig),
	)
	if err != nil {
		return nil, err
	}
	if err := n.startNSD(); err != nil {
		return nil, err
	}
	return n, n.startUnbound()
}

const nsdConfig = `
server:
  ip-address: ` + authAddr + `
  username: ""
  zonesdir: "` + dnsDir + `"
  database: ""
  pidfile: ""
  xfrdfile: "` + dnsDir + `/xfrd.state"
  zonelistfile: "` + dnsDir + `/zone.list"
remote-control:
  control-enable: no
`

const unboundConfig = `
server:
  interface: ` + resolverAddr + `
  access-control: 127.0.0.0/8 allow
  username: ""
  chroot: ""
  directory: "` + dnsDir + `"
  pidfile: ""
  use-syslog: no
  do-daemonize: no
  do-ip6: no
  num-threads: 1
  module-config: "validator iterator"
  root-hints: "` + dnsDir + `/hints"
  trust-anchor-file: "` + dnsDir + `/anchor"
  val-log-level: 2
  do-not-query-localhost: no
  local-zone: "test." nodefault
remote-control:
  control-enable: no
`

// publish writes a zone where NSD finds it, signed as it asks for, and returns
// its DS record for the parent.
func (n *nameServers) publish(z testZone) (ds string, err error) {
	file := dnsDir + "/" + strings.TrimSuffix(z.origin, ".") + ".zone"
	fmt.Fprintf(&n.config, "zone:\n  name: %s\n  zonefile: %s\n", z.origin, file)
	text := "$ORIGIN " + dns.Fqdn(z.origin) + "\n$TTL 300\n" +
		"@ SOA ns.test. hostmaster.test. 1 3600 600 86400 300\n@ NS ns.test.\n" + z.records
	if err := write(file, text); err != nil || z.signing == unsigned {
		return "", err
	}
	zsk, err := n.key(z.origin)
	if err != nil {
		return "", err
	}
	ksk, err := n.key(z.origin, "-k")
	if err != nil {
		return "", err
	}
	argv := []string{"/usr/bin/ldns-signzone", "-o", z.origin, "-f", file + ".signed"}
	if z.signing == expired {
		lastMonth := time.Now().AddDate(0, -1, 0)
		argv = append(argv,
			"-i", lastMonth.AddDate(0, -1, 0).Format("20060102"), "-e", lastMonth.Format("20060102"))
	}
	if _, _, err := command(n.root, append(argv, file, zsk, ksk)...); err != nil {
		return "", err
	}
	return n.finish(z, file, ksk)
}

// finish puts the signed zone in the place of the unsigned one.
func (n *nameServers) finish(z testZone, file, ksk string) (ds string, err error) {
	zone, err := os.ReadFile(file + ".signed")
	if err != nil {
		return "", err
	}
	text := string(zone)
	if z.tamper[0] != "" {
		if strings.Count(text, z.tamper[0]) != 1 {
			return "", fmt.Errorf("zone %s does not hold the text to tamper with once", z.origin)
		}
		text = strings.Replace(text, z.tamper[0], z.tamper[1], 1)
	}
	if err := write(file, text); err != nil {
		return "", err
	}
	record, err := os.ReadFile(ksk + ".ds")
	return string(record), err
}

// key makes a signing key and returns its file name without the suffix.
func (n *nameServers) key(origin string, flags ...string) (string, error) {
	argv := append([]string{"/usr/bin/ldns-keygen", "-r", "/dev/urandom", "-a", "ECDSAP256SHA256"}, flags...)
	name, _, err := command(n.root, append(argv, origin)...)
	return workDir + "/" + strings.TrimSpace(name), err
}

func (n *nameServers) startNSD() (err error) {
	n.nsd, err = start(n.root, 0, "/usr/sbin/nsd", "-d", "-c", dnsDir+"/nsd.conf")
	if err != nil {
		return err
	}
	return answers(authAddr, ".")
}

func (n *nameServers) startUnbound() (err error) {
	n.unbound, err = start(n.root, 0, "/usr/sbin/unbound", "-d", "-p", "-c", dnsDir+"/unbound.conf")
	if err != nil {
		return err
	}
	return answers(resolverAddr, ".")
}

// republish changes the text of an unsigned zone and starts both servers
// afresh, so that nothing old is left in a cache.
func (n *nameServers) republish(z testZone) error {
	if _, err := n.publish(z); err != nil {
		return err
	}
	if err := errors.Join(n.nsd.stop(syscall.SIGTERM), n.unbound.stop(syscall.SIGTERM)); err != nil {
		return err
	}
	if err := n.startNSD(); err != nil {
		return err
	}
	return n.startUnbound()
}

// answers waits until a server has an answer.
func answers(server, name string) error {
	return waitFor(func() error {
		reply, err := ask(server, name, dns.TypeSOA)
		if err == nil && reply.Rcode != dns.RcodeSuccess {
			err = fmt.Errorf("DNS server %s answers %s", server, dns.RcodeToString[reply.Rcode])
		}
		return err
	})
}

func ask(server, name string, qtype uint16) (*dns.Msg, error) {
	query := new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype)
	query.SetEdns0(1232, true)
	client := &dns.Client{Timeout: 5 * time.Second}
	reply, _, err := client.Exchange(query, net.JoinHostPort(server, "53"))
	return reply, err
}
