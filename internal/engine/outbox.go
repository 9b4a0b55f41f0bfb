package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/deadletter"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// outbox sends what leaves after the append: replies, re-routed commands and letters, at least
// once, with ids that let receivers remove duplicates. The producer is idempotent and keeps the
// order per partition, and no record is given up while the broker may still take it, so a
// re-routed command never overtakes an earlier one (PROTOCOL W14). Safe for concurrent use.
type outbox struct {
	client   *kgo.Client // replies and re-routes
	large    *kgo.Client // letters: they are larger than the records that they hold
	pacer    *pacer
	replyID  int32  // the schema's
	letters  string // topic
	consumer string
	source   []byte
	clock    func() time.Time
	log      *slog.Logger
	ctx      context.Context // the engine's: a lost partition does not tear a record out of the middle
}

// Limits of the outbox.
const (
	// After an error that a new leader mends, the client waits this long before it asks who that is;
	// its default of 5 s would hold every reply for as long.
	outboxMetadataMinAge = 250 * time.Millisecond

	outboxRecordsMax    = 50_000 // a slow reply broker then slows the owners down
	outboxBytesMax      = 64 << 20
	letterBatchBytesMax = 2<<20 - 4096
	outboxUnknownTopics = 4 // retries before a reply topic that is not there is given up
)

func newOutbox(ctx context.Context, opts []kgo.Opt, reply *codec.Binding, letters, consumer, namespace string, clock func() time.Time, log *slog.Logger) (*outbox, error) {
	opts = append(append([]kgo.Opt{kgo.MetadataMinAge(outboxMetadataMinAge)}, opts...),
		kgo.RecordPartitioner(kgo.BasicConsistentPartitioner(func(string) func(*kgo.Record, int) int { return outgoingPartition })),
		kgo.RequiredAcks(kgo.AllISRAcks()), kgo.ProducerLinger(0),
		kgo.MaxBufferedRecords(outboxRecordsMax), kgo.MaxBufferedBytes(outboxBytesMax),
		kgo.UnknownTopicRetries(outboxUnknownTopics), kgo.ProducerBatchCompression(kgo.NoCompression()),
	)
	if err := checkReplies(reply); err != nil {
		return nil, err
	}
	client, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, fmt.Errorf("outbox: %w", err)
	}
	large, err := kgo.NewClient(append(opts, kgo.ProducerBatchMaxBytes(letterBatchBytesMax))...)
	if err != nil {
		client.Close()
		return nil, fmt.Errorf("outbox: %w", err)
	}
	b := &outbox{
		client: client, large: large, replyID: reply.Registered().ID, letters: letters, consumer: consumer, source: []byte("/" + namespace + "/" + consumer),
		clock: clock, log: log, ctx: ctx,
	}
	b.pacer = newPacer(func(r *kgo.Record, done func(*kgo.Record, error)) { client.Produce(ctx, r, done) })
	return b, nil
}

// checkReplies holds the replies' own encoder to the schema that is registered.
func checkReplies(binding *codec.Binding) error {
	sample := codec.Reply{
		RequestID: "request", Outcome: string(OutcomeInvalid), Category: "category", StreamID: "stream", FirstVersion: 1, LastVersion: 2,
		ActualVersion: 3, Partition: 4, Offset: 5, Code: "code", Message: "message", Errors: []string{"error"}, Attempt: "6",
	}
	want, err := binding.Append(nil, sample)
	if err != nil {
		return fmt.Errorf("encoding a reply: %w", err)
	}
	if got := sample.AppendBody(codec.AppendConfluent(nil, binding.Registered().ID)); !bytes.Equal(got, want) {
		return fmt.Errorf("schema id %d is registered as version 1 of %s with another text than ours: register the schema that this release brings along in a registry of its own", binding.Registered().ID, codec.TypeReply)
	}
	return nil
}

// outgoingPartition is the record's own, when it names one, else that of its key. One out of range
// fails the record.
func outgoingPartition(r *kgo.Record, partitions int) int {
	if r.Partition >= 0 {
		return int(r.Partition)
	}
	return int(topics.Partition(r.Key, int32(partitions)))
}

// answer sends the letter and the reply that a final outcome demands and posts resultSent when
// both are acknowledged. It reports false when there is nothing to send.
func (b *outbox) answer(o *owner, c *command) bool {
	wantsReply := c.request.ReplyTo.Topic != ""
	switch {
	case c.letter != nil:
		letter := deadletter.New(b.consumer, o.topics.commandsID, c.record, c.letter, 1, b.clock())
		o.metrics.lettered()
		b.sendLetter(o, c, &kgo.Record{Topic: b.letters, Key: c.record.Key, Value: c.record.Value, Headers: letter.Headers(), Partition: -1}, wantsReply)
		return true
	case wantsReply:
		b.sendReply(o, c)
		return true
	}
	return false
}

