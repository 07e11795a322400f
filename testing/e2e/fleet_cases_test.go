//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tlspolicyd/share"
	"tlspolicyd/socketmap"
)

// Each case is one of the rows of "A fleet" in docs/figures.md. It checks the
// answers and returns the figures.

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// right checks that a host answered what is right for domains of the fleet.
func (f *fleet) right(h *fleetHost, domains []string, a *answersOf) error {
	want := 0
	for _, d := range domains {
		if slices.Index(f.domains, d) < f.policies {
			want++
		}
	}
	if a.secure != want || a.notFound != len(domains)-want || len(a.wrong) > 0 {
		return fmt.Errorf("%s: %d secure, want %d; %d NOTFOUND, want %d; others: %q",
			h.name, a.secure, want, a.notFound, len(domains)-want, a.wrong[:min(len(a.wrong), 5)])
	}
	return nil
}

// learn asks one host for domains and checks the answers.
func (h *fleetHost) learn(domains []string, clients int) error {
	a, err := h.ask(domains, clients)
	if err != nil {
		return err
	}
	return h.fleet.right(h, domains, a)
}

// oneAfterAnother has each host asked for all domains, the next one when the
// one before is through.
func (f *fleet) oneAfterAnother(t *testing.T) (fetches int) {
	t.Helper()
	f.fresh(t)
	fetches, err := f.fetchedBy(func() (err error) {
		for _, h := range f.hosts {
			err = errors.Join(err, h.learn(f.domains, 20))
		}
		return err
	})
	must(t, err)
	return fetches
}

// allAtOnce has all hosts asked for the same domains in the same order at the
// same time, each by five clients.
func (f *fleet) allAtOnce(t *testing.T) (fetches int) {
	t.Helper()
	f.fresh(t)
	fetches, err := f.fetchedBy(func() error {
		return each(f.hosts, func(h *fleetHost) error { return h.learn(f.domains, 5) })
	})
	must(t, err)
	return fetches
}

// refreshing counts the fetches of some refresh intervals after all hosts
// learned all policies. An interval stands for a day.
func (f *fleet) refreshing(t *testing.T, interval time.Duration, days int) (fetches int) {
	t.Helper()
	old := f.refresh
	f.refresh = interval
	defer func() { f.refresh = old }()
	f.allAtOnce(t)
	fetches, err := f.fetchedBy(func() error {
		time.Sleep(time.Duration(days) * interval) // no test waits for anything: figures are for a time
		return nil
	})
	must(t, err)
	return fetches
}

// verifying counts the fetches of six days, of a minute each, while each host
// fetches itself after three days what the others renew for it.
func (f *fleet) verifying(t *testing.T) (fetches int) {
	t.Helper()
	old := f.share
	f.share += "verify_after = \"3m\"\n"
	defer func() { f.share = old }()
	return f.refreshing(t, time.Minute, 6)
}

// firstMessage asks a host that knows nothing and gets neither TXT records nor
// the policy host, and before a host that gets all, for the time of DANE.
func (f *fleet) firstMessage(t *testing.T, how string) (blocked, dane *answersOf) {
	t.Helper()
	a, b := f.hosts[0], f.hosts[1]
	policies, others := f.domains[:f.policies], f.domains[f.policies:]
	must(t, errors.Join(b.forget(), a.learn(policies, 20)))
	must(t, errors.Join(cut(b.name, fleetWeb), b.resolve(f.blocking(how)), b.start()))
	f.waitShared(t, b)
	blocked, err1 := b.ask(policies, 20)
	must(t, errors.Join(err1, b.forget(), connect(b.name, fleetWeb), b.resolve(""), b.start()))
	dane, err2 := b.ask(others, 20)
	must(t, err2)
	return blocked, dane
}

// waitShared waits until a host with a share sees the engine.
func (f *fleet) waitShared(t *testing.T, hosts ...*fleetHost) {
	t.Helper()
	if f.share == "" {
		return
	}
	for _, h := range hosts {
		must(t, h.seesEngine())
	}
}

