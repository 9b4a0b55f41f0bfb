package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
)

// Client appends, dispatches, reads and subscribes. Made by New; close it.
type Client struct {
	cfg      Config
	registry codec.Reader
	codec    *codec.Codec
	types    types
	via      transport
	metrics  *metrics
	async    *async

	closeRegistry func()

	// life ends with Close: what runs in the background ends with it.
	life    context.Context
	end     context.CancelCauseFunc
	ending  sync.Once
	mu      sync.Mutex // between the end of life and new subscriptions
	running sync.WaitGroup
}

// transport is Kafka or HTTP.
type transport interface {
	// prepare encodes a request, once for all sendings.
	prepare(ctx context.Context, r *request) (*sendable, error)
	// send begins a sending, the nth, and returns what waits for its answer, to be called once.
	send(ctx context.Context, s *sendable, nth int) answer
	// sendAll begins the first sending of each, in order, and tells each answer to come at once: its
	// sending may have to wait until earlier ones are answered.
	sendAll(ctx context.Context, batch []*sendable, each func(i int, a answer))
	// forget drops what is kept for the answers of a request.
	forget(s *sendable)
	// lanes says how many batches may be under way at once, each with streams of its own, where one
	// stream's order needs a batch to be settled before the next; 0: sendAll keeps order by itself.
	lanes() int

	lookup(ctx context.Context, stream event.StreamID, commandID string) (Outcome, error)
	load(ctx context.Context, q query) (Page, error)
	events(ctx context.Context, q query) func(yield func(Event, error) bool)
	state(ctx context.Context, stream event.StreamID, at At) (State, error)
	source(ctx context.Context, s *subscription) (source, error)

	close()
}

// answer waits for the answer to one sending. An error that is an *attemptError may be tried
// again; any other is final.
type answer func() (Outcome, error)

// New checks the configuration, binds all types, and connects. ctx bounds the construction only.
func New(ctx context.Context, cfg Config) (*Client, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("client configuration: %w", err)
	}
	c := &Client{cfg: cfg, registry: cfg.Registry, closeRegistry: func() {}, metrics: newMetrics(cfg.Registerer)}
	c.life, c.end = context.WithCancelCause(context.Background())
	if err := c.open(ctx); err != nil {
		c.end(ErrClosed)
		c.closeRegistry()
		return nil, fmt.Errorf("client: %w", err)
	}
	c.async = newAsync(c)
	return c, nil
}

