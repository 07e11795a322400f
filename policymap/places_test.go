package policymap

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tlspolicyd/internal/dnsclient"
	"tlspolicyd/testing/lab"
)

type clientOf struct{}

// A client that asks for thousands of names whose servers do not answer neither
// holds up nor defers the lookups of another, and its own come back in time.
func TestLookupsUnderWayAreBoundedForEachClient(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		h.Map.Close()
		h.Map = New(Options{
			Store: h.store, Config: h.config, Observer: h.seen,
			Client: func(ctx context.Context) string { return fmt.Sprint(ctx.Value(clientOf{})) },
		})
		ask := func(client, key string) (string, time.Duration) {
			began := time.Now()
			ctx := context.WithValue(t.Context(), clientOf{}, client)
			return string(h.Lookup(ctx, []byte("postfix"), []byte(key))), time.Since(began)
		}
		for i := range 2000 {
			h.Fault(fmt.Sprintf("silent%d.test", i), "MX", lab.Drop)
		}
		var wg sync.WaitGroup
		var mu sync.Mutex
		replies, refused := map[string]int{}, map[time.Duration]int{}
		for i := range 2000 {
			wg.Go(func() {
				reply, took := ask("flood", fmt.Sprintf("silent%d.test", i))
				if took > lookupTimeout {
					t.Errorf("%q after %v", reply, took)
				}
				mu.Lock()
				defer mu.Unlock()
				replies[reply[:strings.LastIndex(reply, " ")]]++
				if strings.Contains(reply, "too many") {
					refused[took.Truncate(100*time.Millisecond)]++
				}
			})
		}
		time.Sleep(time.Second)
		if reply, took := ask("postfix", "full.test"); reply != "OK dane-only" || took > time.Second {
			t.Errorf("another client: %q after %v", reply, took)
		}
		wg.Wait()
		if n := replies["TEMP too many lookups of this client are under"]; n < 2000-2*maxLookups {
			t.Errorf("%d of 2000 lookups had no place: %v", n, replies)
		}
		for at, n := range refused { // those that come again do not come all at once
			if n > 300 {
				t.Errorf("%d lookups were refused after %v: %v", n, at, refused)
			}
		}
	})
}

// stuck is a resolver that answers nothing, for names that begin with "late" after
// a second and a half.
type stuck struct{}

func (stuck) Lookup(ctx context.Context, name string, qtype uint16) (dnsclient.Answer, error) {
	if strings.HasPrefix(name, "late") {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 1500*time.Millisecond)
		defer cancel()
	}
	<-ctx.Done()
	return dnsclient.Answer{}, &dnsclient.Error{Name: name, Type: qtype, Kind: dnsclient.Timeout}
}

// A lookup that waited for a place ends as early as one that did not.
func TestWaitingForAPlaceIsPartOfTheLookup(t *testing.T) {
	inBubble(t, zones, func(t *testing.T, h *host) {
		h.Map.Close()
		h.config.Resolver = stuck{}
		h.Map = New(Options{Store: h.store, Config: h.config})
		ask := func(name string) string {
			return string(h.Lookup(t.Context(), []byte("postfix"), []byte(name)))
		}
		var wg sync.WaitGroup
		for i := range maxLookups {
			wg.Go(func() { ask(fmt.Sprintf("late%d.test", i)) })
		}
		time.Sleep(time.Millisecond)
		var looked atomic.Int32
		for i := range 50 { // some of which are refused before there is a place
			wg.Go(func() {
				began := time.Now()
				reply := ask(fmt.Sprintf("silent%d.test", i))
				if took := time.Since(began); took > lookupTimeout {
					t.Errorf("%q after %v", reply, took)
				}
				if !strings.Contains(reply, "too many") {
					looked.Add(1)
				}
			})
		}
		wg.Wait()
		if looked.Load() == 0 {
			t.Error("no lookup got the place of another")
		}
	})
}

// Replies in memory are bounded in bytes; what does not fit is answered from the
// store.
func TestMemoryIsBoundedInBytes(t *testing.T) {
	c := newCache(65536, 8<<20)
	large := func(i int) *entry { return cached(int64(i), 60_000) }
	for i := range 5000 {
		c.put(fmt.Sprintf("large%d.test", i), large(i))
	}
	if n := c.bytes.Load(); n > 8<<20 {
		t.Errorf("%d bytes", n)
	}
	for i := range 20_000 {
		c.put(fmt.Sprintf("small%d.test", i), cached(int64(10_000+i), 100))
	}
	kept := 0
	for i := range 20_000 {
		if c.getString(fmt.Sprintf("small%d.test", i)) != nil {
			kept++
		}
	}
	if kept < 19_900 {
		t.Errorf("%d of 20000 small replies are kept beside large ones", kept)
	}
	c.clear()
	if c.bytes.Load() != 0 || c.count.Load() != 0 {
		t.Errorf("%d bytes in %d entries after clear", c.bytes.Load(), c.count.Load())
	}
}
