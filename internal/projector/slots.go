package projector

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/snapshot"
	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"
)

// slot is a record of a history slot in a snapshots topic: the state of a stream at one of its
// versions, or a tombstone.
type slot struct {
	key      slotKey
	encoding string
	snapshot snapshot.Snapshot // once it is decoded; zero for a tombstone
}

type slotKey struct {
	category, stream string
	number           int32
}

// slotCounts are for the metrics.
type slotCounts struct{ applied, skipped, unreadable int }

// addSlot reads a record of a snapshots topic. Such a topic is compacted, so that a claim may be
// gone that records before the next one were written under: W6 does not apply. What an owner of
// old wrote late is an older state at worst, and true at its version.
func (b *batch) addSlot(category string, rec *kgo.Record) {
	b.after.next, b.after.lastEventID = rec.Offset+1, ""
	kind, id, number := snapshot.ParseKey(rec.Key)
	if kind != snapshot.KeyHistory || event.Control(rec.Headers) != "" {
		return
	}
	encoding, _ := event.HeaderValue(rec.Headers, snapshot.HeaderEncoding)
	b.steps = append(b.steps, &step{rec: rec, slot: &slot{key: slotKey{category, id, int32(number)}, encoding: string(encoding)}})
}

// readSlot decodes a slot's snapshot. One that does not decode is left out: it is derived, and
// its stream can be folded from events.
func (d *decoder) readSlot(ctx context.Context, s *step) (err error) {
	if s.rec.Value == nil {
		return nil
	}
	defer func() {
		if p := recover(); p != nil { // the Avro library on foreign bytes
			s.fault, err = fmt.Errorf("decoding panicked: %v", p), nil
		}
	}()
	s.slot.snapshot, err = d.slots.DecodeSnapshot(ctx, s.rec.Value, s.rec.Headers)
	if errors.Is(err, snapshot.ErrUnreadable) {
		s.fault = err
		return nil
	}
	if err != nil {
		return fmt.Errorf("decode snapshot at offset %d: %w", s.rec.Offset, err)
	}
	return nil
}

// keepSlots is the rest of a transaction of the snapshots.
func (w *worker) keepSlots(ctx context.Context, tx pgx.Tx, b *batch) (*outcome, error) {
	kept, gone, counts := lastSlots(b)
	if err := w.store.writeSlots(ctx, tx, kept, gone); err != nil {
		return nil, err
	}
	return &outcome{slots: counts}, w.settle(ctx, tx, b)
}

// lastSlots is what a batch comes to: of each key the last record counts.
func lastSlots(b *batch) (kept, gone []*step, counts slotCounts) {
	last := map[slotKey]*step{}
	for _, s := range b.steps {
		switch {
		case s.fault != nil:
			counts.unreadable++
			continue
		case s.rec.Value != nil && s.slot.snapshot.Version < 1:
			counts.skipped++ // a mark that the state did not fit
			continue
		}
		counts.applied++
		last[s.slot.key] = s
	}
	for _, s := range b.steps { // in the order of offsets
		switch {
		case last[s.slot.key] != s:
		case s.rec.Value == nil:
			gone = append(gone, s)
		default:
			kept = append(kept, s)
		}
	}
	return kept, gone, counts
}

// writeSlots stores slots as they are, and deletes those with a tombstone.
func (s *store) writeSlots(ctx context.Context, tx pgx.Tx, kept, gone []*step) error {
	b := &pgx.Batch{}
	if len(gone) > 0 {
		b.Queue(s.sql.deleteRows, slotKeys(gone)...)
	}
	if len(kept) > 0 {
		b.Queue(s.sql.writeRows, append(slotKeys(kept), slotColumns(kept)...)...)
	}
	if b.Len() == 0 {
		return nil
	}
	if err := tx.SendBatch(ctx, b).Close(); err != nil {
		return fmt.Errorf("write %d and delete %d slots: %w", len(kept), len(gone), err)
	}
	return nil
}

func slotKeys(steps []*step) []any {
	categories, streams, numbers := make([]string, len(steps)), make([]string, len(steps)), make([]int32, len(steps))
	for i, s := range steps {
		categories[i], streams[i], numbers[i] = s.slot.key.category, s.slot.key.stream, s.slot.key.number
	}
	return []any{categories, streams, numbers}
}

// slotColumns are the arrays of snapshotsView's columns after the key.
func slotColumns(steps []*step) []any {
	n := len(steps)
	versions, offsets, topicIDs, stateVersions := make([]int64, n), make([]int64, n), make([]string, n), make([]int32, n)
	takenAt, encodings, values := make([]time.Time, n), make([]string, n), make([][]byte, n)
	for i, s := range steps {
		shot := s.slot.snapshot
		versions[i], offsets[i], topicIDs[i], stateVersions[i] = shot.Version, shot.Offset, event.FormatTopicID(shot.EventsTopicID), shot.StateVersion
		takenAt[i], encodings[i], values[i] = recordedAt(shot.TakenAt), s.slot.encoding, s.rec.Value
	}
	return []any{versions, offsets, topicIDs, stateVersions, takenAt, encodings, values}
}
