package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"time"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/google/uuid"
)

// NewEvent is one event to append: a value of a Go type in Config.Types, or plain JSON, or Avro.
type NewEvent struct {
	// Data is a value of a Go type that Config.Types ties to an event type, or a pointer to one.
	Data any

	// Type names the registered type where Data is nil.
	Type string
	// JSON is the data as plain JSON by the type's latest schema.
	JSON json.RawMessage
	// SchemaID and Avro are the data as an Avro body, without framing, and the registered schema
	// that it is written with.
	SchemaID int32
	Avro     []byte

	// ID of the event. Default: the server's, derived from the request's id.
	ID string
	// Time is the business time, kept to the microsecond. Default: the request's.
	Time time.Time
	// Metadata becomes headers of the event. Names must not begin with "ce_", "fs-" or "dlq.".
	Metadata map[string]string
}

// Command is a command whose data is JSON or Avro. A value of a Go type in Config.Types is given
// to Dispatch as it is.
type Command struct {
	Type     string          // the registered type
	JSON     json.RawMessage // by the type's latest schema
	SchemaID int32           // with Avro
	Avro     []byte          // the body, without framing
}

// RequestOption sets something about a request.
type RequestOption func(*request)

// WithID sets the request's id, its idempotency key: 1 to 255 bytes. Default: a random UUID, so
// that the sendings of one call are one request, and two calls are two.
func WithID(id string) RequestOption { return func(r *request) { r.id = id } }

// WithExpected sets the condition on the stream's version for a command. Default: any.
func WithExpected(expected event.Expected) RequestOption {
	return func(r *request) { r.expected = expected }
}

// WithCorrelation names the conversation; it goes to the events and the answer. Default: the
// request's id.
func WithCorrelation(id string) RequestOption { return func(r *request) { r.correlation = id } }

// WithCausation says what caused the request.
func WithCausation(id string) RequestOption { return func(r *request) { r.causation = id } }

// WithUser says who asks; it goes to the events.
func WithUser(id string) RequestOption { return func(r *request) { r.user = id } }

// WithTraceparent sets the W3C trace context; it goes to the events.
func WithTraceparent(traceparent string) RequestOption {
	return func(r *request) { r.traceparent = traceparent }
}

// WithDedupeUntil says until when the request's id must be remembered, at most 24 h ahead. Only
// over Kafka; over HTTP the request fails, since the API has no word for it.
func WithDedupeUntil(until time.Time) RequestOption {
	return func(r *request) { r.dedupeUntil = until }
}

// WithTime sets the business time. Default: when the request was sent or, over HTTP, taken. Over
// HTTP the time of an append of several events is part of its content: a repetition under the same
// id must give the same one.
func WithTime(t time.Time) RequestOption { return func(r *request) { r.time = t } }

// WithMetadata adds headers to every event of the request. See NewEvent.Metadata, which goes
// before it.
func WithMetadata(metadata map[string]string) RequestOption {
	return func(r *request) { r.metadata = metadata }
}

// request is one append or command, before it is encoded for a transport.
type request struct {
	stream      event.StreamID
	id          string
	expected    event.Expected
	time        time.Time
	dedupeUntil time.Time
	correlation string
	causation   string
	user        string
	traceparent string
	metadata    map[string]string

	command *payload // nil for an append
	events  []item
}

// payload is data of a type, in one of two forms.
type payload struct {
	typ      string
	json     []byte // or:
	schemaID int32
	body     []byte
}

type item struct {
	payload
	id       string
	time     time.Time
	metadata map[string]string
}

func (c *Client) newRequest(stream event.StreamID, opts []RequestOption) (*request, error) {
	r := &request{stream: stream}
	for _, opt := range opts {
		opt(r)
	}
	if r.id == "" {
		r.id = uuid.NewString()
	}
	return r, r.check()
}

// check refuses what no server would take, so that both transports refuse it alike.
func (r *request) check() error {
	var faults []Fault
	code := "header"
	if err := event.ValidateID(r.stream.ID); err != nil {
		code = "key"
		faults = append(faults, Fault{Path: "stream", Message: err.Error()})
	}
	if _, err := event.ParseRequest(r.ownHeaders("x.X")); err != nil {
		for _, fault := range leaves(err) {
			faults = append(faults, Fault{Message: fault.Error()})
		}
	}
	if err := codec.CheckMetadata(r.metadata); err != nil {
		for _, fault := range leaves(err) {
			faults = append(faults, Fault{Path: "metadata", Message: fault.Error()})
		}
	}
	if len(faults) == 0 {
		return nil
	}
	return r.invalid(code, "the request cannot be sent", faults...)
}

// ownHeaders are the headers that the request's options give.
func (r *request) ownHeaders(typ string) []event.Header {
	headers := []event.Header{
		{Key: event.HeaderID, Value: []byte(r.id)},
		{Key: event.HeaderType, Value: []byte(typ)},
		{Key: event.HeaderExpectedVersion, Value: []byte(r.expected.String())},
	}
	for _, h := range []struct{ name, value string }{
		{event.HeaderCorrelationID, r.correlation}, {event.HeaderCausationID, r.causation},
		{event.HeaderUserID, r.user}, {event.HeaderTraceparent, r.traceparent},
	} {
		if h.value != "" {
			headers = append(headers, event.Header{Key: h.name, Value: []byte(h.value)})
		}
	}
	for _, h := range []struct {
		name  string
		value time.Time
	}{{event.HeaderTime, r.time}, {event.HeaderDedupeUntil, r.dedupeUntil}} {
		if !h.value.IsZero() {
			headers = append(headers, event.Header{Key: h.name, Value: []byte(event.FormatTime(h.value))})
		}
	}
	return headers
}

