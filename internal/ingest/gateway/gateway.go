// Package gateway brings requests from memory to whoever owns their partition, and their outcomes
// back.
//
// # Two ways
//
// Where this instance owns the partition, a request goes straight into the owner's queue and
// becomes no record (the fast path of DESIGN §5). Elsewhere it is recorded on the category's
// commands topic, and the answer comes back through one partition of <ns>.replies that this
// instance reads by assignment (the slow path):
//
//	Do ─► engine.Submit ─► outcome
//	        │ ErrNotOwner
//	        └─► <ns>.<category>.commands ─► owner ─► <ns>.replies/p ─► Run ─► outcome
//
// The partition p is drawn once for the instance. It is read from its end as it was before the
// first request was sent; answers that carry another instance's key are dropped.
//
// # Sent again
//
// No answer means "unknown" and is asked for again under the same id, with the same bytes. A
// request that left no event is not remembered by its stream and would be decided anew, so its
// answer counts only when it answers the last sending:
//
//	sending 1 is rejected, its answer is on its way; sending 2 leaves
//	the answer to sending 1 comes: rejected
//	sending 2 is decided anew, on a newer state: accepted
//
// Likewise, once a request has been recorded it is not tried in memory any more: the record may be
// decided after it. Sendings of one request stand in order, since they go to one partition by one
// producer.
//
// An id is remembered beyond the stream's window as long as it may be sent again: requests carry
// fs-dedupe-until. On a stream with very many requests a second that would fill the stream's
// memory; its requests go without, and an unknown outcome in memory is handed out as it is. So does
// a request that is refused because that memory is full all the same.
//
// # Concurrency
//
// Do is called from any number of goroutines. Run reads the answers; it is called once and returns
// after its context ended and the requests under way have their outcomes, or a bounded time later.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/foldstream/foldstream/internal/engine"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Request is one request and its bytes.
type Request struct {
	Category string
	StreamID string
	// Request's ID is the idempotency key. Reply headers, Attempt and, where there is none, Time and
	// DedupeUntil are set here, once for all sendings.
	Request event.Request
	Value   []byte // framed Avro; not to be changed any more
	// FreshID says that the id was made up for this call: a duplicate can then only be of an
	// earlier sending of this very call, and is told as accepted.
	FreshID bool
}

// ErrOverloaded: the limits of what waits here are reached. The request is certainly not stored by
// this call.
var ErrOverloaded = errors.New("too many requests wait here")

// Config of a Gateway. The zero value of a field means its default.
type Config struct {
	Namespace string
	// Categories whose commands Foldstream decides; external ones are left out. Required.
	Categories []string
	// Submit is the engine's fast path. Required.
	Submit func(context.Context, engine.Submission) (engine.Outcome, error)
	// Kafka is what clients are made with. Required.
	Kafka []kgo.Opt
	// Codec reads replies. Required.
	Codec *codec.Codec
	// PendingMax and PendingBytesMax bound the recorded requests that wait for an answer; defaults
	// 16,384 and 64 MiB. More is ErrOverloaded.
	PendingMax      int
	PendingBytesMax int64
	// AnswerTimeout is how long the first answer may take before a request is recorded again; it
	// doubles with each sending. Default 4 s: above the usual, below a failover's 6 s or so, in which
	// the first record is decided anyway.
	AnswerTimeout time.Duration
	// SendingsMax bounds the records of one request; default 4.
	SendingsMax int
	// TimeoutMax bounds a Do whose context has no deadline; default 30 s.
	TimeoutMax time.Duration
	// DrainTimeout bounds how long Run goes on for requests that wait; default 5 s.
	DrainTimeout time.Duration
	Registerer   prometheus.Registerer // default: a registry of its own
	Logger       *slog.Logger          // default: silent
	Clock        func() time.Time      // default time.Now
}

