//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"tlspolicyd/socketmap"
)

// The field: the daemon behind every resolver of Debian, each as its package
// configures it. What is added to a package's configuration is the root of the
// test, the setting that is tested, and for a forwarder its upstream.

const (
	// Resolvers treat "test" and documentation addresses in ways of their own.
	// Nothing leaves the network namespace, so any others do.
	fieldTop    = "field"
	fieldServer = "9.0.0.10" // NSD
	upstream    = "127.0.0.20"
	nat64Prefix = "64:ff9b::"
)

// resolver is one as a Debian package installs it.
type resolver struct {
	name    string
	program string
	address string
	forward bool     // asks the Unbound of the same release, which validates
	dirs    []string // that its service unit makes
	start   []string // as the unit does
	add     func(root string, s setting) error
}

// setting is how a resolver is configured.
type setting struct {
	dnssec string // "yes", "no", or another word for what the forwarder does
	dns64  string // "", "yes", or "break-dnssec" of BIND
}

func (s setting) String() string {
	text := "DNSSEC " + s.dnssec
	if s.dns64 != "" {
		text += ", DNS64 " + s.dns64
	}
	return text
}

// appendTo adds text to a file of a release's folder.
func appendTo(path, text string) error {
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return write(path, string(old)+text)
}

func resolvers() []resolver {
	return []resolver{
		{
			name: "unbound", program: "/usr/sbin/unbound", address: "127.0.0.1",
			start: []string{"/usr/sbin/unbound", "-d", "-p"},
			add:   addUnbound,
		},
		{
			name: "bind9", program: "/usr/sbin/named", address: "127.0.0.1", dirs: []string{"/run/named"},
			start: []string{"/usr/sbin/named", "-g"},
			add: func(root string, s setting) error {
				conf := root + "/etc/bind/named.conf.options"
				text, err := os.ReadFile(conf)
				if err != nil {
					return err
				}
				extra := "dnssec-validation " + s.dnssec + ";\n"
				if s.dns64 != "" {
					extra += "dns64 " + nat64Prefix + "/96 { clients { any; };"
					if s.dns64 == "break-dnssec" {
						extra += " break-dnssec yes;"
					}
					extra += " };\n"
				}
				edited := strings.Replace(strings.Replace(string(text), "dnssec-validation auto;", "", 1), "\n};", "\n"+extra+"};", 1)
				anchor, err := staticAnchor()
				if s.dnssec == "no" {
					anchor = ""
				}
				return errors.Join(err, write(conf, edited+anchor))
			},
		},
		{
			name: "knot-resolver", program: "/usr/sbin/kresd", address: "127.0.0.1",
			dirs: []string{"/run/knot-resolver/control"},
			start: []string{
				"/bin/sh", "-c", "cd /var/lib/knot-resolver && exec /usr/sbin/kresd " +
					"-c /usr/lib/*/knot-resolver/distro-preconfig.lua -c /etc/knot-resolver/kresd.conf -n",
			},
			add: func(root string, s setting) error {
				extra := "\nlog_target('stderr')\nhints.root_file('/usr/share/dns/root.hints')\n"
				if s.dnssec == "no" {
					extra += "trust_anchors.remove('.')\n"
				}
				if s.dns64 != "" {
					extra += "modules.load('dns64')\ndns64.config('" + nat64Prefix + "')\n"
				}
				return appendTo(root+"/etc/knot-resolver/kresd.conf", extra)
			},
		},
		{
			name: "pdns-recursor", program: "/usr/sbin/pdns_recursor", address: "127.0.0.1",
			dirs:  []string{"/run/pdns-recursor"},
			start: []string{"/usr/sbin/pdns_recursor", "--daemon=no", "--write-pid=no", "--disable-syslog", "--log-timestamp=no"},
			add:   addRecursor,
		},
		{
			name: "dnsmasq", program: "/usr/sbin/dnsmasq", address: "127.0.0.1", forward: true,
			start: []string{"/usr/sbin/dnsmasq", "-k", "-u", "root"},
			add: func(root string, s setting) error {
				extra := "\nno-resolv\nserver=" + upstream + "\nlisten-address=127.0.0.1\nbind-interfaces\nlog-facility=-\n"
				switch s.dnssec {
				case "yes":
					ds, err := anchorDS()
					if err != nil {
						return err
					}
					extra += "dnssec\ntrust-anchor=.," + strings.Join(ds, ",") + "\n"
				case "proxy-dnssec":
					extra += "proxy-dnssec\n"
				}
				return appendTo(root+"/etc/dnsmasq.conf", extra)
			},
		},
		{
			name: "systemd-resolved", program: "/usr/lib/systemd/systemd-resolved", address: "127.0.0.53", forward: true,
			dirs:  []string{"/run/systemd/resolve"},
			start: []string{"/bin/sh", "-c", "chown systemd-resolve: /run/systemd/resolve; exec /usr/lib/systemd/systemd-resolved"},
			add: func(root string, s setting) error {
				anchor, err := os.ReadFile(dnsDir + "/anchor")
				return errors.Join(
					err,
					write(root+"/etc/systemd/resolved.conf.d/field.conf", "[Resolve]\nDNS="+upstream+"\nDNSSEC="+s.dnssec+"\n"),
					write(root+"/etc/dnssec-trust-anchors.d/root.positive", rootDS(string(anchor))),
				)
			},
		},
	}
}

