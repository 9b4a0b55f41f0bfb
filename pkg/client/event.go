package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Event is one event of a stream, as it stands in the log. It may be used from one goroutine at a
// time; its slices and maps are its own.
type Event struct {
	Stream        event.StreamID
	Version       event.Version
	ID            string
	Type          string
	Time          time.Time // business time, UTC
	RecordedAt    time.Time // the record's stamp
	CommandID     string
	CorrelationID string
	CausationID   string
	UserID        string
	Traceparent   string // over Kafka only
	Partition     int32  // of the events topic
	Offset        int64
	Metadata      map[string]string // headers that are not Foldstream's; of one that stands twice the last
	Value         []byte            // framed Avro

	types    *types
	codec    *codec.Codec
	payload  codec.Payload
	fault    error // why payload is not there
	position func() string
	record   *kgo.Record // over Kafka, for a letter
}

// Data returns the event's data as a value of the Go type that Config.Types ties to its type.
func (e Event) Data() (any, error) {
	b, known := e.types.byName[e.Type]
	if !known {
		return nil, fmt.Errorf("event type %s is bound to no Go type: add it to Config.Types, or Decode into a map", e.Type)
	}
	payload, err := e.inspected()
	if err != nil {
		return nil, err
	}
	return b.Decode(payload)
}

// Decode stores the event's data in what into points to: a value of the Go type that Config.Types
// ties to the type, a map[string]any (see codec.DecodeMap for its values), or a json.RawMessage,
// which takes it as plain JSON.
func (e Event) Decode(into any) error {
	switch target := into.(type) {
	case *map[string]any:
		payload, err := e.inspected()
		if err == nil {
			*target, err = e.codec.DecodeMap(payload)
		}
		return err
	case *json.RawMessage:
		payload, err := e.inspected()
		if err == nil {
			*target, err = e.codec.AppendJSON(nil, payload)
		}
		return err
	}
	return e.decodeBound(into)
}

func (e Event) decodeBound(into any) error {
	target := reflect.ValueOf(into)
	if target.Kind() != reflect.Pointer || target.IsNil() {
		return fmt.Errorf("decode event %s: want a pointer, got %T", e.Type, into)
	}
	if b, known := e.types.byName[e.Type]; known && b.goType != target.Elem().Type() {
		return fmt.Errorf("decode event %s: want a *%v, as Config.Types says, a *map[string]any or a *json.RawMessage, got %T", e.Type, b.goType, into)
	}
	data, err := e.Data()
	if err != nil {
		return err
	}
	target.Elem().Set(reflect.ValueOf(data))
	return nil
}

// Position names a place in the log from which a subscription may go on (FromPosition): nothing
// that was not handled when Position is called is missed, this event among it, and some that was
// handled may come again. Empty for events that no subscription handed out.
func (e Event) Position() string {
	if e.position == nil {
		return ""
	}
	return e.position()
}

func (e Event) inspected() (codec.Payload, error) {
	if e.fault != nil {
		return codec.Payload{}, fmt.Errorf("event %s of stream %s version %d: %w", e.ID, e.Stream, e.Version, e.fault)
	}
	return e.payload, nil
}

// inspect passes the value through the guard. A fault of the data stays in the event, which is
// delivered all the same; what asking again may mend is returned.
func (c *Client) inspect(ctx context.Context, e *Event) error {
	e.types, e.codec = &c.types, c.codec
	e.payload, e.fault = c.codec.Inspect(ctx, e.Type, e.Value)
	if e.fault != nil && !errors.Is(e.fault, codec.ErrBadData) {
		return fmt.Errorf("look up the schema of event %s of stream %s version %d: %w", e.ID, e.Stream, e.Version, e.fault)
	}
	return nil
}

func fromRecorded(r event.Recorded) Event {
	e := Event{
		Stream: r.Stream, Version: r.Version, ID: r.ID, Type: r.Type, Time: r.Time, RecordedAt: r.RecordedAt.UTC(),
		CommandID: r.CommandID, CorrelationID: r.CorrelationID, CausationID: r.CausationID, UserID: r.UserID,
		Traceparent: r.Traceparent, Partition: r.Partition, Offset: r.Offset, Value: r.Value,
	}
	for _, h := range r.Extra {
		if e.Metadata == nil {
			e.Metadata = make(map[string]string, len(r.Extra))
		}
		e.Metadata[h.Key] = string(h.Value)
	}
	return e
}
