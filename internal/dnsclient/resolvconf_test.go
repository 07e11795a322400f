package dnsclient

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestResolvConf(t *testing.T) {
	for _, test := range []struct{ name, file, want string }{
		{"two servers among other lines", "# by hand\nsearch example.test\nnameserver 192.0.2.1\noptions trust-ad\nnameserver 192.0.2.2\n", "192.0.2.1:53 192.0.2.2:53"},
		{"the IPv6 loopback address", "nameserver ::1\n", "[::1]:53"},
		{"a link-local address with its zone", "nameserver fe80::1%eth0\n", "[fe80::1%eth0]:53"},
		{"blanks, CRLF, comment after, no last line end", "\tnameserver\t192.0.2.1\r\nnameserver 192.0.2.2 # second", "192.0.2.1:53 192.0.2.2:53"},
		{"commented out", "#nameserver 192.0.2.1\n; nameserver 192.0.2.2\n", ""},
		{"no address", "nameserver\nnameserver localhost\nnameserver 192.0.2\nnameservers 192.0.2.1\n", ""},
		{"the same one twice", "nameserver 192.0.2.1\nnameserver 192.0.2.1\n", "192.0.2.1:53"},
		{"more than eight", strings.Join([]string{"", "1", "2", "3", "4", "5", "6", "7", "8", "9"}, "\nnameserver 192.0.2."), "192.0.2.1:53 192.0.2.2:53 192.0.2.3:53 192.0.2.4:53 192.0.2.5:53 192.0.2.6:53 192.0.2.7:53 192.0.2.8:53"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := joined(parseResolvConf([]byte(test.file))); got != test.want {
				t.Errorf("got %q want %q", got, test.want)
			}
		})
	}
}

func joined(servers []netip.AddrPort) string {
	var s []string
	for _, server := range servers {
		s = append(s, server.String())
	}
	return strings.Join(s, " ")
}

func TestResolvConfIsFollowed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		var changes []string
		c := newClient(t, Config{ResolvConf: path, OnChange: func(s []netip.AddrPort, trusted bool) {
			if !trusted {
				changes = append(changes, joined(s))
			} else {
				changes = append(changes, joined(s)+" trusted")
			}
		}})
		expect := func(what, want string, trusted bool) {
			t.Helper()
			time.Sleep(followInterval)
			if got := joined(c.Servers()); got != want || c.Trusted() != trusted {
				t.Errorf("%s: servers %s, trusted %v", what, got, c.Trusted())
			}
		}
		expect("no file yet", "127.0.0.1:53", true)
		write("nameserver 192.0.2.1\n")
		expect("file appears", "192.0.2.1:53", false)
		write("nameserver 192.0.2.2\n") // same size, and the same time on a coarse clock
		expect("file replaced", "192.0.2.2:53", false)
		write("")
		expect("file emptied, as in the middle of a rewrite", "192.0.2.2:53", false)
		write("nameserver no.address.test\n")
		expect("file broken", "192.0.2.2:53", false)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		expect("file vanished", "192.0.2.2:53", false)
		write("nameserver ::1\n")
		expect("file is back", "[::1]:53", true)
		want := []string{"192.0.2.1:53", "192.0.2.2:53", "[::1]:53 trusted"}
		if diff := cmp.Diff(want, changes); diff != "" {
			t.Error(diff)
		}
		write("nameserver 192.0.2.3\n")
		if got := joined(c.Servers()); got != "[::1]:53" {
			t.Errorf("read again within a second: %s", got)
		}
	})
}

func TestResolvConfWithoutServersIsLoopback(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(path, []byte("search example.test\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := joined(newClient(t, Config{ResolvConf: path}).Servers()); got != "127.0.0.1:53" {
		t.Error(got)
	}
}

func FuzzResolvConf(f *testing.F) {
	f.Add([]byte("nameserver 192.0.2.1\nnameserver ::1%lo"))
	f.Fuzz(func(t *testing.T, b []byte) {
		list := parseResolvConf(b)
		if len(list) > maxServers || slices.ContainsFunc(list, func(s netip.AddrPort) bool { return !s.IsValid() }) {
			t.Error(list)
		}
	})
}
