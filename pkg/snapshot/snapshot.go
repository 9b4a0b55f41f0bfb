// Package snapshot is how an owner's knowledge of its streams is kept in a category's compacted
// snapshots topic (DESIGN §5), so that a restart reads snapshots and a tail instead of the whole
// log.
//
// # What stands in a snapshots partition
//
//	key                     value
//	<id>                    the latest snapshot of stream <id>
//	<id> NUL <slot digit>   one of HistorySlots older ones, for reading a state at a version
//	NUL "checkpoint"        "all state of event offsets ≤ X is in the snapshots before this record"
//	(unique)                claims and keep-alives of the partition's owner, header fs-control
//
// Aggregate ids have no control characters, so the keys cannot meet. Values are Avro in Confluent
// framing (foldstream.Snapshot, foldstream.Checkpoint); with the header content-encoding: zstd the
// value is compressed as a whole.
//
// A snapshot is never ahead of the acknowledged events, and the partition is fenced like the events
// partition; a late snapshot of an owner of old is older state under the same key at worst, which
// its successor's checkpoint does not count on: it reads the topic up to its own claim.
//
// Snapshots are derived: one that cannot be read is skipped and counted, and its stream is folded
// from its events. Everything here may be used from any goroutine.
package snapshot

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/klauspost/compress/zstd"
)

// HistorySlots is how many older snapshots of a stream are kept; slot n%HistorySlots holds the one
// of the n-th multiple of the history interval.
const HistorySlots = 5

// Registered types of the two records.
const (
	TypeSnapshot   = "foldstream.Snapshot"
	TypeCheckpoint = "foldstream.Checkpoint"
)

// HeaderEncoding names the header that says how a value is compressed.
const HeaderEncoding = "content-encoding"

// EncodingZstd is the one compression there is (RFC 8878).
const EncodingZstd = "zstd"

// CompressBytesMin is the size from which a value is compressed, when that makes it smaller.
const CompressBytesMin = 512

// ValueBytesMax bounds a value after decompression.
const ValueBytesMax = 8 << 20

// Snapshot is a stream after one of its events. Version 0 is a mark: the stream's state did not
// fit a record, so it is to be folded from its events.
type Snapshot struct {
	Version       int64     `avro:"version"`
	Offset        int64     `avro:"offset"` // of that version's event
	EventsTopicID [16]byte  `avro:"eventsTopicId"`
	TakenAt       time.Time `avro:"takenAt"`
	StateVersion  int32     `avro:"stateVersion"` // the decider's; 0 in append mode
	State         []byte    `avro:"state"`        // framed Avro; empty: the initial state, or append mode
	Commands      []Command `avro:"commands"`     // oldest first; empty in history slots
}

// Command is a command id that the stream remembers (PROTOCOL W13).
type Command struct {
	Key         [16]byte `avro:"key"`
	Hash        [16]byte `avro:"hash"`
	First       int64    `avro:"first"`
	Count       int32    `avro:"count"`
	Offset      int64    `avro:"offset"`
	At          int64    `avro:"at"`          // unix seconds
	DedupeUntil int64    `avro:"dedupeUntil"` // unix seconds; 0 without
}

// Checkpoint is what an owner knows of its partition besides its streams (PROTOCOL W9, W12, W14).
type Checkpoint struct {
	Offset          int64     `avro:"offset"`
	LastEventOffset int64     `avro:"lastEventOffset"` // at or above Offset; -1 without one
	LastEventID     string    `avro:"lastEventId"`
	EventsTopicID   [16]byte  `avro:"eventsTopicId"`
	CommandsTopicID [16]byte  `avro:"commandsTopicId"`
	HighestCommand  int64     `avro:"highestCommand"`
	ProducerID      int64     `avro:"producerId"`
	ProducerEpoch   int32     `avro:"producerEpoch"`
	Group           string    `avro:"group"`
	TakenAt         time.Time `avro:"takenAt"`
	Origins         []Origin  `avro:"origins"`
}

// Origin is the highest command handled of a partition that re-routes here.
type Origin struct {
	TopicID   [16]byte `avro:"topicId"`
	Partition int32    `avro:"partition"`
	Offset    int64    `avro:"offset"`
}

// KeyKind tells the records of a snapshots partition apart.
type KeyKind uint8

// The kinds.
const (
	KeyLatest KeyKind = iota
	KeyHistory
	KeyCheckpoint
	KeyOther // claims, keep-alives, and what this version does not know
)

const checkpointKey = "\x00checkpoint"

// LatestKey is the key of a stream's latest snapshot.
func LatestKey(id string) []byte { return []byte(id) }

// HistoryKey is the key of one of a stream's history slots.
func HistoryKey(id string, slot int) []byte {
	return append(append(make([]byte, 0, len(id)+2), id...), 0, byte('0'+slot))
}