// seesEngine waits until a host sees the engine.
func (h *fleetHost) seesEngine() error {
	return waitFor(func() error {
		if h.metric("tlspolicyd_share_up") != 1 {
			return errors.New(h.name + " does not see the engine")
		}
		return nil
	})
}

// shown does what step 4 of docs/fleet.md does.
func (f *fleet) shown(t *testing.T) {
	t.Helper()
	f.fresh(t)
	a, b, domain := f.hosts[0], f.hosts[1], f.domains[0]
	_, err := a.run("lookup", "--socket", "unix:"+a.dir()+"/socketmap.sock", domain)
	must(t, err)
	mustWait(t, func() error {
		show, err := b.run("cache", "show", domain)
		if err == nil && !strings.Contains(show, "fetched by     "+a.name) {
			err = fmt.Errorf("%s shows %s", b.name, show)
		}
		return err
	})
	if diff, err := b.run("cache", "diff"); err != nil || diff != "" {
		t.Errorf("cache diff on %s: %q, %v", b.name, diff, err)
	}
}

// fault is something that goes wrong with the engine.
type fault struct {
	name  string
	code  string // of doctor; "": not looked at
	begin func(*engine) error
	end   func(*engine) error
}

// commands are run at the engine, one after another.
func commands(all ...string) func(*engine) error {
	return func(e *engine) (err error) {
		for _, c := range all {
			reply, failed := e.command(strings.Fields(c)...)
			if failed == nil && (strings.HasPrefix(reply, "ERR") || strings.HasPrefix(reply, "NO")) {
				failed = fmt.Errorf("%s: %s", c, reply)
			}
			err = errors.Join(err, failed)
		}
		return err
	}
}

func signal(s syscall.Signal) func(*engine) error {
	return func(e *engine) error { return e.proc.cmd.Process.Signal(s) }
}

func engineFaults() []fault {
	user, disconnect := "ACL SETUSER "+engineUser+" ", "CLIENT KILL USER "+engineUser
	var (
		proxy *slowProxy
		other io.Closer
	)
	return []fault{
		{name: "killed", code: "share-unreachable", begin: (*engine).stop, end: (*engine).start},
		{name: "stopped (SIGSTOP)", code: "share-unreachable", begin: signal(syscall.SIGSTOP), end: signal(syscall.SIGCONT)},
		{
			name: "1 s slow",
			begin: func(e *engine) (err error) {
				if err = e.moveTo(e.port + 100); err == nil {
					proxy, err = newSlowProxy(e.port-100, e.port)
				}
				if err == nil { // it was reached through the proxy before it became slow
					err = errors.Join(e.fleet.hosts[0].seesEngine(), e.fleet.hosts[1].seesEngine())
					proxy.delay.Store(int64(time.Second))
				}
				return err
			},
			end: func(e *engine) error {
				proxy.stop()
				return e.moveTo(e.port - 100)
			},
		},
		{name: "unreachable (packets lost)", begin: forTwo(cut), end: forTwo(connect)},
		{name: "wrong password", code: "share-unreachable", begin: commands(user+"resetpass >another", disconnect), end: commands(user + "resetpass >" + userPassword)},
		{name: "ACL denies all", code: "share-denied", begin: commands(user + "-@all"), end: (*engine).permit},
		{name: "ACL denies writing", code: "share-denied", begin: commands(user + "-hset -xadd"), end: (*engine).permit},
		{name: "full", code: "share-not-writable", begin: commands("CONFIG SET maxmemory 1"), end: commands("CONFIG SET maxmemory 0")},
		{name: "read-only replica", code: "share-not-writable", begin: commands("REPLICAOF " + deadRouter + " 6379"), end: commands("REPLICAOF NO ONE")},
		{
			name: "not an engine: HTTP", code: "share-unreachable",
			begin: func(e *engine) (err error) {
				if err = e.stop(); err == nil {
					other, err = babbler(e.port, "HTTP/1.1 400 Bad Request\r\n\r\n")
				}
				return err
			},
			end: func(e *engine) error { return errors.Join(other.Close(), e.start()) },
		},
		{
			name: "announces 512 MB",
			begin: func(e *engine) (err error) {
				if err = e.stop(); err == nil {
					other, err = babbler(e.port, "$536870912\r\n")
				}
				return err
			},
			end: func(e *engine) error { return errors.Join(other.Close(), e.start()) },
		},
	}
}

