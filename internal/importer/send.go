package importer

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	answerTimeoutMax = time.Minute
	resendCheck      = 250 * time.Millisecond
)

// ErrNoAnswer: a command was sent as often as allowed and never got a final answer.
var ErrNoAnswer = errors.New("no final answer")

// all runs the three loops: sending, receiving, sending again. The first failure ends all.
func (r *run) all(parent context.Context, commands iter.Seq[Command]) error {
	ctx, fail := context.WithCancelCause(parent)
	defer fail(nil)
	var loops sync.WaitGroup
	loops.Go(func() { r.receive(ctx, fail) })
	loops.Go(func() { r.resend(ctx, fail) })
	err := r.send(ctx, fail, commands)
	if err == nil {
		err = r.drain(ctx)
	}
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	fail(nil)
	loops.Wait()
	return err
}

func (r *run) send(ctx context.Context, fail context.CancelCauseFunc, commands iter.Seq[Command]) error {
	pace := pacer{perSecond: r.cfg.RatePerSecond, began: r.cfg.Clock(), clock: r.cfg.Clock}
	for c := range commands {
		if err := pace.wait(ctx); err != nil {
			return err
		}
		record, err := r.record(ctx, c)
		if err != nil {
			return fmt.Errorf("command %s of stream %s/%s: %w", c.Type, c.Category, c.StreamID, err)
		}
		select {
		case r.slots <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		if !r.remember(c.ID, record) {
			<-r.slots
			return fmt.Errorf("command id %s stands twice in the input", c.ID)
		}
		r.produce(ctx, fail, sending(record, 1))
	}
	return nil
}

// drain waits until every slot is free.
func (r *run) drain(ctx context.Context) error {
	for range cap(r.slots) {
		select {
		case r.slots <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (r *run) remember(id string, record *kgo.Record) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, twice := r.pending[id]; twice {
		return false
	}
	r.report.Commands++
	r.pending[id] = &pending{record: record, attempts: 1, resendAt: r.cfg.Clock().Add(r.cfg.AnswerTimeout)}
	return true
}

// produce hands a record to the producer. What the producer gives up on ends the run: it has
// tried again by itself as long as there was hope.
func (r *run) produce(ctx context.Context, fail context.CancelCauseFunc, record *kgo.Record) {
	r.producer.Produce(ctx, record, func(_ *kgo.Record, err error) {
		if err != nil && ctx.Err() == nil {
			fail(fmt.Errorf("send to %s[%d]: %w", record.Topic, record.Partition, err))
		}
	})
}

func (r *run) record(ctx context.Context, c Command) (*kgo.Record, error) {
	binding, known := r.bindings[c.Type]
	if !known {
		return nil, errors.New("the type is not among the importer's")
	}
	value, err := binding.Append(nil, c.Data)
	if err != nil {
		return nil, err
	}
	count, err := r.partitionsOf(ctx, c.Category)
	if err != nil {
		return nil, err
	}
	key := []byte(c.StreamID)
	return &kgo.Record{
		Topic: topics.Commands(r.cfg.Namespace, c.Category), Partition: topics.Partition(key, count),
		Key: key, Value: value, Headers: r.headers(c),
	}, nil
}

func (r *run) partitionsOf(ctx context.Context, category string) (int32, error) {
	if n, known := r.partitions[category]; known {
		return n, nil
	}
	topic := topics.Commands(r.cfg.Namespace, category)
	infos, err := topics.IDs(ctx, kadm.NewClient(r.producer), topic)
	if err != nil {
		return 0, err
	}
	r.partitions[category] = infos[topic].Partitions
	return infos[topic].Partitions, nil
}

func (r *run) headers(c Command) []event.Header {
	headers := []event.Header{
		{Key: event.HeaderID, Value: []byte(c.ID)},
		{Key: event.HeaderType, Value: []byte(c.Type)},
		{Key: event.HeaderSource, Value: []byte(r.cfg.Source)},
		{Key: event.HeaderSpecVersion, Value: []byte(event.SpecVersion)},
		{Key: event.HeaderContentType, Value: []byte(event.ContentTypeAvro)},
		{Key: event.HeaderTime, Value: []byte(event.FormatTime(c.Time))},
		{Key: event.HeaderExpectedVersion, Value: []byte(c.Expected.String())},
		{Key: event.HeaderReplyTo, Value: []byte(r.replyTo)},
		{Key: event.HeaderDedupeUntil, Value: r.dedupe},
	}
	if c.CorrelationID != "" {
		headers = append(headers, event.Header{Key: event.HeaderCorrelationID, Value: []byte(c.CorrelationID)})
	}
	return headers
}

// resend sends again what has waited too long.
func (r *run) resend(ctx context.Context, fail context.CancelCauseFunc) {
	ticker := time.NewTicker(min(resendCheck, r.cfg.AnswerTimeout))
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		again, err := r.overdue()
		if err != nil {
			fail(err)
			return
		}
		for _, record := range again {
			r.produce(ctx, fail, record)
		}
	}
}

// overdue returns records for the commands whose time is up.
func (r *run) overdue() ([]*kgo.Record, error) {
	now := r.cfg.Clock()
	r.mu.Lock()
	defer r.mu.Unlock()
	var again []*kgo.Record
	for id, p := range r.pending {
		if now.Before(p.resendAt) {
			continue
		}
		if p.attempts >= r.cfg.AttemptsMax {
			return nil, fmt.Errorf("command %s to %s[%d] was sent %d times: %w: is ingest running for this category?",
				id, p.record.Topic, p.record.Partition, p.attempts, ErrNoAnswer)
		}
		p.attempts++
		p.resendAt = now.Add(min(r.cfg.AnswerTimeout<<min(p.attempts-1, 16), answerTimeoutMax))
		r.report.SentAgain++
		again = append(again, sending(p.record, p.attempts))
	}
	return again, nil
}

// sending returns a record of its own for each sending: the producer writes to what it is given.
func sending(record *kgo.Record, attempt int) *kgo.Record {
	headers := slices.Clone(record.Headers)
	if attempt > 1 {
		headers = append(headers, event.Header{Key: event.HeaderAttempt, Value: strconv.AppendInt(nil, int64(attempt), 10)})
	}
	return &kgo.Record{Topic: record.Topic, Partition: record.Partition, Key: record.Key, Value: record.Value, Headers: headers}
}

// receive reads the reply partition until ctx ends.
func (r *run) receive(ctx context.Context, fail context.CancelCauseFunc) {
	for {
		fetches := r.replies.PollFetches(ctx)
		if ctx.Err() != nil {
			return
		}
		for _, e := range fetches.Errors() {
			if errors.Is(e.Err, context.Canceled) || fetches.IsClientClosed() {
				return
			}
			fail(fmt.Errorf("read the answers from %s[%d]: %w", e.Topic, e.Partition, e.Err))
			return
		}
		fetches.EachRecord(func(rec *kgo.Record) {
			if err := r.answer(ctx, rec); err != nil {
				r.cfg.Logger.Warn("an answer cannot be read; its command will be sent again", "offset", rec.Offset, "err", err)
			}
		})
	}
}

// answer takes one record of the reply partition, which others share with us.
func (r *run) answer(ctx context.Context, rec *kgo.Record) error {
	r.mu.Lock()
	_, ours := r.pending[string(rec.Key)]
	r.mu.Unlock()
	if !ours {
		return nil
	}
	payload, err := r.cfg.Codec.Inspect(ctx, codec.TypeReply, rec.Value)
	if err != nil {
		return err
	}
	value, err := r.reply.Decode(payload)
	if err != nil {
		return err
	}
	reply := value.(codec.Reply)
	if r.settle(string(rec.Key), reply) {
		if r.cfg.Answered != nil {
			r.cfg.Answered(reply)
		}
		<-r.slots
	}
	return nil
}

// settle counts a final answer. "unknown" is none (PROTOCOL W16): the command is sent again when
// its time is up.
func (r *run) settle(id string, reply codec.Reply) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	p, waiting := r.pending[id]
	if !waiting || reply.RequestID != id || reply.Outcome == OutcomeUnknown {
		return false
	}
	delete(r.pending, id)
	r.report.count(reply, p.attempts)
	return true
}

// pacer spaces sendings evenly.
type pacer struct {
	perSecond float64
	began     time.Time
	sent      int
	clock     func() time.Time
}

func (p *pacer) wait(ctx context.Context) error {
	if err := ctx.Err(); err != nil || p.perSecond <= 0 {
		return err
	}
	due := p.began.Add(time.Duration(float64(p.sent) / p.perSecond * float64(time.Second)))
	p.sent++
	left := due.Sub(p.clock())
	if left <= 0 {
		return nil
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
