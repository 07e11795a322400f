package doctor

import (
	"crypto/x509"
	"io/fs"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"tlspolicyd/cmd/tlspolicyd/internal/admin"
	"tlspolicyd/cmd/tlspolicyd/internal/audit"
	"tlspolicyd/cmd/tlspolicyd/internal/resolverprobe"
	"tlspolicyd/internal/dnsclient"
	"tlspolicyd/share/valkey"
)

const (
	queueDir    = "/var/spool/postfix"
	queueSocket = queueDir + "/run/tlspolicyd/socketmap.sock"
	hostSocket  = "/run/tlspolicyd/socketmap.sock"
	ourTable    = "socketmap:unix:run/tlspolicyd/socketmap.sock:postfix-tlsrpt"
)

// answers, refuses and denies are what a good resolver makes of the questions.
func answers(name string) resolverprobe.Outcome {
	return resolverprobe.Outcome{Name: name, AD: true, Records: 1, Took: time.Millisecond}
}

func refuses(name string) resolverprobe.Outcome { return failed(name, dnsclient.ServFail) }

func denies(name string) resolverprobe.Outcome {
	return resolverprobe.Outcome{Name: name, Rcode: dns.RcodeNameError}
}

func failed(name string, kind dnsclient.Kind) resolverprobe.Outcome {
	return resolverprobe.Outcome{Name: name, Err: &dnsclient.Error{Name: name, Type: dns.TypeA, Kind: kind}}
}

// goodServer is a resolver that validates.
func goodServer(address string) ServerTest {
	return ServerTest{netip.MustParseAddrPort(address), answers("."), refuses(DefaultBroken), denies("x.com")}
}

// silentServer is one that does not answer.
func silentServer(address string) ServerTest {
	silent := failed(".", dnsclient.Timeout)
	return ServerTest{netip.MustParseAddrPort(address), silent, silent, silent}
}

// healthy is a host as README.md makes it, with Postfix 3.10 in a chroot.
func healthy() *Facts {
	local := []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")}
	store := ""
	build := admin.Build{Version: "1.0.0", Revision: "0123456789abcdef"}
	ca := authority("one")
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	return &Facts{
		Config: ConfigFile{Path: "/etc/tlspolicyd/tlspolicyd.toml", User: "tlspolicyd", Owner: "root:root", Mode: 0o644},
		Postfix: Postfix{
			Version: Version{3, 10, 5},
			Params: map[string]string{
				"mail_version": "3.10.5", "queue_directory": queueDir, "mail_owner": "postfix",
				"smtp_dns_support_level": "dnssec", "smtp_host_lookup": "dns", "smtp_tls_security_level": "dane",
				"smtp_tls_dane_insecure_mx_policy": "dane", "smtp_tls_enforce_sts_mx_patterns": "yes", "relayhost": "",
				policyMaps: ourTable, "smtp_tls_CAfile": "/etc/ssl/ca.crt", "proxy_read_maps": ourTable,
			},
			RawMaps: ourTable,
			Services: []Service{
				{Name: "smtp", Type: "inet", Program: "smtpd", Chrooted: true, Overrides: map[string]string{}},
				{Name: "smtp", Type: "unix", Program: "smtp", Chrooted: true, Overrides: map[string]string{}},
				{Name: "relay", Type: "unix", Program: "smtp", Chrooted: true, Overrides: map[string]string{}},
				{Name: "proxymap", Type: "unix", Program: "proxymap", Overrides: map[string]string{}},
			},
			User: Account{Name: "postfix", UID: 102, GIDs: []uint32{104}},
		},
		Sockets: []Probe{
			{
				Target: Target{"unix", queueSocket, queueDir}, Services: []string{"smtp", "relay"}, Own: true,
				As: "postfix", Owner: "root:root", Ours: true, Reply: "NOTFOUND", Took: time.Millisecond,
			},
			{Target: Target{"unix", hostSocket, ""}, Own: true, As: "root", Owner: "root:root", Ours: true, Reply: "NOTFOUND"},
		},
		Resolver: Resolvers{
			Ours:   local,
			Host:   ResolvConf{Path: "/etc/resolv.conf", Servers: local},
			Chroot: &ResolvConf{Path: queueDir + "/etc/resolv.conf", Servers: local},
			Tests:  []ServerTest{goodServer("127.0.0.1:53")},
		},
		Database: Database{
			Path: "/var/lib/tlspolicyd/policies.db", Size: 1 << 20, Mode: 0o600, Owner: "tlspolicyd:tlspolicyd",
			User: "tlspolicyd", DirUser: "tlspolicyd", InUse: true, Daemon: &store, Free: 1 << 34, Total: 1 << 35,
		},
		Clock: Clock{Now: time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC), Synchronized: true},
		Trust: Trust{
			Roots: roots, Chrooted: true, Best: "/etc/ssl/ca.crt",
			PostfixFile: &Bundle{Path: "/etc/ssl/ca.crt", Shown: "/etc/ssl/ca.crt", CAs: []*x509.Certificate{ca}},
		},
		Units: Units{
			Systemd: true,
			Service: Unit{Name: serviceUnit, Load: "loaded", Active: "active", Sub: "running", Enabled: "enabled", User: "tlspolicyd"},
			Socket: Unit{
				Name: socketUnit, Load: "loaded", Active: "active", Enabled: "enabled",
				Listen: []string{"unix:" + hostSocket, "unix:" + queueSocket},
			},
			Time: []Unit{{Name: "chrony.service", Load: "loaded", Active: "inactive"}},
		},
		Collector: Collector{
			Path: queueDir + "/run/tlsrpt/tlsrpt.sock", Set: true, User: "tlspolicyd", Owner: "tlsrpt:postfix", Mode: fs.ModeSocket | 0o220, Group: "postfix",
		},
		Daemon: Daemon{This: build, Socket: "/run/tlspolicyd/admin.sock", Build: &build, Store: &store},
	}
}