// faultFigures is what lookups took while the engine failed.
type faultFigures struct {
	name        string
	first, rest answersOf // cold lookups: the first three, and all others
	hits        answersOf
}

// forTwo cuts the hosts of underFault from the engine, or connects them again.
func forTwo(do func(host, address string) error) func(*engine) error {
	return func(e *engine) error {
		return errors.Join(do(e.fleet.hosts[0].name, fleetEngine), do(e.fleet.hosts[1].name, fleetEngine))
	}
}

func noFault(*engine) error { return nil }

// coldEach is how many cold domains each fault takes.
const coldEach = 6

// underFault has one client ask a host for domains that it does not know, one
// after another, and for known ones, while the engine fails. No answer may be
// TEMP or weaker, and the host must be ready and able to restart.
func (f *fleet) underFault(t *testing.T, e *engine, what fault, known, cold []string) faultFigures {
	t.Helper()
	a, b := f.hosts[0], f.hosts[1]
	must(t, what.begin(e))
	first, err1 := a.ask(cold[:3], 1)
	rest, err2 := a.ask(cold[3:], 1)
	hits, err3 := a.ask(slices.Concat(known, known, known), 1)
	must(t, errors.Join(err1, err2, err3))
	err := errors.Join(f.right(a, cold[:3], first), f.right(a, cold[3:], rest), f.right(a, slices.Concat(known, known, known), hits))
	if err != nil {
		t.Errorf("engine %s: %v", what.name, err)
	}
	if status, body, err := a.get("/readyz"); status != http.StatusOK {
		t.Errorf("engine %s: /readyz is %d %s, %v", what.name, status, body, err)
	}
	must(t, errors.Join(b.stop(), b.start()))
	if err := b.learn(known, 1); err != nil {
		t.Errorf("engine %s, after a restart: %v", what.name, err)
	}
	if what.code != "" {
		if codes := a.doctor(t); !slices.Contains(codes, what.code) {
			t.Errorf("engine %s: doctor finds %q, want %s", what.name, codes, what.code)
		}
	}
	must(t, what.end(e))
	f.waitShared(t, a, b)
	return faultFigures{what.name, *first, *rest, *hits}
}

// faults goes through all faults of the engine. The first figures are those of an
// engine without one, or of hosts without an engine.
func (f *fleet) faults(t *testing.T, e *engine, faults []fault) (all []faultFigures) {
	t.Helper()
	f.fresh(t)
	known, cold := f.domains[:12], f.domains[12:]
	for _, h := range f.hosts {
		must(t, h.learn(known, 10))
	}
	none := fault{name: "none", code: "share-ok", begin: noFault, end: noFault}
	if e == nil {
		none.name, none.code = "(no share configured)", ""
	}
	for i, what := range append([]fault{none}, faults...) {
		all = append(all, f.underFault(t, e, what, known, cold[i*coldEach:(i+1)*coldEach]))
	}
	return all
}

// emptied deletes all keys. Answers stay; it returns how many policies the
// engine has again, after a refresh interval at most.
func (f *fleet) emptied(t *testing.T, e *engine, interval time.Duration) (refilled int) {
	t.Helper()
	old := f.refresh
	f.refresh = max(interval, time.Minute)
	defer func() { f.refresh = old }()
	f.fresh(t)
	policies := f.domains[:f.policies]
	for _, h := range f.hosts {
		must(t, h.learn(policies, 20))
	}
	must(t, commands("FLUSHALL")(e))
	_ = waitUpTo(interval, func() error {
		for _, h := range f.hosts {
			must(t, h.learn(policies, 20))
		}
		keys, err := e.command("--scan", "--pattern", key("*"))
		if refilled = len(strings.Fields(keys)); refilled < f.policies {
			err = errors.Join(err, errors.New("not yet"))
		}
		return err
	})
	return refilled
}

