package engine

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/snapshot"
)

// snapshotEncoder writes the latest snapshots of small states straight from a stream's window. Most
// of such a snapshot are the hashes of the commands that it remembers: compressing them costs
// thirty times what the rest of the work does and saves a seventh of the bytes. Larger states go the
// ordinary way, snapshot.Format. Both ways write the same value. It belongs to an owner's goroutine.
type snapshotEncoder struct {
	format  *snapshot.Format
	id      int32 // the schema's
	scratch []byte
}

// Bounds of what is written directly: above them the state is worth compressing, or the codec's
// limits are near, which the ordinary way holds.
const (
	directStateBytesMax = snapshot.CompressBytesMin
	directCommandsMax   = 4_096
)

// newSnapshotEncoder holds the direct way to the ordinary one by a sample.
func newSnapshotEncoder(format *snapshot.Format) (*snapshotEncoder, error) {
	sample := snapshot.Snapshot{
		Version: 1, Offset: 2, EventsTopicID: [16]byte{3}, TakenAt: time.Unix(4, 0), StateVersion: 5, State: []byte{6},
		Commands: []snapshot.Command{{Key: [16]byte{7}, Hash: [16]byte{8}, First: 9, Count: 10, Offset: 11, At: 12, DedupeUntil: 13}},
	}
	want, _, err := format.EncodeSnapshot(sample)
	if err != nil {
		return nil, fmt.Errorf("encoding a snapshot: %w", err)
	}
	frame, err := codec.ParseFrame(want)
	if err != nil {
		return nil, fmt.Errorf("encoding a snapshot: %w", err)
	}
	e := &snapshotEncoder{format: format, id: frame.ID}
	w := window{entries: []remembered{{key: [16]byte{7}, hash: [16]byte{8}, first: 9, count: 10, offset: 11, at: 12, dedupeUntil: 13}}}
	if got := e.direct(sample, &w); !bytes.Equal(got, want) {
		return nil, fmt.Errorf("schema id %d is registered as version 1 of %s with another text than ours: register the schema that this release brings along in a registry of its own", e.id, snapshot.TypeSnapshot)
	}
	return e, nil
}

// encode returns the value of a stream's latest snapshot and whether it is compressed; s has all but
// the commands, which are those of the window that are acknowledged. The value is good until the
// next call.
func (e *snapshotEncoder) encode(s snapshot.Snapshot, w *window) ([]byte, bool, error) {
	if len(s.State) >= directStateBytesMax || len(w.entries) > directCommandsMax {
		s.Commands = commandsOf(w)
		return e.format.EncodeSnapshot(s)
	}
	return e.direct(s, w), false, nil
}

// direct writes foldstream.Snapshot, field by field.
func (e *snapshotEncoder) direct(s snapshot.Snapshot, w *window) []byte {
	b := codec.AppendConfluent(e.scratch[:0], e.id)
	b = binary.AppendVarint(b, s.Version)
	b = binary.AppendVarint(b, s.Offset)
	b = append(b, s.EventsTopicID[:]...)
	b = binary.AppendVarint(b, s.TakenAt.UnixMicro())
	b = binary.AppendVarint(b, int64(s.StateVersion))
	b = binary.AppendVarint(b, int64(len(s.State)))
	b = append(b, s.State...)
	acked := 0
	for i := range w.entries {
		if w.entries[i].offset >= 0 {
			acked++
		}
	}
	if acked > 0 {
		b = binary.AppendVarint(b, int64(acked))
	}
	for i := range w.entries {
		if r := &w.entries[i]; r.offset >= 0 {
			b = append(b, r.key[:]...)
			b = append(b, r.hash[:]...)
			b = binary.AppendVarint(b, int64(r.first))
			b = binary.AppendVarint(b, int64(r.count))
			b = binary.AppendVarint(b, r.offset)
			b = binary.AppendVarint(b, r.at)
			b = binary.AppendVarint(b, r.dedupeUntil)
		}
	}
	b = append(b, 0) // no further block
	e.scratch = b
	return b
}

// commandsOf lists the acknowledged commands that a stream remembers.
func commandsOf(w *window) []snapshot.Command {
	commands := make([]snapshot.Command, 0, len(w.entries))
	for i := range w.entries {
		if r := &w.entries[i]; r.offset >= 0 {
			commands = append(commands, snapshot.Command{
				Key: r.key, Hash: r.hash, First: int64(r.first), Count: r.count, Offset: r.offset, At: r.at, DedupeUntil: r.dedupeUntil,
			})
		}
	}
	return commands
}
