package appender

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/foldstream/foldstream/pkg/event"
	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	// fenceEpoch is above every epoch that a coordinator hands out, so that a batch under it ends
	// its producer id for good (PROTOCOL W2).
	fenceEpoch = math.MaxInt16
	// transactionTimeout is asked for with the producer id. No transaction is ever begun.
	transactionTimeout = 10 * time.Second
	// concurrentWaitMin and concurrentWaitMax bound the wait before the coordinator is asked again
	// that is still at work for another contender.
	concurrentWaitMin = 2 * time.Millisecond
	concurrentWaitMax = 20 * time.Millisecond
)

// Claim implements API.
//
// With held, the former writer must be drained and closed first: what it still had under way would
// be refused once the claim stands. The caller compares the new writer's ClaimOffset with the
// former one's NextOffset (PROTOCOL W4). Errors wrap ErrFenced when somebody else owns the
// partition, ErrLost when the topic is not the one that was asked for or held is not known any
// more, ErrClosed when the appender is closed, else the cause; after any of them the caller holds
// nothing and may claim again.
func (a *Appender) Claim(ctx context.Context, p Partition, info ClaimInfo, last LastClaim, held *event.Claim) (*Writer, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(a.ctx, func() { cancel(ErrClosed) })
	defer stop()
	w, err := a.takeOver(ctx, p, info, last, held)
	switch {
	case err == nil:
		return w, nil
	case a.ctx.Err() != nil && !errors.Is(err, ErrClosed):
		err = fmt.Errorf("%w: %w", ErrClosed, err) // the client was closed under the request
	}
	return nil, fmt.Errorf("claiming %s: %w", p, err)
}

// takeOver is the order of a claim: identity, then everybody else's end, then the claim itself.
func (a *Appender) takeOver(ctx context.Context, p Partition, info ClaimInfo, last LastClaim, held *event.Claim) (*Writer, error) {
	if _, err := a.router.leaders.wait(ctx, p, time.Time{}, a.cfg.TopicGrace); err != nil {
		return nil, err
	}
	claim, err := a.initProducer(ctx, p, held)
	// A coordinator that forgot the transactional id may begin anew with an epoch that the log has
	// seen (an embedded broker does): from the last claim on, up.
	for err == nil && last.Known && claim.ProducerID == last.Claim.ProducerID && claim.Epoch <= last.Claim.Epoch {
		claim, err = a.initProducer(ctx, p, nil)
	}
	if err != nil {
		return nil, err
	}
	foreign, err := a.foreignProducers(ctx, p, claim, last, held)
	if err != nil {
		return nil, err
	}
	for _, producer := range foreign {
		if err := a.fence(ctx, p, info, producer); err != nil {
			return nil, err
		}
	}
	return a.writeClaim(ctx, p, info, claim)
}

// initProducer asks the coordinator of the transactional id for a producer id and its next epoch.
func (a *Appender) initProducer(ctx context.Context, p Partition, held *event.Claim) (event.Claim, error) {
	req := kmsg.NewPtrInitProducerIDRequest()
	req.TransactionalID = kmsg.StringPtr(p.TransactionalID)
	req.TransactionTimeoutMillis = int32(transactionTimeout.Milliseconds())
	req.ProducerID, req.ProducerEpoch = -1, -1
	if held != nil {
		req.ProducerID, req.ProducerEpoch = held.ProducerID, held.Epoch
	}
	for {
		resp, err := req.RequestWith(ctx, a.client)
		if err == nil {
			err = kerr.ErrorForCode(resp.ErrorCode)
		}
		switch {
		case err == nil:
			return event.Claim{ProducerID: resp.ProducerID, Epoch: resp.ProducerEpoch}, nil
		case ctx.Err() != nil:
			return event.Claim{}, fmt.Errorf("InitProducerID for %q: %w (last: %w)", p.TransactionalID, context.Cause(ctx), err)
		case errors.Is(err, kerr.ProducerFenced), errors.Is(err, kerr.InvalidProducerEpoch):
			return event.Claim{}, fmt.Errorf("%w: transactional id %q: %w", ErrFenced, p.TransactionalID, err)
		case errors.Is(err, kerr.InvalidProducerIDMapping):
			return event.Claim{}, fmt.Errorf("%w: transactional id %q: the producer id held is not known any more: %w", ErrLost, p.TransactionalID, err)
		case isAuthorization(err):
			return event.Claim{}, fmt.Errorf("%w; grant Write and Describe on transactional id %q", err, p.TransactionalID)
		case !errors.Is(err, kerr.ConcurrentTransactions):
			return event.Claim{}, fmt.Errorf("InitProducerID for %q: %w", p.TransactionalID, err)
		}
		if err := sleep(ctx, concurrentWaitMin+rand.N(concurrentWaitMax-concurrentWaitMin)); err != nil {
			return event.Claim{}, fmt.Errorf("InitProducerID for %q: %w", p.TransactionalID, err)
		}
	}
}