// partitioned cuts a host from the engine and changes two policies meanwhile:
// one is seen by the host that is cut off, one by another. It returns how long
// after the partition each side has the policy of the other one, 0 for not within
// half a minute. Then a member shows a weaker file under a new id.
func (f *fleet) partitioned(t *testing.T, e *engine, lasting time.Duration) (here, there time.Duration, hints int) {
	t.Helper()
	f.fresh(t)
	a, b := f.hosts[0], f.hosts[1]
	seenHere, seenThere, weakened := f.domains[0], f.domains[1], f.domains[2]
	for _, h := range f.hosts {
		must(t, h.learn(f.domains[:3], 1))
	}
	must(t, cut(b.name, fleetEngine))
	has := func(h *fleetHost, domain string) error {
		show, err := h.run("cache", "show", domain) // unlike a lookup, it starts nothing
		if err == nil && !strings.Contains(show, "new."+domain) {
			err = fmt.Errorf("%s has of %s: %s", h.name, domain, show)
		}
		return err
	}
	for h, domain := range map[*fleetHost]string{a: seenHere, b: seenThere} {
		must(t, errors.Join(f.change(domain, "2", "new."+domain), h.resolve("")))
		_, err := h.run("cache", "refresh", domain)
		must(t, errors.Join(err, has(h, domain)))
	}
	time.Sleep(lasting) // no test waits for anything: it is how long a partition lasts
	must(t, connect(b.name, fleetEngine))
	healed := time.Now()
	var group sync.WaitGroup
	since := func(h *fleetHost, domain string, took *time.Duration) {
		if waitUpTo(30*time.Second, func() error { return has(h, domain) }) == nil {
			*took = time.Since(healed)
		}
	}
	group.Go(func() { since(b, seenHere, &there) })
	group.Go(func() { since(a, seenThere, &here) })
	group.Wait()

	before := a.metric(hintsTotal)
	must(t, e.put(weakened, weakerFile, "9", fleetKey))
	a.counted(t, hintsTotal, before+1)
	must(t, a.learn([]string{weakened}, 1))
	hints = int(a.metric(hintsTotal) - before)
	must(t, errors.Join(f.change(seenHere, "1", "mx."+seenHere), f.change(seenThere, "1", "mx."+seenThere), a.resolve(""), b.resolve("")))
	return here, there, hints
}

// killedHolder kills a host that fetches a policy for the fleet, and returns how
// long the others took to answer.
func (f *fleet) killedHolder(t *testing.T, e *engine) *answersOf {
	t.Helper()
	f.fresh(t)
	holder, others, domain := f.hosts[0], f.hosts[1:], f.domains[f.policies-1]
	must(t, cut(holder.name, fleetWeb)) // its fetch does not end
	go func() { _, _ = holder.ask([]string{domain}, 1) }()
	mustWait(t, func() error {
		held, err := e.command("EXISTS", enginePrefix+":1:lease:{"+domain+"}")
		if err == nil && held != "1" {
			err = errors.New("no lease: " + held)
		}
		return err
	})
	must(t, holder.daemon.stop(syscall.SIGKILL))
	holder.daemon = nil
	var all answersOf
	var mutex sync.Mutex
	must(t, each(others, func(h *fleetHost) error {
		a, err := h.ask([]string{domain}, 1)
		if err == nil {
			err = f.right(h, []string{domain}, a)
		}
		mutex.Lock()
		defer mutex.Unlock()
		all.times = append(all.times, a.times...)
		all.secure += a.secure
		return err
	}))
	must(t, errors.Join(connect(holder.name, fleetWeb), holder.start()))
	return &all
}

