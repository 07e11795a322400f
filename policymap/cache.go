package policymap

import (
	"hash/maphash"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"tlspolicyd/policymap/policy"
)

// entry is an answer in memory. Everything but the atomics is fixed
// once the entry is in the cache, so that readers need no lock. What a hit reads
// comes first: with 50,000 entries hardly any is in the processor's cache, and
// each further line of it costs a tenth of a microsecond.
type entry struct {
	key      []byte       // canonical; set by put
	lastUsed atomic.Int64 // Unix seconds, to within policy.UsedGrain
	level    policy.Level // of the decision; set by put
	origin   Origin       // of a hit; set by put
	checking atomic.Bool  // a background lookup that this entry started is under way
	next     atomic.Int64 // from then on a hit starts one, Unix nanoseconds; 0: never
	txt      atomic.Int64 // until then the TXT record need not be looked up, whatever the record says
	answer   policy.Answer

	hop   policy.NextHop
	noted time.Time // the last use that the record knows of
}

// prepare puts what a hit needs to where it looks. The key comes to where the
// reply begins, so that comparing the one brings the other into the processor's
// cache; a reply that all share stays where it is.
func (e *entry) prepare(key string) {
	e.level, e.origin = e.answer.Decision.Level, Cached
	e.lookAgain(e.answer.Recheck)
	switch {
	case e.answer.Decision.Stale:
		e.origin = Stale
	case e.answer.Decision.Row == policy.RowOverride:
		e.origin = Static
	}
	if e.level != policy.Secure {
		e.key = []byte(key)
		return
	}
	replies := &e.answer.Replies
	block := append([]byte(key), replies.Postfix...)
	e.key, replies.Postfix = block[:len(key):len(key)], block[len(key):]
}

// lookAgain sets when a hit starts the next background lookup; zero: never.
func (e *entry) lookAgain(at time.Time) {
	if at.IsZero() {
		e.next.Store(0)
		return
	}
	e.next.Store(at.UnixNano())
}

// inherit takes over when the TXT record was looked up, from an entry that rests on
// the same TXT facts: where nothing but the time of checking moved the record does
// not know.
func (e *entry) inherit(old *entry) {
	if !e.answer.TXTUntil.Equal(old.answer.TXTUntil) {
		return
	}
	txt := old.txt.Load()
	e.txt.Store(txt)
	if !e.answer.Decision.Stale && e.next.Load() != 0 {
		e.next.Store(max(e.next.Load(), txt))
	}
}

// touch notes a use. The last use is kept coarsely, so that a busy entry's cache
// line is read by all cores and seldom written.
func (e *entry) touch(now time.Time) {
	if t := now.Unix(); t-e.lastUsed.Load() >= int64(policy.UsedGrain/time.Second) {
		e.lastUsed.Store(t)
	}
}

func (e *entry) used() time.Time { return time.Unix(e.lastUsed.Load(), 0) }

func (e *entry) size() int { return len(e.answer.Replies.Postfix) + len(e.answer.Replies.TLSRPT) }

const (
	cacheShards = 1024      // a power of two
	shardSlots  = 128       // a power of two
	mostInShard = 96        // of them in use: a missing key is soon found to be missing
	shardBytes  = 256 << 10 // of replies at most: two of the largest there can be
)

// cache holds the answers in memory by canonical key, all keys of one domain in
// the same shard and side by side, so that they can be found without an index. A
// reader loads a pointer and reads a table that is never changed; a writer
// replaces the small table of one shard by a changed copy. Writers are cold
// lookups, which cost a thousand times more than the copy.
//
// The table is not a map because of where its memory is: a hit follows four
// pointers instead of eight, each of them to memory that is not in the
// processor's cache.
type cache struct {
	seed     maphash.Seed
	perShard int          // so many are always kept
	size     int64        // more than perShard are, unless there are so many in all
	count    atomic.Int64 // of all shards
	maxBytes int64        // of replies in all shards, unless a shard has less than its part
	bytes    atomic.Int64 // of all shards
	shards   [cacheShards]shard
}

type shard struct {
	table atomic.Pointer[table]
	mu    sync.Mutex // writers
}

// table holds the entries of a shard: each at the slot that the hash of its
// domain says, or at the next free one.
type table struct {
	slots [shardSlots]slot
	n     int
	bytes int // of replies
}

type slot struct {
	hash uint64 // of the domain
	e    *entry // nil: free
}

// newCache makes a cache for about size answers with about so many bytes of replies.
func newCache(size, bytes int) *cache {
	perShard := min(max(size/cacheShards, 4), mostInShard)
	return &cache{seed: maphash.MakeSeed(), perShard: perShard, size: int64(perShard) * cacheShards, maxBytes: int64(bytes)}
}