func (b *outbox) sendLetter(o *owner, c *command, rec *kgo.Record, wantsReply bool) {
	b.large.Produce(b.ctx, rec, func(_ *kgo.Record, err error) {
		switch {
		case errors.Is(err, kerr.MessageTooLarge) && rec.Value != nil:
			rec.Headers = append(rec.Headers, event.Header{Key: deadletter.HeaderTruncated, Value: []byte("true")})
			// A promise must not block, and Produce may.
			go b.sendLetter(o, c, &kgo.Record{Topic: rec.Topic, Key: rec.Key, Headers: rec.Headers, Partition: -1}, wantsReply)
		case err != nil:
			o.mailbox.post(result{kind: resultSent, command: c, err: err})
		case wantsReply:
			go b.sendReply(o, c)
		default:
			o.mailbox.post(result{kind: resultSent, command: c})
		}
	})
}

// sendReply answers at the request's reply topic. A topic or partition that is not there, or an
// answer that it refuses for good, is given up: the request's own fault must not stop a partition.
func (b *outbox) sendReply(o *owner, c *command) {
	stream := c.stream(o.category.Name)
	if event.ValidateID(stream.ID) != nil {
		stream.ID = ""
	}
	rec := b.replyRecord(c, stream)
	b.pacer.add(rec, func(_ *kgo.Record, err error) {
		if err != nil && replyGivenUp(err) {
			o.metrics.replyGivenUp()
			b.log.Warn("reply given up: its topic does not take it", "topic", c.request.ReplyTo.String(), "cause", err)
			err = nil
		}
		o.mailbox.post(result{kind: resultSent, command: c, err: err})
	})
}

// replyGivenUp says whether a reply topic refuses a record for good.
func replyGivenUp(err error) bool {
	return errors.Is(err, kerr.UnknownTopicOrPartition) || errors.Is(err, kerr.MessageTooLarge) ||
		errors.Is(err, kerr.TopicAuthorizationFailed) || errors.Is(err, kerr.InvalidRecord) ||
		errors.Is(err, kerr.InvalidTopicException) || errors.Is(err, kerr.UnknownTopicID) ||
		strings.Contains(err.Error(), "invalid record partitioning choice")
}

// replyOut is a reply's record with room for its headers: one piece of memory.
type replyOut struct {
	record  kgo.Record
	headers [replyHeadersMax]event.Header
}

const (
	replyHeadersMax = 11
	replyBytesFixed = 200 // ids, time, framing and numbers of a reply
)

// replyRecord makes the answer to a request. Every text of it lies in one buffer.
func (b *outbox) replyRecord(c *command, stream event.StreamID) *kgo.Record {
	r := &c.request
	reply := c.outcome.reply(r, stream)
	reply.Message = deadletter.CleanText(reply.Message, deadletter.MessageBytesMax)
	for i := range reply.Errors {
		reply.Errors[i] = deadletter.CleanText(reply.Errors[i], deadletter.MessageBytesMax)
	}
	out := &replyOut{}
	texts := arena{make([]byte, 0, replyBytesFixed+4*len(r.ID)+2*len(stream.ID)+len(stream.Category)+len(reply.Message)+len(r.CorrelationID)+len(r.Traceparent)+2*len(r.Attempt))}
	headers := b.replyHeaders(out.headers[:0], &texts, r, stream.ID)
	out.record = kgo.Record{Topic: r.ReplyTo.Topic, Partition: r.ReplyTo.Partition, Key: r.ReplyKey, Headers: headers}
	if out.record.Key == nil {
		out.record.Key = texts.text(r.ID)
	}
	out.record.Value = texts.take(func(dst []byte) []byte { return reply.AppendBody(codec.AppendConfluent(dst, b.replyID)) })
	return &out.record
}

// replyHeaders appends a reply's headers; their texts go into the arena.
func (b *outbox) replyHeaders(headers []event.Header, texts *arena, r *event.Request, streamID string) []event.Header {
	add := func(name string, value []byte) { headers = append(headers, event.Header{Key: name, Value: value}) }
	add(event.HeaderID, texts.take(func(dst []byte) []byte { return appendReplyID(dst, r.ID) }))
	add(event.HeaderType, replyTypeBytes)
	add(event.HeaderSource, b.source)
	add(event.HeaderSpecVersion, specVersionBytes)
	add(event.HeaderTime, texts.take(func(dst []byte) []byte { return b.clock().UTC().AppendFormat(dst, time.RFC3339Nano) }))
	add(event.HeaderSubject, texts.text(streamID))
	add(event.HeaderContentType, contentTypeBytes)
	add(event.HeaderCorrelationID, texts.text(correlation(r)))
	add(event.HeaderCausationID, texts.text(r.ID))
	if r.Traceparent != "" {
		add(event.HeaderTraceparent, texts.text(r.Traceparent))
	}
	if r.Attempt != "" {
		add(event.HeaderAttempt, texts.text(r.Attempt))
	}
	return headers
}