// doctor returns the codes that doctor finds in the topic "shared cache".
func (h *fleetHost) doctor(t *testing.T) (codes []string) {
	t.Helper()
	out, err := h.run("doctor", "--json") // an exit status of 1 is for what this host has not, such as Postfix
	var report struct {
		Topics []struct {
			Name     string
			Findings []doctorFinding
		}
	}
	if failed := json.Unmarshal([]byte(out), &report); failed != nil {
		t.Fatalf("doctor: %v, %v", err, failed)
	}
	for _, topic := range report.Topics {
		if topic.Name == "shared cache" {
			codes = append(codes, codesOf(topic.Findings)...)
		}
	}
	return codes
}

// reply asks a host for one domain.
func (h *fleetHost) reply(domain string) (string, error) {
	client, err := socketmap.NewClient("unix:" + h.dir() + "/socketmap.sock")
	if err != nil {
		return "", err
	}
	defer client.Close()
	r, err := client.Lookup(context.Background(), "postfix", domain)
	return r.String(), err
}

// put writes an entry as a member of the fleet would, signed with a key, and has
// the others know.
func (e *engine) put(domain, file, id, with string) error {
	now := time.Now()
	entry := share.Keys{[]byte(with)}.Seal(domain, share.Policy{File: []byte(file), ID: id, Host: "forger"}, now, now.UnixMicro())
	const script = `redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'format', ARGV[1], 'file', ARGV[2], 'id', ARGV[3], 'time', ARGV[4], 'fence', ARGV[5],
  'host', ARGV[6], 'mac', (ARGV[7]:gsub('%x%x', function(c) return string.char(tonumber(c, 16)) end)))
redis.call('PEXPIRE', KEYS[1], 600000)
return redis.call('XADD', KEYS[2], '*', 'domain', ARGV[8], 'member', 'forger')`
	_, err := e.command("EVAL", script, "2", key(domain), enginePrefix+":1:changes",
		strconv.FormatInt(entry.Format, 10), string(entry.File), entry.ID, strconv.FormatInt(entry.Time, 10),
		strconv.FormatInt(entry.Fence, 10), entry.Host, hex.EncodeToString(entry.MAC), domain)
	return err
}

const (
	refusedTotal = "tlspolicyd_share_refused_total"
	hintsTotal   = "tlspolicyd_share_hints_total"

	weakerFile = "version: STSv1\nmode: none\nmax_age: 604800\n"
)

// counted waits until a counter of a host has a value, or a higher one.
func (h *fleetHost) counted(t *testing.T, sample string, least float64) {
	t.Helper()
	mustWait(t, func() error {
		if n := h.metric(sample); n < least {
			return fmt.Errorf("%s is %v, want %v", sample, n, least)
		}
		return nil
	})
}

// forged puts entries into the engine that a host must not believe, or not
// follow, and returns how many were refused.
func (f *fleet) forged(t *testing.T, e *engine) (refused int) {
	t.Helper()
	f.fresh(t)
	h := f.hosts[0]
	known, unknown, foreign := f.domains[0], f.domains[1], f.domains[2]
	must(t, h.learn([]string{known}, 1))

	// By one who has no key: for a domain that is known, and for one that is not,
	// while everything but the engine is blocked.
	const otherKey = "another key, also 32 bytes long!"
	must(t, errors.Join(e.put(known, weakerFile, "2", otherKey), e.put(unknown, enforced(unknown, "mx.attacker.test").text, "1", otherKey)))
	h.counted(t, refusedTotal, 2)
	must(t, errors.Join(cut(h.name, fleetWeb), h.resolve(f.blocking("always_refuse"))))
	if reply, err := h.reply(unknown); err != nil || reply != "NOTFOUND " {
		t.Errorf("forged entry, nothing else known: %q, %v", reply, err)
	}
	must(t, errors.Join(connect(h.name, fleetWeb), h.resolve("")))
	must(t, h.learn([]string{known}, 1))

	// By a member: of the same id and of another one.
	for _, id := range []string{"1", "2"} {
		before := h.metric(refusedTotal)
		must(t, e.put(known, weakerFile, id, fleetKey))
		must(t, e.put(foreign, "", id, otherKey)) // in the same stream: when it is refused, that before has been read
		h.counted(t, refusedTotal, before+1)
		must(t, h.learn([]string{known}, 1))
	}

	// By another program.
	must(t, commands("SET "+key(foreign)+" its_own")(e))
	before := h.metric(refusedTotal)
	must(t, h.learn([]string{foreign}, 1))
	h.counted(t, refusedTotal, before+1)
	return int(h.metric(refusedTotal))
}

