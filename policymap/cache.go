package policymap

import (
	"hash/maphash"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// entry is an answer in memory. Everything but lastUsed is fixed once the
// entry is in the cache, so that readers need no lock.
type entry struct {
	hop      NextHop
	facts    DANEFacts // of the moment it was made
	replies  replies
	decision Decision
	sts      STSState
	stsWhy   string    // STSAbsent: why
	noted    time.Time // the last use that the record knows of
	pending  bool      // given before MTA-STS was known: not for long

	until   time.Time // the answer is good before this
	recheck time.Time // from then on a hit starts a look in the background; zero: never

	lastUsed atomic.Int64 // Unix seconds, to within usedGrain
	checking atomic.Bool  // a background look has been started by this entry
}

// usedGrain is how exactly the last use is kept, in seconds. Coarse, so that
// a busy entry's cache line is read by all cores and seldom written.
const usedGrain = 15

func (e *entry) touch(now time.Time) {
	if t := now.Unix(); t-e.lastUsed.Load() >= usedGrain {
		e.lastUsed.Store(t)
	}
}

func (e *entry) used() time.Time { return time.Unix(e.lastUsed.Load(), 0) }

func (e *entry) size() int { return len(e.replies.postfix) + len(e.replies.tlsrpt) }

const (
	cacheShards = 1024      // a power of two
	shardBytes  = 256 << 10 // of replies: two of the largest there can be
)

// cache holds the answers in memory by canonical key, all keys of one domain in
// the same shard, so that they can be found without an index. A reader loads a pointer
// and looks into a map that nobody changes any more; a writer replaces the
// small map of one shard by a changed copy. Writers are cold lookups, which
// cost a thousand times more than the copy.
type cache struct {
	seed     maphash.Seed
	perShard int
	shards   [cacheShards]shard
}

type shard struct {
	entries atomic.Pointer[map[string]*entry]
	mu      sync.Mutex // writers
}

// newCache makes a cache for about size answers.
func newCache(size int) *cache {
	return &cache{seed: maphash.MakeSeed(), perShard: max(size/cacheShards, 4)}
}

// get returns the entry of a canonical key, or nil. It does not allocate.
func (c *cache) get(key []byte) *entry {
	m := c.shards[maphash.Bytes(c.seed, domainIn(key))%cacheShards].entries.Load()
	if m == nil {
		return nil
	}
	return (*m)[string(key)]
}

func (c *cache) getString(key string) *entry {
	m := c.shard(key).entries.Load()
	if m == nil {
		return nil
	}
	return (*m)[key]
}

func (c *cache) shard(key string) *shard {
	return &c.shards[maphash.String(c.seed, domainIn(key))%cacheShards]
}

// domainIn returns the domain within a canonical key. In a key of another form
// it is something or other: such a key is in no shard.
func domainIn[T string | []byte](key T) T {
	start := 0
	if len(key) > 0 && key[0] == '[' {
		start = 1
	}
	for i := start; i < len(key); i++ {
		if key[i] == ':' || key[i] == ']' {
			return key[start:i]
		}
	}
	return key[start:]
}

// ofDomain returns the entries of one domain, in no order.
func (c *cache) ofDomain(domain string) (found []*entry) {
	m := c.shard(domain).entries.Load()
	if m == nil {
		return nil
	}
	for _, e := range *m {
		if e.hop.Domain == domain {
			found = append(found, e)
		}
	}
	return found
}

// put stores an entry in place of any other of its key. A shard that is full,
// by number or by size, loses what was not asked for longest; the facts are in
// the store.
func (c *cache) put(key string, e *entry) {
	s := c.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	next := make(map[string]*entry)
	bytes := e.size()
	if old := s.entries.Load(); old != nil {
		for k, v := range *old {
			if k != key {
				next[k] = v
				bytes += v.size()
			} else if used := v.lastUsed.Load(); used > e.lastUsed.Load() {
				e.lastUsed.Store(used)
			}
		}
	}
	for len(next) > 0 && (len(next) >= c.perShard || bytes > shardBytes) {
		idle := idlest(next)
		bytes -= next[idle].size()
		delete(next, idle)
	}
	next[key] = e
	s.entries.Store(&next)
}

func idlest(entries map[string]*entry) (key string) {
	since := int64(math.MaxInt64)
	for k, v := range entries {
		if used := v.lastUsed.Load(); used < since {
			key, since = k, used
		}
	}
	return key
}

func (c *cache) remove(key string) {
	s := c.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.entries.Load()
	if old == nil || (*old)[key] == nil {
		return
	}
	next := make(map[string]*entry, len(*old))
	for k, v := range *old {
		if k != key {
			next[k] = v
		}
	}
	s.entries.Store(&next)
}

// clear empties the cache.
func (c *cache) clear() {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		s.entries.Store(nil)
		s.mu.Unlock()
	}
}

// each calls fn for every entry, in no order.
func (c *cache) each(fn func(*entry)) {
	for i := range c.shards {
		if m := c.shards[i].entries.Load(); m != nil {
			for _, e := range *m {
				fn(e)
			}
		}
	}
}