func (f *Facts) setMaps(raw string) {
	f.Postfix.RawMaps, f.Postfix.Params[policyMaps] = raw, raw
}

func (f *Facts) setVersion(v Version) {
	f.Postfix.Version, f.Postfix.Params["mail_version"] = v, v.String()
}

func (f *Facts) plain37() {
	f.setVersion(Version{3, 7, 11})
	f.setMaps("socketmap:unix:run/tlspolicyd/socketmap.sock:postfix")
}

func (f *Facts) param(name, value string) { f.Postfix.Params[name] = value }

// goodShare is an engine as docs/fleet.md has one.
func goodShare() Share {
	return Share{
		Engine: "rediss://valkey.example.net:6379", Prefix: "tlspolicyd", User: "tlspolicyd", DaemonUser: "tlspolicyd",
		Seen: valkey.Inspection{Server: "valkey.example.net:6379", Clock: 3 * time.Millisecond},
	}
}

// The rights that are missing are in the words of an ACL file, because docs/fleet.md
// leaves no user that could be asked for more.
func TestRightsToAdd(t *testing.T) {
	s := goodShare()
	s.Seen.Denied = []string{"HSET", "XADD"}
	got := judgeShare(Facts{Share: s})
	if len(got) != 1 || got[0].Fix != "~tlspolicyd:1:* +hset +xadd" || !strings.Contains(got[0].Advice, `line "user tlspolicyd"`) {
		t.Errorf("got %+v", got)
	}
}

