package main

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"tlspolicyd/cmd/tlspolicyd/internal/config"
	"tlspolicyd/cmd/tlspolicyd/internal/logging"
	"tlspolicyd/internal/mtasts"
	"tlspolicyd/socketmap"
)

// handlerFunc is a lookup as a function.
type handlerFunc func(ctx context.Context, name, key []byte) []byte

func (f handlerFunc) Lookup(ctx context.Context, name, key []byte) []byte { return f(ctx, name, key) }

// The watchdog hears nothing from a daemon whose lookups hang. (That it does
// hear from one that works is in testdata/serve-systemd.txtar.)
func TestTheWatchdogIsNotToldThatAHangingDaemonLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, tt := range map[string]struct {
			handler handlerFunc
			want    bool
		}{
			"answers": {func(context.Context, []byte, []byte) []byte { return []byte("NOTFOUND ") }, true},
			"slow but in time": {func(context.Context, []byte, []byte) []byte {
				time.Sleep(4 * time.Second)
				return []byte("NOTFOUND ")
			}, true},
			"hangs": {func(ctx context.Context, _, _ []byte) []byte { <-ctx.Done(); return nil }, false},
			"hangs whatever happens": {func(context.Context, []byte, []byte) []byte {
				time.Sleep(time.Hour)
				return []byte("NOTFOUND ")
			}, false},
		} {
			if got := answers(t.Context(), tt.handler, 5*time.Second); got != tt.want {
				t.Errorf("%s: %v", name, got)
			}
		}
		time.Sleep(2 * time.Hour) // until the last of them has returned
	})
}

// A hanging lookup is not reported to a real notification socket, and is
// logged.
func TestAHangingDaemonIsLogged(t *testing.T) {
	notify := listenNotify(t)
	t.Setenv("WATCHDOG_USEC", "20000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	var out bytes.Buffer
	// In a bubble: on a busy machine the time given to a lookup could be over
	// before that lookup has begun.
	synctest.Test(t, func(t *testing.T) {
		log := logging.New(&out, logging.Options{})
		ctx, cancel := context.WithCancel(t.Context())
		var asked atomic.Int32
		watchdog(ctx, handlerFunc(func(probe context.Context, _, _ []byte) []byte {
			if asked.Add(1) == 3 {
				cancel()
			}
			<-probe.Done()
			return nil
		}), log.Logger)
		if err := log.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
	if n := strings.Count(out.String(), "ERROR lookups hang"); n != 2 {
		t.Errorf("logged %d times, want 2: %s", n, out.String())
	}
	if told := notify.all(t); told != "" {
		t.Errorf("told %q", told)
	}
}

// notifySocket collects what the process tells its service manager.
type notifySocket struct {
	name string
	told chan string
}

func listenNotify(t *testing.T) notifySocket {
	t.Helper()
	n := notifySocket{filepath.Join(t.TempDir(), "notify"), make(chan string, 1)}
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: n.name})
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("NOTIFY_SOCKET", n.name)
	go func() {
		defer c.Close()
		var all []string
		buf := make([]byte, 4096)
		for {
			k, err := c.Read(buf)
			if err != nil || string(buf[:k]) == ended {
				n.told <- strings.Join(all, " ")
				return
			}
			all = append(all, string(buf[:k]))
		}
	}()
	return n
}

// all returns everything that was told.
func (n notifySocket) all(t *testing.T) string {
	t.Helper()
	if err := tellEnded(n.name); err != nil {
		t.Fatal(err)
	}
	return <-n.told
}

// When a socket fails the daemon stops in order and says why, so that the
// service manager starts it again.
func TestAListenerThatFailsEndsTheDaemon(t *testing.T) {
	defer goleak.VerifyNone(t)
	notify := listenNotify(t)
	one, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	two, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := two.Close(); err != nil {
		t.Fatal(err)
	}
	log := logging.New(new(bytes.Buffer), logging.Options{})
	notFound := handlerFunc(func(context.Context, []byte, []byte) []byte { return []byte("NOTFOUND ") })
	server := &socketmap.Server{Handler: notFound, Log: log.Logger}
	err = answer(t.Context(), func() {}, server, []net.Listener{one, two}, nil, func() {})
	if !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v, want a closed listener", err)
	}
	if c, err := net.Dial("tcp", one.Addr().String()); err == nil {
		c.Close()
		t.Error("the other socket is still open")
	}
	if err := log.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if told := notify.all(t); !strings.HasSuffix(told, "STOPPING=1") {
		t.Errorf("told %q", told)
	}
}

// docs/behaviour.md §4: start-up says once that DANE is off where AD bits
// cannot be trusted, and MTA-STS without certificate authorities, and what to do.
func TestStartSaysWhatIsOff(t *testing.T) {
	for _, trusted := range []bool{false, true} {
		var out bytes.Buffer
		log := logging.New(&out, logging.Options{})
		var noRoots error
		if !trusted {
			noRoots = mtasts.ErrNoRoots
		}
		logStart(log.Logger, config.Default(), &parts{trustAD: trusted, roots: func() error { return noRoots }}, nil)
		if err := log.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got, want := strings.Count(out.String(), " WARN  DANE is off: "), map[bool]int{false: 1, true: 0}[trusted]; got != want {
			t.Errorf("trusted %v: warned %d times, want %d: %s", trusted, got, want, out.String())
		}
		if got, want := strings.Contains(out.String(), `install the package ca-certificates`), noRoots != nil; got != want {
			t.Errorf("authorities %v: %s", noRoots == nil, out.String())
		}
	}
}

func TestTheDateOfTheManualPages(t *testing.T) {
	for _, tt := range []struct{ epoch, revision, want string }{
		{"1767225600", "2020-01-01T00:00:00Z", "2026-01-01"},
		{"", "2020-02-03T04:05:06Z", "2020-02-03"},
		{"", "", "0001-01-01"}, // the zero time: none
		{"x", "2020-02-03T04:05:06Z", ""},
	} {
		got, err := sourceDate(tt.epoch, tt.revision)
		if (err != nil) != (tt.want == "") || err == nil && got.Format(time.DateOnly) != tt.want {
			t.Errorf("%+v: got %v, %v", tt, got, err)
		}
	}
}

func TestOutputThatCannotBeWrittenIsNoSuccess(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	var stderr bytes.Buffer
	if got := run(t.Context(), []string{"version"}, nil, full, &stderr); got != exitUnknown {
		t.Errorf("status %d, want %d", got, exitUnknown)
	}
	if !strings.HasPrefix(stderr.String(), "tlspolicyd: write the output: ") {
		t.Errorf("stderr %q", stderr.String())
	}
}
