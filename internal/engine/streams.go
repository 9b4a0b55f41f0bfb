package engine

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"time"

	"github.com/foldstream/foldstream/pkg/event"
)

// streamTable holds what an owner knows of every stream of its partition. State is kept encoded,
// so that a byte budget can be held and no live object is shared between two decisions. Streams
// that were not used for a while are packed. It belongs to the owner's goroutine.
type streamTable struct {
	hot    map[string]*stream
	cold   *coldTable // also of hot streams, as they were when they were unpacked
	newest *stream    // hot streams by their last use
	oldest *stream
	hotMax int
	bytes  int64 // approximate memory, for the budget
}

// Approximate memory of one entry, measured as map slot, pointer and struct.
const (
	streamBytesFixed     = 250
	rememberedBytesFixed = 80
	hotStreamsMax        = 4096
)

// stream is one aggregate as decided so far: the events up to version are appended or under way.
type stream struct {
	id      string
	version event.Version
	offset  int64  // of the last acknowledged event; -1 without one
	state   []byte // framed Avro under <category>.State; nil is the initial state; never changed in place
	window  window
	// pending counts the commands under way. While there are any, acked is the stream without them.
	pending int
	acked   ackedState
	changed bool // since it was unpacked

	newer, older *stream
}

// ackedState is what a snapshot may hold: never ahead of the acknowledged events.
type ackedState struct {
	version event.Version
	state   []byte
}

func newStreamTable() *streamTable {
	return &streamTable{hot: map[string]*stream{}, cold: newColdTable(), hotMax: hotStreamsMax}
}

// len counts the streams.
func (t *streamTable) len() int {
	n := t.cold.len()
	for id := range t.hot {
		if !t.cold.has(id) {
			n++
		}
	}
	return n
}

// get returns a stream, or nil when it has no event. The pointer is good while the stream has
// commands under way, and until the next call of get or obtain.
func (t *streamTable) get(id string) *stream {
	if s := t.hot[id]; s != nil {
		t.touch(s)
		return s
	}
	p, known := t.cold.get(id)
	if !known {
		return nil
	}
	s := p.unpack()
	s.id = id
	t.heat(s)
	return s
}

// obtain is get that makes a stream when it is missing.
func (t *streamTable) obtain(id string) *stream {
	s := t.get(id)
	if s == nil {
		s = &stream{id: id, offset: -1, changed: true}
		t.heat(s)
	}
	return s
}

// put stores a stream that is not hot, in packed form.
func (t *streamTable) put(id string, s *stream) {
	before := t.cold.memory()
	t.cold.put(id, s)
	t.bytes += t.cold.memory() - before
}

// drop removes a stream that turned out to have no event.
func (t *streamTable) drop(id string) {
	if s := t.hot[id]; s != nil {
		t.cool(s)
	}
	before := t.cold.memory()
	t.cold.delete(id)
	t.bytes += t.cold.memory() - before
}

// heat makes a stream hot and packs those that were not used for long.
func (t *streamTable) heat(s *stream) {
	t.hot[s.id] = s
	t.bytes += s.hotBytes()
	t.link(s)
	for oldest := t.oldest; len(t.hot) > t.hotMax && oldest != nil && oldest != s; {
		next := oldest.newer
		if oldest.pending == 0 {
			t.cool(oldest)
			if oldest.changed {
				t.put(oldest.id, oldest)
			}
		}
		oldest = next
	}
}

// cool forgets the hot form.
func (t *streamTable) cool(s *stream) {
	delete(t.hot, s.id)
	t.bytes -= s.hotBytes()
	t.unlink(s)
}

func (s *stream) hotBytes() int64 {
	return streamBytesFixed + int64(len(s.id)) + int64(len(s.state)) + int64(s.window.len())*rememberedBytesFixed
}

func (t *streamTable) touch(s *stream) {
	if t.newest != s {
		t.unlink(s)
		t.link(s)
	}
}

func (t *streamTable) link(s *stream) {
	s.older, s.newer = t.newest, nil
	if t.newest != nil {
		t.newest.newer = s
	}
	t.newest = s
	if t.oldest == nil {
		t.oldest = s
	}
}

func (t *streamTable) unlink(s *stream) {
	if s.newer != nil {
		s.newer.older = s.older
	} else {
		t.newest = s.older
	}
	if s.older != nil {
		s.older.newer = s.newer
	} else {
		t.oldest = s.newer
	}
	s.newer, s.older = nil, nil
}

// setState replaces a stream's encoded state.
func (t *streamTable) setState(s *stream, state []byte) {
	t.bytes += int64(len(state)) - int64(len(s.state))
	s.state = state
	s.changed = true
}

// sweep forgets command ids that are too old in every stream.
func (t *streamTable) sweep(limits windowLimits, now time.Time) {
	for _, s := range t.hot {
		if n := s.window.evict(limits, now); n > 0 {
			t.bytes -= int64(n) * rememberedBytesFixed
			s.changed = true
		}
	}
	t.cold.each(func(id []byte, p packedStream) {
		if _, hot := t.hot[string(id)]; hot || !p.mayForget(limits, now) {
			return
		}
		if s := p.unpack(); s.window.evict(limits, now) > 0 {
			t.put(string(id), s)
		}
	})
}

