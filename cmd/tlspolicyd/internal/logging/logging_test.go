package logging

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/slogtest"
	"testing/synctest"
	"time"
	"unicode"

	"github.com/coreos/go-systemd/v22/journal"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// buffer is a writer that can be read at any time, and fail.
type buffer struct {
	mu  sync.Mutex
	b   bytes.Buffer
	err error
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return 0, b.err
	}
	return b.b.Write(p)
}

func (b *buffer) fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = err
}

// take returns what was written since the last call.
func (b *buffer) take() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.b.Reset()
	return b.b.String()
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func closeLog(t *testing.T, l *Log) {
	t.Helper()
	if err := l.Close(context.Background()); err != nil {
		t.Errorf("Close: %v", err)
	}
}

// docs/behaviour.md §6: a log reader that stalls loses lines, with a count.
// Were a line written where it is logged, this test would never end: a pipe
// holds 64 KiB.
func TestAPipeNobodyReadsLosesLinesAndDelaysNobody(t *testing.T) {
	for _, format := range []Format{Text, JSON} {
		t.Run(string(format), func(t *testing.T) {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			l := New(w, Options{Format: format})
			const logged = 20000
			for i := range logged {
				l.Info("resolved", "domain", "example.test", "n", i)
			}
			if l.Lost() == 0 {
				t.Error("nothing lost: the reader did not stall")
			}
			// The reader comes back.
			go func() {
				if err := l.Close(context.Background()); err != nil {
					t.Errorf("Close: %v", err)
				}
				w.Close()
			}()
			seen, told := 0, 0
			for s := bufio.NewScanner(r); s.Scan(); {
				if _, after, ok := strings.Cut(s.Text(), "log reader stalled: "); ok {
					n, _, _ := strings.Cut(after, " lines lost")
					lost, err := strconv.Atoi(n)
					if err != nil {
						t.Errorf("%s: %v", s.Text(), err)
					}
					told += lost
					continue
				}
				seen++
			}
			if seen+told != logged || uint64(told) != l.Lost() {
				t.Errorf("%d lines seen, %d told lost (Lost() = %d), %d logged", seen, told, l.Lost(), logged)
			}
			r.Close()
		})
	}
}

// Stopping is bounded too, whoever reads.
func TestCloseGivesUpWithItsContext(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := fill(w); err != nil {
		t.Fatal(err)
	}
	l := New(w, Options{Format: Text, Queue: 1})
	l.Info("resolved", "domain", "example.test") // the pipe is full: never written
	over, cancel := context.WithCancel(context.Background())
	cancel()
	if err := l.Close(over); !errors.Is(err, context.Canceled) {
		t.Errorf("Close: %v", err)
	}
	l.Info("after the end") // lost, but no harm
	r.Close()               // the writer sees a broken pipe
	closeLog(t, l)
	w.Close()
}

// fill writes to a pipe until not one more byte fits.
func fill(pipe *os.File) error {
	conn, err := pipe.SyscallConn()
	if err != nil {
		return err
	}
	for _, size := range []int{4096, 1} {
		if err := conn.Write(func(fd uintptr) bool {
			for err = nil; err == nil; {
				_, err = syscall.Write(int(fd), make([]byte, size))
			}
			return true
		}); err != nil {
			return err
		}
		if !errors.Is(err, syscall.EAGAIN) {
			return err
		}
	}
	return nil
}

// A full disk under the log: counted, and told of once it has room again.
func TestLinesThatCannotBeWrittenAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b buffer
		l := New(&b, Options{Format: Text})
		b.fail(errors.New("no space left on device"))
		for range 5 {
			l.Info("lost")
		}
		synctest.Wait()
		b.fail(nil)
		l.Info("written")
		closeLog(t, l)
		lines := strings.Split(b.String(), "\n")
		if len(lines) != 3 || !strings.HasSuffix(lines[0], "INFO  written") || !strings.HasSuffix(lines[1], "WARN  log reader stalled: 5 lines lost") {
			t.Errorf("got %q", lines)
		}
		if l.Lost() != 5 {
			t.Errorf("Lost() = %d, want 5", l.Lost())
		}
	})
}

// While lines are lost all the time, one line a second tells, not one for each
// line that came through.
func TestLossesAreToldOfOnceASecondWhileTheyGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe() // takes a line only when it is read
		l := New(w, Options{Format: Text, Queue: 4})
		told := 0
		s := bufio.NewScanner(r)
		for range 30 { // three seconds
			for range 10 {
				l.Info("line")
			}
			time.Sleep(100 * time.Millisecond)
			if !s.Scan() {
				t.Fatal(s.Err())
			}
			if strings.Contains(s.Text(), "lines lost") {
				told++
			}
		}
		if told < 2 || told > 4 {
			t.Errorf("told %d times in three seconds", told)
		}
		r.Close()
		closeLog(t, l)
	})
}

