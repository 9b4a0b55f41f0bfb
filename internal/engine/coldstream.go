package engine

import (
	"encoding/binary"
	"time"

	"github.com/foldstream/foldstream/pkg/event"
)

// A stream that was not used for a while is packed: some bytes in a slab (coldTable) instead of a
// struct with its state, its window and what the allocator rounds up. A million streams of ten
// remembered commands take about 450 bytes each instead of 1,200.
//
//	uvarint version │ uvarint offset+1 │ uvarint len(state) │ state │ window, to the end:
//	  key 16 │ hash 16 │ varint first−(last of the one before) │ uvarint count │ varint offset−before │ varint at−before │ uvarint until−at+1 or 0
//
// The format is in memory only.
type packedStream []byte

// appendPacked encodes a stream that has nothing under way.
func appendPacked(b []byte, s *stream) []byte {
	b = binary.AppendUvarint(b, uint64(s.version))
	b = binary.AppendUvarint(b, uint64(s.offset+1))
	b = binary.AppendUvarint(b, uint64(len(s.state)))
	b = append(b, s.state...)
	var last event.Version
	var offset, at int64
	for i := range s.window.entries {
		r := &s.window.entries[i]
		b = append(b, r.key[:]...)
		b = append(b, r.hash[:]...)
		b = binary.AppendVarint(b, int64(r.first-last))
		b = binary.AppendUvarint(b, uint64(r.count))
		b = binary.AppendVarint(b, r.offset-offset)
		b = binary.AppendVarint(b, r.at-at)
		if r.dedupeUntil == 0 {
			b = append(b, 0)
		} else {
			b = binary.AppendUvarint(b, uint64(max(r.dedupeUntil-r.at, 0)+1))
		}
		last, offset, at = r.last(), r.offset, r.at
	}
	return b
}

// packedEntryBytesMin is the least that a remembered command takes.
const packedEntryBytesMin = 16 + 16 + 5

// mayForget says, at the price of a look at the oldest remembered command, whether the limits may
// let go of some.
func (p packedStream) mayForget(limits windowLimits, now time.Time) bool {
	b := []byte(p)
	uvarint := func() uint64 { v, n := binary.Uvarint(b); b = b[n:]; return v }
	uvarint()
	uvarint()
	b = b[uvarint():]
	if len(b) == 0 {
		return false
	}
	if len(b) > limits.idsMax*packedEntryBytesMin {
		return true
	}
	b = b[16+16:]
	uvarint() // first
	uvarint() // count
	uvarint() // offset
	at, _ := binary.Varint(b)
	return at < now.Add(-limits.ageMax).Unix()
}

// unpack decodes a packed stream. Everything is copied.
func (p packedStream) unpack() *stream {
	s := &stream{}
	b := []byte(p)
	uvarint := func() uint64 { v, n := binary.Uvarint(b); b = b[n:]; return v }
	varint := func() int64 { v, n := binary.Varint(b); b = b[n:]; return v }
	s.version = event.Version(uvarint())
	s.offset = int64(uvarint()) - 1
	if n := uvarint(); n > 0 {
		s.state = append([]byte(nil), b[:n]...)
		b = b[n:]
	}
	var last event.Version
	var offset, at int64
	for len(b) > 0 {
		var r remembered
		b = b[copy(r.key[:], b):]
		b = b[copy(r.hash[:], b):]
		r.first = last + event.Version(varint())
		r.count = int32(uvarint())
		r.offset = offset + varint()
		r.at = at + varint()
		if until := uvarint(); until > 0 {
			r.dedupeUntil = r.at + int64(until) - 1
		}
		s.window.entries = append(s.window.entries, r)
		last, offset, at = r.last(), r.offset, r.at
	}
	if len(s.window.entries) > windowIndexFrom {
		s.window.reindex()
	}
	return s
}
