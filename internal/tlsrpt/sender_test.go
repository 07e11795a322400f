package tlsrpt

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"tlspolicyd/internal/dnsclient"
	"tlspolicyd/internal/mtasts"
)

// answers is a resolver that knows a TLSRPT record for every domain.
type answers func(ctx context.Context, name string) error

func (a answers) Lookup(ctx context.Context, name string, _ uint16) (dnsclient.Answer, error) {
	if a != nil {
		if err := a(ctx, name); err != nil {
			return dnsclient.Answer{}, err
		}
	}
	return dnsclient.Answer{Records: []dns.RR{&dns.TXT{Txt: []string{record}}}}, nil
}

type outcome struct {
	domain string
	what   Outcome
	err    error
}

// newSender returns a sender and what became of its reports.
func newSender(t *testing.T, socket string, r dnsclient.Resolver) (*Sender, <-chan outcome) {
	t.Helper()
	seen := make(chan outcome, 2*queueLength)
	s := NewSender(func(domain string, what Outcome, err error) { seen <- outcome{domain, what, err} })
	t.Cleanup(s.Close)
	s.Use(socket, r)
	return s, seen
}

func failure(domain string) Failure {
	return Failure{Domain: domain, Err: failed(mtasts.StageStatus, nil, mtasts.Exchange{Status: 404})}
}

// collect binds a collector's socket as tlsrpt-collectd does: what is at the path
// is unlinked first.
func collect(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	_ = os.Remove(path)
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func wantReport(t *testing.T, conn *net.UnixConn, domain string) {
	t.Helper()
	buf := make([]byte, MaxDatagram)
	n, err := conn.Read(buf)
	if err != nil || !strings.Contains(string(buf[:n]), `"d":"`+domain+`","pr":"`+record+`"`) {
		t.Errorf("%q, %v: want a report about %s", buf[:n], err, domain)
	}
}

func wantOutcome(t *testing.T, seen <-chan outcome, domain string, what Outcome) {
	t.Helper()
	if o := <-seen; o.domain != domain || o.what != what || (o.err == nil) != (what == Sent) {
		t.Errorf("%+v, want %s %s", o, domain, what)
	}
}

func TestCollectorThatIsGoneComesBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tlsrpt.sock")
	s, seen := newSender(t, path, answers(nil))
	s.Failed(failure("a.test"))
	wantOutcome(t, seen, "a.test", NoCollector) // no such file
	first := collect(t, path)
	s.Failed(failure("b.test"))
	wantOutcome(t, seen, "b.test", Sent)
	wantReport(t, first, "b.test")
	first.Close() // Go leaves the path of a datagram socket alone
	s.Failed(failure("c.test"))
	wantOutcome(t, seen, "c.test", NoCollector) // connection refused
	second := collect(t, path)
	s.Failed(failure("d.test"))
	wantOutcome(t, seen, "d.test", Sent)
	wantReport(t, second, "d.test")
}

// A collector that does not read: reports are dropped, and it gets others as soon
// as it reads again.
func TestCollectorThatStalls(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tlsrpt.sock")
	conn := collect(t, path)
	s, seen := newSender(t, path, answers(nil))
	filled := 0
	for {
		s.Failed(failure("a.test"))
		o := <-seen
		if o.what == Stalled {
			break
		}
		if filled++; o.what != Sent || filled > 100_000 {
			t.Fatalf("%d reports, then %+v", filled, o)
		}
	}
	for range filled {
		wantReport(t, conn, "a.test")
	}
	s.Failed(failure("b.test"))
	wantOutcome(t, seen, "b.test", Sent)
	wantReport(t, conn, "b.test")
}

// While nothing moves on, Failed returns all the same, and what does not fit into
// the queue is dropped and counted.
func TestFullQueue(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tlsrpt.sock")
	conn := collect(t, path)
	begun, hold := make(chan struct{}, workers), make(chan struct{})
	s, seen := newSender(t, path, answers(func(context.Context, string) error {
		begun <- struct{}{}
		<-hold
		return nil
	}))
	for range workers {
		s.Failed(failure("held.test"))
		<-begun
	}
	for range queueLength {
		s.Failed(failure("queued.test"))
	}
	for range 3 {
		s.Failed(failure("dropped.test"))
		wantOutcome(t, seen, "dropped.test", QueueFull)
	}
	go func() {
		for range queueLength {
			<-begun
		}
	}()
	close(hold)
	buf := make([]byte, MaxDatagram)
	for range workers + queueLength {
		if _, err := conn.Read(buf); err != nil {
			t.Fatal(err)
		}
		if o := <-seen; o.what != Sent {
			t.Errorf("%+v", o)
		}
	}
}

func TestWhatIsNotSent(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	stream, err := net.Listen("unix", filepath.Join(dir, "stream"))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	collect(t, filepath.Join(dir, "sock"))
	long := filepath.Join(dir, strings.Repeat("x", 108))
	fails := answers(func(context.Context, string) error { return errors.New("SERVFAIL") })
	panics := answers(func(context.Context, string) error { panic("a defect") })
	for name, tc := range map[string]struct {
		socket   string
		resolver dnsclient.Resolver
		failure  Failure
		what     Outcome
	}{
		"a path longer than a socket address": {long, answers(nil), failure("a.test"), OtherFailure},
		"a file in the place of the socket":   {file, answers(nil), failure("a.test"), NoCollector},
		"a socket of another kind":            {stream.Addr().String(), answers(nil), failure("a.test"), NoCollector},
		"no such directory":                   {dir + "/no/sock", answers(nil), failure("a.test"), NoCollector},
		"the TLSRPT record fails":             {dir + "/sock", fails, failure("a.test"), LookupFailed},
		"a panic":                             {dir + "/sock", panics, failure("a.test"), OtherFailure},
	} {
		t.Run(name, func(t *testing.T) {
			s, seen := newSender(t, tc.socket, tc.resolver)
			s.Failed(tc.failure)
			wantOutcome(t, seen, tc.failure.Domain, tc.what)
		})
	}
	if os.Geteuid() != 0 {
		t.Run("the socket is closed to this user", func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "sock")
			collect(t, path)
			if err := os.Chmod(path, 0); err != nil {
				t.Fatal(err)
			}
			s, seen := newSender(t, path, answers(nil))
			s.Failed(failure("a.test"))
			wantOutcome(t, seen, "a.test", Denied)
		})
	}
	if what := outcomeOf(syscall.EACCES); what != Denied { // root is allowed everything
		t.Errorf("EACCES: %s", what)
	}
}

// Off, no record, and no fault of the domain: nothing is asked or sent.
func TestNothingToReport(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tlsrpt.sock")
	conn := collect(t, path)
	asked := make(chan string, 1)
	s, seen := newSender(t, "", answers(func(_ context.Context, name string) error {
		asked <- name
		return nil
	}))
	s.Failed(failure("off.test"))
	s.Use(path, answers(nil))
	s.Failed(Failure{Domain: "ours.test", Err: failed(mtasts.StageAddress, nil, mtasts.Exchange{})})
	s.Failed(failure("theirs.test"))
	wantReport(t, conn, "theirs.test")
	wantOutcome(t, seen, "theirs.test", Sent)
	s.Close()
	select {
	case name := <-asked:
		t.Errorf("%s was asked for", name)
	case o := <-seen:
		t.Errorf("%+v", o)
	default:
	}
	s.Failed(failure("closed.test")) // waits in the queue for good
	if what := fmt.Sprint(Outcomes()); !strings.HasPrefix(what, "[sent ") {
		t.Error(what)
	}
	_ = conn.SetReadDeadline(time.Now())
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("another datagram")
	}
}
