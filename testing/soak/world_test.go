//go:build linux

package soak

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"tlspolicyd/testing/lab"
)

// world is the lab on real sockets, with as many domains of each kind as a test
// asks for. Everything in DNS is good for a day: what is lost, the daemon has
// lost.
type world struct {
	*lab.World
	dns, proxy netip.AddrPort
	ca         string
	named      atomic.Int64
}

func newWorld(t *testing.T) *world { return newWorldAt(t, "127.0.0.1:0") }

// newWorldAt has its resolver at an address of its own.
func newWorldAt(t *testing.T, resolver string) *world {
	t.Helper()
	w := &world{World: lab.New(), ca: filepath.Join(t.TempDir(), "ca.pem")}
	t.Cleanup(w.Close)
	var err error
	if w.dns, err = w.ListenDNS(resolver); err != nil {
		t.Fatal(err)
	}
	if w.proxy, err = w.ListenProxy("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	if err := w.WriteCA(w.ca); err != nil {
		t.Fatal(err)
	}
	w.NegativeTTL(24 * time.Hour)
	w.Zone(`
		*.full.test.           86400 MX 10 mx.full.test.
		mx.full.test.          86400 A  192.0.2.1
		_25._tcp.mx.full.test. 86400 TLSA 3 1 1 ` + strings.Repeat("11", 32) + `
		*.part.test.           86400 MX 10 mx1.part.test.
		*.part.test.           86400 MX 20 mx2.part.test.
		mx1.part.test.         86400 A  192.0.2.2
		mx2.part.test.         86400 A  192.0.2.3
		_25._tcp.mx1.part.test. 86400 TLSA 3 1 1 ` + strings.Repeat("22", 32) + `
		*.sts.test.            86400 MX 10 mx.sts.test.
		mx.sts.test.           86400 A  192.0.2.4
		*.plain.test.          86400 MX 10 mx.sts.test.
		*.slow.test.           86400 MX 10 mx.sts.test.
	`)
	return w
}

// lookup is a domain and what must be answered about it.
type lookup struct{ key, want string }

// insist returns a new domain that Postfix will be told to insist on something
// for: of the three kinds of policy in turn.
func (w *world) insist() lookup {
	n := w.named.Add(1)
	switch n % 3 {
	case 0:
		return lookup{fmt.Sprintf("d%d.full.test", n), "OK dane-only"}
	case 1:
		return lookup{fmt.Sprintf("d%d.part.test", n), "OK dane"}
	}
	return w.sts(n)
}

// sts makes a domain with an MTA-STS policy.
func (w *world) sts(n int64) lookup {
	domain := fmt.Sprintf("d%d.sts.test", n)
	w.PolicyHost(domain, policy(domain, 604800))
	return lookup{domain, "OK secure match=mx." + domain + " servername=hostname"}
}

func policy(domain string, maxAge int) string {
	return fmt.Sprintf("version: STSv1\nmode: enforce\nmx: mx.%s\nmax_age: %d\n", domain, maxAge)
}

// dane returns a new domain that needs DNS only.
func (w *world) dane() lookup {
	return lookup{fmt.Sprintf("d%d.full.test", w.named.Add(1)), "OK dane-only"}
}

// plain returns a new domain without any policy.
func (w *world) plain() lookup {
	return lookup{fmt.Sprintf("d%d.plain.test", w.named.Add(1)), "NOTFOUND "}
}

// silent returns a new domain whose name servers never answer.
func (w *world) silent() string {
	name := fmt.Sprintf("d%d.slow.test", w.named.Add(1))
	w.Fault(name, "", lab.Drop)
	return name
}