func (c Config) withDefaults() Config {
	def(&c.PendingMax, 16_384)
	def(&c.PendingBytesMax, 64<<20)
	def(&c.AnswerTimeout, 4*time.Second)
	def(&c.SendingsMax, 4)
	def(&c.TimeoutMax, 30*time.Second)
	def(&c.DrainTimeout, 5*time.Second)
	if c.Registerer == nil {
		c.Registerer = prometheus.NewRegistry()
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	return c
}

func def[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func (c Config) validate() error {
	faults := []error{topics.ValidateNamespace(c.Namespace)}
	fault := func(bad bool, format string, args ...any) {
		if bad {
			faults = append(faults, fmt.Errorf("gateway: "+format, args...))
		}
	}
	fault(len(c.Categories) == 0, "Categories is empty")
	fault(c.Submit == nil || c.Codec == nil || len(c.Kafka) == 0, "Submit, Codec and Kafka are required")
	fault(c.PendingMax < 1, "PendingMax %d is below 1", c.PendingMax)
	fault(c.PendingBytesMax < 1, "PendingBytesMax %d is below 1", c.PendingBytesMax)
	fault(c.SendingsMax < 1, "SendingsMax %d is below 1", c.SendingsMax)
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"AnswerTimeout", c.AnswerTimeout}, {"TimeoutMax", c.TimeoutMax}, {"DrainTimeout", c.DrainTimeout}} {
		fault(d.value < 0, "%s %s is negative", d.name, d.value)
	}
	return errors.Join(faults...)
}

// Gateway brings requests to their owners. New connects, Run reads the answers.
type Gateway struct {
	cfg        Config
	metrics    *metrics
	partitions map[string]int32 // by category
	source     []byte
	replyTo    []byte
	reply      *codec.Binding
	rates      rates

	producer *kgo.Client
	replies  *kgo.Client
	pending  table
	sequence atomic.Uint64
	instance [8]byte // begins every reply key of ours
}

// New checks the configuration, looks the topics up, and takes a position in the replies. It fails
// with a *topics.MissingError where topics are missing. ctx bounds the construction only.
func New(ctx context.Context, cfg Config) (*Gateway, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	g := &Gateway{
		cfg: cfg, partitions: map[string]int32{}, source: []byte("/" + cfg.Namespace + "/http"),
		pending: newTable(cfg.PendingMax, cfg.PendingBytesMax), instance: drawInstance(), rates: rates{clock: cfg.Clock},
	}
	if err := g.open(ctx); err != nil {
		g.Close()
		return nil, fmt.Errorf("gateway: %w", err)
	}
	return g, nil
}

func (g *Gateway) open(ctx context.Context) error {
	var err error
	if g.metrics, err = newMetrics(g.cfg.Registerer, &g.pending); err != nil {
		return err
	}
	if g.reply, err = g.cfg.Codec.Bind(ctx, codec.ReplyDef()); err != nil {
		return fmt.Errorf("bind the reply: %w", err)
	}
	g.producer, err = kgo.NewClient(append(append([]kgo.Opt{}, g.cfg.Kafka...),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0),
		kgo.MaxBufferedRecords(2*g.cfg.PendingMax), kgo.ProducerBatchCompression(kgo.NoCompression()))...)
	if err != nil {
		return fmt.Errorf("connect to Kafka: %w", err)
	}
	return g.follow(ctx)
}

// follow learns the partition counts and opens the reply partition at its end.
func (g *Gateway) follow(ctx context.Context) error {
	adm := kadm.NewClient(g.producer)
	topic := topics.Replies(g.cfg.Namespace)
	names := []string{topic}
	for _, c := range g.cfg.Categories {
		names = append(names, topics.Commands(g.cfg.Namespace, c))
	}
	infos, err := topics.IDs(ctx, adm, names...)
	if err != nil {
		return err
	}
	for _, c := range g.cfg.Categories {
		g.partitions[c] = infos[topics.Commands(g.cfg.Namespace, c)].Partitions
	}
	partition := rand.Int32N(infos[topic].Partitions)
	ends, err := adm.ListEndOffsets(ctx, topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return fmt.Errorf("read the end of %s: %w", topic, err)
	}
	end, _ := ends.Lookup(topic, partition)
	g.replyTo = []byte(event.ReplyTo{Topic: topic, Partition: partition}.String())
	g.replies, err = kgo.NewClient(append(append([]kgo.Opt{}, g.cfg.Kafka...), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{
		topic: {partition: kgo.NewOffset().At(end.Offset)},
	}), kgo.FetchMaxWait(500*time.Millisecond))...)
	if err != nil {
		return fmt.Errorf("connect to Kafka: %w", err)
	}
	return nil
}

// Close releases the clients of a gateway whose Run is never called. It may be called twice.
func (g *Gateway) Close() {
	g.pending.close()
	if g.producer != nil {
		g.producer.Close()
	}
	if g.replies != nil {
		g.replies.Close()
	}
}

func unknown(message string) engine.Outcome {
	return engine.Outcome{Kind: engine.OutcomeUnknown, Offset: -1, Partition: -1, Message: message}
}

// dedupeAfter is how long behind its deadline a request's id is remembered: for what is still under
// way then, and for clocks that differ.
const dedupeAfter = 5 * time.Second