// situations provoke every code: what is wrong with a host, and what is found.
// A code that the healthy host has is provoked by that, and its case takes it
// away.
func situations() []situation {
	remote := netip.MustParseAddrPort("192.0.2.53:53")
	// asked adds a socketmap to the list, and what became of asking it.
	asked := func(f *Facts, maps, address string, more Probe) {
		f.setMaps(maps)
		more.Target, more.Services = Target{"tcp", address, ""}, []string{"smtp", "relay"}
		f.Sockets = append(f.Sockets, more)
	}
	const other = "127.0.0.1:8461"
	return []situation{
		{"config-invalid", audit.Fail, "a mistake in the configuration", func(f *Facts) { f.Config.Mistake = "line 3: no such key" }},
		{"config-unreadable", audit.Fail, "a file for root alone", func(f *Facts) { f.Config.Denied = f.Config.Path }},
		{"config-unreadable", audit.Fail, "a directory for root alone", func(f *Facts) { f.Config.Denied = "/etc/tlspolicyd" }},
		{"config-inconclusive", audit.Unknown, "an ordinary user and a closed file", func(f *Facts) { f.Config.Closed = "permission denied" }},
		{"share-ok", audit.OK, "an engine with TLS", func(f *Facts) { f.Share = goodShare() }},
		{"share-file-unreadable", audit.Fail, "a key for root alone", func(f *Facts) { f.Share = goodShare(); f.Share.Denied = "/etc/tlspolicyd/fleet.key" }},
		{"share-unreachable", audit.Warn, "no answer", func(f *Facts) { f.Share = goodShare(); f.Share.Err = "connection refused" }},
		{"share-unreachable", audit.Warn, "a Unix socket of another group", func(f *Facts) {
			f.Share = goodShare()
			f.Share.Engine, f.Share.Closed, f.Share.Group = "unix:/run/valkey/valkey.sock", "/run/valkey/valkey.sock", "valkey"
		}},
		{"share-denied", audit.Warn, "a user who may only read", func(f *Facts) { f.Share = goodShare(); f.Share.Seen.Denied = []string{"HSET", "XADD"} }},
		{"share-not-writable", audit.Warn, "a replica", func(f *Facts) {
			f.Share = goodShare()
			f.Share.Seen.Failed = "READONLY You can't write against a read only replica."
		}},
		{"share-not-encrypted", audit.Warn, "another host without TLS", func(f *Facts) { f.Share = goodShare(); f.Share.Exposed = true }},
		{"share-clock-differs", audit.Warn, "an hour", func(f *Facts) { f.Share = goodShare(); f.Share.Seen.Clock = -time.Hour }},
		{"share-inconclusive", audit.Unknown, "secrets that systemd passes", func(f *Facts) {
			f.Share = goodShare()
			f.Share.Inconclusive = "systemd did not pass credentials"
		}},
		{"postfix-absent", audit.Unknown, "no Postfix here", func(f *Facts) { f.Postfix = Postfix{Absent: "no postconf"} }},
		{"postfix-unreadable", audit.Unknown, "main.cf with a mistake", func(f *Facts) { f.Postfix = Postfix{Err: "fatal: open main.cf"} }},
		{"postfix-version-old", audit.Fail, "Postfix 3.3", func(f *Facts) { f.plain37(); f.setVersion(Version{3, 3, 9}) }},
		{"postfix-other-instances", audit.OK, "two instances", func(f *Facts) { f.param("multi_instance_directories", "/etc/postfix-out") }},
		{"postfix-dnssec-off", audit.Fail, "DNSSEC is not asked for", func(f *Facts) { f.param("smtp_dns_support_level", "") }},
		{"postfix-dnssec-off", audit.Fail, "not by one service", func(f *Facts) { f.Postfix.Services[2].Overrides["smtp_dns_support_level"] = "enabled" }},
		{"postfix-dns-off", audit.Fail, "hosts by /etc/hosts", func(f *Facts) { f.param("smtp_host_lookup", "native") }},
		{"postfix-level-none", audit.Warn, "no TLS by default", func(f *Facts) { f.param("smtp_tls_security_level", "") }},
		{"postfix-level-strict", audit.Warn, "TLS for everybody", func(f *Facts) { f.param("smtp_tls_security_level", "encrypt") }},
		{"postfix-level-differs", audit.Warn, "encrypt to one host, and the configuration does not say so", func(f *Facts) {
			f.param("smtp_tls_security_level", "encrypt")
			f.Config.PostfixLevel = "may"
		}},
		{"postfix-insecure-mx-policy", audit.Warn, "Postfix 3.7 with level may", func(f *Facts) { f.param("smtp_tls_dane_insecure_mx_policy", "may") }},
		{"map-missing", audit.Fail, "no map at all", func(f *Facts) { f.setMaps("") }},
		{"map-missing", audit.Fail, "another program that answers", func(f *Facts) { asked(f, "socketmap:inet:"+other+":QUERY", other, Probe{Reply: "NOTFOUND"}) }},
		{"map-missing", audit.Fail, "no SMTP client", func(f *Facts) { f.Postfix.Services = nil }},
		{"map-malformed", audit.Fail, "the name of the map was forgotten", func(f *Facts) { f.setMaps("socketmap:unix:run/tlspolicyd/socketmap.sock") }},
		{"map-malformed", audit.Fail, "the same with a port, beside the right entry", func(f *Facts) { f.setMaps(ourTable + " socketmap:inet:127.0.0.1:8461") }},
		{"map-unreachable", audit.Fail, "a port where nothing listens", func(f *Facts) { asked(f, "socketmap:inet:"+other+":QUERY", other, Probe{Err: "connection refused"}) }},
		{"map-unreachable", audit.Fail, "the same after the right entry", func(f *Facts) {
			asked(f, ourTable+" socketmap:inet:"+other+":QUERY", other, Probe{Err: "connection refused"})
		}},
		{"map-unreachable", audit.Fail, "absolute path in a chroot", func(f *Facts) {
			f.setMaps("socketmap:unix:/var/run/tlspolicyd/socketmap.sock:postfix-tlsrpt")
			f.Sockets = append(f.Sockets, Probe{
				Target: Target{"unix", queueDir + "/var/run/tlspolicyd/socketmap.sock", queueDir}, Services: []string{"smtp", "relay"}, Missing: true,
			})
		}},
		{"map-unreachable", audit.Fail, "the daemon's other socket, from inside a chroot", func(f *Facts) {
			f.setMaps("socketmap:unix:/run/x.sock:postfix-tlsrpt")
			f.Sockets = append(
				f.Sockets,
				Probe{Target: Target{"unix", "/run/x.sock", ""}, Own: true, Ours: true},
				Probe{Target: Target{"unix", queueDir + "/run/x.sock", queueDir}, Services: []string{"smtp", "relay"}, Missing: true},
			)
		}},
		{"map-name-unknown", audit.Fail, "a misspelt map", func(f *Facts) { f.setMaps("socketmap:unix:run/tlspolicyd/socketmap.sock:postfx") }},
		{"map-tlsrpt-unsupported", audit.Fail, "postfix-tlsrpt before 3.10", func(f *Facts) { f.setVersion(Version{3, 9, 2}) }},
		{"map-tlsrpt-unused", audit.Warn, "postfix with 3.10", func(f *Facts) { f.plain37(); f.setVersion(Version{3, 10, 0}) }},
		{"map-shadowed", audit.Fail, "static: before ours", func(f *Facts) { f.setMaps("static:may " + ourTable) }},
		{"map-after-other", audit.Warn, "another program before ours", func(f *Facts) {
			asked(f, "socketmap:inet:"+other+":postfix, "+ourTable, other, Probe{Reply: "NOTFOUND"})
		}},
		{"map-before-other", audit.Warn, "another program after ours", func(f *Facts) {
			asked(f, ourTable+" socketmap:inet:"+other+":postfix", other, Probe{Reply: "NOTFOUND"})
		}},
		{"map-proxy-refused", audit.Fail, "proxy: that proxymap(8) does not know", func(f *Facts) { f.setMaps("proxy:" + ourTable) }},
		{"map-missing-in-service", audit.Warn, "relay does not ask", func(f *Facts) { f.Postfix.Services[2].Overrides[policyMaps] = "" }},
		{"postfix-sts-patterns-off", audit.Warn, "patterns are not enforced", func(f *Facts) { f.param("smtp_tls_enforce_sts_mx_patterns", "no") }},
		{"socket-missing", audit.Fail, "another queue_directory", func(f *Facts) {
			f.param("queue_directory", "/srv/postfix")
			f.Sockets[0].Missing, f.Sockets[0].Own = true, false
		}},
		{"socket-missing", audit.Fail, "the daemon was never started", func(f *Facts) { f.Sockets[0].Missing = true }},
		{"socket-not-a-socket", audit.Fail, "a file in its place", func(f *Facts) { f.Sockets[0].NoSocket = true }},
		{"socket-denied", audit.Fail, "a socket with mode 0600", func(f *Facts) { f.Sockets[0].Denied = queueSocket }},
		{"socket-denied", audit.Fail, "a directory with mode 0700", func(f *Facts) { f.Sockets[0].Denied = queueDir + "/run/tlspolicyd" }},
		{"socket-no-answer", audit.Fail, "nothing listens", func(f *Facts) { f.Sockets[0].Err = "connection refused" }},
		{"socket-other-program", audit.Fail, "another program", func(f *Facts) { f.Sockets[0].Ours = false }},
		{"socket-other-program", audit.Fail, "another protocol", func(f *Facts) { f.Sockets[0].Garbled, f.Sockets[0].Err = true, "malformed netstring" }},
		{"socket-slow", audit.Warn, "an overloaded host", func(f *Facts) { f.Sockets[0].Took = 3 * time.Second }},
		{"socket-inconclusive", audit.Unknown, "an ordinary user", func(f *Facts) { f.Sockets[1].Inconclusive = "it is closed to an ordinary user" }},

		{"tlsrpt-socket-unused", audit.Warn, "Postfix reports, the daemon does not", func(f *Facts) { f.Collector.Set = false }},
		{"tlsrpt-socket-missing", audit.Warn, "no collector", func(f *Facts) { f.Collector.Err = "connection refused" }},
		{"tlsrpt-socket-denied", audit.Warn, "not in the group", func(f *Facts) { f.Collector.Denied = f.Collector.Path }},
		{"tlsrpt-socket-denied", audit.Warn, "no group at all", func(f *Facts) { f.Collector.Denied, f.Collector.Group = f.Collector.Path, "" }},
		{"tlsrpt-socket-denied", audit.Warn, "a closed directory", func(f *Facts) { f.Collector.Denied = queueDir + "/run/tlsrpt" }},
		{"tlsrpt-socket-inconclusive", audit.Unknown, "an ordinary user", func(f *Facts) { f.Collector.Inconclusive = "its directory is closed to an ordinary user" }},

		{"network-down", audit.Unknown, "the cable is out", func(f *Facts) {
			f.Resolver.NoRoute = true
			f.Resolver.Tests[0].Signed = refuses(".")
		}},
		{"network-down", audit.Unknown, "the cable is out and its route still there", func(f *Facts) {
			f.Resolver.Tests[0] = silentServer("192.0.2.53:53")
		}},
		{"dns-isolated", audit.Unknown, "the network's resolver is cut off", func(f *Facts) {
			f.Resolver.Tests[0] = silentServer("192.0.2.53:53")
			f.Resolver.Tests[0].Signed = denies(".")
		}},
		{"resolver-no-answer", audit.Fail, "the only resolver is silent", func(f *Facts) { f.Resolver.Tests[0] = silentServer("127.0.0.1:53") }},
		{"resolver-no-answer", audit.Fail, "the resolver of this host is stopped, and there is no route", func(f *Facts) {
			f.Resolver.NoRoute = true
			f.Resolver.Tests[0] = silentServer("127.0.0.1:53")
		}},
		{"resolver-no-answer", audit.Warn, "one of two is silent", func(f *Facts) {
			second := silentServer("127.0.0.2:53")
			f.Resolver.Tests = append(f.Resolver.Tests, second)
			both := append(f.Resolver.Ours, second.Server)
			f.Resolver.Ours, f.Resolver.Host.Servers, f.Resolver.Chroot.Servers = both, both, both
		}},
		{"resolver-failed", audit.Fail, "the resolver cannot reach the root", func(f *Facts) { f.Resolver.Tests[0].Signed = refuses(".") }},
		{"resolver-failed", audit.Fail, "the resolver knows no root", func(f *Facts) { f.Resolver.Tests[0].Signed = denies(".") }},
		{"resolver-not-validating", audit.Fail, "no AD bit", func(f *Facts) { f.Resolver.Tests[0].Signed.AD = false }},
		{"resolver-accepts-bogus", audit.Fail, "a wrong signature is accepted", func(f *Facts) { f.Resolver.Tests[0].Bogus = answers(DefaultBroken) }},
		{"resolver-nxdomain-wrong", audit.Fail, "NXDOMAIN becomes SERVFAIL", func(f *Facts) { f.Resolver.Tests[0].Missing = refuses("x.com") }},
		{"resolver-nxdomain-wrong", audit.Fail, "NXDOMAIN becomes an address", func(f *Facts) { f.Resolver.Tests[0].Missing = answers("x.com") }},
		{"resolver-inconclusive", audit.Unknown, "the broken name does not exist here", func(f *Facts) { f.Resolver.Tests[0].Bogus = denies(DefaultBroken) }},
		{"resolver-forwarder", audit.Warn, "Docker's forwarder", func(f *Facts) { f.Resolver.Tests[0] = goodServer("127.0.0.11:53") }},
		{"resolver-forwarder", audit.Warn, "systemd-resolved", func(f *Facts) {
			f.Resolver.Tests[0], f.Resolver.Resolved = goodServer("127.0.0.53:53"), true
		}},
		{"resolver-untrusted", audit.Warn, "a resolver of the provider", func(f *Facts) { f.Resolver.Ours = []netip.AddrPort{remote} }},
		{"resolver-differs", audit.Warn, "dns.servers names another one", func(f *Facts) {
			f.Resolver.Listed, f.Resolver.Ours = true, []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:5353")}
		}},
		{"resolv-conf-unreadable", audit.Unknown, "a closed file", func(f *Facts) { f.Resolver.Chroot.Err = "permission denied" }},
		{"chroot-resolv-conf-stale", audit.Warn, "an old copy, with a resolver that is as good", func(f *Facts) {
			f.Resolver.Tests = append(f.Resolver.Tests, goodServer("192.0.2.53:53"))
			f.Resolver.Chroot.Servers = []netip.AddrPort{remote}
		}},
		{"chroot-resolv-conf-stale", audit.Fail, "an old copy, with a resolver that does not validate", func(f *Facts) {
			f.Resolver.Tests = append(f.Resolver.Tests, goodServer("192.0.2.53:53"))
			f.Resolver.Tests[1].Signed.AD = false
			f.Resolver.Chroot.Servers = []netip.AddrPort{remote}
		}},
		{"chroot-resolv-conf-stale", audit.Fail, "an old copy, with a resolver that is silent", func(f *Facts) {
			f.Resolver.Tests = append(f.Resolver.Tests, silentServer("192.0.2.53:53"))
			f.Resolver.Chroot.Servers = []netip.AddrPort{remote}
		}},
		{"chroot-resolv-conf-stale", audit.Warn, "no copy", func(f *Facts) {
			f.Resolver.Chroot.Absent = true
			f.Resolver.Host.Servers = []netip.AddrPort{remote}
		}},

		{"database-missing", audit.Warn, "never started", func(f *Facts) { f.Database.Absent, f.Database.Daemon = true, nil }},
		{"database-inconclusive", audit.Unknown, "an ordinary user", func(f *Facts) {
			f.Database.Inconclusive, f.Database.Daemon, f.Database.InUse = "closed", nil, false
		}},
		{"database-inconclusive", audit.Unknown, "another daemon has it", func(f *Facts) { f.Database.Daemon = nil }},
		{"database-damaged", audit.Warn, "a damaged file", func(f *Facts) { f.Database.Damaged = "page 3 is used twice" }},
		{"database-newer", audit.Fail, "a downgrade", func(f *Facts) { f.Database.Newer, f.Database.Daemon = "version 9", nil }},
		{"database-failed", audit.Fail, "the daemon cannot write", func(f *Facts) { s := "database is damaged"; f.Database.Daemon = &s }},
		{"database-owner", audit.Fail, "run once as root", func(f *Facts) { f.Database.User = "root" }},
		{"database-mode", audit.Warn, "others may read", func(f *Facts) { f.Database.Mode = 0o644 }},
		{"database-mode", audit.Fail, "mode 000", func(f *Facts) { f.Database.Mode = 0 }},
		{"database-mode", audit.Fail, "others may write", func(f *Facts) { f.Database.Mode = 0o666 }},
		{"disk-low", audit.Warn, "little room", func(f *Facts) { f.Database.Free = 10 << 20 }},
		{"disk-full", audit.Fail, "no room", func(f *Facts) { f.Database.Free = 4096 }},

		{"clock-unsynchronized", audit.Warn, "no NTP", func(f *Facts) { f.Clock.Synchronized = false }},
		{"clock-wrong", audit.Fail, "a machine without a battery", func(f *Facts) { f.Clock.Now = time.Unix(0, 0) }},
		{"clock-inconclusive", audit.Unknown, "not Linux", func(f *Facts) { f.Clock.Inconclusive = "only checked on Linux" }},

		{"trust-store-empty", audit.Fail, "no ca-certificates", func(f *Facts) { f.Trust.Roots, f.Trust.Err = nil, "there is none" }},
		{"postfix-ca-none", audit.Fail, "no smtp_tls_CAfile", func(f *Facts) { f.Trust.PostfixFile = nil }},
		{"postfix-ca-missing", audit.Fail, "a file that is gone", func(f *Facts) { f.Trust.PostfixFile = &Bundle{Path: "/x", Shown: "/x", Err: "no such file"} }},
		{"postfix-ca-missing", audit.Fail, "an empty directory", func(f *Facts) {
			f.Trust.PostfixFile, f.Trust.PostfixPath, f.Trust.Chrooted = nil, &Bundle{Path: "/x", Shown: "/x"}, false
		}},
		{"postfix-ca-chroot", audit.Fail, "a directory outside the chroot", func(f *Facts) {
			f.Trust.PostfixFile, f.Trust.PostfixPath = nil, &Bundle{Path: queueDir + "/etc/ssl/certs", Shown: "/etc/ssl/certs", Err: "no such file"}
		}},
		{"postfix-ca-differs", audit.Warn, "a file of a private authority", func(f *Facts) { f.Trust.PostfixFile.CAs = []*x509.Certificate{authority("two")} }},

		{"daemon-down", audit.Fail, "no daemon", func(f *Facts) { f.Daemon.Build, f.Daemon.Err = nil, "connection refused" }},
		{"daemon-inconclusive", audit.Unknown, "an ordinary user", func(f *Facts) { f.Daemon.Denied = true }},
		{"daemon-inconclusive", audit.Unknown, "no control socket", func(f *Facts) { f.Daemon = Daemon{} }},
		{"daemon-other-version", audit.Warn, "upgraded, not restarted", func(f *Facts) { f.Daemon.This.Version = "1.1.0" }},
		{"systemd-absent", audit.OK, "a container", func(f *Facts) { f.Units.Systemd = false }},
		{"unit-inconclusive", audit.Unknown, "no bus", func(f *Facts) { f.Units.Inconclusive = "cannot connect to the bus" }},
		{"unit-missing", audit.Warn, "installed by hand", func(f *Facts) { f.Units.Service.Load = "not-found" }},
		{"unit-inactive", audit.Fail, "the service failed", func(f *Facts) { f.Units.Service.Active = "failed" }},
		{"unit-inactive", audit.Fail, "the socket was stopped", func(f *Facts) { f.Units.Socket.Active = "inactive" }},
		{"unit-inactive", audit.Warn, "the service was stopped, the socket not", func(f *Facts) { f.Units.Service.Active = "inactive" }},
		{"unit-restarting", audit.Fail, "the service fails again and again", func(f *Facts) {
			f.Units.Service.Active, f.Units.Service.Sub = "activating", "auto-restart"
		}},
		{"unit-restarting", audit.Fail, "the same, at the moment of a start", func(f *Facts) {
			f.Units.Service.Active, f.Units.Service.Sub, f.Units.Service.Restarts = "activating", "start", "17"
		}},
		{"unit-disabled", audit.Warn, "not enabled", func(f *Facts) { f.Units.Socket.Enabled = "disabled" }},
	}
}

