package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/twmb/franz-go/pkg/kgo"
)

// scan hands the events of one stream to each, in order, from the start of its partition to the
// end that it had when the scan began, or until each returns false. recordedAt is the running
// maximum of the partition's stamps.
func (k *kafkaTransport) scan(ctx context.Context, stream event.StreamID, each func(e event.Recorded, recordedAt time.Time) (more bool, err error)) error {
	topic := topics.Events(k.c.cfg.Namespace, stream.Category)
	info, err := k.topic(ctx, topic)
	if err != nil {
		return err
	}
	partition := topics.Partition([]byte(stream.ID), info.Partitions)
	starts, err := k.admin.ListStartOffsets(ctx, topic)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return fmt.Errorf("read the start of %s: %w", topic, err)
	}
	end, err := k.endOf(ctx, topic, partition)
	if err != nil {
		return err
	}
	start, _ := starts.Lookup(topic, partition)
	if start.Offset >= end {
		return nil
	}
	reader, err := kgo.NewClient(append(slices.Clone(k.c.cfg.Kafka), kgo.KeepControlRecords(), kgo.FetchMaxWait(500*time.Millisecond),
		kgo.ConsumeResetOffset(kgo.NoResetOffset().AtStart()),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().At(start.Offset)}}))...)
	if err != nil {
		return fmt.Errorf("connect to Kafka: %w", err)
	}
	defer reader.Close()
	s := &scanning{stream: stream, end: end, bytesMax: k.c.cfg.ScanBytesMax, each: each}
	for s.next < end && !s.enough {
		fetches := reader.PollFetches(ctx)
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("read %s[%d]: %w", topic, partition, err)
		}
		for rec := range fetches.RecordsAll() {
			if err := s.take(rec); err != nil || s.enough {
				return err
			}
		}
	}
	return nil
}

// scanning is a scan under way.
type scanning struct {
	stream   event.StreamID
	end      int64
	next     int64
	bytes    int64
	bytesMax int64
	lineage  event.Lineage
	stamp    time.Time
	enough   bool
	each     func(event.Recorded, time.Time) (bool, error)
}

func (s *scanning) take(rec *kgo.Record) error {
	if rec.Offset >= s.end {
		s.next, s.enough = s.end, true
		return nil
	}
	s.next = rec.Offset + 1
	if rec.Attrs.IsControl() {
		return nil
	}
	if rec.Timestamp.After(s.stamp) {
		s.stamp = rec.Timestamp
	}
	if s.bytes += recordBytes(rec); s.bytes > s.bytesMax {
		return fmt.Errorf("%w: %d bytes, up to offset %d of %s[%d]; raise it, or read over HTTP, where there is an index",
			ErrScanLimit, s.bytesMax, rec.Offset, rec.Topic, rec.Partition)
	}
	if s.lineage.Judge(rec.ProducerID, rec.ProducerEpoch, rec.Headers) != event.VerdictEvent || string(rec.Key) != s.stream.ID {
		return nil
	}
	recorded, err := event.ParseRecorded(s.stream.Category, rec)
	if err != nil {
		return err
	}
	more, err := s.each(recorded, s.stamp)
	s.enough = !more
	return err
}

func recordBytes(rec *kgo.Record) int64 {
	n := len(rec.Key) + len(rec.Value)
	for _, h := range rec.Headers {
		n += len(h.Key) + len(h.Value)
	}
	return int64(n)
}

func (k *kafkaTransport) event(ctx context.Context, r event.Recorded) (Event, error) {
	e := fromRecorded(r)
	return e, k.c.inspect(ctx, &e)
}

// load keeps the wanted part of the stream while it reads all of it.
func (k *kafkaTransport) load(ctx context.Context, q query) (Page, error) {
	page := Page{Stream: q.stream}
	var kept []event.Recorded
	err := k.scan(ctx, q.stream, func(r event.Recorded, _ time.Time) (bool, error) {
		page.Version = r.Version
		switch {
		case q.backward && (q.from == 0 || r.Version <= q.from):
			if kept = append(kept, r); len(kept) > 2*q.limit { // keeps the last, moves rarely
				kept = append(kept[:0], kept[len(kept)-q.limit:]...)
			}
		case !q.backward && r.Version >= q.from && len(kept) < q.limit:
			kept = append(kept, r)
		}
		return true, nil
	})
	switch {
	case err != nil:
		return page, err
	case page.Version == 0:
		return page, ErrNoStream
	case page.Version < q.minVersion:
		return page, fmt.Errorf("%w: the log has version %d, wanted is %d", ErrStale, page.Version, q.minVersion)
	}
	if q.backward {
		kept = kept[max(0, len(kept)-q.limit):]
		slices.Reverse(kept)
	}
	for _, r := range kept {
		e, err := k.event(ctx, r)
		if err != nil {
			return page, err
		}
		page.Events = append(page.Events, e)
	}
	page.Next = q.nextAfter(kept, page.Version)
	return page, nil
}

