package doctor

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tlspolicyd/cmd/tlspolicyd/internal/config"
	"tlspolicyd/testing/lab"
)

// resolverWorld is a resolver at a real address with a signed name and a broken
// one.
func resolverWorld(t *testing.T) (*lab.World, netip.AddrPort) {
	t.Helper()
	w := lab.New()
	t.Cleanup(w.Close)
	w.Zone("signed.test SOA ns.signed.test h.signed.test 1 1 1 1 300\nbroken.test A 192.0.2.1")
	w.Fault("broken.test", "", lab.Bogus)
	addr, err := w.ListenDNS("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return w, addr
}

// gathered judges real answers of one resolver.
func gathered(t *testing.T, addr netip.AddrPort) []string {
	t.Helper()
	o := Options{Signed: "signed.test", Broken: "broken.test", ResolvConf: filepath.Join(t.TempDir(), "none")}
	o.Config = config.Default()
	o.Config.DNS.Servers = []netip.AddrPort{addr}
	f := Facts{Postfix: Postfix{Absent: "not here"}}
	f.Resolver = gatherResolvers(t.Context(), o.withDefaults(), f.Postfix)
	var codes []string
	for _, one := range judgeResolvers(f) {
		codes = append(codes, one.Code)
	}
	return codes
}

func TestResolvers(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*lab.World)
		want   string
	}{
		"validates":                           {func(*lab.World) {}, "resolver-ok"},
		"AD only when asked for":              {func(w *lab.World) { w.ADOnlyWhenAsked(true) }, "resolver-ok"},
		"does not validate":                   {func(w *lab.World) { w.Insecure("."); w.Fault("broken.test", "", 0) }, "resolver-not-validating"},
		"says AD to everything":               {func(w *lab.World) { w.Fault("broken.test", "", 0) }, "resolver-accepts-bogus"},
		"NXDOMAIN becomes SERVFAIL":           {func(w *lab.World) { w.Fault("*", "A", lab.ServFail) }, "resolver-nxdomain-wrong"},
		"no way to the broken name":           {func(w *lab.World) { w.Fault("broken.test", "", lab.NXDomain) }, "resolver-inconclusive"},
		"no way to the root":                  {func(w *lab.World) { w.Fault("*", "", lab.ServFail) }, "resolver-failed"},
		"knows no such name":                  {func(w *lab.World) { w.Insecure("."); w.Fault("signed.test", "", lab.NXDomain) }, "resolver-failed"},
		"refuses":                             {func(w *lab.World) { w.Fault("*", "", lab.Refused) }, "resolver-failed"},
		"cuts everything that comes over UDP": {func(w *lab.World) { w.Fault("signed.test", "", lab.Truncate) }, "resolver-ok"},
	} {
		t.Run(name, func(t *testing.T) {
			w, addr := resolverWorld(t)
			c.change(w)
			got := gathered(t, addr)
			// A host without a route calls a resolver that fails the network.
			if noRoute(t.Context()) && c.want == "resolver-failed" && len(got) == 1 && got[0] == "network-down" && name != "knows no such name" {
				return
			}
			if d := cmp.Diff([]string{c.want}, got); d != "" {
				t.Error(d)
			}
		})
	}
	t.Run("nothing is there", func(t *testing.T) {
		l, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addr := l.LocalAddr().(*net.UDPAddr).AddrPort()
		l.Close()
		if d := cmp.Diff([]string{"resolver-no-answer"}, gathered(t, addr)); d != "" {
			t.Error(d)
		}
	})
}

func TestResolvConf(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	local := []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")}
	if got := readResolvConf(path); !got.Absent || !sameServers(got.Servers, local) {
		t.Errorf("absent: got %+v", got)
	}
	text := "# nameserver 9.9.9.9\nnameserver ::1\nnameserver 192.0.2.1\nnameserver x\nnameserver 192.0.2.2\nnameserver 192.0.2.3\noptions edns0 trust-ad\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got := readResolvConf(path)
	want := []netip.AddrPort{netip.MustParseAddrPort("[::1]:53"), netip.MustParseAddrPort("192.0.2.1:53"), netip.MustParseAddrPort("192.0.2.2:53")}
	if !sameServers(got.Servers, want) || got.Absent {
		t.Errorf("got %+v", got)
	}
	if sameServers(want, local) || sameServers(nil, local) {
		t.Error("different lists are the same")
	}
}