type situation struct {
	code  string
	grade audit.Grade
	name  string
	is    func(*Facts)
}

func codesOf(topics []audit.Topic) map[string][]audit.Grade {
	found := map[string][]audit.Grade{}
	for _, t := range topics {
		for _, f := range t.Findings {
			found[f.Code] = append(found[f.Code], f.Grade)
		}
	}
	return found
}

// Each situation has its finding, and the healthy host has it not.
func TestSituations(t *testing.T) {
	well := codesOf(Judge(*healthy()))
	for _, s := range situations() {
		t.Run(s.code+", "+s.name, func(t *testing.T) {
			if len(well[s.code]) > 0 {
				t.Errorf("the healthy host has %s", s.code)
			}
			f := healthy()
			s.is(f)
			got := codesOf(Judge(*f))
			if !slices.Contains(got[s.code], s.grade) {
				t.Errorf("got %v of %v, want %s", got[s.code], got, s.grade)
			}
		})
	}
}

// The healthy host has no finding that is not ok, nor has it with Postfix 3.7;
// and each of its codes is absent from a host that has nothing at all.
func TestHealthy(t *testing.T) {
	for name, change := range map[string]func(*Facts){
		"Postfix 3.10, chrooted": func(*Facts) {},
		"Postfix 3.7, chrooted":  (*Facts).plain37,
		"a table of exceptions first": func(f *Facts) {
			f.setMaps("texthash:/etc/postfix/tls_policy, " + ourTable)
		},
		"strict, but all goes to one host": func(f *Facts) {
			f.param("smtp_tls_security_level", "encrypt")
			f.param("relayhost", "[relay.example.net]")
		},
		"not chrooted, absolute path": func(f *Facts) {
			for i := range f.Postfix.Services {
				f.Postfix.Services[i].Chrooted = false
			}
			f.setMaps("socketmap:unix:" + hostSocket + ":postfix-tlsrpt")
			f.Sockets[1].Services = []string{"smtp", "relay"}
			f.Resolver.Chroot = nil
		},
		"through proxymap(8)": func(f *Facts) {
			f.setMaps("proxy:socketmap:unix:" + hostSocket + ":postfix-tlsrpt")
			f.param("proxy_read_maps", "$x "+f.Postfix.RawMaps)
		},
		"the service is being started": func(f *Facts) {
			f.Units.Service.Active, f.Units.Service.Sub, f.Units.Service.Restarts = "activating", "start", "0"
		},
		"Unbound at the address of systemd-resolved": func(f *Facts) { f.Resolver.Tests[0] = goodServer("127.0.0.53:53") },
		"lines in place of a file":                   func(f *Facts) { f.setMaps("pcre:{{/x/ may}}, " + ourTable) },
		"another map asks no more":                   func(f *Facts) { f.setMaps("cidr:/x " + ourTable) },
	} {
		t.Run(name, func(t *testing.T) {
			f := healthy()
			change(f)
			for _, topic := range Judge(*f) {
				for _, one := range topic.Findings {
					if one.Grade != audit.OK {
						t.Errorf("%s: %+v", topic.Name, one)
					}
				}
			}
		})
	}
	empty := codesOf(Judge(Facts{
		Config: ConfigFile{Mistake: "x"}, Postfix: Postfix{Absent: "no postconf"}, Clock: Clock{Inconclusive: "x"},
		Database: Database{Absent: true}, Trust: Trust{Err: "x"},
	}))
	for code := range codesOf(Judge(*healthy())) {
		if code != "systemd-absent" && len(empty[code]) > 0 {
			t.Errorf("%s is found where nothing is", code)
		}
	}
}

