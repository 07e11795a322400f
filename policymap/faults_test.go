package policymap

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tlspolicyd/internal/dnsclient"
	"tlspolicyd/testing/lab"
)

// What becomes of lookups while the network misbehaves, from the wire: the
// reply, the time to it, what was read for it, what a domain that is known
// already is told, and how soon all is right again without a restart. The table
// of docs/faults.md is what this test saw: `make faults` writes it there.

const faultsDocument = "../docs/faults.md"

// rewriting reports whether the document is to be written (make faults).
func rewriting() bool { return os.Getenv("FAULTS_TABLE") == "write" }

// outage is one thing that goes wrong.
type outage struct {
	name string
	dns  lab.Fault     // of every answer of the resolver
	only string        // the DNS fault is for this name alone
	host lab.HostFault // of every policy host
	real bool          // over real sockets and in real time

	reply string // to a domain that was never asked for; "right": the fault does no harm
	known string // to one that is known; empty: the right one
	wait  time.Duration
	back  time.Duration // after the end of the fault, replies are right within this
	bytes int64         // read at most, in all, for one lookup and what it leads to
}

// The documented times (docs/behaviour.md).
const (
	noWait    = 0
	fetchWait = 5 * time.Second             // §6: fetch.wait
	dnsWait   = 15 * time.Second            // §6: no lookup takes longer
	dnsBack   = 10 * time.Second            // §6: a failure is remembered for 10 s
	ttlBack   = 5 * time.Minute             // §6: an answer is kept for its TTL
	txtBack   = time.Minute                 // §3: a failing TXT lookup counts as absence for 60 s
	httpsBack = 5*time.Minute + time.Minute // §3: no second fetch within 5 minutes of one, which ends after 60 s

	kib = 1 << 10
)

// observed is a row of the table.
type observed struct {
	outage
	got        string
	why        string // of a failed fetch
	took       time.Duration
	read       int64
	known      string
	knownTook  time.Duration
	rightAfter time.Duration
}

const faultZones = zones + `
known.test.           3600 IN MX 10 mx.plain.test.
`

// faulty is the world in which everything of this file happens: plain.test is
// new and known.test was asked for two hours ago.
type faulty struct {
	*host
	hosts []*lab.PolicyHost
}

func (f *faulty) fail(o outage, fails bool) {
	name := o.only
	if name == "" {
		name = "*"
	}
	fault, host := o.dns, o.host
	if !fails {
		fault, host = 0, lab.HostFault{}
	}
	f.Fault(name, "ANY", fault)
	for _, ph := range f.hosts {
		ph.Fault(host)
	}
}

func (f *faulty) run(o outage) observed {
	seen := observed{outage: o}
	f.Fault("*", "ANY", 0)
	f.want("known.test", secure)
	if !o.real {
		f.after(2 * time.Hour) // its DANE state is over
	}
	for _, ph := range f.hosts {
		ph.SetPolicy(enforce) // a new id: the policy host is asked, too
	}
	f.fail(o, true)
	before := f.Received(53) + f.Received(443)
	seen.got, seen.took = f.askTimed("plain.test")
	if !o.real {
		f.after(75 * time.Second) // what it led to in the background ends
	}
	seen.read = f.Received(53) + f.Received(443) - before
	if rec, err := f.store.Get("plain.test"); err == nil && rec.STS != nil {
		seen.why = rec.STS.Error
	}
	seen.known, seen.knownTook = f.askTimed("known.test")

	f.ask("plain.test") // so that the failure is fresh
	f.fail(o, false)
	ended := time.Now()
	for f.ask("plain.test") != secure && time.Since(ended) < 24*time.Hour {
		f.after(time.Second)
	}
	seen.rightAfter = time.Since(ended)
	return seen
}

func observe(t *testing.T, o outage) (seen observed) {
	if o.real {
		return observeReal(t, o)
	}
	inBubble(t, faultZones, func(t *testing.T, h *host) {
		f := &faulty{host: h}
		for _, domain := range []string{"plain.test", "known.test"} {
			f.hosts = append(f.hosts, h.PolicyHost(domain, enforce))
		}
		seen = f.run(o)
	})
	return seen
}