func addUnbound(root string, s setting) error {
	extra := "server:\n  root-hints: \"/usr/share/dns/root.hints\"\n"
	if s.dns64 != "" {
		extra += "  module-config: \"dns64 validator iterator\"\n  dns64-prefix: " + nat64Prefix + "/96\n"
	}
	dir := root + "/etc/unbound/unbound.conf.d/"
	anchor, err := os.ReadFile(dnsDir + "/anchor")
	err = errors.Join(err, write(dir+"field.conf", extra), write(root+"/var/lib/unbound/root.key", string(anchor)),
		os.Chmod(root+"/var/lib/unbound", 0o777))
	if s.dnssec == "no" {
		err = errors.Join(err, os.Remove(dir+"root-auto-trust-anchor-file.conf"))
	}
	return err
}

// addRecursor writes settings in the form of Debian 12 or, where the package
// uses YAML, in that of Debian 13.
func addRecursor(root string, s setting) error {
	text, err := os.ReadFile(root + "/etc/powerdns/recursor.conf")
	if err != nil {
		return err
	}
	validation := map[string]string{"yes": "process", "no": "off"}[s.dnssec]
	dir := root + "/etc/powerdns/recursor.d/"
	if strings.Contains(string(text), "include_dir:") {
		extra := "dnssec:\n  validation: " + validation + "\n"
		if s.dns64 != "" {
			extra += "recursor:\n  dns64_prefix: " + nat64Prefix + "/96\n"
		}
		return write(dir+"field.yml", extra)
	}
	extra := "dnssec=" + validation + "\n"
	if s.dns64 != "" {
		extra += "dns64-prefix=" + nat64Prefix + "/96\n"
	}
	return write(dir+"field.conf", extra)
}

// rootDS is the trust anchor without its TTL, which is a DS record.
func rootDS(anchor string) string {
	_, ds, _ := strings.Cut(strings.TrimSpace(anchor), "DS")
	return ". IN DS " + strings.Join(strings.Fields(ds)[:3], " ") + " " + strings.Join(strings.Fields(ds)[3:], "") + "\n"
}

// anchorDS are the fields of the trust anchor.
func anchorDS() ([]string, error) {
	anchor, err := os.ReadFile(dnsDir + "/anchor")
	return strings.Fields(rootDS(string(anchor)))[3:], err
}

func staticAnchor() (string, error) {
	ds, err := anchorDS()
	return fmt.Sprintf("trust-anchors { . static-ds %s %s %s \"%s\"; };\n", ds[0], ds[1], ds[2], ds[3]), err
}

// mountCopy mounts a release's folder so that what is written to it is gone
// with the test.
func mountCopy(folder, name string) (root string, err error) {
	root = "/run/field/" + name
	upper, work := root+".upper", root+".work"
	for _, dir := range []string{root, upper, work} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return "", err
		}
	}
	if err := unix.Mount("overlay", root, "overlay", 0, "lowerdir="+folder+",upperdir="+upper+",workdir="+work); err != nil {
		return "", fmt.Errorf("mount a copy of %s: %w", folder, err)
	}
	for _, dir := range []string{"/dev", "/proc"} {
		if err := unix.Mount(dir, root+dir, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return "", err
		}
	}
	hints, err1 := os.ReadFile(dnsDir + "/hints")
	anchor, err2 := os.ReadFile(dnsDir + "/anchor")
	key, err3 := os.ReadFile(dnsDir + "/key")
	return root, errors.Join(
		err1, err2, err3,
		write(root+"/usr/share/dns/root.hints", string(hints)),
		write(root+"/usr/share/dns/root.key", string(key)),
		write(root+"/usr/share/dns/root.ds", rootDS(string(anchor))),
		os.MkdirAll(root+"/run", 0o755),
	)
}