// Do brings a request to its owner and waits for the outcome. When ctx ends first the outcome is
// unknown: ask again with the same id. Errors are ErrOverloaded, and what no outcome can say, such
// as a category that is not served. Safe for concurrent use; requests of one stream that are handed
// in one after the other are decided in that order.
func (g *Gateway) Do(ctx context.Context, r Request) (engine.Outcome, error) {
	if _, known := g.partitions[r.Category]; !known {
		return engine.Outcome{}, fmt.Errorf("category %q is not served here", r.Category)
	}
	deadline, bounded := ctx.Deadline()
	if !bounded {
		var cancel context.CancelFunc
		deadline = time.Now().Add(g.cfg.TimeoutMax)
		ctx, cancel = context.WithDeadline(ctx, deadline)
		defer cancel()
	}
	c := call{gateway: g, ctx: ctx, request: r}
	c.fix(time.Until(deadline))
	outcome, err := c.do()
	if outcome.Kind == engine.OutcomeDuplicate && r.FreshID {
		outcome.Kind = engine.OutcomeAccepted
	}
	if outcome.Kind == engine.OutcomeUnknown {
		g.metrics.unknown.Inc()
	}
	return outcome, err
}

// call is one request on its way. It belongs to Do's goroutine.
type call struct {
	gateway  *Gateway
	ctx      context.Context
	request  Request
	again    bool // it may be sent again: its id is remembered for long enough
	ours     bool // its DedupeUntil is
	sendings int  // that may have been stored
}

// fix sets what must be the same for every sending.
func (c *call) fix(left time.Duration) {
	g, r := c.gateway, &c.request.Request
	now := g.cfg.Clock().UTC()
	if r.Time.IsZero() {
		r.Time = now.Truncate(time.Microsecond)
	}
	r.ReplyTo, r.ReplyKey, r.Attempt = event.ReplyTo{Partition: -1}, nil, ""
	horizon := max(left, 0) + dedupeAfter
	switch {
	case !r.DedupeUntil.IsZero():
		c.again = !r.DedupeUntil.Before(now.Add(horizon))
	case g.rates.allows(c.request.Category, c.request.StreamID, horizon):
		r.DedupeUntil, c.again, c.ours = now.Add(horizon).Truncate(time.Second).Add(time.Second), true, true
	}
}

// forgoes says that a request is refused for want of room for the id that we asked to be remembered,
// and asks so no more: the client did not, and can do nothing about it. It may be sent once more, for
// it left no event, then or before: a remembered id would have been told as a duplicate.
func (c *call) forgoes(o engine.Outcome) bool {
	if !c.ours || o.Kind != engine.OutcomeRejected || o.Code != engine.CodeCapacity {
		return false
	}
	c.request.Request.DedupeUntil, c.ours, c.again = time.Time{}, false, false
	return true
}

// Pauses before a request is submitted again whose outcome is unknown.
const (
	pauseFirst = 10 * time.Millisecond
	pauseMost  = 500 * time.Millisecond
)

// do takes the fast path, as long as it is open, then the other.
func (c *call) do() (engine.Outcome, error) {
	g := c.gateway
	for pause := pauseFirst; ; pause = min(2*pause, pauseMost) {
		submission := engine.Submission{Category: c.request.Category, StreamID: c.request.StreamID, Request: c.request.Request, Value: c.request.Value}
		outcome, err := g.cfg.Submit(c.ctx, submission)
		switch {
		case err == nil && c.forgoes(outcome):
			g.metrics.repeated.Inc()
			continue
		case err == nil && outcome.Kind != engine.OutcomeUnknown:
			g.metrics.memory.Inc()
			return outcome, nil
		case errors.Is(err, engine.ErrNotOwner):
			g.metrics.topic.Inc()
			return c.record()
		case err == nil:
			c.sendings++
		case errors.Is(err, engine.ErrBusy) && c.sendings == 0:
			return engine.Outcome{}, fmt.Errorf("%w: %w", ErrOverloaded, err)
		case errors.Is(err, engine.ErrBusy):
			outcome = unknown("its owner is overloaded, and an earlier sending may have been stored: ask again with the same id")
		case c.ctx.Err() != nil:
			return unknown("the wait ended before its outcome was known: ask again with the same id"), nil //nolint:nilerr // the outcome says it
		default:
			return engine.Outcome{}, err
		}
		if !c.again || !sleep(c.ctx, pause) {
			return outcome, nil
		}
		g.metrics.repeated.Inc()
	}
}

// sleep waits; false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