func (c *Client) open(ctx context.Context) error {
	var err error
	if c.cfg.URL != "" {
		c.via = newHTTPTransport(c)
	}
	if err := c.openRegistry(); err != nil {
		return err
	}
	c.codec = codec.New(c.registry, codec.Config{})
	if c.types, err = bindTypes(ctx, c.codec, c.cfg); err != nil {
		return fmt.Errorf("bind types: %w", err)
	}
	if overHTTP, is := c.via.(*httpTransport); is && len(c.types.byName) > 0 {
		if _, err := overHTTP.binding(ctx); err != nil { // what Go values are sent with
			return err
		}
	}
	if c.via == nil {
		if c.via, err = newKafkaTransport(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// openRegistry makes the reader of schemas, where the caller has none.
func (c *Client) openRegistry() error {
	if c.registry != nil {
		return nil
	}
	if overHTTP, is := c.via.(*httpTransport); is {
		reader, err := NewRegistryReader(overHTTP.base+"/registry", overHTTP.client())
		c.registry = reader
		return err
	}
	reader, err := NewTopicReader(c.cfg.Namespace, c.cfg.Kafka...)
	if err != nil {
		return err
	}
	c.registry, c.closeRegistry = reader, reader.Close
	return nil
}

// Close drains the asynchronous requests until ctx ends, then ends everything that the client
// runs, subscriptions too. What was not settled by then fails: with ErrUnknownOutcome when it was
// sent, with ErrClosed when not. Closing twice is harmless.
func (c *Client) Close(ctx context.Context) error {
	err := c.async.drain(ctx)
	c.ending.Do(func() {
		c.mu.Lock()
		c.end(ErrClosed)
		c.mu.Unlock()
		c.async.wait()
		c.running.Wait()
		c.via.close()
		c.closeRegistry()
	})
	if err != nil {
		return fmt.Errorf("client: close: %w", err)
	}
	return nil
}

// enter counts a subscription; false when the client is closed.
func (c *Client) enter() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.life.Err() != nil {
		return false
	}
	c.running.Add(1)
	return true
}

// Append appends events to a stream, all or none, when the stream is at the expected version, and
// waits for the outcome. Errors: *ConflictError, *RejectedError, *InvalidError, *UnknownError,
// ErrOverloaded; others mean that nothing was sent.
func (c *Client) Append(ctx context.Context, stream event.StreamID, expected event.Expected, events []NewEvent, opts ...RequestOption) (Outcome, error) {
	s, err := c.prepareAppend(ctx, stream, expected, events, opts)
	if err != nil {
		return Outcome{}, err
	}
	return c.do(ctx, s)
}

// Dispatch sends a command to a stream and waits for the outcome. command is a value of a Go type
// that Config.Types ties to a command type, a pointer to one, or a Command. Errors as of Append.
func (c *Client) Dispatch(ctx context.Context, stream event.StreamID, command any, opts ...RequestOption) (Outcome, error) {
	s, err := c.prepareCommand(ctx, stream, command, opts)
	if err != nil {
		return Outcome{}, err
	}
	return c.do(ctx, s)
}

func (c *Client) prepareAppend(ctx context.Context, stream event.StreamID, expected event.Expected, events []NewEvent, opts []RequestOption) (*sendable, error) {
	r, err := c.newRequest(stream, append([]RequestOption{WithExpected(expected)}, opts...))
	if err != nil {
		return nil, err
	}
	if err := c.addEvents(r, events); err != nil {
		return nil, err
	}
	return c.prepare(ctx, r)
}

func (c *Client) prepareCommand(ctx context.Context, stream event.StreamID, command any, opts []RequestOption) (*sendable, error) {
	r, err := c.newRequest(stream, opts)
	if err != nil {
		return nil, err
	}
	if err := c.addCommand(r, command); err != nil {
		return nil, err
	}
	return c.prepare(ctx, r)
}

func (c *Client) prepare(ctx context.Context, r *request) (*sendable, error) {
	if err := context.Cause(c.life); err != nil {
		return nil, err
	}
	s, err := c.via.prepare(ctx, r)
	if err != nil {
		return nil, err
	}
	s.id, s.stream, s.expected = r.id, r.stream, r.expected
	return s, nil
}

// sendable is a request as its transport sends it, each time the same.
type sendable struct {
	id       string
	stream   event.StreamID
	expected event.Expected

	kafka *kafkaRequest
	http  *httpRequest
}

// attemptError is an attempt without a final answer.
type attemptError struct {
	certain    bool          // it was certainly not accepted
	retryAfter time.Duration // what the server asks for
	err        error
}

func (e *attemptError) Error() string { return e.err.Error() }
func (e *attemptError) Unwrap() error { return e.err }

// unanswered is an attempt whose outcome is unknown.
func unanswered(err error) error { return &attemptError{err: err} }

func (c *Client) do(ctx context.Context, s *sendable) (Outcome, error) {
	ctx, cancel := c.within(ctx)
	defer cancel()
	return c.finish(ctx, s, c.via.send(ctx, s, 1))
}

// within bounds ctx by the client's life.
func (c *Client) within(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(c.life, func() { cancel(context.Cause(c.life)) })
	return ctx, func() { stop(); cancel(nil) }
}

// finish waits for the answer of a first sending, and sends again as long as there is none and
// the retries last.
func (c *Client) finish(ctx context.Context, s *sendable, wait answer) (Outcome, error) {
	defer c.via.forget(s)
	began := c.cfg.Clock()
	maybeSent := false
	for sendings := 1; ; sendings++ {
		outcome, err := wait()
		var attempt *attemptError
		if !errors.As(err, &attempt) {
			c.metrics.settled(outcome, err, c.cfg.Clock().Sub(began))
			return outcome, err
		}
		maybeSent = maybeSent || !attempt.certain
		if sendings > c.cfg.Retry.Attempts || !c.sleep(ctx, max(c.cfg.Retry.pause(sendings), min(attempt.retryAfter, c.cfg.Retry.WaitMax))) {
			err := c.givenUp(ctx, s, sendings, maybeSent, attempt.err)
			c.metrics.settled(Outcome{}, err, c.cfg.Clock().Sub(began))
			return Outcome{}, err
		}
		c.metrics.repeated()
		wait = c.via.send(ctx, s, sendings+1)
	}
}

// givenUp says what is known of a request that got no final answer.
func (c *Client) givenUp(ctx context.Context, s *sendable, sendings int, maybeSent bool, last error) error {
	if ended := context.Cause(ctx); ended != nil && !errors.Is(last, ended) {
		last = fmt.Errorf("%w (the last answer: %w)", ended, last)
	}
	if maybeSent {
		return &UnknownError{RequestID: s.id, Stream: s.stream, Sendings: sendings, Err: last}
	}
	return fmt.Errorf("request %s for stream %s was refused %d times and not accepted: %w", s.id, s.stream, sendings, last)
}

// sleep waits; false when ctx ended first.
func (c *Client) sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