func (r *request) invalid(code, message string, faults ...Fault) *InvalidError {
	return &InvalidError{RequestID: r.id, Stream: r.stream, Code: code, Message: message, Faults: faults}
}

// addEvents encodes what Append was given.
func (c *Client) addEvents(r *request, events []NewEvent) error {
	if len(events) == 0 || len(events) > codec.AppendEventsMax {
		return r.invalid("empty-append", fmt.Sprintf("%d events: want 1 to %d", len(events), codec.AppendEventsMax))
	}
	r.events = make([]item, len(events))
	for i, e := range events {
		at := fmt.Sprintf("events[%d]", i)
		if err := codec.CheckMetadata(e.Metadata); err != nil {
			return r.invalid("header", err.Error(), Fault{Path: at + ".metadata", Message: err.Error()})
		}
		p, err := c.payload(r, at+".data", event.KindEvent, e.Data, payload{typ: e.Type, json: e.JSON, schemaID: e.SchemaID, body: e.Avro})
		if err != nil {
			return err
		}
		r.events[i] = item{payload: p, id: e.ID, time: e.Time, metadata: r.metadataOf(e.Metadata)}
	}
	return nil
}

// metadataOf joins an event's metadata with the request's.
func (r *request) metadataOf(own map[string]string) map[string]string {
	if len(r.metadata) == 0 {
		return own
	}
	joined := maps.Clone(r.metadata)
	maps.Copy(joined, own)
	return joined
}

func (c *Client) addCommand(r *request, command any) error {
	raw, isRaw := command.(Command)
	if isRaw {
		command = nil
	}
	p, err := c.payload(r, "data", event.KindCommand, command, payload{typ: raw.Type, json: raw.JSON, schemaID: raw.SchemaID, body: raw.Avro})
	r.command = &p
	return err
}

// payload encodes a value of a bound type, or checks that raw is one form of data and has a type.
func (c *Client) payload(r *request, at string, kind event.Kind, data any, raw payload) (payload, error) {
	if data == nil {
		switch {
		case raw.typ == "":
			return raw, fmt.Errorf("%s of stream %s has neither Data nor Type", at, r.stream)
		case (raw.json == nil) == (raw.body == nil):
			return raw, fmt.Errorf("%s of stream %s: give exactly one of Data, JSON and Avro", at, r.stream)
		case raw.json != nil && !json.Valid(raw.json):
			return raw, r.invalid("payload", "the data is no JSON", Fault{Path: at, Message: "is no JSON"})
		}
		return raw, nil
	}
	if raw.typ != "" || raw.json != nil || raw.body != nil {
		return raw, fmt.Errorf("%s of stream %s: give exactly one of Data, JSON and Avro", at, r.stream)
	}
	return c.encodeBound(r, at, kind, data)
}

func (c *Client) encodeBound(r *request, at string, kind event.Kind, data any) (payload, error) {
	value := reflect.ValueOf(data)
	if value.Kind() == reflect.Pointer && !value.IsNil() {
		value = value.Elem()
	}
	b := c.types.byGo[goKey{kind, value.Type()}]
	if b == nil {
		return payload{}, fmt.Errorf("Go type %T is bound to no %s type: add it to Config.Types", data, kind)
	}
	framed, err := b.Append(nil, value.Interface())
	if err != nil {
		return payload{}, r.invalid("payload", err.Error(), Fault{Path: at, Message: err.Error()})
	}
	reg := b.Registered()
	return payload{typ: reg.Type, schemaID: reg.ID, body: framed[codec.ConfluentHeaderBytes:]}, nil
}

// toAvro encodes JSON by the type's latest schema; Avro stays as it is.
func (c *Client) toAvro(ctx context.Context, r *request, at string, p payload) (payload, error) {
	if p.json == nil {
		return p, nil
	}
	reg, err := c.registry.Latest(ctx, p.typ)
	if errors.Is(err, codec.ErrUnknownSchema) {
		return p, r.invalid("unknown-schema", err.Error(), Fault{Path: at, Message: err.Error()})
	}
	if err != nil {
		return p, fmt.Errorf("look up the schema of %s: %w", p.typ, err)
	}
	body, err := c.codec.EncodeJSON(nil, reg, p.json)
	if err != nil {
		return p, r.invalid("payload", "the data does not fit its schema", jsonFaults(at, err)...)
	}
	return payload{typ: p.typ, schemaID: reg.ID, body: body}, nil
}

// toJSON is the other way round.
func (c *Client) toJSON(ctx context.Context, r *request, at string, p payload) (payload, error) {
	if p.json != nil {
		return p, nil
	}
	inspected, err := c.codec.InspectBody(ctx, p.typ, p.schemaID, p.body)
	if err == nil {
		p.json, err = c.codec.AppendJSON(nil, inspected)
	}
	if errors.Is(err, codec.ErrBadData) {
		return p, r.invalid("payload", err.Error(), Fault{Path: at, Message: err.Error()})
	}
	if err != nil {
		return p, fmt.Errorf("%s of stream %s: %w", at, r.stream, err)
	}
	return p, nil
}

func jsonFaults(at string, err error) []Fault {
	var of *codec.JSONError
	if !errors.As(err, &of) {
		return []Fault{{Path: at, Message: err.Error()}}
	}
	faults := make([]Fault, len(of.Faults))
	for i, f := range of.Faults {
		path := at
		if f.Path != "" {
			path += "." + f.Path
		}
		faults[i] = Fault{Path: path, Message: f.Message}
	}
	return faults
}

// leaves lists the parts of a joined error.
func leaves(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var out []error
		for _, e := range joined.Unwrap() {
			out = append(out, leaves(e)...)
		}
		return out
	}
	return []error{err}
}
