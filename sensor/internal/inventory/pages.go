package inventory

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
)

// The database underneath believes its pages, but for the two that begin the file: on
// one that is damaged it panics, or writes over what is used. So the pages are looked at before it opens the file, and what is found in a damaged file
// is found without it. Its format, as of version 2, in the byte order of the machine:
//
//	page        id u64, flags u16, count u16, overflow u32: a page is 1 + overflow pages of the file
//	meta        magic u32, version u32, page size u32, flags u32, root page u64, sequence u64,
//	            free list u64, pages u64, transaction u64, FNV-1a of all that u64
//	branch      of each element: position u32, key size u32, page u64
//	free list   u64 of each free page, in order; where count is 0xffff, the first of them is
//	            how many there are
//	leaf        of each element: flags u32, position u32, key size u32, value size u32
//
// Positions are those of the key, from the element on. Where the flags of an element are
// 1, its value is a bucket: its root page u64 and a sequence u64, and where the root is 0,
// that page itself.
const (
	pageHeader  = 16
	elementSize = 16
	metaSize    = 64
	metaMagic   = 0xed0cdaed
	metaVersion = 2

	branchPage = 1
	leafPage   = 2
	metaPage   = 4
	freePage   = 16

	maxDepth = 32 // of branch pages: each has two keys or more

	// vainReads is how much a salvage reads of pages that do not continue another, though
	// its head says so: so many times the file.
	vainReads = 4
)

// image is the file of a database.
type image struct {
	r        io.ReaderAt
	size     int64
	pageSize int64
	meta     meta
	page     []byte // scratch
	alone    bool   // pages are read without those that continue them
}

// meta is what the beginning of the file says.
type meta struct{ pageSize, root, free, pages, transaction uint64 }

// errTooLarge is the error of a file that no inventory is as large as.
var errTooLarge = errors.New("it is larger than an inventory can be")

// errNoDatabase is the error of a file that does not begin as a database does.
var errNoDatabase = errors.New("it does not begin as an inventory does")

// readMeta reads a page of the beginning.
func readMeta(b []byte) (m meta, err error) {
	e := binary.NativeEndian
	if b = b[pageHeader:]; e.Uint32(b) != metaMagic || e.Uint32(b[4:]) != metaVersion {
		return m, errNoDatabase
	}
	h := fnv.New64a()
	h.Write(b[:metaSize-8])
	if h.Sum64() != e.Uint64(b[metaSize-8:]) {
		return m, errors.New("its beginning is damaged")
	}
	return meta{uint64(e.Uint32(b[8:])), e.Uint64(b[16:]), e.Uint64(b[32:]), e.Uint64(b[40:]), e.Uint64(b[48:])}, nil
}

// openImage reads the beginning of a file. Both of its pages must be good: of one alone
// nobody knows whether it is the newer.
func openImage(r io.ReaderAt, size int64) (*image, error) {
	if size > maxFile {
		return nil, fmt.Errorf("%w: %d bytes, of at most %d", errTooLarge, size, int64(maxFile))
	}
	b := make([]byte, pageHeader+metaSize)
	if _, err := r.ReadAt(b, 0); err != nil {
		return nil, fmt.Errorf("read its beginning: %w", err)
	}
	first, err := readMeta(b)
	if err != nil {
		return nil, err
	}
	if first.pageSize < 512 || first.pageSize > 1<<16 || first.pageSize&(first.pageSize-1) != 0 {
		return nil, errors.New("its pages have no size that there is")
	}
	if _, err = r.ReadAt(b, int64(first.pageSize)); err != nil {
		return nil, fmt.Errorf("read its beginning: %w", err)
	}
	second, err := readMeta(b)
	if err != nil {
		return nil, err
	}
	m := &image{r: r, size: size, pageSize: int64(first.pageSize), meta: first}
	if second.transaction > first.transaction {
		m.meta = second
	}
	if second.pageSize != first.pageSize || m.meta.pages > uint64(size)/first.pageSize {
		return nil, fmt.Errorf("it is cut: %d bytes, of at least %d", size, m.meta.pages*first.pageSize)
	}
	if m.meta.pages > maxPages {
		return nil, fmt.Errorf("%w: %d pages, of at most %d", errTooLarge, m.meta.pages, maxPages)
	}
	return m, nil
}

