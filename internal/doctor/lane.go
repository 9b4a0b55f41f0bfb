package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/foldstream/foldstream/pkg/event"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// lane is one partition of the scratch topic with a transactional id of its own, and what the
// broker acknowledged there.
type lane struct {
	x         *exam
	partition int32
	txn       string

	end    int64 // where the next batch must stand
	acked  []stored
	astray []string // acknowledgements at another offset
}

// answer is the broker's to a batch.
type answer struct {
	offset  int64
	stamp   time.Time // set where the broker stamps
	version int16     // of the request that was understood
}

// produceTimeout is the broker's time for one batch.
const produceTimeout = 4 * time.Second

// errNoLeader is retried: a topic that was just created has none yet.
var errNoLeader = errors.New("the partition has no leader")

// initProducer asks for a producer id, as a new owner, or with held as a living one.
func (l *lane) initProducer(ctx context.Context, held *event.Claim) (event.Claim, error) {
	req := kmsg.NewPtrInitProducerIDRequest()
	req.TransactionalID = &l.txn
	req.TransactionTimeoutMillis = 10_000
	req.ProducerID, req.ProducerEpoch = -1, -1
	if held != nil {
		req.ProducerID, req.ProducerEpoch = held.ProducerID, held.Epoch
	}
	for {
		resp, err := req.RequestWith(ctx, l.x.client)
		if err == nil {
			err = kerr.ErrorForCode(resp.ErrorCode)
		}
		switch {
		case err == nil:
			return event.Claim{ProducerID: resp.ProducerID, Epoch: resp.ProducerEpoch}, nil
		case !errors.Is(err, kerr.ConcurrentTransactions) && !again(err):
			return event.Claim{}, fmt.Errorf("InitProducerID: %w", err)
		}
		if stopped := pause(ctx); stopped != nil {
			return event.Claim{}, fmt.Errorf("InitProducerID: %w (last: %w)", stopped, err)
		}
	}
}

// put sends a batch and notes the acknowledgement.
func (l *lane) put(ctx context.Context, claim event.Claim, seq int32, values ...string) (answer, error) {
	return l.putBatch(ctx, batch{claim: claim, seq: seq, values: values, stamp: l.x.cfg.Clock()})
}

func (l *lane) putBatch(ctx context.Context, b batch) (answer, error) {
	a, err := l.send(ctx, b)
	if err == nil {
		l.note(b, a)
	}
	return a, err
}

// note keeps what was acknowledged, and follows the broker where it went another way.
func (l *lane) note(b batch, a answer) {
	s := stored{base: a.offset, claim: b.claim, seq: b.seq, records: int32(len(b.values))}
	if a.offset != l.end {
		l.astray = append(l.astray, fmt.Sprintf("%s, expected at %d", s, l.end))
	}
	l.acked = append(l.acked, s)
	l.end = a.offset + int64(len(b.values))
}

// send sends a batch until there is an answer that settles it: the same bytes each time, so that
// one that was stored is not stored again. An expected code settles it, too.
func (l *lane) send(ctx context.Context, b batch, expected ...*kerr.Error) (answer, error) {
	raw := b.encode()
	for {
		a, err := l.attempt(ctx, l.x.scratch.name, l.x.scratch.id, raw)
		if err == nil || isOneOf(err, expected) || !again(err) {
			return a, err
		}
		if stopped := pause(ctx); stopped != nil {
			return a, fmt.Errorf("%w (last: %w)", stopped, err)
		}
	}
}

func isOneOf(err error, codes []*kerr.Error) bool {
	return slices.ContainsFunc(codes, func(code *kerr.Error) bool { return errors.Is(err, code) })
}

// attempt sends a batch once, to a topic that need not be the one whose leader it goes to.
func (l *lane) attempt(ctx context.Context, topic string, id [16]byte, raw []byte) (answer, error) {
	leader, err := l.leader(ctx)
	if err != nil {
		return answer{offset: -1}, err
	}
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis = -1, int32(produceTimeout.Milliseconds())
	rt := kmsg.NewProduceRequestTopic()
	rt.Topic, rt.TopicID = topic, id
	rp := kmsg.NewProduceRequestTopicPartition()
	rp.Partition, rp.Records = l.partition, raw
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	resp, err := leader.Request(ctx, req)
	if err != nil {
		return answer{offset: -1}, err
	}
	return readAnswer(resp.(*kmsg.ProduceResponse))
}