func (r resolver) version(root string) string {
	stdout, _, err := commandIn(root, "/usr/bin/dpkg-query", "-W", "-f", "${Version}", r.name)
	if err != nil {
		return err.Error()
	}
	return stdout
}

// commandIn runs a program of a folder that does not have the test's /run.
func commandIn(root string, argv ...string) (stdout, stderr string, err error) {
	return command("", append([]string{"/usr/sbin/chroot", root}, argv...)...)
}

// run starts the resolver until the end of the test.
func (r resolver) run(t *testing.T, folder, name string, s setting) (root string) {
	t.Helper()
	root, err := mountCopy(folder, name)
	if err != nil {
		t.Fatal(err)
	}
	if r.forward {
		below := setting{dnssec: "yes"}
		if err := errors.Join(addUnbound(root, below),
			appendTo(root+"/etc/unbound/unbound.conf.d/field.conf", "  interface: "+upstream+"\n")); err != nil {
			t.Fatal(err)
		}
		startUntilEnd(t, root, "/usr/sbin/unbound", "-d", "-p")
		mustWait(t, func() error { return answers(upstream, ".") })
	}
	if err := r.add(root, s); err != nil {
		t.Fatal(err)
	}
	for _, dir := range r.dirs {
		if err := os.MkdirAll(root+dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	startUntilEnd(t, root, r.start...)
	if err := waitUpTo(20*time.Second, func() error { return answersOnce(r.address, ".") }); err != nil {
		t.Fatal(err)
	}
	return root
}

func startUntilEnd(t *testing.T, root string, argv ...string) {
	t.Helper()
	proc, err := start(root, 0, argv...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := proc.stop(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
	})
}

// settings that a resolver is tried with.
func (r resolver) settings() []setting {
	all := []setting{{dnssec: "yes"}, {dnssec: "no"}}
	switch r.name {
	case "dnsmasq":
		return append(all, setting{dnssec: "proxy-dnssec"})
	case "systemd-resolved":
		return append(all, setting{dnssec: "allow-downgrade"})
	case "bind9":
		return append(all, setting{"yes", "yes"}, setting{"yes", "break-dnssec"})
	}
	return append(all, setting{"yes", "yes"})
}

// placed is a resolver in the folder of a release.
type placed struct {
	suite, folder string
	resolver      resolver
}

// TestField asks the daemon for every row behind every resolver.
func TestField(t *testing.T) {
	var all []placed
	for _, suite := range []string{"bookworm", "trixie"} {
		for _, r := range resolvers() {
			all = append(all, placed{suite, "field-" + suite, r})
		}
	}
	results := testField(t, all)
	if path := os.Getenv(tableEnv); path != "" && !t.Failed() {
		if err := writeSection(path, "## Resolvers", fieldReport(results)); err != nil {
			t.Error(err)
		}
	}
}

// TestFieldShort does so behind those that "make e2e" has in its folders.
func TestFieldShort(t *testing.T) {
	var some []placed
	for _, r := range resolvers() {
		switch r.name {
		case "unbound":
			some = append(some, placed{"bookworm", "bookworm", r})
		case "bind9":
			some = append(some, placed{"trixie", "trixie", r})
		}
	}
	testField(t, some)
}

func testField(t *testing.T, all []placed) (results []fieldResult) {
	t.Cleanup(func() {
		if t.Failed() {
			dumpLogs()
		}
	})
	w, err := newField()
	if err != nil {
		t.Fatalf("cannot build the test's internet: %v", err)
	}
	for _, p := range all {
		r := p.resolver
		for _, s := range r.settings() {
			name := fmt.Sprintf("%s-%s-%s%s", p.suite, r.name, s.dnssec, s.dns64)
			t.Run(name, func(t *testing.T) {
				root := r.run(t, filepath.Join(os.Getenv("TLSPOLICYD_E2E_CACHE"), p.folder), name, s)
				results = append(results, fieldResult{
					release: p.suite, resolver: r.name, version: r.version(root), setting: s,
					differ: w.compare(t, r, s),
				})
			})
		}
	}
	return results
}

// field is what the daemon looks at through a resolver.
type field struct {
	binary string
	web    *policyHosts
}

func newField() (*field, error) {
	cache, built := os.Getenv("TLSPOLICYD_E2E_CACHE"), os.Getenv("TLSPOLICYD_E2E_DAEMON")
	if err := errors.Join(makePrivate(), os.MkdirAll(logDir, 0o755), addAddress("lo:field", fieldServer), addLink()); err != nil {
		return nil, err
	}
	resolvConf := workDir + "/resolv.conf"
	if err := write(resolvConf, ""); err != nil {
		return nil, err
	}
	root, err := mountRoot(filepath.Join(cache, "bookworm"), resolvConf)
	if err != nil {
		return nil, err
	}
	ca, err := newAuthority()
	if err != nil {
		return nil, err
	}
	if err := write(workDir+"/ca.pem", ca.pem); err != nil {
		return nil, err
	}
	names, err := startNSD(root, fieldTop, fieldServer, fieldZones())
	if err != nil {
		return nil, err
	}
	key, err := os.ReadFile(names.keys["-k ."] + ".key")
	if err != nil {
		return nil, err
	}
	if err := write(dnsDir+"/key", string(key)); err != nil {
		return nil, err
	}
	var files []policy
	for _, c := range fieldCases() {
		if c.policy != nil {
			files = append(files, enforced(c.key, c.policy...))
		}
	}
	w := &field{}
	if w.web, err = newPolicyHosts(root, ca, files); err != nil {
		return nil, err
	}
	d, err := newDaemon(built, nil)
	if err != nil {
		return nil, err
	}
	w.binary = d.binary
	return w, w.web.start()
}

// addLink gives the namespace an interface that is up: without one beside
// loopback systemd-resolved asks nothing.
func addLink() error {
	const name = "field0"
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0) // open until the test ends
	if err != nil {
		return err
	}
	link, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	link.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, link); err != nil {
		return fmt.Errorf("add an interface: %w", err)
	}
	if err := addAddress(name, "9.0.1.1"); err != nil {
		return err
	}
	link.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	return unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, link)
}