// arena holds many short texts in one buffer. A slice that it gave stays good when it grows.
type arena struct{ buf []byte }

func (a *arena) text(s string) []byte {
	at := len(a.buf)
	a.buf = append(a.buf, s...)
	return a.buf[at:len(a.buf):len(a.buf)]
}

// take gives what appended adds to the buffer.
func (a *arena) take(appended func(dst []byte) []byte) []byte {
	at := len(a.buf)
	a.buf = appended(a.buf)
	return a.buf[at:len(a.buf):len(a.buf)]
}

var replyTypeBytes = []byte(codec.TypeReply)

// reroute sends a command to the partition that its key belongs to, with its origin (W14).
func (b *outbox) reroute(o *owner, c *command, target int32) {
	headers := make([]event.Header, 0, len(c.record.Headers)+1)
	for _, h := range c.record.Headers {
		if h.Key != event.HeaderOrigin {
			headers = append(headers, h)
		}
	}
	origin := event.Origin{TopicID: o.topics.commandsID, Partition: o.partition, Offset: c.record.Offset}
	if !plantedRerouteWithoutOrigin {
		headers = append(headers, event.Header{Key: event.HeaderOrigin, Value: []byte(origin.String())})
	}
	rec := &kgo.Record{
		Topic: o.topics.commands, Partition: target, Key: c.record.Key, Value: c.record.Value, Headers: headers,
		Timestamp: c.record.Timestamp,
	}
	b.client.Produce(b.ctx, rec, func(_ *kgo.Record, err error) {
		if errors.Is(err, kerr.MessageTooLarge) || errors.Is(err, kerr.InvalidRecord) || errors.Is(err, kerr.InvalidTimestamp) {
			// Certainly not stored, and never will be: it becomes a letter, and the owner goes on.
			c.outcome = invalid(CodeRefused, fmt.Errorf("the command came to partition %d, belongs to %d, and cannot be sent on: %w", o.partition, target, err))
			c.letter = deadletter.Parked(deadletter.StageDecode, CodeRefused, err)
			go b.answer(o, c)
			return
		}
		o.mailbox.post(result{kind: resultSent, command: c, err: err})
	})
}

// void writes a letter for each void record that a take-over met (PROTOCOL W6), but for those that
// this process wrote before. Another process that meets them writes them again, under the same ids,
// until a checkpoint lies behind them. They hold nobody up.
func (b *outbox) void(o *owner, records []voidRecord) {
	known := &o.engine.lettered
	for _, v := range records {
		place := letteredPlace{o.topics.eventsID, o.partition, v.record.Offset}
		if known.has(place) {
			continue
		}
		letter := deadletter.Void(b.consumer, o.topics.eventsID, v.record, v.claim, b.clock())
		o.metrics.lettered()
		rec := &kgo.Record{Topic: b.letters, Key: v.record.Key, Value: v.record.Value, Headers: letter.Headers(), Partition: -1}
		b.large.Produce(b.ctx, rec, func(_ *kgo.Record, err error) {
			if err != nil {
				o.log.Warn("letter of a void record not written; the next take-over writes it", "cause", err)
				return
			}
			known.add(place)
		})
	}
}

// lettered remembers the void records whose letters this process has written, the first
// letteredMax of them. Safe for concurrent use.
type lettered struct {
	mu     sync.Mutex
	places map[letteredPlace]struct{}
}

type letteredPlace struct {
	topicID   [16]byte
	partition int32
	offset    int64
}

const letteredMax = 100_000

func (l *lettered) has(place letteredPlace) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, known := l.places[place]
	return known
}

func (l *lettered) add(place letteredPlace) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.places == nil {
		l.places = map[letteredPlace]struct{}{}
	}
	if len(l.places) < letteredMax {
		l.places[place] = struct{}{}
	}
}

// close waits for what is under way until ctx ends.
func (b *outbox) close(ctx context.Context) {
	b.pacer.send()
	if err := errors.Join(b.client.Flush(ctx), b.large.Flush(ctx)); err != nil {
		b.log.Warn("outbox closed before all was sent; it is sent again by the next owner", "cause", err)
	}
	b.client.Close()
	b.large.Close()
	b.pacer.stop()
}