// CheckpointKey is the key of a partition's checkpoint.
func CheckpointKey() []byte { return []byte(checkpointKey) }

// ParseKey tells what a key stands for: the aggregate id, and the slot of a history slot.
func ParseKey(key []byte) (kind KeyKind, id string, slot int) {
	text := string(key)
	if text == checkpointKey {
		return KeyCheckpoint, "", 0
	}
	id, rest, history := strings.Cut(text, "\x00")
	switch {
	case !history && event.ValidateID(id) == nil:
		return KeyLatest, id, 0
	case history && len(rest) == 1 && rest[0] >= '0' && rest[0] < '0'+HistorySlots && event.ValidateID(id) == nil:
		return KeyHistory, id, int(rest[0] - '0')
	}
	return KeyOther, "", 0
}

// ErrUnreadable: the record is no snapshot or checkpoint that this version can read. Its stream is
// folded from events.
var ErrUnreadable = errors.New("unreadable snapshot")

// Format encodes and decodes the two records.
type Format struct {
	codec      *codec.Codec
	snapshot   *codec.Binding
	checkpoint *codec.Binding
	encoder    *zstd.Encoder
	decoder    *zstd.Decoder
}

// NewFormat binds the two registered types. Close it.
func NewFormat(ctx context.Context, c *codec.Codec) (*Format, error) {
	f := &Format{codec: c}
	var err error
	if f.snapshot, err = c.Bind(ctx, systemDef[Snapshot](TypeSnapshot)); err != nil {
		return nil, err
	}
	if f.checkpoint, err = c.Bind(ctx, systemDef[Checkpoint](TypeCheckpoint)); err != nil {
		return nil, err
	}
	if f.encoder, err = zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(64<<10)); err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	f.decoder, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(ValueBytesMax))
	if err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	return f, nil
}

// Close releases the compressors.
func (f *Format) Close() {
	_ = f.encoder.Close()
	f.decoder.Close()
}

// EncodeSnapshot returns the value of a snapshot and whether it is compressed.
func (f *Format) EncodeSnapshot(s Snapshot) (value []byte, compressed bool, err error) {
	value, err = f.snapshot.Append(nil, s)
	if err != nil {
		return nil, false, err
	}
	value, compressed = f.compress(value)
	return value, compressed, nil
}

// EncodeCheckpoint returns the value of a checkpoint.
func (f *Format) EncodeCheckpoint(c Checkpoint) ([]byte, error) { return f.checkpoint.Append(nil, c) }

func (f *Format) compress(value []byte) ([]byte, bool) {
	if len(value) < CompressBytesMin {
		return value, false
	}
	smaller := f.encoder.EncodeAll(value, make([]byte, 0, len(value)))
	if len(smaller) >= len(value) {
		return value, false
	}
	return smaller, true
}

// DecodeSnapshot reads a value. An error that wraps ErrUnreadable is the record's own fault;
// anything else is infrastructure and worth another try.
func (f *Format) DecodeSnapshot(ctx context.Context, value []byte, headers []event.Header) (Snapshot, error) {
	v, err := f.decode(ctx, TypeSnapshot, f.snapshot, value, headers)
	if err != nil {
		return Snapshot{}, err
	}
	return v.(Snapshot), nil
}

// DecodeCheckpoint is DecodeSnapshot for a checkpoint.
func (f *Format) DecodeCheckpoint(ctx context.Context, value []byte, headers []event.Header) (Checkpoint, error) {
	v, err := f.decode(ctx, TypeCheckpoint, f.checkpoint, value, headers)
	if err != nil {
		return Checkpoint{}, err
	}
	return v.(Checkpoint), nil
}

func (f *Format) decode(ctx context.Context, typ string, binding *codec.Binding, value []byte, headers []event.Header) (any, error) {
	encoding, _ := event.HeaderValue(headers, HeaderEncoding)
	switch string(encoding) {
	case "":
	case EncodingZstd:
		plain, err := f.decoder.DecodeAll(value, nil)
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrUnreadable, EncodingZstd, err)
		}
		value = plain
	default:
		return nil, fmt.Errorf("%w: %s %q is unknown", ErrUnreadable, HeaderEncoding, encoding)
	}
	payload, err := f.codec.Inspect(ctx, typ, value)
	if err == nil {
		var v any
		if v, err = binding.Decode(payload); err == nil {
			return v, nil
		}
	}
	if errors.Is(err, codec.ErrBadData) {
		return nil, fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	return nil, err
}

func systemDef[T any](name string) codec.TypeDef {
	return codec.TypeDef{Name: name, Version: 1, Kind: event.KindSystem, GoType: reflect.TypeFor[T]()}
}
