package dnsclient

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func TestErrorNamesTheFailingStep(t *testing.T) {
	local := netip.MustParseAddrPort("127.0.0.1:53")
	for _, test := range []struct {
		err           Error
		reason, whole string
	}{
		{
			Error{Name: "example.test", Type: dns.TypeMX, Kind: ServFail, Rcode: dns.RcodeServerFailure},
			"MX lookup of example.test: SERVFAIL", "MX lookup of example.test: SERVFAIL",
		},
		{
			Error{Name: "example.test", Type: dns.TypeMX, Kind: ServFail, Rcode: dns.RcodeServerFailure, Extended: "DNSSEC Bogus", Server: local},
			"MX lookup of example.test: SERVFAIL (DNSSEC Bogus)", "MX lookup of example.test: SERVFAIL (DNSSEC Bogus) from 127.0.0.1:53",
		},
		{
			Error{Name: "mx.example.test", Type: dns.TypeA, Kind: Timeout, Wait: 5 * time.Second, Server: local},
			"A lookup of mx.example.test: no answer", "A lookup of mx.example.test: no answer within 5s from 127.0.0.1:53",
		},
		{
			Error{Name: "example.test", Type: dns.TypeTLSA, Kind: Network, Err: io.ErrUnexpectedEOF, Server: local},
			"TLSA lookup of example.test: server unreachable", "TLSA lookup of example.test: server unreachable from 127.0.0.1:53: unexpected EOF",
		},
		{
			Error{Name: "example.test", Type: dns.TypeMX, Kind: Network, Err: os.NewSyscallError("socket", syscall.EMFILE)},
			"MX lookup of example.test: too many open files", "MX lookup of example.test: too many open files: socket: too many open files",
		},
		{
			Error{Name: "example.test", Type: 65400, Kind: Refused, Rcode: 4000},
			"TYPE65400 lookup of example.test: RCODE4000", "TYPE65400 lookup of example.test: RCODE4000",
		},
		{
			Error{Name: "evil\n\x00ü.test", Type: dns.TypeMX, Kind: Malformed, Err: errors.New("x\ny")},
			`MX lookup of evil\x0a\x00\xc3\xbc.test: malformed answer`, `MX lookup of evil\x0a\x00\xc3\xbc.test: malformed answer: x\x0ay`,
		},
		{
			Error{Name: "example.test", Type: dns.TypeMX, Kind: Canceled},
			"MX lookup of example.test: canceled", "MX lookup of example.test: canceled",
		},
	} {
		if got := test.err.Reason(); got != test.reason {
			t.Errorf("got reason %q want %q", got, test.reason)
		}
		if got := test.err.Error(); got != test.whole {
			t.Errorf("got error %q want %q", got, test.whole)
		}
	}
}

// BEHAVIOUR §1: a reason is one printable line of at most 200 bytes.
func TestReasonIsBounded(t *testing.T) {
	for _, name := range []string{strings.Repeat("a", 5000), strings.Repeat("\xff", 300), strings.Repeat(`\`, 121)} {
		e := Error{Name: name, Type: 65535, Kind: ServFail, Rcode: dns.RcodeServerFailure, Extended: dns.ExtendedErrorCodeToString[dns.ExtendedErrorCodeUnsupportedNSEC3IterValue], Err: errors.New(name)}
		if r := e.Reason(); len(r) > 200 || !strings.Contains(r, "...: SERVFAIL") {
			t.Errorf("%d bytes: %s", len(r), r)
		}
		if s := e.Error(); len(s) > 500 || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("%d bytes: %s", len(s), s)
		}
	}
}

func TestExtendedErrorIsKept(t *testing.T) {
	s := serve(t, func(_ string, q *dns.Msg) []*dns.Msg {
		m := reply(t, q, dns.RcodeServerFailure, "", "")
		m.SetEdns0(1232, true)
		m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeDNSBogus, ExtraText: "free text\n"}}
		return []*dns.Msg{m}
	})
	e := lookupError(t, client(t, s), t.Context(), "a.test", dns.TypeMX)
	if got, want := e.Reason(), "MX lookup of a.test: SERVFAIL (DNSSEC Bogus)"; got != want {
		t.Errorf("got %q want %q", got, want)
	}
}

// A lack of file descriptors or memory on this host says nothing about a domain.
func TestLocalFault(t *testing.T) {
	for errno, want := range map[syscall.Errno]bool{
		syscall.EMFILE: true, syscall.ENFILE: true, syscall.ENOBUFS: true, syscall.ENOMEM: true,
		syscall.ECONNREFUSED: false, syscall.ENETUNREACH: false,
	} {
		c := newClient(t, Config{
			Servers: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")},
			Dial: func(context.Context, string, string) (net.Conn, error) {
				return nil, &net.OpError{Op: "dial", Net: "udp", Err: os.NewSyscallError("socket", errno)}
			},
		})
		if err := lookupError(t, c, t.Context(), "a.test", dns.TypeMX); LocalFault(err) != want {
			t.Errorf("%v: local fault %v, want %v", err, !want, want)
		}
	}
}
