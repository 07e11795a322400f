//go:build linux

package simulate

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"tlspolicyd/policymap/policy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	seedFlag = flag.Uint64("seed", 0, "the first seed; 0: from the time")
	runsFlag = flag.Int("runs", 0, "histories")
	daysFlag = flag.Int("days", 30, "simulated days of each")
	gapFlag  = flag.Duration("gap", 30*time.Hour, "the longest pause between two troubles")
	forFlag  = flag.Duration("for", 0, "histories are begun for so long; instead of -runs")
	oneFlag  = flag.Bool("one", false, "play the history of -seed, in this process")
	shorten  = flag.Bool("shorten", true, "make a history that fails as short as possible")
)

// run is one history on its way. Everything but the daemon and the world works in
// one goroutine, the driver: an event is applied and a reply judged when nothing
// is left to be done at that moment.
type run struct {
	t *testing.T
	w *world
	d *daemon
	o *oracle

	asked   int
	judged  int
	replies chan reply
	set     settings
	diskOff bool

	lostUntil time.Time // the file was removed: by then there is another one
	log       strings.Builder
}

// reply is what a lookup led to.
type reply struct {
	number int // of the lookup
	domain int
	tlsrpt bool
	began  time.Time
	set    settings // when it began
	from   *process
	text   string
	err    error
}

// step is one of the wall clock.
type step struct {
	at time.Time
	by time.Duration
}

// result is what a history led to.
type result struct {
	wrong []string
	asked int
	log   string
}

// play plays a history in a bubble of its own.
func play(t *testing.T, h history) (res result) {
	dir, err := os.MkdirTemp(memoryDir(), "simulate")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	synctest.Test(t, func(t *testing.T) {
		r := &run{t: t, w: newWorld(), replies: make(chan reply, len(h))}
		defer r.w.Close()
		r.o = newOracle(r.w)
		r.d = &daemon{w: r.w, dir: dir, path: filepath.Join(dir, "0.db"), steps: new(atomic.Int64)}
		if err := r.d.start(); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		for _, e := range h {
			r.sleep(time.Until(began.Add(e.at)))
			if len(r.o.wrong) > 0 {
				break
			}
			r.step(e)
		}
		r.sleep(2 * time.Minute)
		r.d.server.Close()
		if err := r.d.end(); err != nil && !r.diskOff {
			r.o.wrong = append(r.o.wrong, err.Error())
		}
		res = result{r.o.wrong, r.judged, r.log.String()}
	})
	return res
}

// memoryDir is where the database files are: in memory, where that is possible,
// because nothing here depends on a real disk.
func memoryDir() string {
	if _, err := os.Stat("/dev/shm"); err == nil {
		return "/dev/shm"
	}
	return ""
}

const stamp = "02 15:04:05.000"

func (r *run) note(format string, args ...any) {
	fmt.Fprintf(&r.log, "%s %s\n", time.Now().Format(stamp), fmt.Sprintf(format, args...))
}

// sleep lets time pass. Replies are judged when they come, and a process that dies
// in a write is started again.
func (r *run) sleep(d time.Duration) {
	timer := time.NewTimer(d)
	for over := false; !over; {
		var came []reply
		select {
		case <-timer.C:
			over = true
		case <-r.d.dead:
		case one := <-r.replies:
			came = append(came, one)
		}
		synctest.Wait()
		r.judge(came)
		if r.d.isDead() {
			r.note("killed in a write")
			r.crash()
		}
	}
}

// judge holds the replies of this moment, in the order of their lookups, against
// what is allowed. Those of a process that was killed do not count.
func (r *run) judge(came []reply) {
	for len(r.replies) > 0 {
		came = append(came, <-r.replies)
	}
	slices.SortFunc(came, func(a, b reply) int { return a.number - b.number })
	for _, one := range came {
		if one.from.isDead() {
			continue
		}
		r.note("%s -> %q after %v, %v", keyOf(one.domain), one.text, time.Since(one.began), one.err)
		got, err := "", one.err
		if err == nil {
			got, err = read(one.text, one.tlsrpt, domainName(one.domain))
		}
		if err != nil {
			r.o.fail(one.domain, "no reply that Postfix takes: %v", err)
			continue
		}
		r.judged++
		r.look()
		r.o.reply(one.domain, one.began, []settings{one.set, r.set}, got)
	}
}

