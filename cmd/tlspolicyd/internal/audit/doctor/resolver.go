package doctor

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"tlspolicyd/cmd/tlspolicyd/internal/resolverprobe"
	"tlspolicyd/internal/dnsclient"
)

// Resolvers are the name servers that the daemon and Postfix ask.
type Resolvers struct {
	Ours    []netip.AddrPort // the daemon's
	TrustAD bool             // dns.trust_ad
	Listed  bool             // dns.servers names them

	Host   ResolvConf
	Chroot *ResolvConf // the copy that a chrooted smtp(8) reads; nil: none is chrooted

	Tests    []ServerTest
	NoRoute  bool // no route leads to the Internet
	Resolved bool // systemd-resolved runs
}

// postfix is the file that smtp(8) reads.
func (r Resolvers) postfix() ResolvConf {
	if r.Chroot != nil {
		return *r.Chroot
	}
	return r.Host
}

// ServerTest is what one server made of the three questions.
type ServerTest struct {
	Server                 netip.AddrPort
	Signed, Bogus, Missing resolverprobe.Outcome
}

const resolverTime = 3 * time.Second // for one try, of which there are two

func gatherResolvers(ctx context.Context, o Options, p Postfix) Resolvers {
	r := Resolvers{
		Ours: o.Config.DNS.Servers, TrustAD: o.Config.DNS.TrustAD, Listed: len(o.Config.DNS.Servers) > 0,
		Host: readResolvConf(o.ResolvConf),
	}
	if !r.Listed {
		r.Ours = r.Host.Servers
	}
	all := slices.Clone(r.Ours)
	if p.known() {
		if len(p.chrooted()) > 0 {
			c := readResolvConf(filepath.Join(p.queue(), "etc/resolv.conf"))
			r.Chroot = &c
		}
		for _, s := range r.postfix().Servers {
			if !slices.Contains(all, s) {
				all = append(all, s)
			}
		}
	}
	r.Tests = make([]ServerTest, len(all))
	var asked sync.WaitGroup
	for i, server := range all {
		t := &r.Tests[i]
		t.Server = server
		client, err := dnsclient.New(dnsclient.Config{Servers: []netip.AddrPort{server}, TrustAD: true, Timeout: resolverTime})
		if err != nil {
			t.Signed.Err, t.Bogus.Err, t.Missing.Err = err, err, err
			continue
		}
		parent := o.Signed
		if parent == resolverprobe.Root {
			parent = "com" // what does not exist in the root itself may be known without asking
		}
		asked.Go(func() { t.Signed = resolverprobe.Signed(ctx, client, o.Signed) })
		asked.Go(func() { t.Bogus = resolverprobe.Bogus(ctx, client, o.Broken) })
		asked.Go(func() { t.Missing = resolverprobe.Missing(ctx, client, parent) })
	}
	asked.Wait()
	r.NoRoute = noRoute(ctx)
	_, err := os.Stat("/run/systemd/resolve/stub-resolv.conf")
	r.Resolved = err == nil
	return r
}

// noRoute reports that no packet can leave for the Internet: connecting a
// datagram socket sends nothing and fails where there is no route. The
// addresses are those of documentation (RFC 5737, RFC 3849).
func noRoute(ctx context.Context) bool {
	for _, address := range []string{"192.0.2.1:53", "[2001:db8::1]:53"} {
		conn, err := new(net.Dialer).DialContext(ctx, "udp", address)
		if err == nil {
			conn.Close()
			return false
		}
		if !errors.Is(err, syscall.ENETUNREACH) && !errors.Is(err, syscall.EADDRNOTAVAIL) && !errors.Is(err, syscall.EAFNOSUPPORT) {
			return false
		}
	}
	return true
}

// ResolvConf is a resolv.conf(5) file as the C library reads it for Postfix.
type ResolvConf struct {
	Path    string
	Absent  bool
	Err     string           // why it could not be read; ""
	Servers []netip.AddrPort // at most three; without any it is 127.0.0.1
}

// libraryServers is how many servers the C library asks (MAXNS).
const libraryServers = 3

func readResolvConf(path string) ResolvConf {
	r := ResolvConf{Path: path}
	f, err := openFile(path)
	if err == nil {
		defer f.Close()
		var text []byte
		text, err = io.ReadAll(io.LimitReader(f, 64<<10))
		r.parse(string(text))
	}
	switch {
	case os.IsNotExist(err):
		r.Absent = true
	case err != nil:
		r.Err = reason(err)
		return r
	}
	if len(r.Servers) == 0 {
		r.Servers = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")}
	}
	return r
}

func (r *ResolvConf) parse(text string) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "nameserver" || len(r.Servers) == libraryServers {
			continue
		}
		if addr, err := netip.ParseAddr(fields[1]); err == nil {
			r.Servers = append(r.Servers, netip.AddrPortFrom(addr, 53))
		}
	}
}

// sameServers reports whether two lists hold the same, in any order.
func sameServers(a, b []netip.AddrPort) bool {
	within := func(a, b []netip.AddrPort) bool {
		return !slices.ContainsFunc(a, func(s netip.AddrPort) bool { return !slices.Contains(b, s) })
	}
	return within(a, b) && within(b, a)
}
