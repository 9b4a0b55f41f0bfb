package client

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// kafkaTransport sends records to commands topics and takes the answers from one partition of
// <ns>.replies, which it reads by assignment and shares with others.
//
// A request that left no event is not remembered by its stream, and is decided anew when it is
// sent again. So such an answer counts only when it answers the last sending:
//
//	sending 1 is rejected, its answer is late; sending 2 leaves
//	the answer to sending 1 comes: rejected, and dropped
//	sending 2 is decided anew, on a newer state: accepted
type kafkaTransport struct {
	c        *Client
	producer *kgo.Client
	admin    *kadm.Client
	append   *codec.Binding
	reply    *codec.Binding
	instance [8]byte // begins each reply key of ours
	sequence atomic.Uint64
	room     chan struct{} // a slot for each request in flight

	mu         sync.Mutex
	partitions map[string]int32 // of commands topics
	pending    map[string]*kafkaRequest

	following sync.Mutex
	replyTo   string // once the replies are followed
	replies   *kgo.Client
	followed  sync.WaitGroup
}

// kafkaRequest is a request as a record, and where its answers come.
type kafkaRequest struct {
	record   kgo.Record
	replyKey string
	answers  chan codec.Reply
	last     atomic.Int32 // the sending that counts
	holds    bool         // a slot of room
}

func newKafkaTransport(ctx context.Context, c *Client) (*kafkaTransport, error) {
	k := &kafkaTransport{
		c: c, room: make(chan struct{}, c.cfg.InFlightMax), partitions: map[string]int32{}, pending: map[string]*kafkaRequest{},
	}
	if _, err := rand.Read(k.instance[:]); err != nil {
		return nil, fmt.Errorf("draw an instance id: %w", err)
	}
	var err error
	if k.append, err = c.codec.Bind(ctx, codec.AppendDef()); err != nil {
		return nil, fmt.Errorf("bind %s: is the namespace's registry the one of Foldstream's schemas (`foldstream schema register`)? %w", codec.TypeAppend, err)
	}
	if k.reply, err = c.codec.Bind(ctx, codec.ReplyDef()); err != nil {
		return nil, fmt.Errorf("bind %s: %w", codec.TypeReply, err)
	}
	k.producer, err = kgo.NewClient(append(slices.Clone(c.cfg.Kafka), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(0), kgo.MaxBufferedRecords(2*(c.cfg.InFlightMax+c.cfg.QueueMax)), kgo.RecordDeliveryTimeout(2*answerTimeoutMax))...)
	if err != nil {
		return nil, fmt.Errorf("connect to Kafka: %w", err)
	}
	k.admin = kadm.NewClient(k.producer)
	return k, nil
}

func (k *kafkaTransport) lanes() int { return 0 }

func (k *kafkaTransport) close() {
	k.producer.Close()
	k.following.Lock()
	defer k.following.Unlock()
	if k.replies != nil {
		k.replies.Close()
		k.followed.Wait()
	}
}

// prepare makes the record of a request.
func (k *kafkaTransport) prepare(ctx context.Context, r *request) (*sendable, error) {
	if err := topics.ValidateName("category", r.stream.Category); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoCategory, err)
	}
	typ, value, err := k.value(ctx, r)
	if err != nil {
		return nil, err
	}
	partition, err := k.partitionOf(ctx, r.stream)
	if err != nil {
		return nil, err
	}
	if err := k.follow(ctx); err != nil {
		return nil, err
	}
	replyKey := k.nextReplyKey()
	return &sendable{kafka: &kafkaRequest{
		replyKey: replyKey, answers: make(chan codec.Reply, 8),
		record: kgo.Record{
			Topic: topics.Commands(k.c.cfg.Namespace, r.stream.Category), Partition: partition, Key: []byte(r.stream.ID),
			Value: value, Headers: k.headers(r, typ, replyKey),
		},
	}}, nil
}