// compare starts a daemon behind the resolver, with nothing in its cache, and
// returns the answers that differ from those of a resolver that validates, or
// that does not, as the setting says.
func (w *field) compare(t *testing.T, r resolver, s setting) (differ []string) {
	t.Helper()
	config := variant(t, "field", `servers = ["`+resolverAddr+`"]`, `servers = ["`+r.address+`"]`)
	if err := os.RemoveAll(daemonDir + "/policies.db"); err != nil {
		t.Fatal(err)
	}
	proc, err := start("", nobody, w.binary, "serve", "--config", config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := proc.stop(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
	})
	socket := daemonDir + "/socketmap.sock"
	mustWait(t, func() error {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			conn.Close()
		}
		return err
	})
	// Addresses that DNS64 makes up. Unbound and BIND say that those are secure.
	madeUp := false
	mustWait(t, func() error {
		reply, err := ask(r.address, "mx1.full.signed.field", dns.TypeAAAA)
		if err == nil {
			madeUp = len(addressesOf(reply)) > 0 && !reply.AuthenticatedData
		}
		return err
	})
	exceptions := fieldExceptions(r.name, s)
	type answer struct{ got, full string }
	got := make([]chan answer, len(fieldCases()))
	for i, c := range fieldCases() {
		got[i] = make(chan answer, 1)
		go func() {
			client, err := socketmap.NewClient("unix:" + socket)
			if err != nil {
				got[i] <- answer{got: err.Error()}
				return
			}
			defer client.Close()
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			reply, err := client.Lookup(ctx, "postfix", c.key)
			if err != nil {
				got[i] <- answer{got: err.Error()}
				return
			}
			got[i] <- answer{shortAnswer(reply), reply.String()}
		}()
	}
	for i, c := range fieldCases() {
		a := <-got[i]
		usual := c.want(s, madeUp)
		if a.got == usual {
			continue
		}
		differ = append(differ, fmt.Sprintf("%s: %s instead of %s", c.name, a.got, usual))
		if want, ok := exceptions.answers[c.name]; !ok || want != a.got {
			t.Errorf("%s (%s): got %s, want %s; the reply was %q", c.name, c.key, a.got, usual, a.full)
		}
	}
	return differ
}

// addressesOf are the addresses of a reply.
func addressesOf(reply *dns.Msg) (addresses []dns.RR) {
	for _, rr := range reply.Answer {
		if _, ok := rr.(*dns.AAAA); ok {
			addresses = append(addresses, rr)
		}
	}
	return addresses
}

// shortAnswer is a reply as the table has it: mail hosts by their first label.
func shortAnswer(r socketmap.Reply) string {
	if r.Status != socketmap.OK {
		return string(r.Status)
	}
	level, rest, _ := strings.Cut(r.Value, " match=")
	if level != "secure" {
		return r.Value
	}
	list, _, _ := strings.Cut(rest, " ")
	var hosts []string
	for _, host := range strings.Split(list, ":") {
		label, _, _ := strings.Cut(host, ".")
		hosts = append(hosts, label)
	}
	return "secure " + strings.Join(hosts, ":")
}