func TestTheLevelChangesAtRunTime(t *testing.T) {
	for _, format := range []Format{Text, JSON} {
		var b buffer
		var level slog.LevelVar
		level.Set(slog.LevelWarn)
		l := New(&b, Options{Level: &level, Format: format})
		l.Info("one")
		level.Set(slog.LevelDebug)
		l.Debug("two")
		level.Set(slog.LevelError)
		l.Warn("three")
		closeLog(t, l)
		if s := b.String(); strings.Contains(s, "one") || !strings.Contains(s, "two") || strings.Contains(s, "three") {
			t.Errorf("%s: got %s", format, s)
		}
	}
}

func TestTextIsOneLineForPeople(t *testing.T) {
	at := time.Date(2026, 2, 3, 4, 5, 6, 7e6, time.FixedZone("", 3600))
	for name, tt := range map[string]struct {
		level slog.Level
		msg   string
		args  []any
		want  string
	}{
		"plain": {
			slog.LevelInfo, "resolved",
			[]any{"domain", "example.test", "ttl", 90 * time.Second, "n", 3, "ok", true},
			"INFO  resolved domain=example.test ttl=1m30s n=3 ok=true",
		},
		"blanks, quotes, equal signs and nothing at all": {
			slog.LevelWarn, "policy got weaker",
			[]any{"was", "secure match=a.test", "now", "", "q", `a"b`},
			`WARN  policy got weaker was="secure match=a.test" now="" q="a\"b"`,
		},
		"control characters": {
			slog.LevelError, "bad\nmessage\x1b[2J",
			[]any{"reason", "a\nb\x1b[31m", "k\n", "v"},
			`ERROR bad\nmessage\x1b[2J reason="a\nb\x1b[31m" "k\n"=v`,
		},
		"bytes that are no UTF-8": {slog.LevelInfo, "m", []any{"k", "\xff"}, `INFO  m k="\xff"`},
		"letters of all kinds":    {slog.LevelDebug, "Grüße", []any{"domain", "bücher.test"}, "DEBUG Grüße domain=bücher.test"},
		"right-to-left override":  {slog.LevelInfo, "m", []any{"k", "a\u202eb"}, `INFO  m k="a\u202eb"`},
		"errors, addresses, times": {
			slog.LevelInfo, "m",
			[]any{"error", errors.New("it broke"), "server", netip.MustParseAddrPort("[::1]:53"), "at", at},
			`INFO  m error="it broke" server=[::1]:53 at=2026-02-03T04:05:06+01:00`,
		},
		"groups":        {slog.LevelInfo, "m", []any{slog.Group("dns", "ttl", 5, slog.Group("", "ad", true))}, "INFO  m dns.ttl=5 dns.ad=true"},
		"unusual level": {slog.LevelError + 4, "m", nil, "ERROR+4 m"},
	} {
		t.Run(name, func(t *testing.T) {
			var got entry
			h := newHandler(Options{Level: slog.LevelDebug}, func(e entry) { got = e })
			r := slog.NewRecord(at, tt.level, tt.msg, 0)
			r.Add(tt.args...)
			if err := h.Handle(context.Background(), r); err != nil {
				t.Fatal(err)
			}
			if want := "2026-02-03T04:05:06.007+01:00 " + tt.want + "\n"; string(got.line) != want {
				t.Errorf("got  %swant %s", got.line, want)
			}
		})
	}
}

func TestOneValueCannotFillTheLog(t *testing.T) {
	var got entry
	h := newHandler(Options{Level: slog.LevelInfo}, func(e entry) { got = e })
	slog.New(h).Info("m", "policy", strings.Repeat("ü", maxValue))
	if len(got.line) > maxValue+100 || !strings.HasSuffix(string(got.line), "ü...\n") {
		t.Errorf("%d bytes, ends in %q", len(got.line), got.line[len(got.line)-10:])
	}
}

func TestJSONIsOneObjectALine(t *testing.T) {
	var b buffer
	l := New(&b, Options{Format: JSON})
	l.With("a", 1).Info("first\nline", "k", "v")
	l.Info("second")
	closeLog(t, l)
	d := json.NewDecoder(strings.NewReader(b.String()))
	for _, want := range []string{"first\nline", "second"} {
		var got struct {
			Time  time.Time
			Level string
			Msg   string
		}
		if err := d.Decode(&got); err != nil {
			t.Fatal(err)
		}
		if got.Msg != want || got.Level != "INFO" || got.Time.IsZero() {
			t.Errorf("got %+v, want %q", got, want)
		}
	}
	if n := strings.Count(b.String(), "\n"); n != 2 {
		t.Errorf("%d lines, want 2", n)
	}
}

