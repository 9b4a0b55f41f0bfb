package gateway

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/foldstream/foldstream/internal/engine"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

func drawInstance() (id [8]byte) {
	binary.BigEndian.PutUint64(id[:], rand.Uint64())
	return id
}

// record takes the slow path: through the commands topic.
func (c *call) record() (engine.Outcome, error) {
	g := c.gateway
	p, ok := g.pending.add(g.nextKey(), len(c.request.Value))
	if !ok && g.pending.isClosed() {
		return unknown("this instance stops: ask another with the same id"), nil
	}
	if !ok && c.sendings > 0 {
		return unknown("too many requests wait here, and an earlier sending may have been stored: ask again with the same id"), nil
	}
	if !ok {
		return engine.Outcome{}, fmt.Errorf("%w for an answer from another instance", ErrOverloaded)
	}
	defer g.pending.remove(p)
	for attempt := 1; ; attempt++ {
		c.send(p, attempt)
		outcome, final := c.await(p, attempt)
		if final && !c.forgoes(outcome) {
			return outcome, nil
		}
		g.metrics.repeated.Inc()
	}
}

// nextKey is a reply key that no other call has.
func (g *Gateway) nextKey() string {
	var key [16]byte
	copy(key[:], g.instance[:])
	binary.BigEndian.PutUint64(key[8:], g.sequence.Add(1))
	return string(key[:])
}

// send hands one sending to the producer, which does not wait. What fails is told to p.
func (c *call) send(p *pending, attempt int) {
	g := c.gateway
	key := []byte(c.request.StreamID)
	record := &kgo.Record{
		Topic:     topics.Commands(g.cfg.Namespace, c.request.Category),
		Partition: topics.Partition(key, g.partitions[c.request.Category]),
		Key:       key, Value: c.request.Value, Headers: c.headers(p.key, attempt),
	}
	g.producer.TryProduce(c.ctx, record, func(_ *kgo.Record, err error) {
		if err != nil {
			p.fail(attempt, err)
		}
	})
}

// headers are those of docs/wire-format.md, "Requests".
func (c *call) headers(replyKey string, attempt int) []event.Header {
	r := &c.request.Request
	headers := make([]event.Header, 0, 14+len(r.Extra))
	add := func(name string, value string) {
		if value != "" {
			headers = append(headers, event.Header{Key: name, Value: []byte(value)})
		}
	}
	add(event.HeaderID, r.ID)
	add(event.HeaderType, r.Type)
	headers = append(headers, event.Header{Key: event.HeaderSource, Value: c.gateway.source},
		event.Header{Key: event.HeaderReplyTo, Value: c.gateway.replyTo})
	add(event.HeaderSpecVersion, event.SpecVersion)
	add(event.HeaderContentType, event.ContentTypeAvro)
	add(event.HeaderTime, event.FormatTime(r.Time))
	if r.Expected != event.ExpectedAny {
		add(event.HeaderExpectedVersion, r.Expected.String())
	}
	if !r.DedupeUntil.IsZero() {
		add(event.HeaderDedupeUntil, event.FormatTime(r.DedupeUntil))
	}
	add(event.HeaderCompensates, r.Compensates)
	add(event.HeaderCorrelationID, r.CorrelationID)
	add(event.HeaderCausationID, r.CausationID)
	add(event.HeaderUserID, r.UserID)
	add(event.HeaderTraceparent, r.Traceparent)
	add(event.HeaderReplyKey, replyKey)
	add(event.HeaderAttempt, strconv.Itoa(attempt))
	return append(headers, r.Extra...)
}

// await waits for what one sending, or an earlier one, comes to; not final: send it again.
func (c *call) await(p *pending, attempt int) (engine.Outcome, bool) {
	g := c.gateway
	var due <-chan time.Time
	mayRepeat := c.again && attempt < g.cfg.SendingsMax
	if mayRepeat {
		timer := time.NewTimer(g.cfg.AnswerTimeout << min(attempt-1, 16))
		defer timer.Stop()
		due = timer.C
	}
	for {
		select {
		case reply := <-p.answers:
			switch c.judge(reply, attempt) {
			case verdictFinal:
				return outcomeOf(reply), true
			case verdictRepeat:
				if !mayRepeat || !sleep(c.ctx, pauseFirst<<min(attempt, 5)) {
					return outcomeOf(reply), true
				}
				return engine.Outcome{}, false
			}
		case failure := <-p.failures:
			if errors.Is(failure.err, kerr.MessageTooLarge) {
				return engine.Outcome{
					Kind: engine.OutcomeInvalid, Code: engine.CodeTooLarge, Offset: -1, Partition: -1,
					Message: "the request does not fit one record of its commands topic: send smaller payloads or fewer events at once",
				}, true
			}
			g.cfg.Logger.Warn("a request could not be recorded", "category", c.request.Category, "attempt", failure.attempt, "err", failure.err)
			if failure.attempt == attempt && mayRepeat && sleep(c.ctx, pauseFirst<<min(attempt, 5)) {
				return engine.Outcome{}, false
			}
			if failure.attempt == attempt && !mayRepeat {
				return unknown("it could not be recorded for certain: ask again with the same id"), true
			}
		case <-due:
			return engine.Outcome{}, false
		case <-g.pending.closed:
			return unknown("this instance stops before the answer came: ask again with the same id"), true
		case <-c.ctx.Done():
			return unknown("no answer came in time: ask again with the same id; when it stays, is ingest running, and who owns the partition?"), true
		}
	}
}

type verdict uint8

const (
	verdictIgnore verdict = iota
	verdictFinal
	verdictRepeat
)

// judge says what a reply means: see the package's doc, "Sent again".
func (c *call) judge(reply codec.Reply, attempt int) verdict {
	last := reply.Attempt == strconv.Itoa(attempt)
	switch engine.OutcomeKind(reply.Outcome) {
	case engine.OutcomeUnknown:
		if last {
			return verdictRepeat
		}
		return verdictIgnore
	case engine.OutcomeDuplicate:
		return verdictFinal
	case engine.OutcomeAccepted:
		if reply.LastVersion > 0 || last {
			return verdictFinal
		}
		return verdictIgnore
	}
	if last {
		return verdictFinal
	}
	return verdictIgnore
}

func outcomeOf(r codec.Reply) engine.Outcome {
	return engine.Outcome{
		Kind: engine.OutcomeKind(r.Outcome), First: event.Version(r.FirstVersion), Last: event.Version(r.LastVersion),
		Actual: event.Version(r.ActualVersion), Partition: r.Partition, Offset: r.Offset,
		Code: r.Code, Message: r.Message, Errors: r.Errors,
	}
}
