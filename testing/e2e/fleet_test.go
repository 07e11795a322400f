//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// TestFleet has three hosts share policies in Valkey and in Redis, with each
// fault of the engine, a failover and a cluster.
func TestFleet(t *testing.T) {
	f := startFleet(t, 3, 120, 72)
	for _, kind := range []engineKind{valkey8(), redis7()} {
		t.Run(kind.name, func(t *testing.T) {
			e := f.join(t, kind, "timeout = \"1s\"\n") // enough on any machine
			if n := f.oneAfterAnother(t); n != f.policies {
				t.Errorf("one host after another: %d fetches for %d policies", n, f.policies)
			}
			if blocked, _ := f.firstMessage(t, "always_refuse"); blocked.secure != f.policies {
				t.Errorf("everything but the engine blocked: %d of %d secure, others: %q", blocked.secure, f.policies, blocked.wrong)
			}
			f.shown(t)
			f.faults(t, e, engineFaults())
			f.emptied(t, e, 0)
			f.forged(t, e)
			f.killedHolder(t, e)
			if secure, _ := f.joined(t, e); secure*100 < f.policies*99 {
				t.Errorf("a new host answers %d of %d", secure, f.policies)
			}
		})
	}
	t.Run("Sentinel", func(t *testing.T) { f.failover(t, redis7()) })
	t.Run("Cluster", func(t *testing.T) { f.cluster(t, plain(valkey8())) })
}

// startFleet makes the world of a test.
func startFleet(t *testing.T, hosts, domains, policies int) *fleet {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() {
			dumpLogs()
		}
	})
	f, err := newFleet(hosts, domains, policies)
	if err != nil {
		t.Fatalf("cannot build the fleet: %v", err)
	}
	return f
}

