package doctor

import (
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
)

// ResolvConf is a resolv.conf(5) file as the C library reads it for Postfix.
type ResolvConf struct {
	Path    string
	Absent  bool
	Err     string           // why it could not be read; ""
	Servers []netip.AddrPort // at most three; without any it is 127.0.0.1
	TrustAD bool             // options trust-ad
}

// libraryServers is how many servers the C library asks (MAXNS).
const libraryServers = 3

func readResolvConf(path string) ResolvConf {
	r := ResolvConf{Path: path}
	f, err := openFile(path)
	switch {
	case os.IsNotExist(err):
		r.Absent = true
	case err != nil:
		r.Err = reason(err)
		return r
	default:
		defer f.Close()
		text, err := io.ReadAll(io.LimitReader(f, 64<<10))
		if err != nil {
			r.Err = reason(err)
			return r
		}
		r.parse(string(text))
	}
	if len(r.Servers) == 0 {
		r.Servers = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")}
	}
	return r
}

func (r *ResolvConf) parse(text string) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		switch fields[0] {
		case "nameserver":
			if addr, err := netip.ParseAddr(fields[1]); err == nil && len(r.Servers) < libraryServers {
				r.Servers = append(r.Servers, netip.AddrPortFrom(addr, 53))
			}
		case "options":
			r.TrustAD = r.TrustAD || slices.Contains(fields[1:], "trust-ad")
		}
	}
}

// sameServers reports whether two lists hold the same, in any order.
func sameServers(a, b []netip.AddrPort) bool {
	for _, s := range a {
		if !slices.Contains(b, s) {
			return false
		}
	}
	for _, s := range b {
		if !slices.Contains(a, s) {
			return false
		}
	}
	return true
}