// get returns the entry of a canonical key, or nil. It does not allocate.
func (c *cache) get(key []byte) *entry {
	hash := maphash.Bytes(c.seed, domainIn(key))
	t := c.shard(hash).table.Load()
	if t == nil {
		return nil
	}
	for i := hash; ; i++ {
		s := &t.slots[i%shardSlots]
		if s.e == nil || s.hash == hash && string(s.e.key) == string(key) {
			return s.e
		}
	}
}

func (c *cache) getString(key string) *entry { return c.get([]byte(key)) }

// domainIn returns the domain within a canonical key. Of a key of another form it
// returns some part: such a key is in no shard.
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
	hash := maphash.String(c.seed, domain)
	t := c.shard(hash).table.Load()
	if t == nil {
		return nil
	}
	for i := hash; ; i++ {
		s := &t.slots[i%shardSlots]
		switch {
		case s.e == nil:
			return found
		case s.hash == hash && s.e.hop.Domain == domain:
			found = append(found, s.e)
		}
	}
}

// shard is picked by the upper half of a hash, the slot in it by the lower.
func (c *cache) shard(hash uint64) *shard { return &c.shards[hash>>32%cacheShards] }

// add puts an entry into a table that is not yet shared and has a free slot.
func (t *table) add(s slot) {
	i := s.hash
	for t.slots[i%shardSlots].e != nil {
		i++
	}
	t.slots[i%shardSlots] = s
	t.n++
	t.bytes += s.e.size()
}

// without returns a copy that lacks an entry.
func (t *table) without(e *entry) *table {
	next := new(table)
	for _, s := range t.slots {
		if s.e != nil && s.e != e {
			next.add(s)
		}
	}
	return next
}

// idlest returns the entry that was not used for the longest time.
func (t *table) idlest() *entry {
	var idlest *entry
	since := int64(math.MaxInt64)
	for _, s := range t.slots {
		if s.e != nil {
			if used := s.e.lastUsed.Load(); used < since {
				idlest, since = s.e, used
			}
		}
	}
	return idlest
}

// put stores an entry in place of any other of its key. When there is no room,
// by number or by size, the entry of its shard that was not used for the longest
// time is dropped; an entry that is too large even then is not kept. The facts are
// in the store.
func (c *cache) put(key string, e *entry) {
	e.prepare(key)
	hash := maphash.String(c.seed, domainIn(key))
	s := c.shard(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	before, next := new(table), new(table)
	if t := s.table.Load(); t != nil {
		before = t
		old := c.get([]byte(key))
		if old != nil {
			e.lastUsed.Store(max(e.lastUsed.Load(), old.lastUsed.Load()))
			e.inherit(old)
		}
		next = t.without(old)
	}
	tooLarge := func() bool {
		bytes := int64(next.bytes + e.size())
		return bytes > shardBytes || bytes > c.maxBytes/cacheShards && c.bytes.Load()-int64(before.bytes)+bytes > c.maxBytes
	}
	for next.n > 0 && (c.full(next.n) || tooLarge()) {
		next = next.without(next.idlest())
	}
	if !tooLarge() {
		next.add(slot{hash, e})
	}
	c.replace(s, before, next)
}

// replace puts a table in the place of another one. The shard is locked.
func (c *cache) replace(s *shard, before, next *table) {
	c.count.Add(int64(next.n - before.n))
	c.bytes.Add(int64(next.bytes - before.bytes))
	s.table.Store(next)
}

// full reports whether a shard with n entries has no room for another. Keys are
// not spread evenly: as long as there is room elsewhere a shard may have more
// than its part.
func (c *cache) full(n int) bool {
	return n >= mostInShard || n >= c.perShard && c.count.Load() >= c.size
}

func (c *cache) remove(key string) {
	s := c.shard(maphash.String(c.seed, domainIn(key)))
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := c.getString(key); e != nil {
		t := s.table.Load()
		c.replace(s, t, t.without(e))
	}
}

// clear empties the cache.
func (c *cache) clear() {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		if t := s.table.Load(); t != nil {
			c.replace(s, t, new(table))
		}
		s.mu.Unlock()
	}
}

// each calls fn for every entry, in no order.
func (c *cache) each(fn func(*entry)) {
	for i := range c.shards {
		t := c.shards[i].table.Load()
		if t == nil {
			continue
		}
		for _, s := range t.slots {
			if s.e != nil {
				fn(s.e)
			}
		}
	}
}
