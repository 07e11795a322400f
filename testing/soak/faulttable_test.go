//go:build linux

package soak

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// faultsDoc is where the measured table is kept. With keepEnv set the test puts
// its own there; otherwise it only looks whether every fault has its row.
const (
	faultsDoc  = "../../docs/faults.md"
	keepEnv    = "TLSPOLICYD_KEEP_FAULTS"
	faultsHead = "## This machine\n"
)

// timedReply is a reply and the longest time to one like it.
type timedReply struct {
	reply string
	took  time.Duration
}

func (r *timedReply) more(other timedReply) { r.took = max(r.took, other.took) }

func (r timedReply) String() string {
	return fmt.Sprintf("`%s`, %s", strings.TrimSpace(r.reply), rounded(r.took))
}

func rounded(d time.Duration) time.Duration {
	switch {
	case d > time.Second:
		return d.Round(100 * time.Millisecond)
	case d > 10*time.Millisecond:
		return d.Round(time.Millisecond)
	}
	return d.Round(10 * time.Microsecond)
}

// faultRow is what was measured of one fault.
type faultRow struct {
	name, how     string
	cached, fresh timedReply
	grown         int64 // resident memory, bytes
	recovered     time.Duration
}

type faultTable struct{ rows []faultRow }

func newFaultTable() *faultTable { return new(faultTable) }

func (f *faultTable) add(r faultRow) { f.rows = append(f.rows, r) }

func (f *faultTable) String() string {
	var b strings.Builder
	b.WriteString("| fault | brought about by | a cached domain | a new domain | memory | as before after |\n| --- | --- | --- | --- | --- | --- |\n")
	for _, r := range f.rows {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %+.1f MB | %s |\n", r.name, r.how, r.cached, r.fresh,
			float64(r.grown)/(1<<20), rounded(r.recovered))
	}
	return b.String()
}

// keep puts the table into the document, or holds the document against it.
func (f *faultTable) keep(t *testing.T) {
	text, err := os.ReadFile(filepath.FromSlash(faultsDoc))
	if err != nil {
		t.Fatal(err)
	}
	before, section, found := strings.Cut(string(text), faultsHead)
	if !found {
		t.Fatalf("%s has no section %q", faultsDoc, faultsHead)
	}
	section, after, more := strings.Cut(section, "\n## ")
	for _, r := range f.rows {
		if !strings.Contains(section, "| "+r.name+" |") && os.Getenv(keepEnv) == "" {
			t.Errorf("%s has no row for %q: run with %s=1", faultsDoc, r.name, keepEnv)
		}
	}
	if os.Getenv(keepEnv) == "" || t.Failed() {
		return
	}
	intro, _, _ := strings.Cut(section, "| fault |")
	if more {
		after = "\n## " + after
	}
	if err := os.WriteFile(filepath.FromSlash(faultsDoc), []byte(before+faultsHead+intro+f.String()+after), 0o644); err != nil {
		t.Fatal(err)
	}
}