// read reads a page, with those that continue it. It is lent until the next call.
func (m *image) read(id uint64) ([]byte, error) {
	if id < 2 || id >= uint64(m.size/m.pageSize) {
		return nil, fmt.Errorf("page %d is not in the file", id)
	}
	m.page = append(m.page[:0], make([]byte, m.pageSize)...)
	if _, err := m.r.ReadAt(m.page, int64(id)*m.pageSize); err != nil {
		return nil, fmt.Errorf("read page %d: %w", id, err)
	}
	e := binary.NativeEndian
	if e.Uint64(m.page) != id {
		return nil, fmt.Errorf("page %d says that it is page %d", id, e.Uint64(m.page))
	}
	if more := int64(e.Uint32(m.page[12:])); more > 0 && !m.alone {
		if more > m.size/m.pageSize-int64(id)-1 {
			return nil, fmt.Errorf("page %d goes on behind the end of the file", id)
		}
		if pages := m.size / m.pageSize; more*m.pageSize > maxContinued+8*pages {
			return nil, fmt.Errorf("page %d says that it goes on for %d bytes", id, more*m.pageSize)
		}
		m.page = append(m.page, make([]byte, more*m.pageSize)...)
		if _, err := m.r.ReadAt(m.page[m.pageSize:], (int64(id)+1)*m.pageSize); err != nil {
			return nil, fmt.Errorf("read page %d: %w", id, err)
		}
	}
	return m.page, nil
}

// element is one of a page. What it has is lent with the page.
type element struct {
	key, value []byte
	end        int    // of the value, in the page
	page       uint64 // of a branch
	isBucket   bool
}

// elements calls each for the elements of a page, and ends with the first that does not
// fit into it.
func elements(page []byte, each func(*element) error) error {
	e := binary.NativeEndian
	kind, n := e.Uint16(page[8:]), int(e.Uint16(page[10:]))
	if kind != branchPage && kind != leafPage || pageHeader+n*elementSize > len(page) {
		return errors.New("it is no page of keys")
	}
	for i := range n {
		at := page[pageHeader+i*elementSize:]
		var v element
		position, keySize, valueSize := uint64(e.Uint32(at)), uint64(e.Uint32(at[4:])), uint64(0)
		if kind == branchPage {
			v.page = e.Uint64(at[8:])
		} else {
			flags := e.Uint32(at)
			position, keySize, valueSize = uint64(e.Uint32(at[4:])), uint64(e.Uint32(at[8:])), uint64(e.Uint32(at[12:]))
			if v.isBucket = flags == 1; flags > 1 {
				return errors.New("an element is of no kind that there is")
			}
		}
		if position+keySize+valueSize > uint64(len(at)) || position < uint64(n-i)*elementSize {
			return errors.New("an element is outside of its page")
		}
		v.key, v.value = at[position:position+keySize], at[position+keySize:position+keySize+valueSize]
		v.end = pageHeader + i*elementSize + int(position+keySize+valueSize)
		if err := each(&v); err != nil {
			return err
		}
	}
	return nil
}

// check reports whether every page that belongs to the database is what it must be, and
// every value what was written. It reads the whole file.
func (m *image) check() error {
	c := checker{image: m, reached: make([]uint64, m.meta.pages/64+1)}
	if err := c.tree(m.meta.root, 0, 0, nil, nil); err != nil {
		return err
	}
	return c.free()
}

// checker is a check that is under way.
type checker struct {
	*image
	reached []uint64 // a bit for each page
}

// free looks at the list of free pages: what it has is written over.
func (c *checker) free() error {
	page, err := c.read(c.meta.free)
	if err != nil {
		return err
	}
	if err := c.reach(c.meta.free, len(page)); err != nil {
		return err
	}
	e := binary.NativeEndian
	list, n := page[pageHeader:], uint64(e.Uint16(page[10:]))
	if n == 0xffff {
		n, list = e.Uint64(list), list[8:]
	}
	if e.Uint16(page[8:]) != freePage || n > uint64(len(list)/8) {
		return errors.New("its list of free pages is none")
	}
	previous := uint64(1)
	for ; n > 0; n, list = n-1, list[8:] {
		id := e.Uint64(list)
		if id <= previous || id >= c.meta.pages || c.reached[id/64]&(1<<(id%64)) != 0 {
			return fmt.Errorf("page %d is not free", id)
		}
		previous = id
	}
	return nil
}

// reach notes the pages that one takes with those that continue it.
func (c *checker) reach(id uint64, size int) error {
	for i := id; i < id+uint64(int64(size)/c.pageSize); i++ {
		if i >= c.meta.pages {
			return fmt.Errorf("page %d is behind the last one", i)
		}
		if c.reached[i/64]&(1<<(i%64)) != 0 {
			return fmt.Errorf("page %d is used twice", i)
		}
		c.reached[i/64] |= 1 << (i % 64)
	}
	return nil
}

