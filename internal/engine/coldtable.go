package engine

import (
	"encoding/binary"
	"hash/maphash"
	"math"
	"math/bits"
)

// coldTable holds packed streams by id, in slabs: many entries one behind the other in one piece of
// memory without pointers. A million streams are then some thousand objects to the garbage
// collector, which does not look into them, instead of three million; the collector can run often,
// which keeps the process small, at no cost. It belongs to the owner's goroutine.
//
//	entry: uvarint len(id) │ id │ uvarint len(stream) │ packedStream
//
// An entry is never changed: a new one takes its place, and the old one is dead. Once an eighth of
// all is dead, the slab with the most of it is emptied: what lives in it moves on to another.
type coldTable struct {
	seed     maphash.Seed
	hashMask uint64             // of a test, to have hashes meet
	index    map[uint64]coldRef // by hash of the id
	overflow map[string]coldRef // ids whose hash another id has in index
	slabs    []coldSlab
	free     []int // places in slabs that hold none
	current  int   // the slab that takes the next entry, -1 before the first
	total    int   // bytes of all entries
	dead     int   // of which no ref points to any more
	walking  bool
	scratch  []byte
}

// coldRef is the place of an entry: slab and offset.
type coldRef uint64

type coldSlab struct {
	buf  []byte
	dead int
}

// Slabs grow with the table, so that a small one does not hold a large slab; coldIndexBytes is what
// one entry takes in index.
const (
	slabBytesMin   = 4 << 10
	slabBytesMax   = 256 << 10
	slabShare      = 8
	coldIndexBytes = 28
)

func newColdTable() *coldTable {
	return &coldTable{
		seed: maphash.MakeSeed(), hashMask: math.MaxUint64,
		index: map[uint64]coldRef{}, overflow: map[string]coldRef{}, current: -1,
	}
}

func (t *coldTable) len() int { return len(t.index) + len(t.overflow) }

// memory is about what the table takes; what is dead, up to an eighth, is left out.
func (t *coldTable) memory() int64 { return int64(t.total-t.dead) + int64(t.len())*coldIndexBytes }

// get returns a stream. It is good until the next put or delete.
func (t *coldTable) get(id string) (packedStream, bool) {
	ref, known := t.find(id)
	if !known {
		return nil, false
	}
	_, p, _ := t.entry(ref)
	return p, true
}

func (t *coldTable) has(id string) bool {
	_, known := t.find(id)
	return known
}

func (t *coldTable) find(id string) (coldRef, bool) {
	if ref, taken := t.index[t.hash(id)]; taken && t.isOf(ref, id) {
		return ref, true
	}
	ref, known := t.overflow[id]
	return ref, known
}

func (t *coldTable) hash(id string) uint64 { return maphash.String(t.seed, id) & t.hashMask }

func (t *coldTable) isOf(ref coldRef, id string) bool {
	at, _, _ := t.entry(ref)
	return string(at) == id
}

// put stores a stream that has nothing under way.
func (t *coldTable) put(id string, s *stream) {
	t.scratch = appendPacked(t.scratch[:0], s)
	old, known := t.find(id)
	ref := t.write(id, t.scratch)
	_, overflown := t.overflow[id]
	if at, taken := t.index[t.hash(id)]; overflown || (taken && !t.isOf(at, id)) {
		t.overflow[id] = ref
	} else {
		t.index[t.hash(id)] = ref
	}
	if known {
		t.discard(old)
	}
	t.compact()
}

// delete removes a stream, if it is there.
func (t *coldTable) delete(id string) {
	ref, known := t.find(id)
	if !known {
		return
	}
	h := t.hash(id)
	if at, taken := t.index[h]; taken && at == ref {
		delete(t.index, h)
	} else {
		delete(t.overflow, id)
	}
	t.discard(ref)
	t.compact()
}

// each visits every stream that is there when it begins. visit may put.
func (t *coldTable) each(visit func(id []byte, p packedStream)) {
	t.walking = true
	ends := make([]int, len(t.slabs))
	for i := range t.slabs {
		ends[i] = len(t.slabs[i].buf)
	}
	for i, end := range ends {
		t.walk(i, end, func(_ coldRef, id []byte, p packedStream) { visit(id, p) })
	}
	t.walking = false
	t.compact()
}

