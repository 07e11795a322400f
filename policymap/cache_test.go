package policymap

import (
	"fmt"
	"testing"

	"tlspolicyd/policymap/policy"
)

func cached(used int64, size int) *entry {
	e := &entry{answer: policy.Answer{Replies: policy.Replies{Postfix: make([]byte, size)}}}
	e.lastUsed.Store(used)
	return e
}

func TestCacheFindsWhatWasPut(t *testing.T) {
	const n = 50_000 // of 65,536: none has to go, however unevenly they are spread
	c := newCache(65536, 1<<40)
	key := func(i int) string { return fmt.Sprintf("d%d.test", i) }
	entries := make([]*entry, n)
	for i := range entries {
		entries[i] = cached(1, 10)
		c.put(key(i), entries[i])
	}
	for i, e := range entries {
		if c.getString(key(i)) != e || c.get([]byte(key(i))) != e {
			t.Fatalf("%s is not there", key(i))
		}
	}
	if c.getString("other.test") != nil {
		t.Error("something is there that was not put")
	}
	if got := c.count.Load(); got != n {
		t.Errorf("%d counted, want %d", got, n)
	}
	seen := 0
	c.each(func(*entry) { seen++ })
	if seen != n {
		t.Errorf("%d seen, want %d", seen, n)
	}
	for i := 0; i < n; i += 2 {
		c.remove(key(i))
		c.remove(key(i)) // once is enough
	}
	for i, e := range entries {
		if got := c.getString(key(i)); i%2 == 0 && got != nil || i%2 == 1 && got != e {
			t.Fatalf("%s after every other was removed: %v", key(i), got)
		}
	}
	if got := c.count.Load(); got != n/2 {
		t.Errorf("%d counted after every other was removed, want %d", got, n/2)
	}
	c.clear()
	if c.getString(key(1)) != nil || c.count.Load() != 0 {
		t.Error("not empty after clear")
	}
}

func TestCacheFindsAllEntriesOfADomain(t *testing.T) {
	c := newCache(65536, 1<<40)
	put := func(hop policy.NextHop) {
		e := cached(1, 10)
		e.hop = hop
		c.put(hop.String(), e)
	}
	for i := range 5000 {
		put(policy.NextHop{Domain: fmt.Sprintf("d%d.test", i), Port: 25})
	}
	for _, port := range []uint16{25, 465, 587} {
		put(policy.NextHop{Domain: "a.test", Port: port})
		put(policy.NextHop{Domain: "a.test", Port: port, Literal: true})
	}
	c.remove("a.test:465")
	if got := c.ofDomain("a.test"); len(got) != 5 {
		t.Errorf("%d entries of a.test, want 5", len(got))
	}
	if got := c.ofDomain("d7.test"); len(got) != 1 || got[0].hop.Domain != "d7.test" {
		t.Errorf("entries of d7.test: %v", got)
	}
	if got := c.ofDomain("none.test"); got != nil {
		t.Errorf("entries of none.test: %v", got)
	}
}

func TestCacheReplacesAnEntryAndKeepsItsUse(t *testing.T) {
	c := newCache(65536, 1<<40)
	c.put("a.test", cached(100, 10))
	later := cached(50, 10)
	c.put("a.test", later)
	if c.getString("a.test") != later || c.count.Load() != 1 {
		t.Error("the later entry is not in place of the earlier one")
	}
	if used := later.lastUsed.Load(); used != 100 {
		t.Errorf("last used %d, want 100", used)
	}
}

func TestCacheIsBounded(t *testing.T) {
	const size = 8 * cacheShards
	c := newCache(size, 1<<40)
	for i := range 10 * size {
		c.put(fmt.Sprintf("d%d.test", i), cached(int64(i), 10))
	}
	if got := c.count.Load(); got < size || got > size+size/4 {
		t.Errorf("%d entries, want about %d", got, size)
	}
	for i := range c.shards {
		tab := c.shards[i].table.Load()
		if tab == nil {
			t.Fatalf("shard %d is empty", i)
		}
		if tab.n > mostInShard {
			t.Errorf("shard %d has %d entries, want at most %d", i, tab.n, mostInShard)
		}
	}
	// Large replies bound it as well.
	for i := range 4 * cacheShards {
		c.put(fmt.Sprintf("large%d.test", i), cached(int64(20*size+i), 100000))
	}
	for i := range c.shards {
		if tab := c.shards[i].table.Load(); tab.bytes > shardBytes {
			t.Errorf("shard %d holds %d bytes of replies, want at most %d", i, tab.bytes, shardBytes)
		}
	}
}

func TestCacheGivesUpWhatWasNotAskedForLongest(t *testing.T) {
	c := newCache(4*cacheShards, 1<<40)
	keep := cached(1<<40, 10)
	c.put("busy.test", keep)
	for i := range 20 * 4 * cacheShards {
		c.put(fmt.Sprintf("d%d.test", i), cached(int64(i), 10))
	}
	if c.getString("busy.test") != keep {
		t.Error("what is asked for all the time has made room")
	}
}
