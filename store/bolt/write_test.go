package bolt

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/bbolt"

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

// One transaction has bounds, so that those who wait are not kept waiting for
// ever more to join them.
func TestTransactionHasBounds(t *testing.T) {
	large := make([]byte, 64<<10)
	for _, c := range []struct {
		name          string
		calls, commit int
		recs          func(call int) []store.Record
	}{
		{"records", 4, 2, func(call int) (recs []store.Record) {
			for i := range batchOps / 2 {
				recs = append(recs, store.Record{Domain: fmt.Sprintf("%d-%d.test", call, i)})
			}
			return recs
		}},
		{"bytes", batchBytes / len(large), 1, func(call int) []store.Record {
			return []store.Record{{Domain: fmt.Sprintf("%d.test", call), STS: &store.STS{Policy: large}}}
		}},
		{"more bytes", batchBytes/len(large) + 2, 2, func(call int) []store.Record {
			return []store.Record{{Domain: fmt.Sprintf("%d.test", call), STS: &store.STS{Policy: large}}}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := idleStore(t, Options{})
				var wg sync.WaitGroup
				for call := range c.calls {
					wg.Go(func() { mustPut(t, s, c.recs(call)...) })
				}
				synctest.Wait()
				go s.run()
				wg.Wait()
				if st := s.Stats(); st.Commits != uint64(c.commit) {
					t.Errorf("%d commits, want %d", st.Commits, c.commit)
				}
				closeStore(t, s)
			})
		})
	}
}

// The buckets for the schedule and for eviction hold one entry for each record
// and no more, whatever happened.
func TestBucketsStayInStep(t *testing.T) {
	s := openStore(t, newPath(t), Options{MaxEntries: 50})
	random := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		rec := policy(fmt.Sprintf("%d.test", random.IntN(80)))
		rec.LastUsed = rec.LastUsed.Add(time.Duration(random.IntN(10)) * time.Hour)
		rec.Class = store.Class(random.IntN(2))
		rec.STS.Policy = make([]byte, random.IntN(2*largeRecord))
		if rec.Due = rec.Due.Add(time.Duration(random.IntN(10)) * time.Hour); random.IntN(4) == 0 {
			rec.Due = time.Time{}
		}
		switch random.IntN(4) {
		case 0:
			s.PutLater(rec)
		case 1:
			if err := s.Delete(t.Context(), rec.Domain); err != nil {
				t.Fatal(err)
			}
		default:
			mustPut(t, s, rec)
		}
	}
	s.flush()
	due, use, large, records := make(map[string]bool), make(map[string]bool), make(map[string]bool), 0
	err := s.Walk(store.Scan{}, func(rec store.Record) bool {
		records++
		use[string(useKey(&rec))] = true
		value, err := store.EncodeRecord(rec)
		if k := largeKey(&rec, recordSize(rec.Domain, value)); err == nil && k != nil {
			large[string(k)] = true
		}
		if k := dueKey(&rec); k != nil {
			due[string(k)] = true
		}
		return true
	})
	if err != nil || records != s.Len() || records == 0 || records > 50 {
		t.Errorf("%d records, %d counted: %v", records, s.Len(), err)
	}
	err = s.view(func(b buckets) error {
		return errors.Join(wantKeys(b.due, due), wantKeys(b.use, use), wantKeys(b.large, large))
	})
	if err != nil {
		t.Error(err)
	}
}

func wantKeys(b *bbolt.Bucket, want map[string]bool) error {
	n := 0
	err := b.ForEach(func(k, _ []byte) error {
		if n++; !want[string(k)] {
			return fmt.Errorf("entry %q without record", k)
		}
		return nil
	})
	if err == nil && n != len(want) {
		err = fmt.Errorf("%d entries, want %d", n, len(want))
	}
	return err
}

// Each must not keep pages from being used again while it goes on: it reads
// in portions, so that it comes upon what is written ahead of it.
func TestEachReadsInPortions(t *testing.T) {
	for name, perRecord := range map[string]int{"many": 0, "large": 64 << 10} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, newPath(t), Options{})
			n := walkRecords
			if perRecord > 0 {
				n = walkBytes / perRecord
			}
			recs := make([]store.Record, n+1)
			for i := range recs {
				recs[i] = store.Record{Domain: fmt.Sprintf("%04d.test", i), STS: &store.STS{Policy: make([]byte, perRecord)}}
			}
			mustPut(t, s, recs...)
			var last string
			err := s.Walk(store.Scan{}, func(rec store.Record) bool {
				if rec.Domain == "0000.test" {
					mustPut(t, s, policy("9999.test"))
				}
				last = rec.Domain
				return true
			})
			if err != nil || last != "9999.test" {
				t.Errorf("ended at %s: %v", last, err)
			}
		})
	}
}

func TestASinglePutWaitsForOneWriteOnly(t *testing.T) {
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

func TestCloseAnswersWaitingCalls(t *testing.T) {
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

// BEHAVIOUR §6: on disk before the reply leaves. That a kill loses nothing
// says little about power; what makes the difference are these switches.
func TestTransactionsAreSynced(t *testing.T) {
	db := openStore(t, newPath(t), Options{}).file.Load().db
	if db.NoSync || db.NoGrowSync || db.NoFreelistSync {
		t.Error("fsync is off")
	}
}

// A record that cannot be stored must not fail the others.
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
