package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/miekg/dns"

	"tlspolicyd/internal/dnsclient"
)

// Resolvers are the name servers that the daemon and Postfix ask.
type Resolvers struct {
	Signed, Broken string // the names they were tested with

	Ours    []netip.AddrPort // the daemon's
	TrustAD bool             // dns.trust_ad
	Listed  bool             // dns.servers names them

	Host   ResolvConf
	Chroot *ResolvConf // the copy that a chrooted smtp(8) reads; nil: none is chrooted
	Glibc  bool        // the C library here is glibc

	Tests   []ServerTest
	NoRoute bool // no route leads to the Internet
}

// postfix is the file that smtp(8) reads.
func (r Resolvers) postfix() ResolvConf {
	if r.Chroot != nil {
		return *r.Chroot
	}
	return r.Host
}

// ServerTest is what one server made of the two names.
type ServerTest struct {
	Server         netip.AddrPort
	Signed, Broken Outcome
}

// Outcome is an answer, or none.
type Outcome struct {
	Rcode int
	AD    bool
	Took  time.Duration
	Kind  dnsclient.Kind // of the failure; 0: none
	Err   string
}

const resolverTime = 3 * time.Second // for one try, of which there are two

func gatherResolvers(ctx context.Context, o Options, p Postfix) Resolvers {
	r := Resolvers{
		Signed: o.Signed, Broken: o.Broken,
		Ours: o.Config.DNS.Servers, TrustAD: o.Config.DNS.TrustAD, Listed: len(o.Config.DNS.Servers) > 0,
		Host:  readResolvConf(o.ResolvConf),
		Glibc: glibc(),
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
		r.Tests[i].Server = server
		asked.Go(func() { r.Tests[i].Signed = lookup(ctx, server, o.Signed, dns.TypeSOA) })
		asked.Go(func() { r.Tests[i].Broken = lookup(ctx, server, o.Broken, dns.TypeA) })
	}
	asked.Wait()
	r.NoRoute = noRoute(ctx)
	return r
}

// lookup asks one server, whose AD bit is reported as it comes.
func lookup(ctx context.Context, server netip.AddrPort, name string, qtype uint16) Outcome {
	client, err := dnsclient.New(dnsclient.Config{
		Servers: []netip.AddrPort{server}, TrustAD: true, Timeout: resolverTime,
	})
	if err != nil {
		return Outcome{Kind: dnsclient.Network, Err: err.Error()}
	}
	began := time.Now()
	answer, err := client.Lookup(ctx, name, qtype)
	o := Outcome{Rcode: answer.Rcode, AD: answer.Authentic, Took: time.Since(began)}
	if failed, ok := errors.AsType[*dnsclient.Error](err); ok {
		o.Kind, o.Err = failed.Kind, failed.Error()
	}
	return o
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

// glibc reports whether the C library of this host is glibc, by its loader.
func glibc() bool {
	for _, pattern := range []string{"/lib64/ld-linux-*", "/lib/ld-linux-*", "/lib/*/ld-linux-*", "/lib64/ld64.so.*", "/lib/ld64.so.*"} {
		if found, err := filepath.Glob(pattern); err == nil && len(found) > 0 {
			return true
		}
	}
	return false
}

// text is an outcome in words.
func (o Outcome) text() string {
	if o.Kind != 0 {
		return oneLine(o.Err)
	}
	ad := "no AD bit"
	if o.AD {
		ad = "AD bit"
	}
	return fmt.Sprintf("%s, %s, %d ms", dns.RcodeToString[o.Rcode], ad, o.Took.Milliseconds())
}
