package policymap

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"

	"tlspolicyd/internal/defect"
	"tlspolicyd/internal/dnsclient"
	"tlspolicyd/internal/lab"
	"tlspolicyd/internal/mtasts"
)

// stumbling is a resolver that has a defect: it cannot take one answer.
type stumbling struct {
	dnsclient.Resolver
	at string // "name TYPE"
}

func (s stumbling) Lookup(ctx context.Context, name string, qtype uint16) (dnsclient.Answer, error) {
	if strings.TrimSuffix(name, ".")+" "+dns.TypeToString[qtype] == s.at {
		stumble(name)
	}
	return s.Resolver.Lookup(ctx, name, qtype)
}

func stumble(name string) { panic("cannot take " + name) }

// alarmed is an observer that keeps the defects it is told of.
type alarmed struct {
	silent
	mu    sync.Mutex
	keys  []string
	texts []string
	stack string
}

func (a *alarmed) Panicked(key string, err *defect.Error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.keys, a.texts, a.stack = append(a.keys, key), append(a.texts, err.Error()), err.Stack
}

// A defect met in one answer ends that look and nothing else, whichever of its
// goroutines met it, and the operator learns where it is.
func TestDefectEndsOneLook(t *testing.T) {
	for _, tc := range []struct{ at, key, reply string }{
		{"full.test MX", "full.test", "TEMP internal error: cannot take full.test"},
		{"mx.full.test A", "full.test", "TEMP internal error: cannot take mx.full.test"},
		{"mx.full.test AAAA", "full.test", "TEMP internal error: cannot take mx.full.test"},
		{"_25._tcp.mx.full.test TLSA", "full.test", "TEMP internal error: cannot take _25._tcp.mx.full.test"},
		{"_mta-sts.plain.test TXT", "plain.test", "NOTFOUND "},
		{"mta-sts.plain.test A", "plain.test", "NOTFOUND "},
		{"mta-sts.plain.test AAAA", "plain.test", "NOTFOUND "},
		{"connection", "plain.test", "NOTFOUND "},
	} {
		t.Run(tc.at, func(t *testing.T) {
			inBubble(t, zones, func(t *testing.T, h *host) {
				h.PolicyHost("plain.test", enforce)
				resolver := stumbling{h.config.Resolver, tc.at}
				dial := h.Dial
				if tc.at == "connection" {
					dial = func(context.Context, string, string) (net.Conn, error) { stumble(tc.at); return nil, nil }
				}
				seen := &alarmed{}
				h.Map.Close()
				h.Map = New(Options{
					Store: h.store, Observer: Observers{silent{}, seen},
					Config: Config{Resolver: resolver, Fetcher: &mtasts.Fetcher{
						Resolver: resolver, RootCAs: h.Roots(), Dial: dial,
						AllowNetworks: []netip.Prefix{netip.MustParsePrefix(lab.Network)},
					}},
				})

				h.want(tc.key, tc.reply)
				h.want("null.test", "NOTFOUND ")
				seen.mu.Lock()
				defer seen.mu.Unlock()
				if len(seen.keys) != 1 || seen.keys[0] != tc.key || !strings.HasPrefix(seen.texts[0], "internal error: cannot take ") {
					t.Fatalf("told of %q: %q", seen.keys, seen.texts)
				}
				if !strings.Contains(seen.stack, "policymap.stumble") {
					t.Errorf("the stack does not tell where it happened:\n%s", seen.stack)
				}
			})
		})
	}
}
