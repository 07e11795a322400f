package doctor

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"tlspolicyd/cmd/tlspolicyd/internal/config"
)

// The socket of a collector is tried with the rights of the daemon's user.
func TestCollector(t *testing.T) {
	dir := openDir(t)
	listen := func(name string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
		if err == nil {
			err = os.Chmod(path, mode)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return path
	}
	open, closed := listen("open", 0o666), listen("closed", 0o600)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	stale := filepath.Join(dir, "stale")
	gone, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: stale, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	if err := os.Chmod(stale, 0o666); err != nil {
		t.Fatal(err)
	}
	postfix := func(name string) Postfix {
		return Postfix{
			Params: map[string]string{
				"queue_directory": dir, "smtp_tlsrpt_enable": "yes", "smtp_tlsrpt_socket_name": name,
			},
			Services: []Service{{Name: "smtp", Type: "unix", Program: "smtp", Chrooted: true}},
		}
	}
	off := postfix("open")
	off.Params["smtp_tlsrpt_enable"] = "no"
	staleCode := "tlsrpt-socket-ok" // for an ordinary user only the modes can be read
	if isRoot() {
		staleCode = "tlsrpt-socket-missing"
	}
	for _, tc := range []struct {
		name, socket string
		p            Postfix
		code, fix    string
	}{
		{"open to all", open, Postfix{}, "tlsrpt-socket-ok", ""},
		{"open to its owner", closed, Postfix{}, "tlsrpt-socket-denied", ""},
		{"no such file", dir + "/no", Postfix{}, "tlsrpt-socket-missing", ""},
		{"a file", file, Postfix{}, "tlsrpt-socket-missing", ""},
		{"nothing receives", stale, Postfix{}, staleCode, ""},

		{"Postfix has one", "", postfix("open"), "tlsrpt-socket-unused", "socket = \"" + open + "\""},
		{"Postfix has one, an absolute path in its chroot", "", postfix("/open"), "tlsrpt-socket-unused", "socket = \"" + open + "\""},
		{"Postfix has none that exists", "", postfix("none"), "", ""},
		{"Postfix does not report", "", off, "", ""},
		{"neither has one", "", Postfix{Absent: "no postconf"}, "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := Options{Config: config.Config{TLSRPT: config.TLSRPT{Socket: tc.socket}}}
			got := judgeCollector(Facts{Collector: gatherCollector(o, tc.p, Unit{User: "nobody"})})
			if tc.code == "" && len(got) == 0 {
				return
			}
			if len(got) != 1 || got[0].Code != tc.code || got[0].Fix != tc.fix {
				t.Errorf("got %+v, want %s with %q", got, tc.code, tc.fix)
			}
		})
	}
}
