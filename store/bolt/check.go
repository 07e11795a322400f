package bolt

import (
	"encoding/binary"
	"hash/fnv"
	"io"

	"tlspolicyd/store"
)

// checkPages checks a database file before bbolt maps it. bbolt's own check opens
// the file first, panics in goroutines of its own, and reads every page, which takes
// seconds at a million records. checkPages reads with ReadAt, so no bytes of the file
// can do harm.
//
// It covers the meta pages, the list of free pages, every branch page, and leaf
// pages up to leafBudget bytes, with the checksum of each record on them. Other leaf
// pages are checked when they are used, by bbolt's page header and by those
// checksums. The database has no nested buckets.
//
// Format: bbolt, internal/common/{meta,page,bucket}.go, version 2. All numbers are in
// the byte order of the machine; in a file from another kind of machine no meta page
// is valid.
func checkPages(r io.ReaderAt, size, leafBudget int64) (contents, error) {
	m, err := readMeta(r, size)
	if err != nil {
		return contents{}, err
	}
	if pages := uint64(size) / uint64(m.pageSize); m.end > pages {
		return contents{}, damagef("cut short: %d of %d pages", pages, m.end)
	}
	c := &checker{r: r, meta: m, leafBudget: leafBudget, used: make(bitmap, m.end/64+1), free: make(bitmap, m.end/64+1)}
	if err := c.freelist(); err != nil {
		return contents{}, err
	}
	err = c.tree(m.root, topBucket)
	return c.seen, err
}

// contents is what checkPages found of the records. It is used once the schema is
// known.
type contents struct {
	records  int
	partly   bool     // leaf pages were left out
	suspects []string // domains whose record is of another domain or was changed
}

// missing returns how many records fewer there are than the file says it has:
// policies that would be lost without a trace.
func (c *contents) missing(records int) int {
	if c.partly {
		return 0
	}
	return records - c.records
}

// see counts one record. A key that is too long for a domain does not count.
func (c *contents) see(key, value []byte) {
	if len(key) > store.MaxDomain {
		return
	}
	c.records++
	if domain := string(key); !store.Intact(domain, value) && len(c.suspects) < maxRepairs {
		c.suspects = append(c.suspects, domain)
	}
}

// leavesOf returns how many bytes of leaf pages are checked in a file of this size.
func leavesOf(size int64) int64 {
	if size > 4*checkedLeaves {
		return sampledLeaves
	}
	return checkedLeaves
}

const (
	// checkedLeaves covers a whole file of some 80,000 domains, which a slow disk
	// reads in a second.
	checkedLeaves = 32 << 20

	// sampledLeaves is checked of a file so large that most leaves are left out in
	// any case: after a reboot each takes a read from the disk, and Postfix waits.
	sampledLeaves = checkedLeaves / 8

	boltMagic   = 0xED0CDAED
	boltVersion = 2

	pageHeaderSize = 16
	elementSize    = 16 // of branch and leaf alike
	metaSize       = 64
	bucketSize     = 16

	branchPage   = 0x01
	leafPage     = 0x02
	freelistPage = 0x10

	bucketElement = 0x01

	minPageSize = 1 << 10
	maxPageSize = 16 << 20

	// maxOverflow is far above what three of the largest records take in one
	// page, and the list of free pages in a file of some GiB.
	maxOverflow = 64 << 20

	// maxDepth is far above what the largest file needs (6 levels at a million
	// domains with the smallest pages).
	maxDepth = 32
)

// meta is the content of a meta page. There are two, written in turn; of the valid
// ones that with the higher transaction number counts.
type meta struct {
	pageSize uint32
	root     uint64
	freelist uint64
	end      uint64 // first page that was never used
	tx       uint64
}

func readMeta(r io.ReaderAt, size int64) (meta, error) {
	var newest meta
	found := false
	take := func(m meta, ok bool) {
		if ok && (!found || m.tx > newest.tx) {
			newest, found = m, true
		}
	}
	first, ok := readMetaAt(r, 0)
	take(first, ok)
	if ok {
		take(readMetaAt(r, int64(first.pageSize)))
	} else {
		// The second page is at the offset of the page size, which it contains.
		for at := int64(minPageSize); at <= maxPageSize && at < size; at *= 2 {
			m, ok := readMetaAt(r, at)
			take(m, ok && int64(m.pageSize) == at)
		}
	}
	if !found {
		return meta{}, damagef("not a bbolt database, or both of its meta pages are damaged")
	}
	return newest, nil
}