// look has the oracle take in what has happened. A record that waits for the disk
// is written with the first write that succeeds, or tried again after 10 s.
func (r *run) look() {
	r.o.diskWorks = !r.diskOff && (time.Since(r.o.diskBack) > 15*time.Second || r.d.db.wrote())
	r.o.look()
}

// step applies an event.
func (r *run) step(e event) {
	r.look()
	r.note("%v", e)
	var before [domains]view
	for d := range before {
		before[d] = r.w.view(d)
	}
	if r.w.apply(e) {
		r.o.changed(before)
		return
	}
	switch e.kind {
	case "ask":
		r.ask(e.domain, e.a == 1)
	case "kill":
		r.crash()
	case "killin":
		r.d.db.killLater(e.a, e.b)
	case "restart":
		err := r.d.restart()
		r.judge(nil)
		r.look()
		r.o.crashed(time.Now().Before(r.lostUntil))
		r.check(err)
	case "disk":
		if time.Now().Before(r.lostUntil) {
			return
		}
		r.diskOff = e.b > 0
		r.o.diskBack = time.Now()
		r.d.db.recovers(e.b == 0 && e.a == 1)
		r.d.db.hang(e.b == 2)
		r.check(r.d.db.refuse(e.b == 1))
	case "vanish":
		if !r.diskOff {
			r.lostUntil = time.Now().Add(65 * time.Second)
			os.Remove(r.d.path)
		}
	case "clock":
		by := time.Duration(e.a*e.b) * time.Second
		r.d.steps.Add(int64(by))
		r.o.steps = append(r.o.steps, step{time.Now(), by})
		r.o.disturbed = time.Now().Add(2 * time.Minute)
	case "reload":
		r.set = settings{e.a&1 > 0, e.a&2 > 0, e.a&4 > 0, e.a&8 > 0}
		r.d.set = policy.Settings{
			InsecureMXPrefersDANE: r.set.insecureDANE, PartialPrefersSTS: r.set.partialSTS,
			EnforceTesting: r.set.testingEnforced, StrictDefault: r.set.strict,
		}
		r.o.disturbed = time.Now()
		r.d.m.Reconfigure(r.d.config())
	case "flood":
		r.d.flood(e.a)
	default:
		r.t.Fatalf("no such event: %v", e)
	}
}

func (r *run) check(err error) {
	if err != nil {
		r.o.wrong = append(r.o.wrong, err.Error())
	}
}

func (r *run) crash() {
	r.look()
	err := r.d.crash()
	synctest.Wait()
	r.o.crashed(time.Now().Before(r.lostUntil))
	r.look() // the new process may have begun with a refresh
	r.check(err)
}

// ask makes a lookup. Its reply goes to the driver.
func (r *run) ask(d int, tlsrpt bool) {
	r.asked++
	one := reply{number: r.asked, domain: d, tlsrpt: tlsrpt, began: time.Now(), set: r.set, from: r.d.process}
	name := map[bool]string{false: "postfix", true: "postfix-tlsrpt"}[tlsrpt]
	go func() {
		one.text, one.err = one.from.ask(name, keyOf(d))
		r.replies <- one
	}()
}

// Histories of new seeds, each in a process of its own with one thread for Go code:
// so one repeats exactly, and a defect that ends the process has a seed. A failing
// one is printed with its seed and made short.
func TestHistories(t *testing.T) {
	if *runsFlag == 0 && *forFlag == 0 {
		t.Skip("new histories are played by make simulate and make soak; the kept ones always")
	}
	first := *seedFlag
	if first == 0 {
		first = uint64(time.Now().UnixNano())%1_000_000_000 + 1
	}
	t.Logf("seeds from %d, %d days each", first, *daysFlag)
	began := time.Now()
	var next, ended, failed, replies atomic.Uint64
	more := func() bool {
		return failed.Load() < 5 && (*forFlag > 0 && time.Since(began) < *forFlag || next.Load() < uint64(*runsFlag))
	}
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for more() {
				seed := first + next.Add(1) - 1
				out, err := playApart(seed)
				if err != nil {
					failed.Add(1)
					t.Errorf("seed %d: %v\n%s", seed, err, out)
				}
				_, count, _ := strings.Cut(string(out), countPrefix)
				n, _ := strconv.Atoi(strings.Fields(count + " 0")[0])
				replies.Add(uint64(n))
				if n := ended.Add(1); n%20 == 0 {
					fmt.Fprintf(os.Stderr, "%d of %d histories, %d replies, %v\n", n, *runsFlag, replies.Load(), time.Since(began).Round(time.Second))
				}
			}
		})
	}
	workers.Wait()
	t.Logf("%d histories, %d replies, %v", ended.Load(), replies.Load(), time.Since(began).Round(time.Second))
}

