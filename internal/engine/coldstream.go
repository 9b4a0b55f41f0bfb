package engine

import (
	"encoding/binary"

	"github.com/foldstream/foldstream/pkg/event"
)

// A stream that was not used for a while is packed: one slice instead of a struct with its state,
// its window and what the allocator rounds up. A million streams of ten remembered commands take
// about 400 bytes each instead of 1,200.
//
//	uvarint version │ uvarint offset+1 │ uvarint len(state) │ state │ window, to the end:
//	  key 16 │ hash 16 │ varint first−(last of the one before) │ uvarint count │ varint offset−before │ varint at−before │ uvarint until−at+1 or 0
//
// The format is in memory only.
type packedStream []byte

// pack encodes a stream that has nothing under way. The copy at the end has the exact size: of a
// million streams, a guess that is 40 bytes too high costs 40 MB.
func pack(s *stream) packedStream {
	var scratch [packedScratchBytes]byte
	b := appendPacked(scratch[:0], s)
	return append(make(packedStream, 0, len(b)), b...)
}

const packedScratchBytes = 1024

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

// unpack decodes a packed stream. The state is copied.
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
