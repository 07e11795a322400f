package doctor

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tlspolicyd/cmd/tlspolicyd/internal/audit"
	"tlspolicyd/cmd/tlspolicyd/internal/config"
	"tlspolicyd/share/valkey"
	"tlspolicyd/store/bolt"
)

func judged(f Facts) []string {
	var codes []string
	for _, one := range judgeDatabase(f) {
		codes = append(codes, one.Code)
	}
	return codes
}

// A real database: absent, at rest, open in a daemon, damaged, open to others.
func TestGatherDatabase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policies.db")
	if got := judged(Facts{Database: gatherDatabase(path, nil)}); got[0] != "database-missing" {
		t.Errorf("absent: got %v", got)
	}
	db, err := bolt.Open(path, bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if d := gatherDatabase(path, nil); !d.InUse || judged(Facts{Database: d})[0] != "database-inconclusive" {
		t.Errorf("in use: got %+v", d)
	}
	well := ""
	if got := judged(Facts{Database: gatherDatabase(path, &well)}); got[0] != "database-ok" {
		t.Errorf("in use by a daemon that can use it: got %v", got)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	d := gatherDatabase(path, nil)
	if got := judged(Facts{Database: d}); got[0] != "database-ok" || d.Schema != 1 || d.Size == 0 || d.Total == 0 || d.Mode.Perm() != 0o600 {
		t.Errorf("at rest: got %v, %+v", got, d)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	if got := judged(Facts{Database: gatherDatabase(path, nil)}); got[1] != "database-mode" {
		t.Errorf("open to others: got %v", got)
	}
	if err := os.Truncate(path, 5000); err != nil {
		t.Fatal(err)
	}
	if got := judged(Facts{Database: gatherDatabase(path, nil)}); got[0] != "database-damaged" {
		t.Errorf("cut short: got %v", got)
	}
}

// authority is a new certificate authority.
func authority(name string) *x509.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	ca, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return ca
}

func inPEM(ca *x509.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Raw}))
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Files and directories of authorities, inside and outside a chroot. One that is
// in both counts once.
func TestGatherTrust(t *testing.T) {
	dir := t.TempDir()
	a, b, c := inPEM(authority("a")), inPEM(authority("b")), inPEM(authority("c"))
	writeFile(t, dir+"/ca.pem", "words\n"+a+b+a)
	writeFile(t, dir+"/empty.pem", "words\n")
	writeFile(t, dir+"/certs/0a1b2c3d.0", a)
	writeFile(t, dir+"/certs/readme.txt", b)
	writeFile(t, dir+"/queue"+dir+"/certs/0a1b2c3d.0", b)
	writeFile(t, dir+"/queue"+dir+"/certs/0a1b2c3d.1", c)
	p := healthy().Postfix
	p.Params["queue_directory"] = dir + "/queue"
	p.Params["smtp_tls_CAfile"], p.Params["smtp_tls_CApath"] = dir+"/ca.pem", dir+"/certs"
	got := gatherTrust(dir+"/ca.pem", p)
	if all, shared := got.common(); all != 3 || shared != 2 || !got.Chrooted || got.Best != dir+"/ca.pem" || got.Err != "" {
		t.Errorf("%d authorities, %d in common, %+v", all, shared, got)
	}
	p.Params["smtp_tls_CAfile"] = dir + "/empty.pem"
	if got := gatherTrust("", p); got.PostfixFile.state() != "no certificate in it" || len(got.PostfixPath.CAs) != 2 {
		t.Errorf("got %+v", got)
	}
	if got := gatherTrust(dir+"/none.pem", Postfix{Absent: "x"}); got.Err != "no such file or directory" {
		t.Errorf("got %+v", got)
	}
	t.Setenv("SSL_CERT_FILE", dir+"/none.pem")
	t.Setenv("SSL_CERT_DIR", dir+"/none")
	if got := gatherTrust("", Postfix{Absent: "x"}); !strings.Contains(got.Err, "no certificate authorities") {
		t.Errorf("a host without: got %+v", got)
	}
}

const systemctlShow = `Listen=/run/tlspolicyd/socketmap.sock (Stream)
Listen=/var/spool/postfix/run/tlspolicyd/socketmap.sock (Stream)
Listen=127.0.0.1:8461 (Stream)
Listen=/x (Datagram)
Id=tlspolicyd.socket
LoadState=loaded
ActiveState=active
UnitFileState=enabled

Id=tlspolicyd.service
LoadState=loaded
ActiveState=activating
SubState=auto-restart
Result=exit-code
ExecMainStatus=2
NRestarts=17
User=tlspolicyd
UnitFileState=disabled

Id=chrony.service
LoadState=not-found
ActiveState=inactive

Id=ntpsec.service
LoadState=loaded
ActiveState=inactive
`