const countPrefix = "replies judged:"

// playApart plays the history of a seed in a process of its own.
func playApart(seed uint64) (out []byte, err error) {
	c := exec.Command(os.Args[0], "-test.run=^TestOneHistory$", "-test.timeout=20m", "-one", fmt.Sprint("-seed=", seed), fmt.Sprint("-days=", *daysFlag), fmt.Sprint("-gap=", *gapFlag), fmt.Sprint("-shorten=", *shorten))
	c.Env = append(os.Environ(), "GOMAXPROCS=1", "GOGC=400")
	return c.CombinedOutput()
}

// The history of one seed, for TestHistories.
func TestOneHistory(t *testing.T) {
	if !*oneFlag {
		t.Skip("TestHistories runs it")
	}
	h := generate(*seedFlag, *daysFlag)
	play(t, h[:0])
	before := heap()
	res := play(t, h)
	if grown := heap() - before; grown > 4<<20 {
		t.Errorf("seed %d: %d KiB of memory are left behind", *seedFlag, grown>>10)
	}
	fmt.Println(countPrefix, res.asked)
	if len(res.wrong) > 0 {
		report(t, h, res)
	}
}

// heap returns how many bytes of memory are in use.
func heap() int64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}

// report prints a history that fails, as short as it can be made.
func report(t *testing.T, h history, res result) {
	t.Helper()
	short := h[:min(len(h), strings.Count(res.log, "\n"))]
	if *shorten {
		short = shrink(t, short)
	}
	again := play(t, short)
	if len(again.wrong) == 0 {
		again = res
	}
	t.Errorf("%s\n\nThis history of %d events does it (testdata/*.history):\n%s\nWhat happened:\n%s", again.wrong[0], len(short), short, tail(again.log))
}

func tail(log string) string {
	lines := strings.SplitAfter(log, "\n")
	return strings.Join(lines[max(0, len(lines)-60):], "")
}

// shrink drops events from a history as long as it still fails.
func shrink(t *testing.T, h history) history {
	fails := func(h history) bool { return len(play(t, h).wrong) > 0 }
	if !fails(h) {
		t.Errorf("the history does not fail again")
		return h
	}
	tries := 0
	for size := max(len(h)/2, 1); ; size /= 2 {
		for at := 0; at < len(h) && tries < 400; tries++ {
			shorter := append(append(history{}, h[:at]...), h[min(at+size, len(h)):]...)
			if fails(shorter) {
				h = shorter
			} else {
				at += size
			}
		}
		if size == 1 {
			return h
		}
	}
}

// Histories that failed once.
func TestKeptHistories(t *testing.T) {
	files, err := filepath.Glob("testdata/*.history")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".history"), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			h, err := parseHistory(string(text))
			if err != nil {
				t.Fatal(err)
			}
			if res := play(t, h); len(res.wrong) > 0 {
				t.Errorf("%s\n%s", res.wrong[0], tail(res.log))
			}
		})
	}
}

// The same seed leads to the same events, replies and times of both, and to the same
// verdict. What is between two of these may come in another order.
func TestHistoriesRepeat(t *testing.T) {
	seeds, days := uint64(1), 4
	if *runsFlag > 0 {
		seeds, days = uint64(*runsFlag), *daysFlag
	}
	for seed := max(*seedFlag, 1); seed < max(*seedFlag, 1)+seeds; seed++ {
		h := generate(seed, days)
		a, b := play(t, h), play(t, h)
		if a.log == b.log && slices.Equal(a.wrong, b.wrong) {
			continue
		}
		first, second := strings.Split(a.log, "\n"), strings.Split(b.log, "\n")
		at := 0
		for at < min(len(first), len(second)) && first[at] == second[at] {
			at++
		}
		t.Errorf("seed %d, line %d of %d:\n%s\nthe second time:\n%s", seed, at, len(first),
			strings.Join(first[max(0, at-5):at+1], "\n"), second[min(at, len(second)-1)])
	}
}