// nextAfter is the from of the page behind this one; 0 where there is none.
func (q query) nextAfter(page []event.Recorded, version event.Version) event.Version {
	if len(page) == 0 {
		return 0
	}
	last := page[len(page)-1].Version
	if q.backward {
		return last - 1
	}
	if last < version {
		return last + 1
	}
	return 0
}

// events reads the stream once, unlike pages, which would each begin at the start. Backward needs
// all of it first.
func (k *kafkaTransport) events(ctx context.Context, q query) func(yield func(Event, error) bool) {
	if q.backward {
		return k.eventsBackward(ctx, q)
	}
	return func(yield func(Event, error) bool) {
		left, last := false, event.Version(0)
		err := k.scan(ctx, q.stream, func(r event.Recorded, _ time.Time) (bool, error) {
			last = r.Version
			e, err := k.event(ctx, r)
			if err != nil {
				return false, err
			}
			left = !yield(e, nil)
			return !left, nil
		})
		switch {
		case left:
		case err != nil:
			yield(Event{}, err)
		case last == 0:
			yield(Event{}, ErrNoStream)
		case last < q.minVersion:
			yield(Event{}, fmt.Errorf("%w: the log has version %d, wanted is %d", ErrStale, last, q.minVersion))
		}
	}
}

func (k *kafkaTransport) eventsBackward(ctx context.Context, q query) func(yield func(Event, error) bool) {
	return func(yield func(Event, error) bool) {
		var all []event.Recorded // within ScanBytesMax
		err := k.scan(ctx, q.stream, func(r event.Recorded, _ time.Time) (bool, error) {
			all = append(all, r)
			return true, nil
		})
		if err == nil && len(all) == 0 {
			err = ErrNoStream
		}
		if err != nil {
			yield(Event{}, err)
			return
		}
		for _, r := range slices.Backward(all) {
			if e, err := k.event(ctx, r); !yield(e, err) || err != nil {
				return
			}
		}
	}
}

func (k *kafkaTransport) lookup(ctx context.Context, stream event.StreamID, commandID string) (Outcome, error) {
	found := Outcome{Kind: Accepted, RequestID: commandID}
	err := k.scan(ctx, stream, func(r event.Recorded, _ time.Time) (bool, error) {
		if r.CommandID != commandID {
			return found.First == 0, nil // the events of a command stand together
		}
		if found.First == 0 {
			found.First = r.Version
		}
		found.Last, found.Partition, found.Offset = r.Version, r.Partition, r.Offset
		return true, nil
	})
	if err == nil && found.First == 0 {
		err = ErrNoCommand
	}
	return found, err
}

// state folds with the decider of Config.Deciders.
func (k *kafkaTransport) state(ctx context.Context, stream event.StreamID, at At) (State, error) {
	f := k.c.types.folds[stream.Category]
	if f == nil {
		return State{}, fmt.Errorf("%w in Config.Deciders: %s", ErrNoFold, stream.Category)
	}
	s := State{Stream: stream, Value: f.definition.Initial()}
	seen := false
	err := k.scan(ctx, stream, func(r event.Recorded, recordedAt time.Time) (bool, error) {
		seen = true
		if !at.Time.IsZero() && recordedAt.After(at.Time) {
			return false, nil
		}
		e, err := k.event(ctx, r)
		if err == nil {
			s.Value, err = f.evolve(s.Value, e)
		}
		if err != nil {
			return false, fmt.Errorf("fold version %d: %w", r.Version, err)
		}
		s.Version, s.RecordedAt = r.Version, e.RecordedAt
		return at.Version == 0 || r.Version < at.Version, nil
	})
	switch {
	case err != nil:
		return State{}, err
	case !seen:
		return State{}, ErrNoStream
	case s.Version < at.Version || s.Version == 0:
		return State{}, fmt.Errorf("%w: the last that is there is %d", ErrNoVersion, s.Version)
	}
	s.JSON, err = k.c.stateJSON(ctx, f, s.Value)
	return s, err
}

// stateJSON is a state as the HTTP API gives it.
func (c *Client) stateJSON(ctx context.Context, f *fold, value any) ([]byte, error) {
	framed, err := f.state.Append(nil, value)
	if err != nil {
		return nil, err
	}
	payload, err := c.codec.Inspect(ctx, f.state.Registered().Type, framed)
	if err != nil {
		return nil, err
	}
	text, err := c.codec.AppendJSON(nil, payload)
	if errors.Is(err, codec.ErrBadData) {
		return nil, fmt.Errorf("the state has a value that plain JSON lacks: %w", err)
	}
	return text, err
}