// commandKey stands for a command id in a stream's window: SHA-256 of the id, cut to 16 bytes.
type commandKey [16]byte

func keyOf(commandID string) commandKey {
	sum := sha256.Sum256([]byte(commandID))
	return commandKey(sum[:16])
}

// remembered is one command that left events (PROTOCOL D5).
type remembered struct {
	key         commandKey
	hash        [16]byte // content (D4)
	first       event.Version
	count       int32
	offset      int64 // of the last event; -1 while under way
	at          int64 // unix seconds of the append
	dedupeUntil int64 // unix seconds; 0 without
}

func (r *remembered) last() event.Version { return r.first + event.Version(r.count) - 1 }

// windowLimits bound a window (PROTOCOL W13).
type windowLimits struct {
	idsMax     int           // 128 by default
	ageMax     time.Duration // 1 h by default
	idsHardMax int           // beyond it a command with fs-dedupe-until is refused
}

// window is the command ids of one stream, oldest first. What is beyond the limits counts as
// forgotten at once, and is removed lazily. Beyond windowIndexFrom entries an index keeps look-ups
// short: a stream whose clients ask for a day of dedupe can remember thousands.
type window struct {
	entries []remembered
	// tags are the first bytes of the entries' keys, side by side: a look-up reads four cache lines
	// instead of one for each entry. A window that nobody looks anything up in has none.
	tags    []uint16
	index   map[commandKey]int // position
	evictAt int                // no scan below this length, so that eviction is amortised
}

const windowIndexFrom = 256

func (w *window) len() int { return len(w.entries) }

// find returns the entry of a command that is not forgotten, or nil. The pointer is good until
// the next change.
func (w *window) find(key commandKey, limits windowLimits, now time.Time) *remembered {
	i, ok := w.position(key)
	if !ok || w.forgotten(i, limits, now) {
		return nil
	}
	return &w.entries[i]
}

func (w *window) position(key commandKey) (int, bool) {
	if w.index != nil {
		i, ok := w.index[key]
		return i, ok
	}
	if len(w.tags) != len(w.entries) {
		w.retag()
	}
	tag := key.tag()
	for i := len(w.tags) - 1; i >= 0; i-- {
		if w.tags[i] == tag && w.entries[i].key == key {
			return i, true
		}
	}
	return 0, false
}

func (k *commandKey) tag() uint16 { return binary.LittleEndian.Uint16(k[:]) }

func (w *window) retag() {
	w.tags = slices.Grow(w.tags[:0], len(w.entries))
	for i := range w.entries {
		w.tags = append(w.tags, w.entries[i].key.tag())
	}
}

// forgotten is PROTOCOL W13: beyond idsMax ids or ageMax, whichever is first, never before
// dedupeUntil.
func (w *window) forgotten(i int, limits windowLimits, now time.Time) bool {
	r := &w.entries[i]
	beyond := len(w.entries)-i > limits.idsMax || r.at < now.Add(-limits.ageMax).Unix()
	return beyond && r.dedupeUntil < now.Unix()
}

func (w *window) add(r remembered) {
	tagged := len(w.tags) == len(w.entries)
	w.entries = append(w.entries, r)
	if w.index != nil {
		w.index[r.key] = len(w.entries) - 1
		return
	}
	if tagged {
		w.tags = append(w.tags, r.key.tag())
	}
	if len(w.entries) > windowIndexFrom {
		w.reindex()
	}
}

// undoLast takes the newest entry back.
func (w *window) undoLast() {
	last := len(w.entries) - 1
	if w.index != nil {
		delete(w.index, w.entries[last].key)
	}
	w.entries = w.entries[:last]
	w.tags = w.tags[:min(last, len(w.tags))]
}

// evict removes what is forgotten and returns how many. Entries under way are kept.
func (w *window) evict(limits windowLimits, now time.Time) int {
	before := len(w.entries)
	kept := w.entries[:0]
	for i := range w.entries {
		if w.entries[i].offset < 0 || !w.forgotten(i, limits, now) {
			kept = append(kept, w.entries[i])
		}
	}
	w.entries = kept
	w.evictAt = len(kept) + len(kept)/4 + limits.idsMax/4 + 1
	if len(kept) < before {
		w.tags = w.tags[:0]
		w.reindex()
	}
	return before - len(kept)
}

// due says whether enough has come since the last eviction to look again.
func (w *window) due(limits windowLimits) bool {
	return len(w.entries) > limits.idsMax && len(w.entries) >= w.evictAt
}

func (w *window) reindex() {
	if len(w.entries) <= windowIndexFrom {
		w.index = nil
		return
	}
	w.tags = nil
	w.index = make(map[commandKey]int, 2*len(w.entries))
	for i := range w.entries {
		w.index[w.entries[i].key] = i
	}
}
