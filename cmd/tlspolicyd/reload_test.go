package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"tlspolicyd/cmd/tlspolicyd/internal/config"
	"tlspolicyd/cmd/tlspolicyd/internal/logging"
	"tlspolicyd/internal/mtasts"
	"tlspolicyd/socketmap"
)

// Type=notify-reload of systemd.service(5) wants both assignments in one
// message, and the time of CLOCK_MONOTONIC in microseconds.
func TestAReloadTellsTheServiceManagerWhenItBeganAndEnded(t *testing.T) {
	told := listenNotify(t)
	var fails error
	r := &reloader{
		load:        func() (config.Config, error) { return config.Default(), fails },
		cfg:         config.Default(),
		level:       new(slog.LevelVar),
		server:      new(socketmap.Server),
		reconfigure: func(config.Config) error { return nil },
		log:         slog.New(slog.DiscardHandler),
	}
	r.reload()
	fails = errors.New("two\nlines")
	r.reload()
	want := regexp.MustCompile(`^RELOADING=1\nMONOTONIC_USEC=[1-9]\d*\n? READY=1\nSTATUS= ` +
		`RELOADING=1\nMONOTONIC_USEC=[1-9]\d*\n? READY=1\nSTATUS=reload refused, the old settings stay: two lines$`)
	if got := told.all(t); !want.MatchString(got) {
		t.Errorf("told %q, want %s", got, want)
	}
}

// What is told to need a restart is what keeps its value, and nothing else is.
func TestWhatNeedsARestartKeepsItsValue(t *testing.T) {
	r := &reloader{cfg: config.Default()}
	for _, tt := range []struct{ key, value string }{
		{"listen.socketmap", `["tcp:127.0.0.1:8461"]`},
		{"listen.socket_mode", `"0600"`},
		{"listen.socket_group", `"mail"`},
		{"listen.admin", `""`},
		{"listen.http", `"127.0.0.1:9461"`},
		{"listen.http_hosts", `["mail.test"]`},
		{"fetch.concurrency", "7"},
		{"cache.path", `"/elsewhere.db"`},
		{"cache.max_entries", "7000"},
		{"cache.max_bytes", "70000000"},
		{"log.format", `"json"`},
	} {
		cfg := parseConfig(t, tt.key+" = "+tt.value)
		if got := config.Changes(r.cfg, r.keepFixed(cfg)); got != nil {
			t.Errorf("%s does not stay", tt.key)
		}
	}
	for _, line := range []string{
		"listen.max_connections = 7", `dns.servers = ["127.0.0.1"]`, `fetch.wait = "1s"`, `refresh.interval = "7h"`,
		`policy.partial = "mta-sts"`, `override."a.test" = "skip"`, `log.level = "debug"`,
	} {
		cfg := parseConfig(t, line)
		if got := config.Changes(cfg, r.keepFixed(cfg)); got != nil {
			t.Errorf("%s is not put in force", line)
		}
	}
}

// A reload tells of what needs a restart each time, until there was one: what is
// in force is what the next file is held against.
func TestEachReloadTellsWhatNeedsARestart(t *testing.T) {
	var out bytes.Buffer
	log := logging.New(&out, logging.Options{Format: logging.Text})
	r := &reloader{
		load:        func() (config.Config, error) { return parseConfig(t, `cache.path = "/elsewhere.db"`), nil },
		cfg:         config.Default(),
		level:       new(slog.LevelVar),
		server:      new(socketmap.Server),
		reconfigure: func(config.Config) error { return nil },
		log:         log.Logger,
	}
	r.reload()
	r.reload()
	if err := log.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(out.String(), "WARN  settings changed that need a restart settings=cache.path\n"); got != 2 {
		t.Errorf("told of cache.path %d times, want 2:\n%s", got, out.String())
	}
	if r.cfg.Cache.Path != config.Default().Cache.Path {
		t.Errorf("%s counts as in force", r.cfg.Cache.Path)
	}
}

func parseConfig(t *testing.T, text string) config.Config {
	t.Helper()
	cfg, err := config.Parse([]byte(text+"\n"), "test.toml")
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestAReloadChangesTheConnectionLimit(t *testing.T) {
	cfg := config.Default()
	cfg.Listen.MaxConnections = 7
	r := &reloader{
		load:        func() (config.Config, error) { return cfg, nil },
		cfg:         config.Default(),
		level:       new(slog.LevelVar),
		server:      new(socketmap.Server),
		reconfigure: func(config.Config) error { return nil },
		log:         slog.New(slog.DiscardHandler),
	}
	r.reload()
	if r.server.MaxConnections != 7 || r.cfg.Listen.MaxConnections != 7 {
		t.Errorf("limit %d, noted %d, want 7", r.server.MaxConnections, r.cfg.Listen.MaxConnections)
	}
}

// At info a lookup costs what it costs without the log.
func TestLookupsAreToldOfAtDebugOnlyAndCostNothingElse(t *testing.T) {
	var out bytes.Buffer
	var level slog.LevelVar
	log := logging.New(&out, logging.Options{Level: &level, Format: logging.Text})
	reply := []byte("NOTFOUND ")
	v := logging.Lookups{Next: handlerFunc(func(context.Context, []byte, []byte) []byte { return reply }), Log: log.Logger, Except: probeKey}
	name, key, probe := []byte("postfix"), []byte("example.test"), []byte(probeKey)
	if n := testing.AllocsPerRun(100, func() { v.Lookup(context.Background(), name, key) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	level.Set(slog.LevelDebug)
	v.Lookup(t.Context(), name, key)
	v.Lookup(t.Context(), name, probe)
	if err := log.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); strings.Count(got, "\n") != 1 ||
		!strings.Contains(got, `DEBUG answered map=postfix key=example.test reply=NOTFOUND took=`) {
		t.Errorf("got %q", got)
	}
}

// A reload reads fetch.ca_file again, whatever its name: the authorities that
// count are those in it now.
func TestTheCAFileIsReadAnewForEachReload(t *testing.T) {
	cfg := config.Default()
	cfg.DNS.Servers = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")}
	cfg.Fetch.CAFile = filepath.Join(t.TempDir(), "ca.pem")
	var pools []*x509.CertPool
	for _, name := range []string{"one", "one", "two"} {
		if err := os.WriteFile(cfg.Fetch.CAFile, authority(t, name), 0o600); err != nil {
			t.Fatal(err)
		}
		_, settings, err := mapConfig(cfg, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		pools = append(pools, settings.Fetcher.(*mtasts.Fetcher).RootCAs)
	}
	if !pools[0].Equal(pools[1]) || pools[1].Equal(pools[2]) {
		t.Error("the authorities are not those of the file")
	}
}

// authority returns a certificate that depends on its name alone.
func authority(t *testing.T, name string) []byte {
	t.Helper()
	seed := sha256.Sum256([]byte(name))
	key := ed25519.NewKeyFromSeed(seed[:])
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