func readAnswer(resp *kmsg.ProduceResponse) (answer, error) {
	a := answer{offset: -1, version: resp.Version}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return a, errors.New("the broker's answer left the partition out")
	}
	p := resp.Topics[0].Partitions[0]
	if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
		return a, err
	}
	a.offset = p.BaseOffset
	if p.LogAppendTime >= 0 {
		a.stamp = time.UnixMilli(p.LogAppendTime)
	}
	return a, nil
}

// leader looks the partition's leader up; a client that remembers could ask the former one.
func (l *lane) leader(ctx context.Context) (*kgo.Broker, error) {
	req := kmsg.NewPtrMetadataRequest()
	rt := kmsg.NewMetadataRequestTopic()
	rt.Topic = &l.x.scratch.name
	req.Topics = append(req.Topics, rt)
	resp, err := req.RequestWith(ctx, l.x.client)
	if err != nil {
		return nil, fmt.Errorf("look for the leader: %w", err)
	}
	for _, t := range resp.Topics {
		if err := kerr.ErrorForCode(t.ErrorCode); err != nil {
			return nil, fmt.Errorf("look for the leader: %w", err)
		}
		for _, p := range t.Partitions {
			if p.Partition == l.partition && p.Leader >= 0 {
				return l.x.client.Broker(int(p.Leader)), nil
			}
		}
	}
	return nil, errNoLeader
}

// read returns the batches from the lane's begin to at least the offset, or to as far as the log
// goes when the context ends.
func (l *lane) read(ctx context.Context, to int64) ([]stored, error) {
	var all []stored
	next := int64(0)
	for quiet := 0; ; {
		some, err := l.fetch(ctx, next)
		if err != nil {
			if stopped := pause(ctx); stopped != nil || !again(err) {
				return all, errors.Join(err, stopped)
			}
			continue
		}
		if len(some) == 0 {
			quiet++
		}
		if len(some) == 0 && (next >= to || quiet >= quietMax) {
			return all, nil
		}
		for _, s := range some {
			if s.base >= next {
				all, next = append(all, s), s.base+int64(s.records)
			}
		}
	}
}

// quietMax is how many empty answers are an end that comes too early: what is acknowledged by all
// replicas can be read at once.
const quietMax = 3

// fetchWait is how long the broker may hold back an answer that has nothing in it.
const (
	fetchWait     = 200 * time.Millisecond
	fetchBytesMax = 8 << 20
)

func (l *lane) fetch(ctx context.Context, offset int64) ([]stored, error) {
	leader, err := l.leader(ctx)
	if err != nil {
		return nil, err
	}
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes = int32(fetchWait.Milliseconds()), 1, fetchBytesMax
	rt := kmsg.NewFetchRequestTopic()
	rt.Topic, rt.TopicID = l.x.scratch.name, l.x.scratch.id
	rp := kmsg.NewFetchRequestTopicPartition()
	rp.Partition, rp.FetchOffset, rp.PartitionMaxBytes = l.partition, offset, fetchBytesMax
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	raw, err := leader.Request(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("fetch: %w", err)
	}
	resp := raw.(*kmsg.FetchResponse)
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return nil, fmt.Errorf("fetch: %w", err)
	}
	for _, t := range resp.Topics {
		if len(t.Partitions) == 0 {
			continue
		}
		p := &t.Partitions[0]
		if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
			return nil, fmt.Errorf("fetch: %w", err)
		}
		return parse(p.RecordBatches)
	}
	return nil, nil
}

// logEnd asks the broker where the partition ends.
func (l *lane) logEnd(ctx context.Context) (int64, error) {
	for {
		ends, err := l.x.adm.ListEndOffsets(ctx, l.x.scratch.name)
		if err == nil {
			err = ends.Error()
		}
		if o, there := ends.Lookup(l.x.scratch.name, l.partition); err == nil && there {
			return o.Offset, nil
		}
		if err != nil && !again(err) {
			return -1, fmt.Errorf("ask for the end offset: %w", err)
		}
		if stopped := pause(ctx); stopped != nil {
			return -1, fmt.Errorf("ask for the end offset: %w (last: %w)", stopped, err)
		}
	}
}
