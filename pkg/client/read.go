package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"reflect"
	"time"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
)

// Page is a part of a stream.
type Page struct {
	Stream  event.StreamID
	Version event.Version // the stream's last; over Kafka the last that the log had when the read began
	Events  []Event
	Next    event.Version // the from of the next page; 0: no more
}

// Limits of a page.
const (
	PageDefault = 100
	PageMax     = 10_000
)

// ReadOption sets something about a read.
type ReadOption func(*query)

// Backward reads from the end down.
func Backward() ReadOption { return func(q *query) { q.backward = true } }

// WithMinVersion makes a read wait, at most wait, until the stream has version v. Over Kafka, where
// a read sees the log itself, it fails at once where the version is not there.
func WithMinVersion(v event.Version, wait time.Duration) ReadOption {
	return func(q *query) { q.minVersion, q.wait = v, wait }
}

type query struct {
	stream     event.StreamID
	from       event.Version
	limit      int
	backward   bool
	minVersion event.Version
	wait       time.Duration
}

func newQuery(stream event.StreamID, from event.Version, limit int, opts []ReadOption) (query, error) {
	q := query{stream: stream, from: from, limit: limit}
	for _, opt := range opts {
		opt(&q)
	}
	orDefault(&q.limit, PageDefault)
	if !q.backward {
		orDefault(&q.from, 1)
	}
	if err := event.ValidateID(stream.ID); err != nil {
		return q, fmt.Errorf("read stream %s: %w", stream, err)
	}
	if q.from < 0 || q.limit < 1 || q.limit > PageMax {
		return q, fmt.Errorf("read stream %s: from %d, limit %d: want a version, and 1 to %d events", stream, from, limit, PageMax)
	}
	return q, nil
}

// Load reads up to limit events of a stream, from version from on: 0 is the first one, or the
// last one where it reads Backward; limit 0 is 100. ErrNoStream where the stream has no event.
func (c *Client) Load(ctx context.Context, stream event.StreamID, from event.Version, limit int, opts ...ReadOption) (Page, error) {
	q, err := newQuery(stream, from, limit, opts)
	if err != nil {
		return Page{}, err
	}
	ctx, cancel := c.within(ctx)
	defer cancel()
	page, err := c.via.load(ctx, q)
	if err != nil {
		return Page{}, fmt.Errorf("load stream %s: %w", stream, err)
	}
	return page, nil
}

// Events yields all events of a stream in order, and an error at most, as the last. A stream
// without events yields ErrNoStream.
func (c *Client) Events(ctx context.Context, stream event.StreamID, opts ...ReadOption) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		q, err := newQuery(stream, 0, 1000, opts)
		if err != nil {
			yield(Event{}, err)
			return
		}
		ctx, cancel := c.within(ctx)
		defer cancel()
		for e, err := range c.via.events(ctx, q) {
			if err != nil {
				yield(Event{}, fmt.Errorf("read stream %s: %w", stream, err))
				return
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}

// Lookup finds the outcome of a command by its id. ErrNoCommand: no event of it is in the log; it
// may be undecided, or was decided without an event. Send it again under its id to know.
func (c *Client) Lookup(ctx context.Context, stream event.StreamID, commandID string) (Outcome, error) {
	if err := event.ValidateID(stream.ID); err != nil {
		return Outcome{}, fmt.Errorf("look up command %s of stream %s: %w", commandID, stream, err)
	}
	ctx, cancel := c.within(ctx)
	defer cancel()
	outcome, err := c.via.lookup(ctx, stream, commandID)
	if err != nil {
		return Outcome{}, fmt.Errorf("look up command %s of stream %s: %w", commandID, stream, err)
	}
	return outcome, nil
}

// At says when a state is wanted. The zero value is now.
type At struct {
	Version event.Version // at this version, or
	Time    time.Time     // as of this time of recording
}

// State is what a category's decider folds a stream to.
type State struct {
	Stream     event.StreamID
	Version    event.Version
	RecordedAt time.Time       // of that version
	Value      any             // of the decider's state type; nil where Config.Deciders has none for the category
	JSON       json.RawMessage // plain JSON
}

// Decode stores the state in what into points to: the decider's state type, where Config.Deciders
// has it; else whatever encoding/json takes the plain JSON into.
func (s State) Decode(into any) error {
	target := reflect.ValueOf(into)
	if target.Kind() != reflect.Pointer || target.IsNil() {
		return fmt.Errorf("decode the state of %s: want a pointer, got %T", s.Stream, into)
	}
	if value := reflect.ValueOf(s.Value); value.IsValid() && value.Type() == target.Elem().Type() {
		target.Elem().Set(value)
		return nil
	}
	if err := json.Unmarshal(s.JSON, into); err != nil {
		return fmt.Errorf("decode the state of %s: %w", s.Stream, err)
	}
	return nil
}

// State folds a stream: now, at a version, or as of a time. Over Kafka by the decider in
// Config.Deciders; over HTTP on the server. Errors: ErrNoStream, ErrNoVersion, ErrNoFold.
func (c *Client) State(ctx context.Context, stream event.StreamID, at At) (State, error) {
	err := event.ValidateID(stream.ID)
	if at.Version < 0 || (at.Version > 0 && !at.Time.IsZero()) {
		err = errors.Join(err, fmt.Errorf("at version %d and at %s: give one of both", at.Version, at.Time))
	}
	var s State
	if err == nil {
		var cancel context.CancelFunc
		ctx, cancel = c.within(ctx)
		defer cancel()
		s, err = c.via.state(ctx, stream, at)
	}
	if err != nil {
		return State{}, fmt.Errorf("state of stream %s: %w", stream, err)
	}
	return s, nil
}

// valueOf makes the decider's state of its plain JSON; nil where the category has none here.
func (c *Client) valueOf(ctx context.Context, category string, text []byte) (any, error) {
	f := c.types.folds[category]
	if f == nil {
		return nil, nil
	}
	reg := f.state.Registered()
	body, err := c.codec.EncodeJSON(codec.AppendConfluent(nil, reg.ID), reg, text)
	if err != nil {
		return nil, fmt.Errorf("the server's state does not fit %s version %d, which this program's decider has: %w", reg.Type, reg.Version, err)
	}
	payload, err := c.codec.Inspect(ctx, reg.Type, body)
	if err != nil {
		return nil, err
	}
	return f.state.Decode(payload)
}