// foreignProducers returns the producer ids, other than the claim's, that may still write: that
// of the log's last claim, that held until now, and those that the leader knows (PROTOCOL W2).
func (a *Appender) foreignProducers(ctx context.Context, p Partition, claim event.Claim, last LastClaim, held *event.Claim) ([]int64, error) {
	var foreign []int64
	seen := map[int64]bool{claim.ProducerID: true, -1: true}
	add := func(producer int64) {
		if !seen[producer] {
			seen[producer] = true
			foreign = append(foreign, producer)
		}
	}
	if last.Known {
		add(last.Claim.ProducerID)
	}
	if held != nil {
		add(held.ProducerID)
	}
	active, err := a.describeProducers(ctx, p)
	if err != nil {
		return nil, err
	}
	for _, producer := range active {
		switch {
		case producer.ProducerEpoch != fenceEpoch:
			add(producer.ProducerID)
		case producer.ProducerID == claim.ProducerID:
			return nil, fmt.Errorf("%w: producer id %d of transactional id %q was fenced for good by the owner of another transactional id: let one program own the partition, and wait for producer.id.expiration.ms",
				ErrFenced, claim.ProducerID, p.TransactionalID)
		}
	}
	if len(foreign) > 0 {
		a.cfg.Logger.Info("fencing foreign producers", "partition", p.String(), "producers", foreign)
	}
	return foreign, nil
}

// describeProducers asks the leader who has written to the partition. A broker that cannot tell,
// or that does not let us ask, leaves the last claim as the only witness.
func (a *Appender) describeProducers(ctx context.Context, p Partition) ([]kmsg.DescribeProducersResponseTopicPartitionActiveProducer, error) {
	var after time.Time
	for {
		node, err := a.router.leaders.wait(ctx, p, after, a.cfg.TopicGrace)
		if err != nil {
			return nil, err
		}
		active, err := a.describeAt(ctx, node, p)
		switch {
		case err == nil:
			return active, nil
		case ctx.Err() != nil:
			return nil, fmt.Errorf("DescribeProducers: %w (last: %w)", context.Cause(ctx), err)
		case isAuthorization(err), errors.Is(err, kerr.UnsupportedVersion), !isKafkaError(err) && a.cannot(ctx, node, kmsg.DescribeProducers):
			a.cfg.Logger.Debug("DescribeProducers is not to be had, the last claim decides", "partition", p.String(), "cause", err)
			return nil, nil
		}
		after = time.Now()
		if err := sleep(ctx, a.cfg.MetadataInterval); err != nil {
			return nil, fmt.Errorf("DescribeProducers: %w", err)
		}
	}
}

func (a *Appender) describeAt(ctx context.Context, node int32, p Partition) ([]kmsg.DescribeProducersResponseTopicPartitionActiveProducer, error) {
	req := kmsg.NewPtrDescribeProducersRequest()
	rt := kmsg.NewDescribeProducersRequestTopic()
	rt.Topic = p.Topic
	rt.Partitions = []int32{p.Partition}
	req.Topics = append(req.Topics, rt)
	raw, err := a.client.Broker(int(node)).Request(ctx, req)
	if err != nil {
		return nil, err
	}
	for _, t := range raw.(*kmsg.DescribeProducersResponse).Topics {
		for _, tp := range t.Partitions {
			if t.Topic == p.Topic && tp.Partition == p.Partition {
				return tp.ActiveProducers, kerr.ErrorForCode(tp.ErrorCode)
			}
		}
	}
	return nil, errors.New("the broker's answer left the partition out")
}