// grades are those that situations and the healthy host show of each code.
func grades() map[string][]audit.Grade {
	all := map[string][]audit.Grade{}
	note := func(code string, g audit.Grade) {
		if !slices.Contains(all[code], g) {
			all[code] = append(all[code], g)
		}
	}
	for code, list := range codesOf(Judge(*healthy())) {
		for _, g := range list {
			note(code, g)
		}
	}
	for _, s := range situations() {
		note(s.code, s.grade)
	}
	return all
}

// Situations give each registered code its grades, and no finding has a code
// that is not registered.
func TestEveryCodeIsProvoked(t *testing.T) {
	registered, provoked := map[string]bool{}, grades()
	for _, c := range audit.Codes() {
		if c.Doctor == "" {
			continue
		}
		registered[c.Name] = true
		var got []string
		for _, g := range provoked[c.Name] {
			got = append(got, g.String())
		}
		want := strings.Split(c.Doctor, ", ")
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s is registered with %q, but the situations give it %q", c.Name, want, got)
		}
	}
	for _, s := range situations() {
		f := healthy()
		s.is(f)
		for code := range codesOf(Judge(*f)) {
			if !registered[code] {
				t.Errorf("%s: the code %q is not registered", s.name, code)
			}
		}
	}
}

// A finding that is not ok says what to do, in whole sentences and on one line.
func TestFindingsHelp(t *testing.T) {
	for _, s := range situations() {
		f := healthy()
		s.is(f)
		for _, topic := range Judge(*f) {
			for _, one := range topic.Findings {
				if one.Text == "" || one.Text[len(one.Text)-1] != '.' {
					t.Errorf("%s: text %q", one.Code, one.Text)
				}
				if one.Grade != audit.OK && one.Advice == "" {
					t.Errorf("%s: no advice", one.Code)
				}
				for _, text := range []string{one.Subject, one.Text, one.Evidence, one.Advice, one.Fix} {
					if printableLong(text) != text {
						t.Errorf("%s: %q is not one printable line", one.Code, text)
					}
				}
			}
		}
	}
}

func printableLong(s string) string {
	out := []byte(s)
	for i, c := range out {
		if c < ' ' || c > '~' {
			out[i] = '?'
		}
	}
	return string(out)
}
