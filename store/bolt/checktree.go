package bolt

import (
	"bytes"
	"encoding/binary"
)

// topBucket is the name used here for the bucket that holds the others.
const topBucket = ""

// tree checks the tree of a bucket. That of the top bucket leads to the trees
// of the buckets in it.
func (c *checker) tree(root uint64, bucket string) error {
	depth, err := c.depth(root)
	if err != nil {
		return err
	}
	return c.subtree(place{bucket: bucket, level: 1, depth: depth}, root)
}

// depth returns the number of levels of a tree, which is the same on every
// path. It claims no page.
func (c *checker) depth(id uint64) (int, error) {
	var b [pageHeaderSize + elementSize]byte
	for depth := 1; depth <= maxDepth; depth++ {
		if id < 2 || id >= c.meta.end {
			return 0, damagef("page %d is outside of the file", id)
		}
		if _, err := c.r.ReadAt(b[:], int64(id)*int64(c.meta.pageSize)); err != nil {
			return 0, damagef("page %d: %v", id, err)
		}
		if binary.NativeEndian.Uint16(b[8:]) != branchPage {
			return depth, nil
		}
		id = binary.NativeEndian.Uint64(b[pageHeaderSize+8:])
	}
	return 0, damagef("tree of more than %d levels", maxDepth)
}

// place is where in a tree a page is.
type place struct {
	bucket       string
	level, depth int // leaves are expected where both are equal

	// Keys are expected from the first on and below the second, unless nil. bbolt
	// would never find another key.
	from, below []byte
}

func (c *checker) subtree(at place, id uint64) error {
	if at.level > maxDepth {
		return damagef("tree of more than %d levels", maxDepth)
	}
	isLeaf := at.level == at.depth && at.bucket != topBucket
	if isLeaf && c.leafBudget <= 0 {
		c.seen.partly = true
		return nil
	}
	p, err := c.read(id)
	if err != nil {
		return err
	}
	if isLeaf {
		c.leafBudget -= int64(len(p.data))
	}
	switch p.flags {
	case branchPage:
		return c.branch(at, p)
	case leafPage:
		return c.leaf(at, p.id, p.count, p.data)
	default:
		return damagef("page %d is of unknown kind %#x", id, p.flags)
	}
}

func (c *checker) branch(at place, p page) error {
	if p.count == 0 {
		return damagef("page %d has no elements", p.id)
	}
	keys := keyOrder{page: p.id, place: at}
	children := make([]place, p.count)
	for i := range p.count {
		offset := pageHeaderSize + i*elementSize
		if offset+elementSize > len(p.data) {
			return damagef("page %d has no room for %d elements", p.id, p.count)
		}
		e := p.data[offset:]
		if _, err := keys.next(e, binary.NativeEndian.Uint32(e), binary.NativeEndian.Uint32(e[4:]), 0); err != nil {
			return err
		}
		children[i] = at
		children[i].level++
		children[i].from = keys.last
		if i > 0 {
			children[i-1].below = keys.last
		}
	}
	for i, child := range children {
		id := binary.NativeEndian.Uint64(p.data[pageHeaderSize+i*elementSize+8:])
		if err := c.subtree(child, id); err != nil {
			return err
		}
	}
	return nil
}

// leaf checks the elements of a leaf page, or of one that is the value of a
// bucket too small to have pages of its own.
func (c *checker) leaf(at place, id uint64, count int, data []byte) error {
	keys := keyOrder{page: id, place: at}
	for i := range count {
		offset := pageHeaderSize + i*elementSize
		if offset+elementSize > len(data) {
			return damagef("page %d has no room for %d elements", id, count)
		}
		e, order := data[offset:], binary.NativeEndian
		value, err := keys.next(e, order.Uint32(e[4:]), order.Uint32(e[8:]), order.Uint32(e[12:]))
		if err != nil {
			return err
		}
		switch {
		case at.bucket == bucketRecords:
			c.seen.see(keys.last, value)
		case at.bucket == topBucket && order.Uint32(e)&bucketElement != 0:
			if err := c.bucket(string(keys.last), id, value); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *checker) bucket(name string, id uint64, value []byte) error {
	if len(value) < bucketSize {
		return damagef("page %d has a bucket of %d bytes", id, len(value))
	}
	if root := binary.NativeEndian.Uint64(value); root != 0 {
		return c.tree(root, name)
	}
	inline := value[bucketSize:]
	if len(inline) < pageHeaderSize || binary.NativeEndian.Uint16(inline[8:]) != leafPage {
		return damagef("page %d has a bucket that is not a page", id)
	}
	return c.leaf(place{bucket: name}, id, int(binary.NativeEndian.Uint16(inline[10:])), inline)
}

// keyOrder checks that the keys of a page are within it, ascend, and are in the range
// of the pages above.
type keyOrder struct {
	page uint64
	place
	last []byte
}

// next checks the key of keySize bytes at offset pos of element e, and returns
// the value of valueSize bytes behind it.
func (o *keyOrder) next(e []byte, pos, keySize, valueSize uint32) ([]byte, error) {
	end := uint64(pos) + uint64(keySize)
	if keySize == 0 || end+uint64(valueSize) > uint64(len(e)) {
		return nil, damagef("page %d has an element that runs past its end", o.page)
	}
	key := e[pos:end]
	if o.last != nil && bytes.Compare(o.last, key) >= 0 || bytes.Compare(key, o.from) < 0 ||
		o.below != nil && bytes.Compare(key, o.below) >= 0 {
		return nil, damagef("page %d has keys out of order", o.page)
	}
	o.last = key
	return e[end : end+uint64(valueSize)], nil
}
