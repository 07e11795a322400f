package bolt

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tlspolicyd/store"
)

// idleStore is a store whose writer goroutine the test starts itself.
func idleStore(t *testing.T, opts Options) *Store {
	t.Helper()
	s, err := newStore(newPath(t), opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestPutsThatWaitShareOneTransaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := idleStore(t, Options{})
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() { mustPut(t, s, policy(fmt.Sprintf("%d.test", i))) })
		}
		s.PutLater(policy("later.test"))
		synctest.Wait()
		go s.run()
		wg.Wait()
		if st := s.Stats(); st.Commits != 1 || st.Records != 101 || st.Waiting != 0 {
			t.Errorf("%+v, want all 101 in 1 commit", st)
		}
		closeStore(t, s)
	})
}

func TestLonePutWaitsForNothingButTheDisk(t *testing.T) {
	path := newPath(t)
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, path, Options{})
		began := time.Now()
		mustPut(t, s, policy("a.test"))
		if waited := time.Since(began); waited != 0 {
			t.Errorf("waited %v for a timer", waited)
		}
		closeStore(t, s)
	})
}

func TestPutLaterIsWrittenWithinASecond(t *testing.T) {
	path := newPath(t)
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, path, Options{})
		for i := range 3 {
			s.PutLater(policy(fmt.Sprintf("%d.test", i)))
		}
		time.Sleep(time.Second - time.Millisecond)
		synctest.Wait()
		if st := s.Stats(); st.Commits != 0 || st.Waiting != 3 {
			t.Errorf("%+v before the second is over, want 3 waiting for company", st)
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if st := s.Stats(); st.Commits != 1 || st.Waiting != 0 || st.Records != 3 {
			t.Errorf("%+v, want 3 records in 1 commit", st)
		}
		// With nothing to do the disk is left alone.
		time.Sleep(time.Hour)
		synctest.Wait()
		if st := s.Stats(); st.Commits != 1 {
			t.Errorf("%+v after an idle hour", st)
		}
		closeStore(t, s)
	})
}

// More than fits into one transaction is spread over several without a pause.
func TestMuchIsPutLater(t *testing.T) {
	path := newPath(t)
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, path, Options{})
		for i := range 2*batchOps + 1 {
			s.PutLater(store.Record{Domain: fmt.Sprintf("%d.test", i)})
		}
		time.Sleep(2 * flushAfter)
		synctest.Wait()
		if st := s.Stats(); st.Commits != 3 || st.Records != 2*batchOps+1 || st.Waiting != 0 {
			t.Errorf("%+v, want 3 commits", st)
		}
		closeStore(t, s)
	})
}

// BEHAVIOUR §6: the cache is bounded; so is what waits for a disk that cannot
// be written.
func TestTooMuchIsPutLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := idleStore(t, Options{})
		big := policy("")
		big.STS.Policy = make([]byte, 64<<10)
		fit := maxLaterBytes / (64<<10 + 1<<10)
		for i := range 2 * fit {
			big.Domain = fmt.Sprintf("%d.test", i)
			s.PutLater(big)
		}
		st := s.Stats()
		if st.Waiting < fit || st.Waiting+int(st.Dropped) != 2*fit || st.Dropped == 0 {
			t.Errorf("%+v, want some %d of %d waiting and the rest counted", st, fit, 2*fit)
		}
		s.PutLater(policy("0.test")) // takes the place of what waits
		if s.later.get("0.test").seq != s.seq.Load() {
			t.Error("a smaller record of the same domain was dropped")
		}
		s.PutLater(store.Record{}) // cannot be encoded
		if got := s.Stats().Dropped; got != st.Dropped+1 {
			t.Errorf("%d dropped, want %d", got, st.Dropped+1)
		}
		go s.run()
		closeStore(t, s)
	})
	var q laterQueue
	var seq atomic.Uint64
	for i := range maxLater {
		if !q.add(&op{domain: fmt.Sprint(i)}, &seq) {
			t.Fatalf("no room for record %d", i)
		}
	}
	if q.add(&op{domain: "one more"}, &seq) {
		t.Error("there is room for more than there should be")
	}
}

func TestGivingUpBeforeTheWriteIsQueued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := idleStore(t, Options{})
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		began := time.Now()
		err := s.Put(ctx, policy("a.test"))
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 5*time.Second {
			t.Errorf("put: %v after %v", err, time.Since(began))
		}
		go s.run()
		if _, err := s.Get("a.test"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("get: %v, want %v", err, store.ErrNotFound)
		}
		closeStore(t, s)
	})
}

func TestGivingUpAfterTheWriteIsQueued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := idleStore(t, Options{})
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			<-s.requests // a writer that takes its time
			cancel()
		}()
		err := s.Put(ctx, policy("a.test"))
		if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "may still happen") {
			t.Errorf("put: %v", err)
		}
		go s.run()
		closeStore(t, s)
	})
}

func TestCloseAnswersThoseWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := idleStore(t, Options{})
		var wg sync.WaitGroup
		var kept atomic.Int64
		for i := range 50 {
			wg.Go(func() {
				switch err := s.Put(t.Context(), policy(fmt.Sprintf("%d.test", i))); {
				case err == nil:
					kept.Add(1)
				case !errors.Is(err, store.ErrClosed):
					t.Errorf("put: %v", err)
				}
			})
		}
		synctest.Wait()
		go s.run()
		closeStore(t, s)
		wg.Wait()
		again := openStore(t, s.path, Options{})
		if n := again.Len(); n != int(kept.Load()) {
			t.Errorf("%d records are there, %d were acknowledged", n, kept.Load())
		}
		closeStore(t, again)
	})
}

// A call of one domain that cannot be stored must not fail the others.
func TestRecordThatCannotBeStoredFailsAlone(t *testing.T) {
	s := openStore(t, newPath(t), Options{})
	tooBig := policy("big.test")
	tooBig.STS.Policy = make([]byte, store.MaxEncoded)
	if err := s.Put(t.Context(), tooBig); err == nil {
		t.Error("no error")
	}
	if st := s.Stats(); st.WriteErrors != 0 || st.Failing {
		t.Errorf("%+v", st)
	}
	longest := policy(strings.Repeat("a", store.MaxDomain))
	longest.STS.Policy = make([]byte, 64<<10)
	mustPut(t, s, longest)
	wantRecord(t, s, longest.Domain)
	if err := s.Delete(t.Context(), "", strings.Repeat("a", 1<<16)); err != nil {
		t.Errorf("delete of what cannot be there: %v", err)
	}
}
