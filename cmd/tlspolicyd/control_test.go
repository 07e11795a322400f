package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tlspolicyd/cmd/tlspolicyd/internal/admin"
	"tlspolicyd/cmd/tlspolicyd/internal/config"
	"tlspolicyd/cmd/tlspolicyd/internal/logging"
	"tlspolicyd/internal/hostname"
	"tlspolicyd/socketmap"
)

// operatorWorld is what the operator's sockets stand in front of.
func operatorWorld(t *testing.T) (config.Config, *parts, *logging.Log) {
	t.Helper()
	dir := t.TempDir()
	cfg := config.Default()
	cfg.Listen.Admin = "unix:" + filepath.Join(dir, "admin.sock")
	cfg.Listen.HTTP = "127.0.0.1:0"
	cfg.Cache.Path = filepath.Join(dir, "policies.db")
	cfg.DNS.Servers = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1")}
	log := logging.New(io.Discard, logging.Options{})
	p, err := newParts(t.Context(), cfg, log.Logger)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.stop(context.Background()); err != nil {
			t.Error(err)
		}
		if err := log.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return cfg, p, log
}

// The parts of the daemon are behind the control socket, which is there while the
// daemon is.
func TestOperatorReachesTheDaemon(t *testing.T) {
	cfg, p, log := operatorWorld(t)
	server := &socketmap.Server{Handler: p.handler}
	defer server.Close()
	path := strings.TrimPrefix(cfg.Listen.Admin, "unix:")
	o, err := startOperator(t.Context(), cfg, p, server, nil, log)
	if err != nil {
		t.Fatal(err)
	}
	client := admin.NewClient(path)
	defer client.Close()
	if err := client.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	p.handler.Lookup(t.Context(), []byte("postfix"), []byte(".a.test"))
	unix := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}
	defer unix.CloseIdleConnections()
	resp, err := (&http.Client{Transport: unix}).Get("http://control/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if want := `tlspolicyd_lookups_total{answer="notfound",map="postfix",origin="static"} 1`; err != nil || !strings.Contains(string(text), want) {
		t.Errorf("no %s in %s, %v", want, text, err)
	}
	o.stop()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

// A TCP address that is taken costs the metrics, and nothing else.
func TestMetricsAddressIsTaken(t *testing.T) {
	cfg, p, log := operatorWorld(t)
	server := &socketmap.Server{Handler: p.handler}
	defer server.Close()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	cfg.Listen.HTTP = taken.Addr().String()
	var lines bytes.Buffer
	log.Logger = slog.New(slog.NewTextHandler(&lines, nil))
	o, err := startOperator(t.Context(), cfg, p, server, nil, log)
	if err != nil {
		t.Fatal(err)
	}
	client := admin.NewClient(strings.TrimPrefix(cfg.Listen.Admin, "unix:"))
	defer client.Close()
	if err := client.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	o.stop()
	if text := lines.String(); !strings.Contains(text, "level=ERROR") || !strings.Contains(text, "listen.http") {
		t.Errorf("logged %q", text)
	}
}

// listen.http may be a Unix socket, with the mode of the lookup sockets. What is
// shown, and to which names, is the same.
func TestHTTPOnAUnixSocket(t *testing.T) {
	cfg, p, log := operatorWorld(t)
	server := &socketmap.Server{Handler: p.handler}
	defer server.Close()
	path := strings.TrimPrefix(cfg.Listen.Admin, "unix:") + ".http"
	cfg.Listen.HTTP, cfg.Listen.SocketMode = "unix:"+path, 0o640
	o, err := startOperator(t.Context(), cfg, p, server, nil, log)
	if err != nil {
		t.Fatal(err)
	}
	defer o.stop()
	if info, err := os.Stat(path); err != nil || info.Mode() != fs.ModeSocket|0o640 {
		t.Fatalf("%v, %v", info, err)
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}
	defer transport.CloseIdleConnections()
	for at, want := range map[string]int{"localhost/metrics": 200, "localhost/v1/domains": 404, "attacker.test/metrics": 421, "unix/metrics": 421} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+at, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: %d, want %d", at, resp.StatusCode, want)
		}
	}
}

// A control socket that is taken is an error that names the setting.
func TestControlSocketIsTaken(t *testing.T) {
	cfg, p, log := operatorWorld(t)
	server := &socketmap.Server{Handler: p.handler}
	defer server.Close()
	path := strings.TrimPrefix(cfg.Listen.Admin, "unix:")
	other, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := startOperator(t.Context(), cfg, p, server, nil, log); !errors.Is(err, socketmap.ErrInUse) || !strings.HasPrefix(err.Error(), "listen.admin: ") {
		t.Errorf("got %v", err)
	}
}

// listen.http answers to the names of this host: those configured, the one that it
// listens on, and the machine's own.
func TestNamesOfListenHTTP(t *testing.T) {
	own, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	got := httpNames(config.Listen{HTTP: "Mail.Example.test:9461", HTTPHosts: []string{"monitoring.example.test"}})
	want := []string{"monitoring.example.test", "mail.example.test"}
	if name, err := hostname.Parse(own); err == nil {
		want = append(want, name)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := httpNames(config.Listen{HTTP: "0.0.0.0:9461"}); slices.Contains(got, "0.0.0.0") {
		t.Errorf("an address is a name: %q", got)
	}
}
