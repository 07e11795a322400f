//go:build browser

package browser

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"tlspolicyd/internal/dane"
	"tlspolicyd/socketmap"
	"tlspolicyd/store"
	"tlspolicyd/store/bolt"
	"tlspolicyd/testing/lab"
	"tlspolicyd/testing/lab/daemon"
	"tlspolicyd/testing/load"
)

// inCache is how many domains of the usual mixture are in the cache, beside those
// that the tests look at: TLSPOLICYD_UI_DOMAINS, or 100,000.
func inCache(t *testing.T) int {
	n, err := strconv.Atoi(cmp.Or(os.Getenv("TLSPOLICYD_UI_DOMAINS"), "100000"))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

const zones = `
.                       86400 IN SOA a.root.test. hostmaster.test. 1 1800 900 604800 86400
university.test.         3600 IN MX 10 mx1.university.test.
mx1.university.test.     3600 IN A 192.0.2.1
_25._tcp.mx1.university.test. 3600 IN TLSA 3 1 1 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
`

const (
	tag = `<script>document.title='taken'</script>`
	rlo = "\u202e"
	img = `"><img src=x onerror=alert(1)>`
)

// hostile is a domain about which everything is as its owner would have it.
const hostile = "hostile.test"

// world is a running daemon with a full cache, and `tlspolicyd ui` beside it.
type world struct {
	*lab.World
	url  string         // of the pages, with the token
	pids map[string]int // of the daemon and of the pages
}

func start(t *testing.T) *world {
	t.Helper()
	binary, err := filepath.Abs("../../bin/tlspolicyd")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	w := &world{World: lab.New(), pids: map[string]int{}}
	t.Cleanup(w.Close)
	w.Zone(zones)
	w.PolicyHost("university.test", "version: STSv1\nmode: enforce\nmx: *.university.test\nmax_age: 604800\n")
	fill(t, filepath.Join(dir, "policies.db"))

	dns, err := w.ListenDNS("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	proxy, err := w.ListenProxy("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.WriteCA(filepath.Join(dir, "ca.pem")); err != nil {
		t.Fatal(err)
	}
	d, err := daemon.Start(binary, dir, fmt.Sprintf(`[listen]
socketmap = ["unix:%[1]s/socketmap.sock"]
admin = "unix:%[1]s/admin.sock"
[dns]
servers = ["%[2]s"]
[fetch]
ca_file = "%[1]s/ca.pem"
allow_networks = ["%[4]s"]
proxy = "http://%[3]s"
[cache]
path = "%[1]s/policies.db"
max_entries = %[5]d
max_bytes = 2147483648
`, dir, dns, proxy, lab.Network, 2*inCache(t)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			log, _ := os.ReadFile(d.Log)
			t.Logf("daemon: %s", log[max(0, len(log)-4000):])
		}
	})
	w.pids["tlspolicyd serve"] = d.Pid()
	client, err := socketmap.NewClient("unix:" + dir + "/socketmap.sock")
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := d.Ready(context.Background(), client); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"clinic.test", "newspaper.test"} {
		w.Fault(name, "MX", lab.ServFail)
	}
	for _, key := range []string{"university.test", "[mx1.university.test]:587", "clinic.test", "newspaper.test", "library.test"} {
		if _, err := client.Lookup(context.Background(), "postfix", key); err != nil {
			t.Fatal(err)
		}
	}
	w.ui(t, binary, dir)
	return w
}

// ui runs `tlspolicyd ui` until the end of the test.
func (w *world) ui(t *testing.T, binary, dir string) {
	t.Helper()
	cmd := exec.Command(binary, "ui", "--config", dir+"/tlspolicyd.toml", "--port", "0")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.pids["tlspolicyd ui"] = cmd.Process.Pid
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); err != nil || stderr.Len() > 0 {
			t.Errorf("tlspolicyd ui: %v\n%s", err, stderr.String())
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	w.url = strings.TrimSpace(line)
}

// fill makes a cache and a history: the usual mixture, domains that need attention,
// and what a hostile owner, or a damaged file, could bring into it.
func fill(t *testing.T, path string) {
	t.Helper()
	db, err := bolt.Open(path, bolt.Options{MaxEntries: 2 * inCache(t), MaxBytes: 2 << 30})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	if err := load.Fill(context.Background(), db, inCache(t), now); err != nil {
		t.Fatal(err)
	}
	const day = 24 * time.Hour
	policy := func(domain string, lines ...string) []byte {
		return []byte("version: STSv1\nmode: enforce\nmx: *." + domain + "\n" + strings.Join(lines, "") + "max_age: 604800\n")
	}
	failing := func(domain string, left time.Duration, reason string) store.Record {
		fetched := now.Add(left - 7*day)
		return store.Record{
			Domain: domain, LastUsed: now.Add(-time.Hour), Due: now.Add(2 * time.Hour), Class: store.Positive,
			STS: &store.STS{
				Policy: policy(domain), PolicyID: "20261120", FetchedAt: fetched, TXTID: "20261120", CheckedAt: now.Add(-time.Minute), TXTTTL: day,
				FailedID: "20261120", FailedAt: now.Add(-20 * time.Minute), Failures: 9, Error: reason,
			},
			DANE: []store.DANE{{
				Port: 25, MX: uint8(dane.MXInsecure), KnownAt: now.Add(-time.Hour), ExpiresAt: now.Add(20 * time.Hour),
				Hosts: []store.Host{{Name: "mx." + domain, Preference: 10, Verdict: uint8(dane.Insecure), KnownAt: now.Add(-time.Hour)}},
			}},
		}
	}
	bad := failing(hostile, 5*day, tag+img)
	bad.STS.Policy = policy(hostile, "note: "+tag+rlo+"\n", "mx: 192.0.2.1\n", "modes: "+img+"\n", "long: "+strings.Repeat("x", 64<<10-400)+"\n")
	bad.DANE[0].Hosts = append(bad.DANE[0].Hosts, store.Host{
		Name: "mx" + tag, Preference: 20, Verdict: uint8(dane.TLSAFailed), Failure: uint8(dane.TLSAFailed), Error: img + rlo,
	})
	named := failing(tag+".test", 4*day, "status 404")
	named.STS.Error = ""
	recs := []store.Record{
		failing("savings-bank.test", 9*time.Hour, "certificate: expired at 2026-11-26T12:00:00Z"),
		failing("insurance.test", 4*day, "connect: 203.0.113.9:443: connection refused"),
		failing("city-council.test", 6*day, "status 404: want 200"),
		bad, named,
	}
	if err := db.Put(context.Background(), recs...); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	var history bytes.Buffer
	for _, c := range []map[string]any{
		{"at": now.Add(-5 * day), "next_hop": hostile, "what": "MTA-STS", "old": "enforce " + img, "new": tag + rlo, "weaker": true},
		{"at": now.Add(-3 * day), "next_hop": "publisher.test", "what": "MTA-STS", "old": "enforce *.publisher.test", "new": "testing *.publisher.test", "weaker": true},
		{"at": now.Add(-4 * time.Hour), "next_hop": "university.test", "what": "DANE", "old": "full", "new": "partial", "weaker": true},
	} {
		if err := json.NewEncoder(&history).Encode(c); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(path+".changes", history.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}