func readMetaAt(r io.ReaderAt, at int64) (m meta, ok bool) {
	var page [pageHeaderSize + metaSize]byte
	if _, err := r.ReadAt(page[:], at); err != nil {
		return meta{}, false
	}
	b, order := page[pageHeaderSize:], binary.NativeEndian
	sum := fnv.New64a()
	sum.Write(b[:56])
	m = meta{
		pageSize: order.Uint32(b[8:]),
		root:     order.Uint64(b[16:]),
		freelist: order.Uint64(b[32:]),
		end:      order.Uint64(b[40:]),
		tx:       order.Uint64(b[48:]),
	}
	ok = order.Uint32(b) == boltMagic && order.Uint32(b[4:]) == boltVersion &&
		order.Uint64(b[56:]) == sum.Sum64() &&
		m.pageSize >= minPageSize && m.pageSize <= maxPageSize && m.pageSize&(m.pageSize-1) == 0
	return m, ok
}

// checker walks the pages of a file.
type checker struct {
	r          io.ReaderAt
	meta       meta
	leafBudget int64
	used, free bitmap
	seen       contents
}

// page is one page with its overflow.
type page struct {
	id    uint64
	flags uint16
	count int
	data  []byte // header included
}

// read claims page id and those it runs over to, and reads them.
func (c *checker) read(id uint64) (page, error) {
	if id < 2 || id >= c.meta.end {
		return page{}, damagef("page %d is outside of the file", id)
	}
	size, order := int64(c.meta.pageSize), binary.NativeEndian
	data := make([]byte, size)
	if _, err := c.r.ReadAt(data, int64(id)*size); err != nil {
		return page{}, damagef("page %d: %v", id, err)
	}
	p := page{id: id, flags: order.Uint16(data[8:]), count: int(order.Uint16(data[10:])), data: data}
	if got := order.Uint64(data); got != id {
		return page{}, damagef("page %d says it is page %d", id, got)
	}
	last := id + uint64(order.Uint32(data[12:]))
	if last >= c.meta.end || (last-id)*uint64(size) > maxOverflow {
		return page{}, damagef("page %d runs past the end", id)
	}
	for i := id; i <= last; i++ {
		if !c.used.set(i) {
			return page{}, damagef("page %d is used twice", i)
		}
		if c.free.has(i) {
			return page{}, damagef("page %d is used and free", i)
		}
	}
	if last > id {
		p.data = make([]byte, int64(last-id+1)*size)
		if _, err := c.r.ReadAt(p.data, int64(id)*size); err != nil {
			return page{}, damagef("page %d: %v", id, err)
		}
	}
	return p, nil
}

// freelist reads the list of free pages. bbolt writes into these, so an error in the
// list would damage other pages. This package never writes a file without the list.
func (c *checker) freelist() error {
	p, err := c.read(c.meta.freelist)
	if err != nil {
		return err
	}
	if p.flags != freelistPage {
		return damagef("page %d is not a list of free pages", p.id)
	}
	ids, count := p.data[pageHeaderSize:], uint64(p.count)
	if count == 0xFFFF { // the real count comes first
		count, ids = binary.NativeEndian.Uint64(ids), ids[8:]
	}
	if count > uint64(len(ids)/8) {
		return damagef("the list of free pages is cut short")
	}
	for i := range count {
		id := binary.NativeEndian.Uint64(ids[8*i:])
		if id < 2 || id >= c.meta.end || c.used.has(id) || !c.free.set(id) {
			return damagef("page %d cannot be free", id)
		}
	}
	return nil
}

// bitmap is a set of page numbers.
type bitmap []uint64

func (b bitmap) has(i uint64) bool { return b[i/64]&(1<<(i%64)) != 0 }

// set adds i and reports whether it was not in the set before.
func (b bitmap) set(i uint64) bool {
	before := b.has(i)
	b[i/64] |= 1 << (i % 64)
	return !before
}
