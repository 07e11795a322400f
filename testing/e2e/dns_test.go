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
	top     string            // the domain above all others, "test"
	address string            // of NSD
	config  strings.Builder   // the zones, for NSD
	keys    map[string]string // that sign a zone, so that it can be signed again
	nsd     *process
	unbound *process
}

// startNameServers serves the zones below "test", "test" itself and a root
// whose key is the resolver's trust anchor.
func startNameServers(root string, children []testZone) (*nameServers, error) {
	n, err := startNSD(root, "test", authAddr, children)
	if err != nil {
		return nil, err
	}
	if err := write(dnsDir+"/unbound.conf", unboundConfig); err != nil {
		return nil, err
	}
	return n, n.startUnbound()
}

// startNSD serves all zones up to the root.
func startNSD(root, top, address string, children []testZone) (*nameServers, error) {
	n := &nameServers{root: root, top: top, address: address, keys: map[string]string{}}
	if err := os.MkdirAll(dnsDir, 0o755); err != nil {
		return nil, err
	}
	server := "ns." + top + "."
	delegation, glue := ". NS "+server+"\n", server+" A "+address+"\n"
	above := testZone{origin: top, signing: signed, records: glue}
	for _, z := range children {
		ds, err := n.publish(z)
		if err != nil {
			return nil, err
		}
		if z.signing == island {
			ds = ""
		}
		above.records += z.origin + delegation + ds
	}
	ds, err := n.publish(above)
	if err != nil {
		return nil, err
	}
	rootServer := "ns. A " + address + "\n"
	anchor, err := n.publish(testZone{origin: ".", signing: signed, records: rootServer + top + delegation + glue + ds})
	if err != nil {
		return nil, err
	}
	err = errors.Join(
		write(dnsDir+"/anchor", anchor),
		write(dnsDir+"/hints", ". 3600 NS ns.\n"+"ns. 3600 A "+address+"\n"),
		write(dnsDir+"/nsd.conf", "server:\n  ip-address: "+address+"\n"+nsdConfig+n.config.String()),
	)
	if err != nil {
		return nil, err
	}
	return n, n.startNSD()
}

const nsdConfig = `
  username: ""
  zonesdir: "` + dnsDir + `"
  database: ""
  pidfile: ""
  xfrdfile: "` + dnsDir + `/xfrd.state"
  zonelistfile: "` + dnsDir + `/zone.list"
  rrl-ratelimit: 0
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
` + rowsData + `
remote-control:
  control-enable: no
` + rowsForwards

// publish writes a zone where NSD finds it, signed as it asks for, and returns
// its DS record for the parent.
func (n *nameServers) publish(z testZone) (ds string, err error) {
	file := dnsDir + "/" + strings.TrimSuffix(z.origin, ".") + ".zone"
	fmt.Fprintf(&n.config, "zone:\n  name: %s\n  zonefile: %s\n", z.origin, file)
	server := "ns." + n.top + "."
	if z.origin == "." {
		server = "ns." // in a signed zone below, Knot Resolver would not find it
	}
	text := "$ORIGIN " + dns.Fqdn(z.origin) + "\n$TTL 300\n" +
		"@ SOA " + server + " hostmaster." + n.top + ". 1 3600 600 86400 300\n@ NS " + server + "\n" + z.records
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
	switch z.signing {
	case optOut:
		argv = append(argv, "-n", "-p")
	case expired:
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
		if !strings.Contains(text, z.tamper[0]) {
			return "", fmt.Errorf("zone %s does not contain the text to tamper with", z.origin)
		}
		text = strings.ReplaceAll(text, z.tamper[0], z.tamper[1])
	}
	if err := write(file, text); err != nil {
		return "", err
	}
	record, err := os.ReadFile(ksk + ".ds")
	return string(record), err
}

// key makes a signing key, once, and returns its file name without the suffix.
func (n *nameServers) key(origin string, flags ...string) (string, error) {
	id := strings.Join(append(flags, origin), " ")
	if file, ok := n.keys[id]; ok {
		return file, nil
	}
	argv := append([]string{"/usr/bin/ldns-keygen", "-r", "/dev/urandom", "-a", "ECDSAP256SHA256"}, flags...)
	name, _, err := command(n.root, append(argv, origin)...)
	if err != nil {
		return "", err
	}
	n.keys[id] = workDir + "/" + strings.TrimSpace(name)
	return n.keys[id], nil
}

func (n *nameServers) startNSD() (err error) {
	n.nsd, err = start(n.root, 0, "/usr/sbin/nsd", "-d", "-c", dnsDir+"/nsd.conf")
	if err != nil {
		return err
	}
	return answers(n.address, ".")
}

func (n *nameServers) startUnbound() (err error) {
	n.unbound, err = start(n.root, 0, "/usr/sbin/unbound", "-d", "-p", "-c", dnsDir+"/unbound.conf")
	if err != nil {
		return err
	}
	return answers(resolverAddr, ".")
}

// republish changes the text of a zone and starts both servers
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
	return waitFor(func() error { return answersOnce(server, name) })
}

func answersOnce(server, name string) error {
	reply, err := ask(server, name, dns.TypeSOA)
	if err == nil && reply.Rcode != dns.RcodeSuccess {
		err = fmt.Errorf("DNS server %s answers %s", server, dns.RcodeToString[reply.Rcode])
	}
	return err
}

func ask(server, name string, qtype uint16) (*dns.Msg, error) {
	query := new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype)
	query.SetEdns0(1232, true)
	client := &dns.Client{Timeout: 5 * time.Second}
	reply, _, err := client.Exchange(query, net.JoinHostPort(server, "53"))
	return reply, err
}