// observeReal has a resolver that is asked over real sockets.
func observeReal(t *testing.T, o outage) observed {
	h := &host{World: lab.New(), t: t, path: filepath.Join(t.TempDir(), "policies.db")}
	h.Zone(faultZones)
	h.start()
	defer h.World.Close()
	defer h.stop()
	addr, err := h.ListenDNS("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := h.config
	if cfg.Resolver, err = dnsclient.New(dnsclient.Config{Servers: []netip.AddrPort{addr}}); err != nil {
		t.Fatal(err)
	}
	h.Reconfigure(cfg)
	f := &faulty{host: h}
	for _, domain := range []string{"plain.test", "known.test"} {
		f.hosts = append(f.hosts, h.PolicyHost(domain, enforce))
	}
	return f.run(o)
}

// check holds what was seen against what is promised.
func (s observed) check(t *testing.T) {
	want := s.reply
	if want == "right" {
		want = secure
	}
	if prefix, ok := strings.CutSuffix(want, "…"); s.got != want && (!ok || !strings.HasPrefix(s.got, prefix)) {
		t.Errorf("reply %q, want %q", s.got, want)
	}
	slack := time.Duration(0)
	if s.real {
		slack = time.Minute // no timed assertion on a real clock
	}
	if s.took > s.wait+slack {
		t.Errorf("reply after %v, want %v at most", s.took, s.wait)
	}
	if s.read > s.bytes {
		t.Errorf("%d bytes read, want %d at most", s.read, s.bytes)
	}
	// §5, §6: a known policy goes on applying, after 2 s at the latest.
	known := s.outage.known
	if known == "" {
		known = secure
	}
	if s.known != known || s.knownTook > knownWait+slack {
		t.Errorf("known domain: %q after %v", s.known, s.knownTook)
	}
	if s.rightAfter > s.back+slack {
		t.Errorf("right again after %v, want %v at most", s.rightAfter, s.back)
	}
}

func (s observed) row() string {
	reply := "`" + strings.TrimSpace(s.got) + "`"
	if s.got == secure {
		reply = "the right one"
	}
	if why := strings.TrimPrefix(s.why, "policy host mta-sts.plain.test: "); why != "" {
		// Which of two questions fails first is a matter of chance.
		reply += ": " + strings.Replace(why, "AAAA lookup of", "A lookup of", 1)
	}
	known := "the right one"
	if s.known != secure {
		known = "`" + strings.TrimSpace(s.known) + "`"
	}
	return fmt.Sprintf("| %s | %s | %s | %s | %s, %s | %s |", s.name, reply, s.elapsed(s.took),
		amount(s.read), known, s.elapsed(s.knownTook), s.elapsed(s.rightAfter))
}

func (s observed) elapsed(d time.Duration) string {
	switch d = d.Round(100 * time.Millisecond); {
	case s.real || d == 0:
		return "at once"
	case d < time.Minute:
		return d.String()
	}
	return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
}

// amount rounds up: signatures differ by some bytes from run to run.
func amount(n int64) string {
	if n >= 1<<20 {
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%d KiB", (n+kib-1)/kib)
}

// TestNetworkFaults prints the table, and holds docs/faults.md against it.
func TestNetworkFaults(t *testing.T) {
	table := map[string][]string{}
	for _, part := range []struct {
		name    string
		outages []outage
	}{{"dns", dnsOutages()}, {"https", httpsOutages()}} {
		rows := make([]string, len(part.outages))
		t.Run(part.name, func(t *testing.T) {
			for i, o := range part.outages {
				t.Run(o.name, func(t *testing.T) {
					seen := observe(t, o)
					seen.check(t)
					rows[i] = seen.row()
					t.Log(rows[i])
				})
			}
		})
		table[part.name] = rows
	}
	if !t.Failed() {
		compareDocument(t, table)
	}
}

const faultsHead = "| fault | reply to a new domain | after | read in all | reply to a known domain | right again after |\n" +
	"| --- | --- | --- | --- | --- | --- |\n"

// compareDocument puts the rows between their markers in the document, or tells
// where it says something else.
func compareDocument(t *testing.T, table map[string][]string) {
	was, err := os.ReadFile(faultsDocument)
	if err != nil {
		t.Fatal(err)
	}
	text := string(was)
	for part, rows := range table {
		begin, end := "<!-- begin "+part+" -->\n", "<!-- end "+part+" -->"
		before, rest, ok := strings.Cut(text, begin)
		old, after, ok2 := strings.Cut(rest, end)
		if !ok || !ok2 {
			t.Fatalf("%s: no markers for %q", faultsDocument, part)
		}
		fresh := faultsHead + strings.Join(rows, "\n") + "\n"
		if !rewriting() && withoutAmounts(old) != withoutAmounts(fresh) {
			t.Errorf("%s is not what the test saw: run 'make faults'\ndocument:\n%s\nseen:\n%s", faultsDocument, old, fresh)
		}
		text = before + begin + fresh + end + after
	}
	if rewriting() && text != string(was) {
		if err := os.WriteFile(faultsDocument, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// withoutAmounts leaves out the column that differs a little from run to run.
func withoutAmounts(table string) string {
	var out strings.Builder
	for line := range strings.Lines(table) {
		cells := strings.Split(line, "|")
		if len(cells) > 4 {
			cells[4] = ""
		}
		out.WriteString(strings.Join(cells, "|"))
	}
	return out.String()
}