// join has the hosts share from now on, with more lines in [share].
func (f *fleet) join(t *testing.T, kind engineKind, extra string) *engine {
	t.Helper()
	e, err := f.newEngine(kind, 6379, "")
	must(t, err)
	f.share, err = f.shared(kind, extra, e.port)
	must(t, err)
	f.engine = e
	t.Cleanup(func() {
		f.share, f.engine = "", nil
		if err := e.stop(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// plain is an engine without TLS.
func plain(kind engineKind) engineKind {
	kind.tls = false
	return kind
}

// TestFleetFigures measures ten hosts and writes the section of docs/figures.md.
func TestFleetFigures(t *testing.T) {
	f := startFleet(t, 10, 1000, 600)
	kind := valkey8()
	var rows []string
	row := func(what, apart, together string) {
		fmt.Printf("%s | %s | %s | %s\n", time.Now().Format(time.TimeOnly), what, apart, together)
		rows = append(rows, fmt.Sprintf("| %s | %s | %s |", what, apart, together))
	}
	count := func(n int) string { return fmt.Sprint(n) }
	const (
		day       = 2 * time.Minute
		partition = 10 * time.Minute
	)
	spread := func(a *answersOf) string {
		return fmt.Sprintf("%d of %d secure; %s, at most %s", a.secure, f.policies, ms(a.quantile(0.5)), ms(a.quantile(1)))
	}

	serial, atOnce, refreshed := f.oneAfterAnother(t), f.allAtOnce(t), f.refreshing(t, day, 1)
	refused, dane := f.firstMessage(t, "always_refuse")
	silent, _ := f.firstMessage(t, "deny")
	apart := f.faults(t, nil, nil)
	e := f.join(t, kind, "")
	row("HTTPS fetches, one host after another", count(serial), count(f.oneAfterAnother(t)))
	row("all hosts at once, each asked by five clients", count(atOnce), count(f.allAtOnce(t)))
	row("a day of refreshing", count(refreshed), count(f.refreshing(t, day, 1)))
	row("six days of refreshing, with share.verify_after of three days and not seven", count(6*refreshed), count(f.verifying(t)))
	together, _ := f.firstMessage(t, "always_refuse")
	row("first message at B, TXT refused and policy host blocked; DANE alone takes "+ms(dane.quantile(0.5))+", at most "+ms(dane.quantile(1)),
		spread(refused), spread(together))
	together, _ = f.firstMessage(t, "deny")
	row("the same, TXT never answered", spread(silent), spread(together))
	row("FLUSHALL: policies that are in the engine again after a refresh interval", "–",
		fmt.Sprintf("%d of %d; no answer changed", f.emptied(t, e, time.Minute), f.policies))
	holder := f.killedHolder(t, e)
	row("holder of the lease killed in the middle of a fetch: the other 9", "–",
		fmt.Sprintf("%d secure, at most %s", holder.secure, ms(holder.quantile(1))))
	row("entries with another key, and of another program", "–", fmt.Sprintf("%d, refused and counted; no answer changed", f.forged(t, e)))
	secure, took := f.joined(t, e)
	row("a new host joins, then the engine dies and all else is blocked", "0 of 600",
		fmt.Sprintf("%d of %d, known after %s", secure, f.policies, ms(took)))
	faults := faultTable(append(apart, f.faults(t, e, engineFaults())...))
	fmt.Println(faults)
	const entries = 1_000_000
	m := f.million(t, e, entries, 6*time.Minute)
	row("a million entries in the engine", "–", fmt.Sprintf("%d bytes each, SCAN of all %s; start of a new host to its first answer %s, with an empty engine %s; "+
		"it knows %d policies after 10 s, %d after %s", m.each, ms(m.scan), ms(m.start), ms(m.smallStart), m.first, m.known, ms(m.within)))
	here, there, hints := f.partitioned(t, e, partition)
	row("partition of 10 minutes, a policy changed on each side: after healing the other side has it", "–",
		fmt.Sprintf("%s where the engine was reached, %s where it was not", orNever(there), orNever(here)))
	row("entry with a good key, a new id and a weaker file", "–", fmt.Sprintf("%d fetch, no answer changed", hints))
	text := "`make fleet`, as root, half an hour, of " + time.Now().Format(time.DateOnly) + ": " + figuresIntro(kind) + "\n\n| test | apart | together |\n| --- | --- | --- |\n" +
		strings.Join(rows, "\n") + "\n\n" + faults
	fmt.Println(text)
	if path := os.Getenv(tableEnv); path != "" && !t.Failed() {
		if err := writeSection(path, "## A fleet", text); err != nil {
			t.Error(err)
		}
	}
}

func figuresIntro(kind engineKind) string {
	return "ten daemons in network namespaces of their own, each with a validating Unbound; NSD with 1,000 domains, 600 of them " +
		"with a policy; nginx, which counts what it serves; " + kind.name + ". All of it shares two cores, so times are above those of " +
		"ten machines. Apart is without `[share]`. A day is a `refresh.interval` of two minutes instead of 24 hours, 720 times shorter, " +
		"and so is its jitter of a tenth; apart, six days are six times the day that was measured, and the new host is as B is. With share.verify_after at 7 days the hosts' own " +
		"fetches add 771 a day at most (9 of 10 hosts, 600 policies, each seventh day). Aimed at: 600 fetches one after another, 630 at once and for a day; all 600 secure at B, 250 ms " +
		"above the time of DANE at most; nothing TEMP or weaker, and three cold lookups that pay 250 ms at most."
}

func faultTable(faults []faultFigures) string {
	var b strings.Builder
	b.WriteString("Lookups of one client while the engine fails. \"cold\" are domains that the host does not know, one after another; " +
		"none was TEMP, none weaker, /readyz and a restart succeeded.\n\n" +
		"| engine | first three cold, at most | later cold: median, at most | hits: median, p99 |\n| --- | --- | --- | --- |\n")
	for _, f := range faults {
		fmt.Fprintf(&b, "| %s | %s | %s, %s | %s, %s |\n", f.name, ms(f.first.quantile(1)),
			ms(f.rest.quantile(0.5)), ms(f.rest.quantile(1)), ms(f.hits.quantile(0.5)), ms(f.hits.quantile(0.99)))
	}
	return b.String()
}

// ms shows a time to three digits.
func ms(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return d.Round(time.Microsecond).String()
	case d < time.Second:
		return d.Round(100 * time.Microsecond).String()
	}
	return d.Round(10 * time.Millisecond).String()
}

// orNever is for a time of something that was not seen.
func orNever(d time.Duration) string {
	if d == 0 {
		return "not within 30 s"
	}
	return ms(d)
}
