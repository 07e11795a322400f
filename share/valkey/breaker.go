package valkey

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	failures      = 3 // in a row, until no lookup waits any more
	shortestPause = time.Second
	longestPause  = time.Minute
)

// breaker keeps lookups from waiting for an engine that does not answer: after some
// failures it is only tried in the background.
type breaker struct {
	probe func(context.Context) // ends in failed or succeeded

	open   atomic.Bool
	mu     sync.Mutex
	count  int           // of failures in a row
	closed chan struct{} // closed when the breaker is
}

func (b *breaker) up() bool { return !b.open.Load() }

// failed counts a failure. Where that opens the breaker, run is to be started with
// the channel that it returns.
func (b *breaker) failed() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.count++; b.count < failures || b.open.Swap(true) {
		return nil
	}
	b.closed = make(chan struct{})
	return b.closed
}

// succeeded closes the breaker, and reports whether it was open.
func (b *breaker) succeeded() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.count = 0
	if !b.open.Swap(false) {
		return false
	}
	close(b.closed)
	return true
}

// run tries the engine until the breaker is closed.
func (b *breaker) run(ctx context.Context, closed <-chan struct{}) {
	for pause := shortestPause; ; pause = min(2*pause, longestPause) {
		select {
		case <-time.After(pause):
			b.probe(ctx)
		case <-closed:
			return
		case <-ctx.Done():
			return
		}
	}
}

// causeOf names the kind of a failure, without addresses and ports.
func causeOf(err error) string {
	if e, ok := errors.AsType[serverError](err); ok {
		return e.code()
	}
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
		return "timeout"
	}
	for next := errors.Unwrap(err); next != nil; next = errors.Unwrap(err) {
		err = next
	}
	return err.Error()
}

const (
	logEvery  = time.Minute // a line for each reason
	maxCauses = 32          // that are told apart
)

// sparseLog logs a message once a minute for each cause.
type sparseLog struct {
	log  *slog.Logger
	mu   sync.Mutex
	last map[string]time.Time
}

func (l *sparseLog) warn(message, cause string, attrs ...any) (logged bool) {
	if logged = l.due(message + "\x00" + cause); logged {
		l.log.Warn(message, attrs...)
	}
	return logged
}

func (l *sparseLog) due(key string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if l.last == nil {
		l.last = make(map[string]time.Time)
	}
	if len(l.last) >= maxCauses {
		for k, at := range l.last {
			if now.Sub(at) >= logEvery {
				delete(l.last, k)
			}
		}
	}
	if at, known := l.last[key]; known && now.Sub(at) < logEvery || !known && len(l.last) >= maxCauses {
		return false
	}
	l.last[key] = now
	return true
}
