package bolt

import (
	"bytes"
	"encoding/binary"
)

// tree checks the tree of a bucket. That of the top bucket leads to the trees
// of the buckets in it.
func (c *checker) tree(root uint64, top bool) error {
	depth, err := c.depth(root)
	if err != nil {
		return err
	}
	return c.subtree(place{top, 1, depth}, root)
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
	top          bool // in the bucket that holds the others
	level, depth int  // leaves are expected where both are equal
}

func (c *checker) subtree(at place, id uint64) error {
	if at.level > maxDepth {
		return damagef("tree of more than %d levels", maxDepth)
	}
	isLeaf := at.level == at.depth && !at.top
	if isLeaf && c.leafBudget <= 0 {
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
		return c.leaf(at.top, p.id, p.count, p.data)
	default:
		return damagef("page %d is of unknown kind %#x", id, p.flags)
	}
}

func (c *checker) branch(at place, p page) error {
	if p.count == 0 {
		return damagef("page %d leads nowhere", p.id)
	}
	keys := keyOrder{page: p.id}
	at.level++
	for i := range p.count {
		offset := pageHeaderSize + i*elementSize
		if offset+elementSize > len(p.data) {
			return damagef("page %d has no room for %d elements", p.id, p.count)
		}
		e := p.data[offset:]
		if _, err := keys.next(e, binary.NativeEndian.Uint32(e), binary.NativeEndian.Uint32(e[4:]), 0); err != nil {
			return err
		}
		if err := c.subtree(at, binary.NativeEndian.Uint64(e[8:])); err != nil {
			return err
		}
	}
	return nil
}

// leaf checks the elements of a leaf page, or of one that is the value of a
// bucket too small to have pages of its own.
func (c *checker) leaf(top bool, id uint64, count int, data []byte) error {
	keys := keyOrder{page: id}
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
		if !top || order.Uint32(e)&bucketElement == 0 {
			continue
		}
		if err := c.bucket(id, value); err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) bucket(id uint64, value []byte) error {
	if len(value) < bucketSize {
		return damagef("page %d has a bucket of %d bytes", id, len(value))
	}
	if root := binary.NativeEndian.Uint64(value); root != 0 {
		return c.tree(root, false)
	}
	inline := value[bucketSize:]
	if len(inline) < pageHeaderSize || binary.NativeEndian.Uint16(inline[8:]) != leafPage {
		return damagef("page %d has a bucket that is no page", id)
	}
	return c.leaf(false, id, int(binary.NativeEndian.Uint16(inline[10:])), inline)
}

// keyOrder checks that keys of one page lie within it and ascend.
type keyOrder struct {
	page uint64
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
	if o.last != nil && bytes.Compare(o.last, key) >= 0 {
		return nil, damagef("page %d has keys out of order", o.page)
	}
	o.last = key
	return e[end : end+uint64(valueSize)], nil
}
