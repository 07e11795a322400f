package doctor

import (
	"go/ast"
	"go/parser"
	"go/token"
	"net/netip"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/miekg/dns"

	"tlspolicyd/cmd/tlspolicyd/internal/admin"
	"tlspolicyd/cmd/tlspolicyd/internal/audit"
	"tlspolicyd/internal/dnsclient"
)

const (
	queueDir    = "/var/spool/postfix"
	queueSocket = queueDir + "/run/tlspolicyd/socketmap.sock"
	hostSocket  = "/run/tlspolicyd/socketmap.sock"
	ourTable    = "socketmap:unix:run/tlspolicyd/socketmap.sock:postfix-tlsrpt"
)

// healthy is a host as README.md makes it, with Postfix 3.10 in a chroot.
func healthy() *Facts {
	local := []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")}
	answers := Outcome{Rcode: dns.RcodeSuccess, AD: true, Took: time.Millisecond}
	refuses := Outcome{Kind: dnsclient.ServFail, Err: "A lookup of dnssec-failed.org: SERVFAIL"}
	content := ""
	build := admin.Build{Version: "1.0.0", Revision: "0123456789abcdef"}
	cas := []fingerprint{{1}, {2}, {3}, {4}}
	f := &Facts{
		Postfix: Postfix{
			Version: Version{3, 10, 5},
			Params: map[string]string{
				"mail_version": "3.10.5", "queue_directory": queueDir, "mail_owner": "postfix",
				"smtp_dns_support_level": "dnssec", "smtp_host_lookup": "dns", "smtp_tls_security_level": "dane",
				"smtp_tls_dane_insecure_mx_policy": "dane", "smtp_tls_enforce_sts_mx_patterns": "yes",
				"smtp_tlsrpt_enable": "no", "smtp_tlsrpt_socket_name": "", "relayhost": "",
				policyMaps: ourTable, "smtp_tls_CAfile": "/etc/ssl/ca.crt",
				"proxy_read_maps": ourTable,
			},
			RawMaps: ourTable, RawProxy: "$smtp_tls_policy_maps",
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
			Signed: ".", Broken: DefaultBroken, Ours: local,
			Host: ResolvConf{Path: "/etc/resolv.conf", Servers: local}, Glibc: true,
			Chroot: &ResolvConf{Path: queueDir + "/etc/resolv.conf", Servers: local},
			Tests:  []ServerTest{{local[0], answers, refuses}},
		},
		Database: Database{
			Path: "/var/lib/tlspolicyd/policies.db", Size: 1 << 20, Mode: 0o600, Owner: "tlspolicyd:tlspolicyd",
			User: "tlspolicyd", DirUser: "tlspolicyd", InUse: true, Daemon: &content, Free: 1 << 34, Total: 1 << 35,
		},
		Clock: Clock{Now: time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC), Synchronised: true},
		Trust: Trust{
			Ours: Bundle{Path: "/etc/ssl/ca.crt", Shown: "/etc/ssl/ca.crt", CAs: cas}, Chrooted: true,
			CAFile: &Bundle{Path: "/etc/ssl/ca.crt", Shown: "/etc/ssl/ca.crt", CAs: cas},
		},
		Units: Units{
			Systemd: true, Build: build,
			Service: Unit{Name: serviceUnit, Load: "loaded", Active: "active", Enabled: "enabled"},
			Socket:  Unit{Name: socketUnit, Load: "loaded", Active: "active", Enabled: "enabled"},
			Daemon:  Daemon{Socket: "/run/tlspolicyd/admin.sock", Build: &build, Store: &content},
		},
	}
	return f
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

