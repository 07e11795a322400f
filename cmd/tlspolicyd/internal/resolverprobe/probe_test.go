package resolverprobe

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"tlspolicyd/internal/dnsclient"
	"tlspolicyd/testing/lab"
)

func TestProbes(t *testing.T) {
	w := lab.New()
	defer w.Close()
	w.Zone("signed.test SOA ns.signed.test h.signed.test 1 1 1 1 300\nbroken.test A 192.0.2.1")
	w.Fault("broken.test", "", lab.Bogus)
	r, err := dnsclient.New(dnsclient.Config{Servers: []netip.AddrPort{w.DNSAddr()}, Dial: w.Dial, TrustAD: true})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	if o := Signed(ctx, r, "signed.test"); o.Err != nil || !o.AD || o.Kind() != 0 || o.Denied() || !strings.HasPrefix(o.String(), "signed.test: NOERROR, AD bit, ") {
		t.Errorf("signed: %v", o)
	}
	if o := Bogus(ctx, r, "broken.test"); o.Kind() != dnsclient.ServFail || o.Silent() || o.String() == "" {
		t.Errorf("bogus: %v", o)
	}
	first, second := Missing(ctx, r, "signed.test"), Missing(ctx, r, "signed.test")
	if first.Err != nil || first.Rcode != dns.RcodeNameError || first.Name == second.Name || !strings.HasSuffix(first.Name, ".signed.test") {
		t.Errorf("missing: %v, %v", first, second)
	}
	w.Fault("*", "", lab.NXDomain)
	w.Insecure(".")
	if o := Signed(ctx, r, Root); !o.Denied() || !strings.HasPrefix(o.String(), "the root: NXDOMAIN, no AD bit") {
		t.Errorf("cut off: %v", o)
	}
}