// walk visits the living entries of a slab that begin before end.
func (t *coldTable) walk(slab, end int, visit func(ref coldRef, id []byte, p packedStream)) {
	for offset := 0; offset < end; {
		ref := refOf(slab, offset)
		id, p, size := t.entry(ref)
		offset += size
		if t.lives(ref, id) {
			visit(ref, id, p)
		}
	}
}

func (t *coldTable) lives(ref coldRef, id []byte) bool {
	if at, taken := t.index[t.hashOf(id)]; taken && at == ref {
		return true
	}
	at, known := t.overflow[string(id)]
	return known && at == ref
}

func (t *coldTable) hashOf(id []byte) uint64 { return maphash.Bytes(t.seed, id) & t.hashMask }

// write adds an entry that nothing points to yet.
func (t *coldTable) write(id string, p packedStream) coldRef {
	s, ref := t.room(uvarintLen(len(id)) + len(id) + uvarintLen(len(p)) + len(p))
	s.buf = binary.AppendUvarint(s.buf, uint64(len(id)))
	s.buf = append(s.buf, id...)
	s.buf = binary.AppendUvarint(s.buf, uint64(len(p)))
	s.buf = append(s.buf, p...)
	return ref
}

// room finds the slab and the place of the next entry.
func (t *coldTable) room(size int) (*coldSlab, coldRef) {
	if t.current < 0 || len(t.slabs[t.current].buf)+size > cap(t.slabs[t.current].buf) {
		t.current = t.newSlab(max(size, min(max(t.total/slabShare, slabBytesMin), slabBytesMax)))
	}
	t.total += size
	s := &t.slabs[t.current]
	return s, refOf(t.current, len(s.buf))
}

func (t *coldTable) newSlab(bytes int) int {
	slab := coldSlab{buf: make([]byte, 0, bytes)}
	if n := len(t.free); n > 0 {
		at := t.free[n-1]
		t.free = t.free[:n-1]
		t.slabs[at] = slab
		return at
	}
	t.slabs = append(t.slabs, slab)
	return len(t.slabs) - 1
}

func (t *coldTable) entry(ref coldRef) (id []byte, p packedStream, size int) {
	b := t.slabs[ref.slab()].buf[ref.offset():]
	n, head := binary.Uvarint(b)
	id = b[head : head+int(n)]
	size = head + int(n)
	n, head = binary.Uvarint(b[size:])
	size += head
	return id, packedStream(b[size : size+int(n)]), size + int(n)
}

// discard notes that nothing points to an entry any more.
func (t *coldTable) discard(ref coldRef) {
	_, _, size := t.entry(ref)
	t.slabs[ref.slab()].dead += size
	t.dead += size
}

func (t *coldTable) compact() {
	for !t.walking && t.dead > slabBytesMin && t.dead*slabShare > t.total {
		worst := -1
		for i := range t.slabs {
			if i != t.current && t.slabs[i].dead > 0 && (worst < 0 || t.slabs[i].dead > t.slabs[worst].dead) {
				worst = i
			}
		}
		if worst < 0 {
			return
		}
		t.evacuate(worst)
	}
}

// evacuate moves what lives in a slab on to the current one, and lets go of it.
func (t *coldTable) evacuate(slab int) {
	buf := t.slabs[slab].buf
	t.walk(slab, len(buf), func(old coldRef, id []byte, _ packedStream) {
		_, _, size := t.entry(old)
		s, ref := t.room(size)
		s.buf = append(s.buf, buf[old.offset():old.offset()+size]...)
		h := t.hashOf(id)
		if at, taken := t.index[h]; taken && at == old {
			t.index[h] = ref
		} else {
			t.overflow[string(id)] = ref
		}
	})
	t.total -= len(buf)
	t.dead -= t.slabs[slab].dead
	t.slabs[slab] = coldSlab{}
	t.free = append(t.free, slab)
}

func refOf(slab, offset int) coldRef { return coldRef(slab)<<32 | coldRef(offset) }

func (r coldRef) slab() int   { return int(r >> 32) }
func (r coldRef) offset() int { return int(r & (1<<32 - 1)) }

func uvarintLen(n int) int { return max(1, (bits.Len(uint(n))+6)/7) }