func TestGatherUnits(t *testing.T) {
	dir := t.TempDir()
	program := func(name, script string) {
		writeFile(t, dir+"/"+name, "#!/bin/sh\n"+script)
		if err := os.Chmod(dir+"/"+name, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	program("systemctl", "cat <<'END'\n"+systemctlShow+"END\n")
	program("journalctl", "echo 'tlspolicyd: open /etc/tlspolicyd/tlspolicyd.toml: permission denied'\n")
	t.Setenv("PATH", dir+":/usr/bin:/bin")
	u := gatherUnits(t.Context(), dir)
	want := []string{"unix:/run/tlspolicyd/socketmap.sock", "unix:/var/spool/postfix/run/tlspolicyd/socketmap.sock", "tcp:127.0.0.1:8461"}
	if d := cmp.Diff(want, listening(u, []string{"unix:/configured"})); d != "" {
		t.Error(d)
	}
	found := judgeUnits(Facts{Units: u})
	var codes []string
	for _, f := range found {
		codes = append(codes, f.Code)
	}
	if d := cmp.Diff([]string{"daemon-inconclusive", "unit-ok", "unit-restarting", "unit-disabled"}, codes); d != "" {
		t.Fatal(d)
	}
	for _, why := range []string{"activating (auto-restart)", "ExecMainStatus=2", "NRestarts=17", "tlspolicyd.toml: permission denied"} {
		if !strings.Contains(found[2].Evidence, why) {
			t.Errorf("%q is not in %q", why, found[2].Evidence)
		}
	}
	if _, fix := u.synchronize(); fix != "systemctl enable --now ntpsec.service" {
		t.Errorf("the clock is synchronized by %q", fix)
	}
	// Without systemd the configuration decides.
	u = gatherUnits(t.Context(), dir+"/none")
	if got := listening(u, []string{"unix:/configured"}); u.Systemd || len(got) != 1 || got[0] != "unix:/configured" {
		t.Errorf("got %+v, %v", u, got)
	}
	program("systemctl", "echo 'Failed to connect to bus: No such file' >&2\nexit 1\n")
	if u := gatherUnits(t.Context(), dir); u.Inconclusive != "Failed to connect to bus: No such file" {
		t.Errorf("got %+v", u)
	}
}

// The command for the clock is one that works on this host, or none.
func TestClockCommand(t *testing.T) {
	for name, c := range map[string]struct {
		units Units
		want  string
	}{
		"chrony is installed":     {Units{Systemd: true, Time: []Unit{{Name: "chrony.service", Active: "inactive"}}}, "systemctl enable --now chrony.service"},
		"chrony runs in vain":     {Units{Systemd: true, Time: []Unit{{Name: "chrony.service", Active: "active"}}}, ""},
		"nothing is installed":    {Units{Systemd: true}, ""},
		"systemd is not the host": {Units{}, ""},
	} {
		got := judgeClock(Facts{Units: c.units, Clock: Clock{Now: time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)}})[0]
		if got.Code != "clock-unsynchronized" || got.Fix != c.want || got.Advice == "" {
			t.Errorf("%s: got %+v, want %q", name, got, c.want)
		}
	}
}

// A configuration that the daemon's user is not allowed to read.
func TestGatherConfig(t *testing.T) {
	path := filepath.Join(openDir(t), "tlspolicyd.toml")
	writeFile(t, path, "")
	o := Options{ConfigFile: path}
	if c := gatherConfig(o, "nobody"); c.Denied != "" || c.Absent || judgeConfig(Facts{Config: c})[0].Code != "config-ok" {
		t.Errorf("open: got %+v", c)
	}
	list := filepath.Join(openDir(t), "list.toml")
	writeFile(t, list, "")
	if err := errors.Join(os.Chmod(path, 0o600), os.Chmod(list, 0o600)); err != nil {
		t.Fatal(err)
	}
	open := path + ".open"
	writeFile(t, open, "")
	with := Options{ConfigFile: open}
	with.Config.Policy.OverrideFile = []string{list}
	if got := judgeConfig(Facts{Config: gatherConfig(with, "nobody")})[0]; got.Code != "config-unreadable" || got.Subject != list || !strings.Contains(got.Fix, list) {
		t.Errorf("a closed override file: got %+v", got)
	}
	c := gatherConfig(o, "nobody")
	if got := judgeConfig(Facts{Config: c})[0]; got.Code != "config-unreadable" || !strings.Contains(got.Evidence, "-rw-------") {
		t.Errorf("closed: got %+v", got)
	}
	o.ConfigErr = errors.New("line 1: no such key")
	if got := judgeConfig(Facts{Config: gatherConfig(o, "")}); len(got) != 1 || got[0].Code != "config-invalid" || got[0].Evidence != "line 1: no such key" {
		t.Errorf("a mistake: got %+v", got)
	}
	if c := gatherConfig(Options{ConfigFile: path + ".gone"}, "nobody"); !c.Absent {
		t.Errorf("absent: got %+v", c)
	}
}

// The engine of the shared cache: files that the daemon's user cannot read, and
// how much of it was asked.
func TestGatherShare(t *testing.T) {
	key := filepath.Join(openDir(t), "fleet.key")
	writeFile(t, key, "")
	if err := os.Chmod(key, 0o600); err != nil {
		t.Fatal(err)
	}
	var o Options
	if s := gatherShare(t.Context(), o, Unit{User: "nobody"}); judgeShare(Facts{Share: s}) != nil {
		t.Errorf("not configured: got %+v", s)
	}
	o.Config.Share = config.Share{URL: config.EngineURL{Network: "tcp", Hosts: []string{"192.0.2.1:6379"}}, KeyFile: key, Prefix: "x"}
	o.EngineErr = &fs.PathError{Op: "open", Path: key, Err: fs.ErrPermission}
	if s := gatherShare(t.Context(), o, Unit{User: "nobody"}); s.Denied != key || !s.Exposed || s.Inconclusive == "" {
		t.Errorf("an ordinary user: got %+v", s)
	}
	o.EngineErr, o.Engine = nil, &valkey.Login{}
	o.Config.Share.URL = config.EngineURL{Network: "unix", Hosts: []string{key + ".sock"}}
	if s := gatherShare(t.Context(), o, Unit{}); s.Exposed || s.Err == "" || s.Inconclusive != "" {
		t.Errorf("no engine: got %+v", s)
	}
	// A socket that only its group can connect to.
	l, err := net.Listen("unix", key+".sock")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Chmod(key+".sock", 0o660); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // what answers there is of no interest
	unit := Unit{User: "nobody"}
	if s := gatherShare(ctx, o, unit); s.Closed != key+".sock" {
		t.Errorf("another group: got %+v", s)
	}
	unit.Groups = "absent " + groupName(uint32(os.Getegid()))
	if s := gatherShare(ctx, o, unit); s.Closed != "" {
		t.Errorf("SupplementaryGroups=: got %+v", s)
	}
}

// startingHandler answers as the daemon does that systemd starts with the first
// lookup: from then on its control socket exists.
type startingHandler struct {
	daemonHandler
	started func()
}

func (h startingHandler) Lookup(ctx context.Context, name, key []byte) []byte {
	h.started()
	return h.daemonHandler.Lookup(ctx, name, key)
}

// Units are read before a socket is asked, which starts a service that was
// stopped, and the daemon is asked afterwards.
func TestUnitsAreReadFirst(t *testing.T) {
	dir := t.TempDir()
	admin := dir + "/admin.sock"
	path := serve(t, startingHandler{started: sync.OnceFunc(func() {
		writeFile(t, dir+"/started", "")
		l, err := net.Listen("unix", admin)
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for conn, err := l.Accept(); err == nil; conn, err = l.Accept() {
				conn.Close()
			}
		}()
	})})
	writeFile(t, dir+"/systemctl", "#!/bin/sh\n[ -e "+dir+"/started ] && now=active || now=inactive\n"+
		"printf 'Id=tlspolicyd.service\\nLoadState=loaded\\nActiveState=%s\\n\\n' $now\n"+
		"printf 'Id=tlspolicyd.socket\\nLoadState=loaded\\nActiveState=active\\nListen="+path+" (Stream)\\n'\n")
	if err := os.Chmod(dir+"/systemctl", 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":/usr/bin:/bin")
	o := Options{Config: config.Default(), Systemd: dir, Admin: admin, ResolvConf: dir + "/none", PostfixConfig: dir}
	o.Config.Cache.Path = dir + "/policies.db"
	f := Gather(t.Context(), o)
	if f.Units.Service.Active != "inactive" || len(f.Sockets) != 1 || !f.Sockets[0].Ours {
		t.Errorf("got %+v, %+v", f.Units, f.Sockets)
	}
	if strings.Contains(f.Daemon.Err, "no such file") {
		t.Errorf("the daemon was asked before it was started: %+v", f.Daemon)
	}
	if got := f.Units.judge(f.Units.Service)[0]; got.Code != "unit-inactive" || got.Grade != audit.Warn {
		t.Errorf("got %+v", got)
	}
}

// All sources together, on whatever host this is: the limit ends those that
// wait, and nothing panics for want of something.
func TestGather(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	o := Options{Config: config.Default(), Sockets: []string{"unix:" + filepath.Join(t.TempDir(), "s.sock")}}
	o.Config.Cache.Path = filepath.Join(t.TempDir(), "policies.db")
	began := time.Now()
	topics := Judge(Gather(t.Context(), o))
	if took := time.Since(began); took > Limit+time.Minute { // the minute is for a slow machine
		t.Errorf("it took %v", took)
	}
	if len(topics) != 9 {
		t.Errorf("got %d topics", len(topics))
	}
}