// joined has a new host join and the engine die when it knows the policies, and
// returns how many it answers with everything else blocked, and how long it took
// to know them.
func (f *fleet) joined(t *testing.T, e *engine) (secure int, took time.Duration) {
	t.Helper()
	f.fresh(t)
	policies := f.domains[:f.policies]
	must(t, f.hosts[0].learn(policies, 20))
	h := f.late
	must(t, errors.Join(h.forget(), h.start()))
	began := time.Now()
	mustWait(t, func() error {
		list, err := h.run("cache", "list")
		if known := strings.Count(list, ".test"); err == nil && known*100 < f.policies*99 {
			err = fmt.Errorf("%s knows %d policies", h.name, known)
		}
		return err
	})
	took = time.Since(began)
	must(t, errors.Join(e.stop(), cut(h.name, fleetWeb), h.resolve(f.blocking("always_refuse"))))
	a, err := h.ask(policies, 20)
	must(t, errors.Join(err, h.stop(), connect(h.name, fleetWeb), h.resolve(""), e.start()))
	return a.secure, took
}

// failover has the master of three Sentinels die. Neither before nor after it any
// policy is fetched twice.
func (f *fleet) failover(t *testing.T, kind engineKind) {
	t.Helper()
	master, err := f.newEngine(kind, 6401, "")
	must(t, err)
	replica, err := f.newEngine(kind, 6402, fmt.Sprintf("replicaof %s %d\n", fleetEngine, master.port))
	must(t, err)
	sentinels, err := f.newSentinels(kind, master.port)
	must(t, err)
	f.share, err = f.shared(kind, "sentinel_master = \"fleet\"\n", sentinels...)
	must(t, err)
	f.fresh(t)
	a, b := f.hosts[0], f.hosts[1]
	mustWait(t, func() error {
		info, err := master.command("INFO", "replication")
		if err == nil && !strings.Contains(info, "state=online") {
			err = errors.New("no replica: " + info)
		}
		return err
	})
	f.fetchedOnce(t, f.domains[:10], a, b)
	must(t, master.stop())
	must(t, a.learn(f.domains[10:20], 1))
	mustWait(t, func() error {
		role, err := replica.command("ROLE")
		if err == nil && !strings.HasPrefix(role, "master") {
			err = errors.New("no failover: " + role)
		}
		return err
	})
	f.waitShared(t, a, b)
	f.fetchedOnce(t, f.domains[20:30], a, b)
}

// cluster has a fleet share in three nodes, and one of them die.
func (f *fleet) cluster(t *testing.T, kind engineKind) {
	t.Helper()
	nodes, err := f.newCluster(kind)
	must(t, err)
	f.share, err = f.shared(kind, "cluster = true\n", nodes[0].port, nodes[1].port)
	must(t, err)
	f.fresh(t)
	a, b := f.hosts[0], f.hosts[1]
	f.fetchedOnce(t, f.domains[:30], a, b)
	for _, n := range nodes {
		if keys, err := n.command("DBSIZE"); err != nil || keys == "0" {
			t.Errorf("node %d of the cluster has %s keys, %v", n.port, keys, err)
		}
	}
	must(t, nodes[2].stop())
	must(t, errors.Join(a.learn(f.domains, 5), b.learn(f.domains, 5)))
}

// fetchedOnce has one host asked for domains, then another one.
func (f *fleet) fetchedOnce(t *testing.T, domains []string, a, b *fleetHost) {
	t.Helper()
	fetched, err := f.fetchedBy(func() error { return errors.Join(a.learn(domains, 5), f.written(a), b.learn(domains, 5)) })
	must(t, err)
	if fetched != len(domains) {
		t.Errorf("%d fetches for %d policies of two hosts", fetched, len(domains))
	}
}