// tree looks at a page and those below it, of a bucket or, where that is 0, of the root.
// Their keys are from low on, and below high where that is not nil.
func (c *checker) tree(id uint64, b bucket, depth int, low, high []byte) error {
	if depth > maxDepth {
		return errors.New("pages refer to one another in a circle")
	}
	page, err := c.read(id)
	if err != nil {
		return err
	}
	if err := c.reach(id, len(page)); err != nil {
		return err
	}
	if binary.NativeEndian.Uint16(page[8:]) == branchPage {
		page = bytes.Clone(page) // reading those below takes its place
	}
	if err := c.elements(page, b, depth, low, high); err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	return nil
}

func (c *checker) elements(page []byte, b bucket, depth int, low, high []byte) error {
	type child struct {
		page uint64
		key  []byte
	}
	var children []child
	type sub struct {
		b    bucket
		root uint64
		page []byte
	}
	var subs []sub
	previous, first := low, true
	err := elements(page, func(e *element) error {
		if order := bytes.Compare(previous, e.key); order > 0 || order == 0 && (!first || previous == nil) || high != nil && bytes.Compare(e.key, high) >= 0 {
			return errors.New("its keys are not in order")
		}
		previous, first = e.key, false
		switch {
		case e.page != 0:
			children = append(children, child{e.page, e.key})
		case e.isBucket:
			to, ok := bucketNamed(string(e.key))
			if b != 0 || !ok || len(e.value) < 16 {
				return fmt.Errorf("it has a bucket %q", e.key)
			}
			subs = append(subs, sub{to, binary.NativeEndian.Uint64(e.value), bytes.Clone(e.value[16:])})
		case b == 0:
			return errors.New("there is a value outside of all buckets")
		case !b.isIndex():
			if _, _, ok := unseal(b, e.key, e.value); !ok {
				return fmt.Errorf("a value of %s is not what was written", bucketNames[b])
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if binary.NativeEndian.Uint16(page[8:]) == branchPage && len(children) == 0 {
		return errors.New("it leads nowhere")
	}
	for i, s := range children {
		until := high
		if i+1 < len(children) {
			until = children[i+1].key
		}
		if err := c.tree(s.page, b, depth+1, s.key, until); err != nil {
			return err
		}
	}
	for _, s := range subs {
		switch {
		case s.root != 0:
			err = c.tree(s.root, s.b, depth+1, nil, nil)
		case len(s.page) < pageHeader || binary.NativeEndian.Uint16(s.page[8:]) != leafPage:
			err = errors.New("a bucket has no page")
		default:
			err = c.elements(s.page, s.b, depth+1, nil, nil)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// salvage calls found for all values in a file that are what was written, in the order of
// the file. Pages are looked at wherever they are, whatever refers to them: an older value
// of a key may be there, too, and the transactions tell which one is newer. What found
// gets is lent.
func salvage(r io.ReaderAt, size, pageSize int64, found func(b bucket, key, value []byte, transaction uint64) error) error {
	if size > maxFile {
		return errTooLarge
	}
	m := &image{r: r, size: size, pageSize: pageSize}
	good := false // take has found something
	var take func(e *element) error
	take = func(e *element) error {
		if e.isBucket {
			if len(e.value) > 16+pageHeader {
				return elements(e.value[16:], take)
			}
			return nil
		}
		if len(e.value) < 6 || e.page != 0 {
			return nil
		}
		b := bucket(e.value[4])
		if b < general || b >= buckets || b.isIndex() {
			return nil
		}
		if _, transaction, ok := unseal(b, e.key, e.value); ok {
			good = true
			return found(b, e.key, e.value, transaction)
		}
		return nil
	}
	// Each page may say that all others continue it.
	for id, vain := uint64(2), int64(0); id < uint64(size/pageSize); {
		m.alone = vain > vainReads*size
		page, err := m.read(id)
		if err != nil || binary.NativeEndian.Uint16(page[8:]) != leafPage {
			if err == nil {
				vain += int64(len(page)) - pageSize
			}
			id++
			continue
		}
		end := 1 // of what was written, as far as values prove it
		var stop error
		_ = elements(page, func(e *element) error { // what does not fit is damage
			good = false
			stop = take(e)
			if good {
				end = max(end, e.end)
			}
			if errors.Is(stop, errStop) {
				return stop
			}
			return nil
		})
		if errors.Is(stop, errStop) {
			return stop
		}
		// What a certificate says is no page. What only the head of a page says to
		// continue it is looked at.
		pages := (int64(end) + pageSize - 1) / pageSize
		vain += int64(len(page)) - pages*pageSize
		id += uint64(pages)
	}
	return nil
}

// errStop ends a salvage.
var errStop = errors.New("stopped")
