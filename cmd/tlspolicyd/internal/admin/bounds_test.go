package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// recorder takes deadlines, as a connection does.
type recorder struct{ *httptest.ResponseRecorder }

func (recorder) SetWriteDeadline(time.Time) error { return nil }

// However many requests there are, they look up no more at a time than one.
func TestRequestsShareTheWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{log: slog.New(slog.DiscardHandler), lookups: make(chan struct{}, workers)}
		names := make([]string, 3*workers)
		for i := range names {
			names[i] = fmt.Sprintf("d%d.test", i)
		}
		var running, done atomic.Int32
		release := make(chan struct{})
		var requests sync.WaitGroup
		for range 3 {
			requests.Go(func() {
				r := httptest.NewRequestWithContext(t.Context(), "POST", "/v1/warm", nil)
				s.each(recorder{httptest.NewRecorder()}, r, names, func(_ context.Context, name string) Progress {
					running.Add(1)
					<-release
					done.Add(1)
					return Progress{Name: name}
				})
			})
		}
		synctest.Wait()
		if n := running.Load(); n != workers {
			t.Errorf("%d at a time, want %d", n, workers)
		}
		close(release)
		requests.Wait()
		if n := int(done.Load()); n != 3*len(names) {
			t.Errorf("%d done of %d", n, 3*len(names))
		}
	})
}

// Shutdown returns by the deadline of its context.
func TestStopDoesNotWaitForWorkWithoutEnd(t *testing.T) {
	d := start(t)
	release := make(chan struct{})
	defer close(release)
	d.server.work.Go(func() { <-release })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.server.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