func (k *kafkaTransport) value(ctx context.Context, r *request) (typ string, value []byte, err error) {
	if r.command != nil {
		p, err := k.c.toAvro(ctx, r, "data", *r.command)
		if err != nil {
			return "", nil, err
		}
		return p.typ, append(codec.AppendConfluent(nil, p.schemaID), p.body...), nil
	}
	items, err := k.c.avroItems(ctx, r, time.Time{}) // the request's is in its header
	if err != nil {
		return "", nil, err
	}
	value, err = k.append.Append(nil, codec.AppendEnvelope{Events: items})
	if err != nil {
		return "", nil, r.invalid("payload", err.Error())
	}
	return codec.TypeAppend, value, nil
}

// avroItems are the events of an append as foldstream.Append and foldstream.AppendBatch have them;
// fallback is the time of those that have none, and may be zero.
func (c *Client) avroItems(ctx context.Context, r *request, fallback time.Time) ([]codec.AppendItem, error) {
	items := make([]codec.AppendItem, len(r.events))
	for i, e := range r.events {
		p, err := c.toAvro(ctx, r, fmt.Sprintf("events[%d].data", i), e.payload)
		if err != nil {
			return nil, err
		}
		items[i] = codec.AppendItem{Type: p.typ, ID: e.id, SchemaID: p.schemaID, Data: p.body, Metadata: e.metadata}
		if items[i].Metadata == nil {
			items[i].Metadata = map[string]string{}
		}
		if at := e.at(fallback); !at.IsZero() {
			items[i].Time = at.UnixMicro()
		}
	}
	return items, nil
}

func (k *kafkaTransport) headers(r *request, typ, replyKey string) []event.Header {
	now := k.c.cfg.Clock()
	if r.dedupeUntil.IsZero() {
		r.dedupeUntil = now.Add(k.c.cfg.span())
	}
	if r.time.IsZero() {
		r.time = now // once, so that each sending has the same
	}
	headers := append(r.ownHeaders(typ),
		event.Header{Key: event.HeaderSource, Value: []byte(k.c.cfg.Source)},
		event.Header{Key: event.HeaderSpecVersion, Value: []byte(event.SpecVersion)},
		event.Header{Key: event.HeaderContentType, Value: []byte(event.ContentTypeAvro)},
		event.Header{Key: event.HeaderReplyTo, Value: []byte(k.replyTo)},
		event.Header{Key: event.HeaderReplyKey, Value: []byte(replyKey)},
	)
	if r.command != nil { // those of an append's events stand in its items
		for name, value := range r.metadata {
			headers = append(headers, event.Header{Key: name, Value: []byte(value)})
		}
	}
	return headers
}

// span is how long a request may go on being sent, with as much again for what is under way: for
// so long its id is to be remembered.
func (c Config) span() time.Duration {
	span := c.AnswerTimeout
	for n := range c.Retry.Attempts {
		span += c.Retry.pause(n+1) + c.AnswerTimeout
	}
	return min(2*span, event.DedupeAheadMax-time.Minute)
}

func (k *kafkaTransport) nextReplyKey() string {
	key := binary.BigEndian.AppendUint64(slices.Clone(k.instance[:]), k.sequence.Add(1))
	return string(key)
}

// partitionOf asks the broker once per category.
func (k *kafkaTransport) partitionOf(ctx context.Context, stream event.StreamID) (int32, error) {
	topic := topics.Commands(k.c.cfg.Namespace, stream.Category)
	k.mu.Lock()
	count, known := k.partitions[topic]
	k.mu.Unlock()
	if !known {
		info, err := k.topic(ctx, topic)
		if err != nil {
			return 0, err
		}
		count = info.Partitions
		k.mu.Lock()
		k.partitions[topic] = count
		k.mu.Unlock()
	}
	return topics.Partition([]byte(stream.ID), count), nil
}

// topic looks a category's topic up.
func (k *kafkaTransport) topic(ctx context.Context, topic string) (topics.Info, error) {
	infos, err := topics.IDs(ctx, k.admin, topic)
	var missing *topics.MissingError
	if errors.As(err, &missing) {
		return topics.Info{}, fmt.Errorf("%w: %w", ErrNoCategory, err)
	}
	if err != nil {
		return topics.Info{}, fmt.Errorf("look up topic %s: %w", topic, err)
	}
	return infos[topic], nil
}

