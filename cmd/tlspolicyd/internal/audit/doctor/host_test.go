package doctor

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tlspolicyd/cmd/tlspolicyd/internal/config"
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
	if got := judged(Facts{Database: gatherDatabase(path, nil)}); got[0] != DatabaseAbsent {
		t.Errorf("absent: got %v", got)
	}
	db, err := bolt.Open(path, bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if d := gatherDatabase(path, nil); !d.InUse || judged(Facts{Database: d})[0] != DatabaseUntold {
		t.Errorf("in use: got %+v", d)
	}
	well := ""
	if got := judged(Facts{Database: gatherDatabase(path, &well)}); got[0] != DatabaseGood {
		t.Errorf("in use by a daemon that is content: got %v", got)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	d := gatherDatabase(path, nil)
	if got := judged(Facts{Database: d}); got[0] != DatabaseGood || d.Schema != 1 || d.Size == 0 || d.Total == 0 || d.Mode.Perm() != 0o600 {
		t.Errorf("at rest: got %v, %+v", got, d)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	if got := judged(Facts{Database: gatherDatabase(path, nil)}); got[1] != DatabaseMode {
		t.Errorf("open to others: got %v", got)
	}
	if err := os.Truncate(path, 5000); err != nil {
		t.Fatal(err)
	}
	if got := judged(Facts{Database: gatherDatabase(path, nil)}); got[0] != DatabaseDamaged {
		t.Errorf("cut short: got %v", got)
	}
}

// authorityPEM is a certificate in PEM.
func authorityPEM(t *testing.T, name string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
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

// Files and directories of authorities, inside and outside of a chroot.
func TestGatherTrust(t *testing.T) {
	dir := t.TempDir()
	a, b := authorityPEM(t, "a"), authorityPEM(t, "b")
	writeFile(t, dir+"/ca.pem", "words\n"+a+b+a)
	writeFile(t, dir+"/empty.pem", "words\n")
	writeFile(t, dir+"/certs/0a1b2c3d.0", a)
	writeFile(t, dir+"/certs/readme.txt", b)
	writeFile(t, dir+"/queue"+dir+"/certs/0a1b2c3d.0", b)
	p := healthy().Postfix
	p.Params["queue_directory"] = dir + "/queue"
	p.Params["smtp_tls_CAfile"], p.Params["smtp_tls_CApath"] = dir+"/empty.pem", dir+"/certs"
	got := gatherTrust(dir+"/ca.pem", p)
	if len(got.Ours.CAs) != 2 || len(got.CAFile.CAs) != 0 || len(got.CAPath.CAs) != 1 || !got.Chrooted {
		t.Errorf("got %+v", got)
	}
	if got.Ours.common(got.CAPath) != 1 || got.CAPath.CAs[0] != got.Ours.CAs[1] {
		t.Error("the directory was not read inside of the chroot")
	}
	if got := gatherTrust(dir+"/none.pem", Postfix{Absent: "x"}); got.Ours.Err != "no such file or directory" {
		t.Errorf("got %+v", got)
	}
	t.Setenv("SSL_CERT_FILE", dir+"/ca.pem")
	if got := gatherTrust("", Postfix{Absent: "x"}); len(got.Ours.CAs) != 2 {
		t.Errorf("the system's: got %+v", got)
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
ActiveState=failed
UnitFileState=disabled
`

func TestGatherUnits(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir+"/systemctl", "#!/bin/sh\ncat <<'END'\n"+systemctlShow+"END\n")
	if err := os.Chmod(dir+"/systemctl", 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":/usr/bin:/bin")
	u := gatherUnits(t.Context(), Options{Systemd: dir, Admin: []string{dir + "/admin.sock"}})
	want := []string{"unix:/run/tlspolicyd/socketmap.sock", "unix:/var/spool/postfix/run/tlspolicyd/socketmap.sock", "tcp:127.0.0.1:8461"}
	if d := cmp.Diff(want, listening(u, []string{"unix:/configured"})); d != "" {
		t.Error(d)
	}
	var codes []string
	for _, f := range judgeUnits(u) {
		codes = append(codes, f.Code)
	}
	if d := cmp.Diff([]string{DaemonDown, UnitActive, UnitInactive, UnitDisabled}, codes); d != "" {
		t.Error(d)
	}
	// Without systemd the configuration decides.
	u = gatherUnits(t.Context(), Options{Systemd: dir + "/none"})
	if got := listening(u, []string{"unix:/configured"}); u.Systemd || len(got) != 1 || got[0] != "unix:/configured" {
		t.Errorf("got %+v, %v", u, got)
	}
	writeFile(t, dir+"/systemctl", "#!/bin/sh\necho 'Failed to connect to bus: No such file' >&2\nexit 1\n")
	if u := gatherUnits(t.Context(), Options{Systemd: dir}); u.Untold != "Failed to connect to bus: No such file" {
		t.Errorf("got %+v", u)
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
	if len(topics) != 7 {
		t.Errorf("got %d topics", len(topics))
	}
}
