package projector

import (
	"context"
	"errors"
	"fmt"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/deadletter"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/projection"
	"github.com/foldstream/foldstream/pkg/snapshot"
	"github.com/twmb/franz-go/pkg/kgo"
)

// batch is what one transaction applies, read from consecutive records. It does not depend on
// what Postgres holds, so it stays the same however often the transaction is tried.
type batch struct {
	records []*kgo.Record
	steps   []*step
	after   position                    // of the partition once the batch is applied
	decoded int                         // steps decoded so far
	placed  map[int64]deadletter.Placed // letters that a try has written already, by offset
}

// position is what the offset row holds of a partition.
type position struct {
	next        int64
	topicID     string // hex
	lineage     event.Lineage
	lastEventID string
}

// step is one record that has an effect: an event, or a letter.
type step struct {
	rec      *kgo.Record
	recorded event.Recorded
	envelope error // the record is no event of ours
	void     bool
	claim    event.Claim // void: the one that counts
	folded   bool        // the view folds this type
	event    projection.Event
	fault    error // decoding failed for good
	slot     *slot // of the snapshots alone
}

// fateAt is an error tied to an offset, for the operator and for cutting the batch before it.
type fateAt struct {
	offset int64
	err    error
}

func (e *fateAt) Error() string { return fmt.Sprintf("offset %d: %v", e.offset, e.err) }
func (e *fateAt) Unwrap() error { return e.err }

// stopAt is an error that stops the partition before the record at offset.
func stopAt(offset int64, class, format string, args ...any) error {
	return &fateAt{offset: offset, err: deadletter.Stopped(class, fmt.Errorf(format, args...))}
}

// newBatch judges and reads the envelopes of records, beginning at from.
func newBatch(category string, view projection.View, from position, records []*kgo.Record) *batch {
	b := &batch{records: records, after: from, placed: map[int64]deadletter.Placed{}}
	for _, rec := range records {
		if from.next >= 0 && rec.Offset < from.next {
			continue // fetched again, or fetched to check the last event
		}
		b.add(category, view, rec)
	}
	return b
}

func (b *batch) add(category string, view projection.View, rec *kgo.Record) {
	if view.Kind == kindSnapshots {
		b.addSlot(category, rec)
		return
	}
	verdict := b.after.lineage.Judge(rec.ProducerID, rec.ProducerEpoch, rec.Headers)
	b.after.next, b.after.lastEventID = rec.Offset+1, ""
	if verdict == event.VerdictControl {
		return
	}
	s := &step{rec: rec}
	s.recorded, s.envelope = event.ParseRecorded(category, rec)
	if verdict == event.VerdictVoid {
		s.void, s.claim = true, b.after.lineage.Claim
	} else if s.envelope == nil {
		b.after.lastEventID = s.recorded.ID
		_, s.folded = view.TypeDef(s.recorded.Type)
	}
	b.steps = append(b.steps, s)
}

// before cuts the batch to the records below an offset.
func (b *batch) before(category string, view projection.View, from position, offset int64) *batch {
	n := 0
	for n < len(b.records) && b.records[n].Offset < offset {
		n++
	}
	cut := newBatch(category, view, from, b.records[:n])
	cut.placed = b.placed
	return cut
}

// decoder turns payloads into the Go values that a view's functions take.
type decoder struct {
	codec    *codec.Codec
	bindings map[string]*codec.Binding
	slots    *snapshot.Format // of the snapshots alone
}

func newDecoder(ctx context.Context, c *codec.Codec, view projection.View) (*decoder, error) {
	d := &decoder{codec: c, bindings: map[string]*codec.Binding{}}
	if view.Kind == kindSnapshots {
		var err error
		if d.slots, err = snapshot.NewFormat(ctx, c); err != nil {
			return nil, fmt.Errorf("view %s: %w", view.Name, err)
		}
	}
	for _, t := range view.Types {
		binding, err := c.Bind(ctx, t)
		if err != nil {
			return nil, fmt.Errorf("view %s: bind event type %s version %d: %w", view.Name, t.Name, t.Version, err)
		}
		d.bindings[t.Name] = binding
	}
	return d, nil
}

func (d *decoder) close() {
	if d.slots != nil {
		d.slots.Close()
	}
}

// decode decodes what is not decoded yet. Faults of the data stay with their steps; the error is
// one that may pass, and the next call goes on where this one ended.
func (d *decoder) decode(ctx context.Context, b *batch) error {
	for ; b.decoded < len(b.steps); b.decoded++ {
		s := b.steps[b.decoded]
		if s.slot != nil {
			if err := d.readSlot(ctx, s); err != nil {
				return err
			}
			continue
		}
		if s.void || s.envelope != nil || !s.folded {
			continue
		}
		data, err := d.value(ctx, s.recorded)
		switch {
		case err == nil:
			s.event = projection.FromRecorded(s.recorded, data)
		case deadletter.FateOf(err).Verdict == deadletter.Park:
			s.fault = err
		default:
			return fmt.Errorf("decode %s at offset %d: %w", s.recorded.Type, s.rec.Offset, err)
		}
	}
	return nil
}

// value decodes one payload. The Avro library and a team's upcasters run on foreign bytes, so a
// panic of theirs is a fault of this record alone.
func (d *decoder) value(ctx context.Context, r event.Recorded) (data any, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = deadletter.Parked(deadletter.StageDecode, "panic", fmt.Errorf("decoding panicked: %v", p))
		}
	}()
	payload, err := d.codec.Inspect(ctx, r.Type, r.Value)
	if err != nil {
		return nil, err
	}
	return d.bindings[r.Type].Decode(payload)
}

// handlerFault gives the error of a view's function its fate: the record is at fault, unless the
// function said otherwise.
func handlerFault(err error) error {
	var said *deadletter.FateError
	switch {
	case errors.As(err, &said):
		return err
	case errors.Is(err, projection.ErrValue):
		return deadletter.Parked(deadletter.StageSink, "value", err)
	case errors.Is(err, projection.ErrPanic):
		return deadletter.Parked(deadletter.StageHandle, "panic", err)
	}
	return deadletter.Parked(deadletter.StageHandle, "handler", err)
}