// follow opens one partition of the replies at its end, once, before the first request is sent.
func (k *kafkaTransport) follow(ctx context.Context) error {
	k.following.Lock()
	defer k.following.Unlock()
	if k.replies != nil {
		return nil
	}
	if err := context.Cause(k.c.life); err != nil {
		return err
	}
	topic := topics.Replies(k.c.cfg.Namespace)
	infos, err := topics.IDs(ctx, k.admin, topic)
	if err != nil {
		return fmt.Errorf("find the reply topic: %w", err)
	}
	partition := int32(binary.BigEndian.Uint32(k.instance[:4])&0x7fffffff) % infos[topic].Partitions
	end, err := k.endOf(ctx, topic, partition)
	if err != nil {
		return err
	}
	replies, err := kgo.NewClient(append(slices.Clone(k.c.cfg.Kafka), kgo.FetchMaxWait(500*time.Millisecond),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().At(end)}}))...)
	if err != nil {
		return fmt.Errorf("connect to Kafka: %w", err)
	}
	k.replies, k.replyTo = replies, event.ReplyTo{Topic: topic, Partition: partition}.String()
	k.followed.Go(func() { k.receive(replies) })
	return nil
}

func (k *kafkaTransport) endOf(ctx context.Context, topic string, partition int32) (int64, error) {
	ends, err := k.admin.ListEndOffsets(ctx, topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return 0, fmt.Errorf("read the end of %s: %w", topic, err)
	}
	end, _ := ends.Lookup(topic, partition)
	return end.Offset, nil
}

// receive reads the reply partition until its client is closed.
func (k *kafkaTransport) receive(replies *kgo.Client) {
	for {
		fetches := replies.PollFetches(k.c.life)
		if fetches.IsClientClosed() || k.c.life.Err() != nil {
			return
		}
		fetches.EachError(func(topic string, partition int32, err error) {
			k.c.cfg.Logger.Warn("answers cannot be read; requests may end unknown", "topic", topic, "partition", partition, "error", err)
		})
		fetches.EachRecord(func(rec *kgo.Record) {
			if err := k.receiveOne(rec); err != nil {
				k.c.cfg.Logger.Warn("an answer cannot be read; its request will be sent again", "offset", rec.Offset, "error", err)
			}
		})
	}
}

func (k *kafkaTransport) receiveOne(rec *kgo.Record) error {
	k.mu.Lock()
	r := k.pending[string(rec.Key)]
	k.mu.Unlock()
	if r == nil {
		return nil // somebody else's
	}
	payload, err := k.c.codec.Inspect(k.c.life, codec.TypeReply, rec.Value)
	if err != nil {
		return err
	}
	value, err := k.reply.Decode(payload)
	if err != nil {
		return err
	}
	if reply := value.(codec.Reply); r.counts(reply) {
		select {
		case r.answers <- reply:
		default: // full of answers that nobody waited for
		}
	}
	return nil
}

// counts says whether a reply is one to the last sending, or final whatever it answers.
func (r *kafkaRequest) counts(reply codec.Reply) bool {
	if reply.Outcome == string(Accepted) || reply.Outcome == string(Duplicate) {
		return true
	}
	return reply.Attempt == attemptText(int(r.last.Load()))
}

// attemptText is fs-attempt of the nth sending.
func attemptText(nth int) string {
	if nth <= 1 {
		return ""
	}
	return strconv.Itoa(nth)
}

func (k *kafkaTransport) sendAll(ctx context.Context, batch []*sendable, each func(int, answer)) {
	for i, s := range batch {
		each(i, k.send(ctx, s, 1))
	}
}

