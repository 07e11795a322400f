//go:build linux

package simulate

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
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
	forFlag  = flag.Duration("for", 0, "histories are begun for so long; instead of -runs")
	shorten  = flag.Bool("shorten", true, "make a history that fails as short as possible")
)

// run is one history on its way.
type run struct {
	t *testing.T
	w *world
	d *daemon
	o *oracle

	mu  sync.Mutex // the oracle's; taken by replies
	wg  sync.WaitGroup
	set settings
	log strings.Builder
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
		r := &run{t: t, w: newWorld()}
		defer r.w.Close()
		r.o = &oracle{w: r.w, started: time.Now()}
		for d := range r.o.domains {
			x := &r.o.domains[d]
			x.dane.now, x.dane.disk = []*evidence{nil}, []*evidence{nil}
			x.sts.now, x.sts.disk = []*fetched{nil}, []*fetched{nil}
		}
		r.d = &daemon{w: r.w, dir: dir, path: filepath.Join(dir, "0.db"), steps: new(atomic.Int64)}
		if err := r.d.start(); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		for _, e := range h {
			r.sleep(time.Until(began.Add(e.at)))
			r.step(e)
			if len(r.o.wrong) > 0 {
				break
			}
		}
		r.sleep(2 * time.Minute)
		r.wg.Wait()
		r.d.server.Close()
		if err := r.d.end(); err != nil && !r.o.diskOff {
			r.o.wrong = append(r.o.wrong, err.Error())
		}
		res = result{r.o.wrong, r.o.asked, r.log.String()}
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

func (r *run) note(format string, args ...any) {
	fmt.Fprintf(&r.log, "%s %s\n", time.Now().Format(stamp), fmt.Sprintf(format, args...))
}

// sleep lets time pass. A process that dies in a write is started again.
func (r *run) sleep(d time.Duration) {
	for timer := time.NewTimer(d); ; {
		select {
		case <-timer.C:
			return
		case <-r.d.dead:
			synctest.Wait()
			r.mu.Lock()
			r.note("killed in a write")
			r.crash()
			r.mu.Unlock()
		}
	}
}

// step applies an event.
func (r *run) step(e event) {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.o.look()
	r.note("%v", e)
	var before [domains]string
	for d := range before {
		before[d] = r.w.view(d).key()
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
		r.d.db.mu.Lock()
		r.d.db.killIn, r.d.db.moment = e.a, e.b
		r.d.db.mu.Unlock()
	case "restart":
		r.mu.Unlock()
		err := r.d.restart()
		r.mu.Lock()
		r.o.look()
		r.o.crashed()
		r.check(err)
	case "disk":
		if time.Now().Before(r.o.lostUntil) {
			return
		}
		r.o.diskOff = e.b > 0
		r.o.diskBack = time.Now()
		r.o.diskWrites = time.Time{}
		failed := r.d.db.Stats().Failing
		r.check(r.d.db.refuse(e.b > 0))
		if e.b == 0 && failed {
			r.wg.Go(func() { r.watchDisk(e.a == 1) })
		}
	case "vanish":
		if !r.o.diskOff {
			r.o.lostUntil = time.Now().Add(65 * time.Second)
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

// watchDisk waits for the first write after the disk failed, and kills the process
// then, if kill says so.
func (r *run) watchDisk(kill bool) {
	for range 15_000 {
		time.Sleep(time.Millisecond)
		r.mu.Lock()
		over := r.o.diskOff || !r.o.diskWrites.IsZero() || r.d.isDead()
		if !over && !r.d.db.Stats().Failing {
			r.o.diskWrites, over = time.Now(), true
			if kill {
				r.note("killed after the first write")
				r.o.look()
				r.d.kill()
			}
		}
		r.mu.Unlock()
		if over {
			return
		}
	}
}

func (r *run) check(err error) {
	if err != nil {
		r.o.wrong = append(r.o.wrong, err.Error())
	}
}

func (r *run) crash() {
	r.o.look()
	r.mu.Unlock() // replies that are under way come from a dead process
	err := r.d.crash()
	synctest.Wait()
	r.mu.Lock()
	r.o.crashed()
	r.o.look() // the new process may have begun with a refresh
	r.check(err)
}

// ask makes a lookup, and has the oracle judge the reply when it comes.
func (r *run) ask(d int, tlsrpt bool) {
	p, began, set := r.d.process, time.Now(), r.set
	name := map[bool]string{false: "postfix", true: "postfix-tlsrpt"}[tlsrpt]
	r.wg.Go(func() {
		reply, err := p.ask(name, keyOf(d))
		r.mu.Lock()
		defer r.mu.Unlock()
		if p.isDead() {
			return
		}
		r.note("%s -> %q after %v, %v", keyOf(d), reply, time.Since(began), err)
		if err != nil {
			r.o.fail(d, "no reply: %v", err)
			return
		}
		r.o.reply(d, tlsrpt, began, []settings{set, r.set}, reply)
	})
}

// Histories of new seeds. A failing one is printed with its seed and made short.
func TestHistories(t *testing.T) {
	if *runsFlag == 0 && *forFlag == 0 {
		t.Skip("new histories are played by make simulate and make soak; the kept ones always")
	}
	first := *seedFlag
	if first == 0 {
		first = uint64(time.Now().UnixNano())%1_000_000_000 + 1
	}
	t.Logf("seeds from %d, %d days each", first, *daysFlag)
	var next, ended, asked atomic.Uint64
	until := time.Now().Add(*forFlag)
	for worker := range 2 {
		t.Run(fmt.Sprint("worker", worker), func(t *testing.T) {
			t.Parallel()
			for {
				n := next.Add(1) - 1
				if *forFlag == 0 && n >= uint64(*runsFlag) || *forFlag > 0 && time.Now().After(until) || t.Failed() {
					return
				}
				h := generate(first+n, *daysFlag)
				res := play(t, h)
				asked.Add(uint64(res.asked))
				ended.Add(1)
				if len(res.wrong) > 0 {
					t.Errorf("seed %d", first+n)
					report(t, h, res)
				}
			}
		})
	}
	t.Cleanup(func() { t.Logf("%d histories, %d replies", ended.Load(), asked.Load()) })
}

// report prints a history that fails, as short as it can be made.
func report(t *testing.T, h history, res result) {
	t.Helper()
	h = h[:min(len(h), strings.Count(res.log, "\n"))]
	short := h
	if *shorten {
		short = shrink(t, h)
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

// The same seed leads to the same replies at the same times.
func TestHistoriesRepeat(t *testing.T) {
	if *runsFlag == 0 && *forFlag == 0 {
		t.Skip("new histories are played by make simulate and make soak; the kept ones always")
	}
	seed := rand.Uint64() % 1_000_000
	h := generate(seed, 10)
	if a, b := play(t, h), play(t, h); a.log != b.log {
		t.Errorf("seed %d:\n%s\n\n%s", seed, a.log, b.log)
	}
}