// cannot says whether a broker answers that it does not know a kind of request.
func (a *Appender) cannot(ctx context.Context, node int32, key kmsg.Key) bool {
	req := kmsg.NewPtrApiVersionsRequest()
	req.ClientSoftwareName, req.ClientSoftwareVersion = "foldstream", "1"
	raw, err := a.client.Broker(int(node)).Request(ctx, req)
	if err != nil || raw.(*kmsg.ApiVersionsResponse).ErrorCode != 0 {
		return false
	}
	for _, known := range raw.(*kmsg.ApiVersionsResponse).ApiKeys {
		if known.ApiKey == int16(key) {
			return false
		}
	}
	return true
}

// fence ends a foreign producer id on the partition.
func (a *Appender) fence(ctx context.Context, p Partition, info ClaimInfo, producer int64) error {
	w := a.newWriter(p, info, event.Claim{ProducerID: producer, Epoch: fenceEpoch})
	record := controlRecord(event.ControlFence, info.Compacted, fmt.Sprintf("fs-control/fence/%d", producer))
	_, err := w.appendAlone(ctx, record)
	w.Close()
	// Both codes say that the id was ended before: nothing but a fence stands under this epoch.
	if err == nil || errors.Is(err, kerr.OutOfOrderSequenceNumber) || errors.Is(err, kerr.DuplicateSequenceNumber) {
		return nil
	}
	return fmt.Errorf("fencing producer %d: %w", producer, err)
}

// writeClaim appends the claim, alone, and returns the writer behind it (PROTOCOL W1).
func (a *Appender) writeClaim(ctx context.Context, p Partition, info ClaimInfo, claim event.Claim) (*Writer, error) {
	w := a.newWriter(p, info, claim)
	offset, err := w.appendAlone(ctx, claimRecord(p, info, a.cfg.Clock()))
	if err != nil {
		w.Close()
		return nil, fmt.Errorf("claim under producer %d epoch %d: %w", claim.ProducerID, claim.Epoch, err)
	}
	w.mu.Lock()
	w.claimOffset, w.graceUntil, w.claimed = offset, time.Time{}, true
	w.mu.Unlock()
	return w, nil
}

func (a *Appender) newWriter(p Partition, info ClaimInfo, claim event.Claim) *Writer {
	return &Writer{
		a: a, p: p, claim: claim, compacted: info.Compacted, nextOffset: -1,
		graceUntil: time.Now().Add(a.cfg.TopicGrace), dead: make(chan struct{}),
	}
}

// appendAlone writes one record and waits for its fate.
func (w *Writer) appendAlone(ctx context.Context, record Record) (offset int64, err error) {
	if !w.a.enlist(w) {
		return -1, ErrClosed
	}
	fate := make(chan Result, 1)
	w.Append([]Record{record}, func(r Result) { fate <- r })
	w.Flush()
	select {
	case r := <-fate:
		return r.Offset, r.Err
	case <-ctx.Done():
		w.Close()
		if failure := w.failure.Load(); failure != nil {
			return -1, fmt.Errorf("%w (last: %s)", context.Cause(ctx), *failure)
		}
		return -1, context.Cause(ctx)
	}
}

func claimRecord(p Partition, info ClaimInfo, now time.Time) Record {
	r := controlRecord(event.ControlClaim, info.Compacted, "fs-control/claim/"+uuid.NewString())
	r.Time = now
	r.Headers = append(r.Headers,
		text(event.HeaderGroup, info.Group),
		text(event.HeaderInstance, info.Instance),
		text(event.HeaderCommandsTopicID, event.FormatTopicID(info.CommandsTopicID)),
		text(event.HeaderEventsTopicID, event.FormatTopicID(p.TopicID)),
		text(event.HeaderLastEventID, info.LastEventID),
		text(event.HeaderControlTime, event.FormatTime(now)),
	)
	return r
}

func (w *Writer) keepalive() Record {
	return controlRecord(event.ControlKeepalive, w.compacted, fmt.Sprintf("fs-control/keepalive/%d", w.claim.ProducerID))
}

// controlRecord has headers only; on a compacted topic, which refuses records without a key and
// takes those without a value for tombstones, it has both.
func controlRecord(control string, compacted bool, key string) Record {
	r := Record{Headers: []event.Header{text(event.HeaderControl, control)}}
	if compacted {
		r.Key, r.Value = []byte(key), []byte(control)
	}
	return r
}

func text(key, value string) event.Header { return event.Header{Key: key, Value: []byte(value)} }