// send produces the record. The first sending waits for a slot.
func (k *kafkaTransport) send(ctx context.Context, s *sendable, nth int) answer {
	r := s.kafka
	if nth == 1 {
		select {
		case k.room <- struct{}{}:
			r.holds = true
		case <-ctx.Done():
			err := fmt.Errorf("request %s for stream %s was not sent: %w", s.id, s.stream, context.Cause(ctx))
			return func() (Outcome, error) { return Outcome{}, err }
		}
		k.mu.Lock()
		k.pending[r.replyKey] = r
		k.mu.Unlock()
	}
	select {
	case reply := <-r.answers: // came between two sendings
		return func() (Outcome, error) { return s.outcomeOf(reply) }
	default:
	}
	r.last.Store(int32(nth))
	failed := make(chan error, 1)
	// Its own context: a record that kgo holds must not depend on a caller who leaves.
	k.producer.Produce(k.c.life, r.sending(nth), func(_ *kgo.Record, err error) {
		if err != nil {
			failed <- err
		}
	})
	return func() (Outcome, error) { return k.await(ctx, s, failed) }
}

// sending is a record of its own for each sending: the producer writes to what it is given.
func (r *kafkaRequest) sending(nth int) *kgo.Record {
	rec := r.record
	rec.Headers = slices.Clone(rec.Headers)
	if nth > 1 {
		rec.Headers = append(rec.Headers, event.Header{Key: event.HeaderAttempt, Value: []byte(attemptText(nth))})
	}
	return &rec
}

func (k *kafkaTransport) await(ctx context.Context, s *sendable, failed <-chan error) (Outcome, error) {
	timer := time.NewTimer(k.c.cfg.AnswerTimeout)
	defer timer.Stop()
	select {
	case reply := <-s.kafka.answers:
		return s.outcomeOf(reply)
	case err := <-failed:
		return Outcome{}, k.produceFailed(s, err)
	case <-timer.C:
		return Outcome{}, unanswered(fmt.Errorf("no answer within %s: is ingest running for category %s?", k.c.cfg.AnswerTimeout, s.stream.Category))
	case <-ctx.Done():
		return Outcome{}, unanswered(context.Cause(ctx))
	}
}

func (k *kafkaTransport) produceFailed(s *sendable, err error) error {
	switch {
	case errors.Is(err, kerr.MessageTooLarge):
		return &InvalidError{RequestID: s.id, Stream: s.stream, Code: "too-large", Message: "the request is larger than the commands topic takes"}
	case errors.Is(err, kgo.ErrMaxBuffered):
		return &attemptError{certain: true, err: fmt.Errorf("%w: %w", ErrOverloaded, err)}
	case errors.Is(err, kgo.ErrClientClosed):
		return unanswered(ErrClosed)
	}
	return unanswered(fmt.Errorf("send to %s[%d]: %w", s.kafka.record.Topic, s.kafka.record.Partition, err))
}

func (k *kafkaTransport) forget(s *sendable) {
	k.mu.Lock()
	delete(k.pending, s.kafka.replyKey)
	k.mu.Unlock()
	if s.kafka.holds {
		s.kafka.holds = false
		<-k.room
	}
}

// outcomeOf reads a reply.
func (s *sendable) outcomeOf(reply codec.Reply) (Outcome, error) {
	switch reply.Outcome {
	case string(Accepted), string(Duplicate):
		return Outcome{
			Kind: Kind(reply.Outcome), RequestID: s.id, First: event.Version(reply.FirstVersion), Last: event.Version(reply.LastVersion),
			Partition: reply.Partition, Offset: reply.Offset,
		}, nil
	case "conflict":
		return Outcome{}, &ConflictError{RequestID: s.id, Stream: s.stream, Expected: s.expected, Actual: event.Version(reply.ActualVersion)}
	case "rejected":
		return Outcome{}, s.rejected(reply.Code, reply.Message)
	case "invalid":
		faults := make([]Fault, len(reply.Errors))
		for i, text := range reply.Errors {
			faults[i] = Fault{Message: text}
		}
		return Outcome{}, &InvalidError{RequestID: s.id, Stream: s.stream, Code: reply.Code, Message: reply.Message, Faults: faults}
	}
	return Outcome{}, unanswered(fmt.Errorf("the writer does not know the outcome: %s", reply.Message))
}

// rejected is final, but for a writer without room.
func (s *sendable) rejected(code, message string) error {
	rejection := &RejectedError{RequestID: s.id, Stream: s.stream, Code: code, Message: message}
	if code == CodeOverCapacity {
		return &attemptError{certain: true, err: rejection}
	}
	return rejection
}