// written waits until what a host offered is in the engine.
func (f *fleet) written(h *fleetHost) error {
	last := -1.0
	return waitFor(func() error {
		n := h.metric(`tlspolicyd_share_offers_total{result="stored"}`)
		if n != last {
			last = n
			return errors.New(h.name + " still writes")
		}
		return nil
	})
}

// millionFigures is what an engine with very many entries costs.
type millionFigures struct {
	each       int           // bytes of memory
	start      time.Duration // of a host, to its first answer
	first      int           // policies that this host had adopted ten seconds later
	known      int           // and after as long as it was given
	within     time.Duration
	scan       time.Duration // of all keys, at the engine
	smallStart time.Duration // of a host with an empty engine
}

// million fills the engine with entries, and starts a host that knows nothing.
func (f *fleet) million(t *testing.T, e *engine, entries int, patience time.Duration) (m millionFigures) {
	t.Helper()
	h := f.late
	started := func() time.Duration {
		must(t, h.forget())
		began := time.Now()
		must(t, errors.Join(h.start(), h.learn(f.domains[:1], 1)))
		return time.Since(began)
	}
	must(t, commands("FLUSHALL")(e))
	m.smallStart = started()
	must(t, h.forget())
	before := e.used(t)
	for from := 0; from < entries; from += 100_000 {
		must(t, e.fill(from, min(from+100_000, entries)))
	}
	m.each = (e.used(t) - before) / entries
	began := time.Now()
	_, err := e.command("EVAL", "local c, n = '0', 0 repeat local r = redis.call('SCAN', c, 'COUNT', 1000) c = r[1] n = n + #r[2] until c == '0' return n", "0")
	m.scan = time.Since(began)
	must(t, err)
	m.start = started()
	began = time.Now()
	const adopted = "tlspolicyd_share_adopted_total"
	_ = waitUpTo(10*time.Second, func() error { return errors.New("it is what ten seconds are for") })
	m.first = int(h.metric(adopted))
	_ = waitUpTo(patience, func() error {
		if m.known = int(h.metric(adopted)); m.known < entries {
			return errors.New("not all yet")
		}
		return nil
	})
	m.within = time.Since(began)
	must(t, h.stop())
	return m
}

// used returns the engine's memory, in bytes.
func (e *engine) used(t *testing.T) (n int) {
	t.Helper()
	info, err := e.command("INFO", "memory")
	must(t, err)
	for line := range strings.Lines(info) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), "used_memory:"); ok {
			n, err = strconv.Atoi(value)
			must(t, err)
		}
	}
	return n
}

// fill writes entries as the fleet does, of domains that do not exist.
func (e *engine) fill(from, to int) error {
	var b bytes.Buffer
	send := func(args ...string) {
		fmt.Fprintf(&b, "*%d\r\n", len(args))
		for _, a := range args {
			fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(a), a)
		}
	}
	now := time.Now()
	for i := from; i < to; i++ {
		domain := fmt.Sprintf("m%07d.open.test", i)
		entry := share.Keys{[]byte(fleetKey)}.Seal(domain, share.Policy{File: []byte(enforced(domain, "mx."+domain).text), ID: "20261128T000000", Host: "mail1.example.net"}, now, now.UnixMicro())
		send("HSET", key(domain), "format", strconv.FormatInt(entry.Format, 10), "file", string(entry.File), "id", entry.ID,
			"time", strconv.FormatInt(entry.Time, 10), "fence", strconv.FormatInt(entry.Fence, 10), "host", entry.Host, "mac", string(entry.MAC))
		send("PEXPIRE", key(domain), "604800000")
	}
	commands := engineDir + "/fill"
	if err := write(commands, b.String()); err != nil {
		return err
	}
	_, _, err := command(e.root(e.fleet), "/bin/sh", "-c", strings.Join(e.argv(), " ")+" --pipe <"+commands)
	return errors.Join(err, os.Remove(commands))
}
