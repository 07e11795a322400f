package tlsrpt

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"tlspolicyd/internal/defect"
	"tlspolicyd/internal/dnsclient"
)

const (
	workers       = 4                // a name server that is silent holds one
	queueLength   = 256              // failures that wait
	lookupTimeout = 10 * time.Second // of a TLSRPT record
	sendTimeout   = time.Second      // while the collector's queue is full
)

// Outcome is what became of a failure: a short, stable name, fit for a metric.
type Outcome string

// All outcomes but the first are reports that were dropped.
const (
	Sent         Outcome = "sent"
	QueueFull    Outcome = "queue"     // too many failures wait
	LookupFailed Outcome = "dns"       // the TLSRPT record could not be looked up
	NoCollector  Outcome = "collector" // nothing receives at the socket
	Stalled      Outcome = "stalled"   // the collector's queue is full
	Denied       Outcome = "denied"    // the daemon's user is not allowed to write to the socket
	OtherFailure Outcome = "other"
)

// Outcomes lists them all.
func Outcomes() []Outcome {
	return []Outcome{Sent, QueueFull, LookupFailed, NoCollector, Stalled, Denied, OtherFailure}
}

// Sender sends failures to the collector, from goroutines of its own: a collector
// that stalls or is gone delays nothing else. It is safe for concurrent use.
type Sender struct {
	done   func(domain string, what Outcome, err error)
	target atomic.Pointer[target]
	queue  chan Failure
	cancel context.CancelFunc
	ended  sync.WaitGroup
}

type target struct {
	socket   string
	resolver dnsclient.Resolver
}

// NewSender starts a Sender. done is called with what became of each failure; the
// error is nil for Sent. Domains without a TLSRPT record have no outcome.
func NewSender(done func(domain string, what Outcome, err error)) *Sender {
	ctx, cancel := context.WithCancel(context.Background())
	s := &Sender{done: done, queue: make(chan Failure, queueLength), cancel: cancel}
	for range workers {
		s.ended.Go(func() { s.run(ctx) })
	}
	return s
}

// Use sets the path of the collector's socket, "" for none, and the resolver that
// is asked for TLSRPT records.
func (s *Sender) Use(socket string, r dnsclient.Resolver) {
	if socket == "" {
		s.target.Store(nil)
		return
	}
	s.target.Store(&target{socket, r})
}

// Failed reports a failure if it is one of the domain. It does not block.
func (s *Sender) Failed(f Failure) {
	if s.target.Load() == nil {
		return
	}
	if code, _ := Classify(f.Err); code == 0 {
		return
	}
	select {
	case s.queue <- f:
	default:
		s.done(f.Domain, QueueFull, errors.New("too many reports wait to be sent"))
	}
}

// Close ends its goroutines and waits for them. Failures that wait are forgotten.
func (s *Sender) Close() {
	s.cancel()
	s.ended.Wait()
}

func (s *Sender) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case f := <-s.queue:
			if t := s.target.Load(); t != nil {
				s.report(ctx, t, f)
			}
		}
	}
}

func (s *Sender) report(ctx context.Context, t *target, f Failure) {
	what, err := OtherFailure, error(nil)
	func() {
		defer defect.Catch(&err)
		what, err = t.report(ctx, f)
	}()
	if what != "" && ctx.Err() == nil {
		s.done(f.Domain, what, err)
	}
}

func (t *target) report(ctx context.Context, f Failure) (Outcome, error) {
	lookup, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	record, err := LookupRecord(lookup, t.resolver, f.Domain)
	switch {
	case err != nil:
		return LookupFailed, err
	case record == "":
		return "", nil
	}
	text, err := Encode(f, record)
	if err != nil {
		return OtherFailure, err
	}
	return send(t.socket, text)
}

// send sends one datagram. The collector unlinks its socket and binds another one
// when it starts, so none is kept open.
func send(socket string, text []byte) (Outcome, error) {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err == nil {
		defer conn.Close()
		_ = conn.SetWriteDeadline(time.Now().Add(sendTimeout))
		_, err = conn.Write(text)
	}
	return outcomeOf(err), err
}

func outcomeOf(err error) Outcome {
	switch {
	case err == nil:
		return Sent
	case errors.Is(err, fs.ErrPermission):
		return Denied
	case errors.Is(err, os.ErrDeadlineExceeded):
		return Stalled
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.EPROTOTYPE):
		return NoCollector
	}
	return OtherFailure
}
