package bolt

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tlspolicyd/store"
)

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

func TestCloseWritesAllThatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := idleStore(t, Options{})
		for i := range batchOps + 1 {
			s.PutLater(store.Record{Domain: fmt.Sprintf("%d.test", i)})
		}
		go s.run()
		closeStore(t, s)
		again := openStore(t, s.path, Options{})
		if n := again.Len(); n != batchOps+1 {
			t.Errorf("%d records, want %d", n, batchOps+1)
		}
		closeStore(t, again)
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

// What PutLater is handed while an older record of the domain is being written
// must not pass for written.
func TestPutLaterDuringTheWrite(t *testing.T) {
	var q laterQueue
	var seq atomic.Uint64
	add := func(o *op) {
		if !q.add(o, &seq) {
			t.Fatal("no room")
		}
	}
	add(&op{domain: "a.test", value: []byte("older")})
	add(&op{domain: "b.test", value: []byte("b")})
	writing := q.some(10)
	newer := &op{domain: "a.test", value: []byte("newer")}
	add(newer)
	q.remove(writing)
	if q.get("a.test") != newer || q.len() != 1 || q.bytes != len("newer") {
		t.Errorf("%d left of %d bytes, want the newer one", q.len(), q.bytes)
	}
}

// Put and PutLater of one domain that end up in one transaction: what was called
// last remains, in either order.
func TestTheLastCallWinsInOneTransaction(t *testing.T) {
	for _, first := range []string{"Put", "PutLater"} {
		t.Run(first+" first", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := idleStore(t, Options{})
				call := func(how, id string) {
					rec := policy("a.test")
					rec.STS.PolicyID = id
					if how == "Put" {
						go func() { mustPut(t, s, rec) }()
						synctest.Wait() // it waits for the writer
					} else {
						s.PutLater(rec)
					}
				}
				call(first, "older")
				call(map[string]string{"Put": "PutLater", "PutLater": "Put"}[first], "newer")
				go s.run()
				synctest.Wait()
				time.Sleep(2 * flushAfter)
				synctest.Wait()
				closeStore(t, s)
				again := openStore(t, s.path, Options{})
				rec, err := again.Get("a.test")
				if err != nil {
					t.Fatal(err)
				}
				if rec.STS.PolicyID != "newer" {
					t.Errorf("on disk is the %s one", rec.STS.PolicyID)
				}
				if st := s.Stats(); st.Commits != 1 {
					t.Errorf("%d commits, want 1", st.Commits)
				}
				closeStore(t, again)
			})
		})
	}
}

func TestGetWhileClosing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := idleStore(t, Options{})
		s.PutLater(policy("a.test"))
		wantRecord(t, s, "a.test")
		closing := make(chan error)
		go func() { closing <- s.Close() }()
		synctest.Wait()
		if _, err := s.Get("a.test"); !errors.Is(err, store.ErrClosed) {
			t.Errorf("get: %v, want %v", err, store.ErrClosed)
		}
		go s.run()
		if err := <-closing; err != nil {
			t.Error(err)
		}
	})
}