// situations provoke every code: what is wrong with a host, and what is found.
// A code that the healthy host has is provoked by that, and its case takes it
// away.
func situations() []situation {
	remote := netip.MustParseAddrPort("192.0.2.53:53")
	failing := Outcome{Kind: dnsclient.Timeout, Err: "no answer"}
	return []situation{
		{PostfixAbsent, audit.Unknown, "no Postfix here", func(f *Facts) { f.Postfix = Postfix{Absent: "no postconf"} }},
		{PostfixUnread, audit.Unknown, "main.cf with a mistake", func(f *Facts) { f.Postfix = Postfix{Err: "fatal: open main.cf"} }},
		{PostfixTooOld, audit.Fail, "Postfix 3.3", func(f *Facts) { f.plain37(); f.setVersion(Version{3, 3, 9}) }},
		{PostfixInstances, audit.OK, "two instances", func(f *Facts) { f.param("multi_instance_directories", "/etc/postfix-out") }},
		{DNSSECOff, audit.Fail, "DNSSEC is not asked for", func(f *Facts) { f.param("smtp_dns_support_level", "") }},
		{DNSSECOff, audit.Fail, "not by one service", func(f *Facts) { f.Postfix.Services[2].Overrides["smtp_dns_support_level"] = "enabled" }},
		{HostLookupWithoutDNS, audit.Fail, "hosts by /etc/hosts", func(f *Facts) { f.param("smtp_host_lookup", "native") }},
		{TLSLevelNone, audit.Warn, "no TLS by default", func(f *Facts) { f.param("smtp_tls_security_level", "") }},
		{TLSLevelStrict, audit.Warn, "TLS for everybody", func(f *Facts) { f.param("smtp_tls_security_level", "encrypt") }},
		{InsecureMXPolicy, audit.Warn, "Postfix 3.7 with level may", func(f *Facts) { f.param("smtp_tls_dane_insecure_mx_policy", "may") }},
		{MapAbsent, audit.Fail, "no map at all", func(f *Facts) { f.setMaps("") }},
		{MapAbsent, audit.Fail, "a map of another program", func(f *Facts) { f.setMaps("socketmap:inet:127.0.0.1:8642:QUERY") }},
		{MapAbsent, audit.Fail, "no SMTP client", func(f *Facts) { f.Postfix.Services = nil }},
		{MapNameUnknown, audit.Fail, "a misspelt map", func(f *Facts) { f.setMaps("socketmap:unix:run/tlspolicyd/socketmap.sock:postfx") }},
		{MapTLSRPTTooNew, audit.Fail, "postfix-tlsrpt before 3.10", func(f *Facts) { f.setVersion(Version{3, 9, 2}) }},
		{MapTLSRPTMissing, audit.Warn, "postfix with 3.10", func(f *Facts) { f.plain37(); f.setVersion(Version{3, 10, 0}) }},
		{MapUnreachable, audit.Fail, "the daemon listens elsewhere", func(f *Facts) { f.Sockets[0].Missing, f.Sockets[0].Own = true, false }},
		{MapUnreachable, audit.Fail, "absolute path in a chroot", func(f *Facts) {
			f.setMaps("socketmap:unix:/var/run/tlspolicyd/socketmap.sock:postfix-tlsrpt")
			f.Sockets = append(f.Sockets, Probe{
				Target: Target{"unix", queueDir + "/var/run/tlspolicyd/socketmap.sock", queueDir}, Services: []string{"smtp", "relay"}, Missing: true,
			})
		}},
		{MapUnreachable, audit.Fail, "the daemon's other socket, from inside a chroot", func(f *Facts) {
			f.setMaps("socketmap:unix:/run/x.sock:postfix-tlsrpt")
			f.Sockets = append(
				f.Sockets,
				Probe{Target: Target{"unix", "/run/x.sock", ""}, Own: true, Ours: true},
				Probe{Target: Target{"unix", queueDir + "/run/x.sock", queueDir}, Services: []string{"smtp", "relay"}, Missing: true},
			)
		}},
		{MapShadowed, audit.Fail, "static: before ours", func(f *Facts) { f.setMaps("static:may " + ourTable) }},
		{MapBehindOther, audit.Warn, "another program before ours", func(f *Facts) { f.setMaps("socketmap:inet:127.0.0.1:8461:postfix, " + ourTable) }},
		{MapBeforeOther, audit.Warn, "another program behind ours", func(f *Facts) { f.setMaps(ourTable + " socketmap:inet:127.0.0.1:8461:postfix") }},
		{MapProxyRefused, audit.Fail, "proxy: that proxymap(8) does not know", func(f *Facts) { f.setMaps("proxy:" + ourTable) }},
		{MapNested, audit.Warn, "in a unionmap", func(f *Facts) { f.setMaps("unionmap:{texthash:/x, " + ourTable + "}") }},
		{MapNested, audit.Warn, "in a pipemap", func(f *Facts) { f.setMaps("pipemap:{" + ourTable + ",pcre:/x}") }},
		{MapNameUnknown, audit.Fail, "a misspelt map in a pipemap", func(f *Facts) {
			f.setMaps("pipemap:{inline:{x=y}, socketmap:unix:run/tlspolicyd/socketmap.sock:postfx}")
		}},
		{MapBehindOther, audit.Warn, "another program in a unionmap before ours", func(f *Facts) {
			f.setMaps("unionmap:{texthash:/x, ldap:/y} " + ourTable)
		}},
		{MapShadowed, audit.Fail, "static: in a unionmap before ours", func(f *Facts) { f.setMaps("unionmap:{texthash:/x static:may} " + ourTable) }},
		{MapProxyRefused, audit.Fail, "proxy: in a unionmap", func(f *Facts) { f.setMaps("unionmap:{proxy:" + ourTable + "}") }},
		{MapFileMissing, audit.Fail, "a table that was never written", func(f *Facts) {
			f.setMaps("texthash:/etc/postfix/tls_policy, " + ourTable)
			f.Postfix.Missing = []string{"/etc/postfix/tls_policy"}
		}},
		{MapFileMissing, audit.Fail, "a table that postmap(1) was not run for", func(f *Facts) {
			f.setMaps("unionmap:{inline:{x=may}, hash:tls_policy}, " + ourTable)
			f.Postfix.Missing = []string{queueDir + "/tls_policy.db"}
		}},
		{ServiceWithoutMap, audit.Warn, "relay asks nobody", func(f *Facts) { f.Postfix.Services[2].Overrides[policyMaps] = "" }},
		{STSPatternsOff, audit.Warn, "patterns are not enforced", func(f *Facts) { f.param("smtp_tls_enforce_sts_mx_patterns", "no") }},
		{TLSRPTOn, audit.OK, "TLSRPT with a socket", func(f *Facts) {
			f.param("smtp_tlsrpt_enable", "yes")
			f.param("smtp_tlsrpt_socket_name", "run/tlsrpt.sock")
		}},
		{TLSRPTNoSocket, audit.Warn, "TLSRPT without the name of a socket", func(f *Facts) { f.param("smtp_tlsrpt_enable", "yes") }},
		{TLSRPTNoSocket, audit.Warn, "TLSRPT without a collector", func(f *Facts) {
			f.param("smtp_tlsrpt_enable", "yes")
			f.param("smtp_tlsrpt_socket_name", "run/tlsrpt.sock")
			f.Postfix.TLSRPTSocket = "no such file or directory"
		}},

		{SocketMissing, audit.Fail, "the daemon was never started", func(f *Facts) { f.Sockets[0].Missing = true }},
		{SocketNoSocket, audit.Fail, "a file in its place", func(f *Facts) { f.Sockets[0].NoSocket = true }},
		{SocketDenied, audit.Fail, "a socket with mode 0600", func(f *Facts) { f.Sockets[0].Denied = queueSocket }},
		{SocketDenied, audit.Fail, "a directory with mode 0700", func(f *Facts) { f.Sockets[0].Denied = queueDir + "/run/tlspolicyd" }},
		{SocketSilent, audit.Fail, "nobody listens", func(f *Facts) { f.Sockets[0].Err = "connection refused" }},
		{SocketForeign, audit.Fail, "another program", func(f *Facts) { f.Sockets[0].Ours = false }},
		{SocketForeign, audit.Fail, "another protocol", func(f *Facts) { f.Sockets[0].Garbled, f.Sockets[0].Err = true, "malformed netstring" }},
		{SocketSlow, audit.Warn, "an overloaded host", func(f *Facts) { f.Sockets[0].Took = 3 * time.Second }},
		{SocketUntold, audit.Unknown, "an ordinary user", func(f *Facts) { f.Sockets[1].Untold = "it is closed to an ordinary user" }},

		{NetworkDown, audit.Unknown, "the cable is out", func(f *Facts) {
			f.Resolver.NoRoute = true
			f.Resolver.Tests[0].Signed = Outcome{Kind: dnsclient.ServFail, Err: "SERVFAIL"}
		}},
		{NetworkDown, audit.Unknown, "the cable is out and its route still there", func(f *Facts) {
			f.Resolver.Tests[0] = ServerTest{netip.MustParseAddrPort("192.0.2.53:53"), failing, failing}
		}},
		{NetworkDown, audit.Unknown, "the network's resolver is cut off", func(f *Facts) {
			f.Resolver.Signed = "."
			f.Resolver.Tests[0] = ServerTest{netip.MustParseAddrPort("192.0.2.53:53"), Outcome{Rcode: dns.RcodeNameError}, failing}
		}},
		{ResolverSilent, audit.Fail, "the only resolver is silent", func(f *Facts) { f.Resolver.Tests[0].Signed = failing }},
		{ResolverSilent, audit.Warn, "one of two is silent", func(f *Facts) {
			second := netip.MustParseAddrPort("127.0.0.2:53")
			f.Resolver.Tests = append(f.Resolver.Tests, ServerTest{second, failing, failing})
			both := append(f.Resolver.Ours, second)
			f.Resolver.Ours, f.Resolver.Host.Servers, f.Resolver.Chroot.Servers = both, both, both
		}},
		{ResolverSilent, audit.Fail, "the only one that Postfix asks is silent", func(f *Facts) {
			second := netip.MustParseAddrPort("127.0.0.2:53")
			f.Resolver.Tests = append(f.Resolver.Tests, ServerTest{second, failing, failing})
			f.Resolver.Chroot.Servers = []netip.AddrPort{second}
		}},
		{ResolverFails, audit.Fail, "the resolver cannot reach the root", func(f *Facts) {
			f.Resolver.Tests[0].Signed = Outcome{Kind: dnsclient.ServFail, Err: "SERVFAIL"}
		}},
		{ResolverFails, audit.Fail, "the resolver knows no root", func(f *Facts) {
			f.Resolver.Tests[0].Signed = Outcome{Rcode: dns.RcodeNameError}
		}},
		{ResolverNotValidating, audit.Fail, "no AD bit", func(f *Facts) { f.Resolver.Tests[0].Signed.AD = false }},
		{ResolverBelieves, audit.Fail, "a broken name is passed on", func(f *Facts) {
			f.Resolver.Tests[0].Broken = Outcome{Rcode: dns.RcodeSuccess, AD: true}
		}},
		{ResolverUntold, audit.Unknown, "the broken name does not exist here", func(f *Facts) {
			f.Resolver.Tests[0].Broken = Outcome{Rcode: dns.RcodeNameError}
		}},
		{ResolverUntrusted, audit.Warn, "a resolver of the provider", func(f *Facts) { f.Resolver.Ours = []netip.AddrPort{remote} }},
		{ResolverDiffers, audit.Warn, "dns.servers names another one", func(f *Facts) {
			f.Resolver.Listed, f.Resolver.Ours = true, []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:5353")}
		}},
		{ResolvConfUnread, audit.Unknown, "a closed file", func(f *Facts) { f.Resolver.Chroot.Err = "permission denied" }},
		{ChrootResolvConf, audit.Warn, "an old copy", func(f *Facts) { f.Resolver.Chroot.Servers = []netip.AddrPort{remote} }},
		{ChrootResolvConf, audit.Warn, "no copy", func(f *Facts) {
			f.Resolver.Chroot.Absent = true
			f.Resolver.Host.Servers = []netip.AddrPort{remote}
		}},
		{TrustADMissing, audit.Warn, "Postfix 3.4.9 on glibc", func(f *Facts) { f.plain37(); f.setVersion(Version{3, 4, 9}) }},

		{DatabaseAbsent, audit.Warn, "never started", func(f *Facts) { f.Database.Absent, f.Database.Daemon = true, nil }},
		{DatabaseUntold, audit.Unknown, "an ordinary user", func(f *Facts) {
			f.Database.Untold, f.Database.Daemon, f.Database.InUse = "closed", nil, false
		}},
		{DatabaseUntold, audit.Unknown, "another daemon has it", func(f *Facts) { f.Database.Daemon = nil }},
		{DatabaseDamaged, audit.Warn, "a damaged file", func(f *Facts) { f.Database.Damaged = "page 3 is used twice" }},
		{DatabaseNewer, audit.Fail, "a downgrade", func(f *Facts) { f.Database.Newer, f.Database.Daemon = "version 9", nil }},
		{DatabaseFails, audit.Fail, "the daemon cannot write", func(f *Facts) { s := "database is damaged"; f.Database.Daemon = &s }},
		{DatabaseOwner, audit.Fail, "run once as root", func(f *Facts) { f.Database.User = "root" }},
		{DatabaseMode, audit.Warn, "others may read", func(f *Facts) { f.Database.Mode = 0o644 }},
		{DatabaseMode, audit.Fail, "others may write", func(f *Facts) { f.Database.Mode = 0o666 }},
		{DiskLow, audit.Warn, "little room", func(f *Facts) { f.Database.Free = 10 << 20 }},
		{DiskFull, audit.Fail, "no room", func(f *Facts) { f.Database.Free = 4096 }},

		{ClockUnsynchronised, audit.Warn, "no NTP", func(f *Facts) { f.Clock.Synchronised = false }},
		{ClockWrong, audit.Fail, "a machine without a battery", func(f *Facts) { f.Clock.Now = time.Unix(0, 0) }},
		{ClockUntold, audit.Unknown, "not Linux", func(f *Facts) { f.Clock.Untold = "only looked at on Linux" }},

		{TrustStoreEmpty, audit.Fail, "no ca-certificates", func(f *Facts) { f.Trust.Ours = Bundle{Err: "there is none"} }},
		{PostfixCANone, audit.Fail, "no smtp_tls_CAfile", func(f *Facts) { f.Trust.CAFile = nil }},
		{PostfixCAMissing, audit.Fail, "a file that is gone", func(f *Facts) { f.Trust.CAFile = &Bundle{Path: "/x", Shown: "/x", Err: "no such file"} }},
		{PostfixCAMissing, audit.Fail, "an empty directory", func(f *Facts) {
			f.Trust.CAFile, f.Trust.CAPath, f.Trust.Chrooted = nil, &Bundle{Path: "/x", Shown: "/x"}, false
		}},
		{PostfixCAChroot, audit.Fail, "a directory outside of the chroot", func(f *Facts) {
			f.Trust.CAFile, f.Trust.CAPath = nil, &Bundle{Path: queueDir + "/etc/ssl/certs", Shown: "/etc/ssl/certs", Err: "no such file"}
		}},
		{PostfixCADiffers, audit.Warn, "a file of one authority", func(f *Facts) { f.Trust.CAFile.CAs = []fingerprint{{9}} }},

		{DaemonDown, audit.Fail, "no daemon", func(f *Facts) { f.Units.Daemon.Build, f.Units.Daemon.Err = nil, "connection refused" }},
		{DaemonUntold, audit.Unknown, "an ordinary user", func(f *Facts) { f.Units.Daemon.Denied = true }},
		{DaemonUntold, audit.Unknown, "no control socket", func(f *Facts) { f.Units.Daemon = Daemon{} }},
		{DaemonOtherVersion, audit.Warn, "upgraded, not restarted", func(f *Facts) { f.Units.Build.Version = "1.1.0" }},
		{SystemdAbsent, audit.OK, "a container", func(f *Facts) { f.Units.Systemd = false }},
		{UnitUntold, audit.Unknown, "no bus", func(f *Facts) { f.Units.Untold = "cannot connect to the bus" }},
		{UnitAbsent, audit.Warn, "installed by hand", func(f *Facts) { f.Units.Service.Load = "not-found" }},
		{UnitInactive, audit.Fail, "the service failed", func(f *Facts) { f.Units.Service.Active = "failed" }},
		{UnitDisabled, audit.Warn, "not enabled", func(f *Facts) { f.Units.Socket.Enabled = "disabled" }},
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
		"all alone in a unionmap":      func(f *Facts) { f.setMaps("unionmap:{" + ourTable + "}") },
		"a pipemap of exceptions":      func(f *Facts) { f.setMaps("pipemap:{texthash:/x, static:may}, " + ourTable) },
		"lines in the place of a file": func(f *Facts) { f.setMaps("pcre:{{/x/ may}}, " + ourTable) },
		"proxy: inside, and allowed": func(f *Facts) {
			f.setMaps("unionmap:{proxy:" + ourTable + "}")
			f.param("proxy_read_maps", "$x "+f.Postfix.RawMaps)
		},
		"another map asks no more": func(f *Facts) { f.setMaps("cidr:/x " + ourTable) },
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
	empty := codesOf(Judge(Facts{Postfix: Postfix{Absent: "no postconf"}, Clock: Clock{Untold: "x"}, Database: Database{Absent: true}}))
	for code := range codesOf(Judge(*healthy())) {
		if code != SystemdAbsent && len(empty[code]) > 0 {
			t.Errorf("%s is found where nothing is", code)
		}
	}
}

// codes are the constants of codes.go, by their values.
func codes(t *testing.T) map[string]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "codes.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, decl := range file.Decls {
		for _, spec := range decl.(*ast.GenDecl).Specs {
			c := spec.(*ast.ValueSpec)
			value, err := strconv.Unquote(c.Values[0].(*ast.BasicLit).Value)
			if err != nil || c.Doc == nil {
				t.Fatalf("%s: no string, or no comment", c.Names[0])
			}
			all[value] = c.Doc.Text()
		}
	}
	if len(all) < 50 {
		t.Fatalf("only %d codes", len(all))
	}
	return all
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

// No code is without a situation that provokes it, and no finding has a code
// that is none.
func TestEveryCodeIsProvoked(t *testing.T) {
	known, provoked := codes(t), grades()
	for code := range known {
		if len(provoked[code]) == 0 {
			t.Errorf("no situation provokes %s", code)
		}
	}
	for _, s := range situations() {
		f := healthy()
		s.is(f)
		for code := range codesOf(Judge(*f)) {
			if known[code] == "" {
				t.Errorf("%s: the code %q is not in codes.go", s.name, code)
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
				if one.Grade != audit.OK && one.Advice == "" && one.Code != DaemonUntold {
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