// A terminal that shows the log obeys nobody's text, whatever the format, and a
// program that reads JSON gets the text as it was.
func TestLogsCommandNoTerminal(t *testing.T) {
	const hostile = "\x1b[2J\u009b31m\x7f\u202e\u2066\U000e0001 \xff\r\n\u00e4"
	for _, format := range []Format{Text, JSON, fields} {
		var got entry
		slog.New(newHandler(Options{Level: slog.LevelInfo, Format: format}, func(e entry) { got = e })).Info("m", hostile, hostile)
		for _, r := range strings.TrimSuffix(string(got.line), "\n") {
			if !unicode.IsPrint(r) {
				t.Errorf("%s: %q in %q", format, r, got.line)
			}
		}
		if format != JSON {
			continue
		}
		var back map[string]any
		want := strings.ToValidUTF8(hostile, "\ufffd")
		if err := json.Unmarshal(got.line, &back); err != nil || back[want] != want {
			t.Errorf("%v: %q", err, back)
		}
	}
}

// The rules of log/slog for handlers: groups, empty groups, zero times.
func TestTheLineHandlerIsAProperHandler(t *testing.T) {
	var last entry
	slogtest.Run(t,
		func(*testing.T) slog.Handler {
			return newHandler(Options{Level: slog.LevelDebug}, func(e entry) { last = e })
		},
		func(t *testing.T) map[string]any { return parseLine(t, string(last.line)) },
	)
}

func parseLine(t *testing.T, line string) map[string]any {
	t.Helper()
	m := make(map[string]any)
	words := strings.Fields(line)
	if at, err := time.Parse(time.RFC3339, words[0]); err == nil {
		m[slog.TimeKey] = at
		words = words[1:]
	}
	m[slog.LevelKey], m[slog.MessageKey] = words[0], words[1]
	for _, w := range words[2:] {
		key, value, ok := strings.Cut(w, "=")
		if !ok {
			t.Fatalf("%q in %q", w, line)
		}
		at := m
		path := strings.Split(key, ".")
		for _, group := range path[:len(path)-1] {
			if at[group] == nil {
				at[group] = make(map[string]any)
			}
			at = at[group].(map[string]any)
		}
		at[path[len(path)-1]] = value
	}
	return m
}

// Under systemd every attribute is a field, and the message alone tells as
// much as a line of text does.
func TestTheJournalGetsFields(t *testing.T) {
	type sent struct {
		Message  string
		Priority journal.Priority
		Fields   map[string]string
	}
	var got []sent
	var fails error
	var fallback bytes.Buffer
	write := toJournal(func(m string, p journal.Priority, f map[string]string) error {
		got = append(got, sent{m, p, f})
		return fails
	}, &fallback)
	l := slog.New(newHandler(Options{Level: slog.LevelDebug, Format: fields}, func(e entry) {
		if err := write(e); err != nil {
			t.Error(err)
		}
	}))
	l.With("map", "postfix").WithGroup("dns").Info("resolved", "mx-host", "a b")
	l.Debug("d")
	l.Warn("w")
	fails = fmt.Errorf("journald is away")
	l.Error("e", "k", "v")
	id := map[string]string{"SYSLOG_IDENTIFIER": "tlspolicyd"}
	want := []sent{
		{`resolved map=postfix dns.mx-host="a b"`, journal.PriInfo, map[string]string{
			"SYSLOG_IDENTIFIER": "tlspolicyd", "TLSPOLICYD_MAP": "postfix", "TLSPOLICYD_DNS_MX_HOST": "a b",
		}},
		{"d", journal.PriDebug, id},
		{"w", journal.PriWarning, id},
		{"e k=v", journal.PriErr, map[string]string{"SYSLOG_IDENTIFIER": "tlspolicyd", "TLSPOLICYD_K": "v"}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if fallback.String() != "e k=v\n" {
		t.Errorf("without journald: %q", fallback.String())
	}
}

func TestAWriterThatIsNotStderrIsNoJournal(t *testing.T) {
	t.Setenv("JOURNAL_STREAM", "1:1")
	if isJournal(&bytes.Buffer{}) || isJournal(os.Stderr) {
		t.Error("taken for the journal")
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestALossIsNotForgottenWhenTellingOfItFails(t *testing.T) {
	var b buffer
	refuse := 2 // the first line, and the first notice
	l := New(writerFunc(func(p []byte) (int, error) {
		if notice := bytes.Contains(p, []byte("stalled")); refuse > 0 && notice == (refuse == 1) {
			refuse--
			return 0, errors.New("no space left on device")
		}
		return b.Write(p)
	}), Options{Format: Text})
	l.Info("lost")
	l.Info("written")
	l.Info("written")
	closeLog(t, l)
	if s := b.String(); strings.Count(s, "written") != 2 || strings.Count(s, "stalled: 1 lines lost") != 1 {
		t.Errorf("got %s", s)
	}
}
