package streams

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// logClient asks the leaders of partitions for offsets and records, by single requests over the
// connections of one client: a consumer would open a session for each of the many short reads.
// Safe for concurrent use.
type logClient struct {
	client     *kgo.Client
	decompress kgo.Decompressor
	ageMax     time.Duration

	mu     sync.Mutex
	topics map[string]*topicLeaders
}

// topicLeaders is what is known of a topic. busy is held while metadata is fetched.
type topicLeaders struct {
	busy chan struct{}

	mu    sync.Mutex
	known topicMeta
}

// topicMeta is a topic's id and the leader of each partition; -1 for none.
type topicMeta struct {
	id      [16]byte
	leaders []int32
	asked   time.Time
}

// The two offsets that ListOffsets knows by a name.
const (
	offsetStart int64 = -2
	offsetEnd   int64 = -1
)

const (
	fetchBytesMax  = 8 << 20
	fetchWait      = 500 * time.Millisecond // for a follower's high watermark; there are records below it
	requestTimeout = 5 * time.Second
	readTimeout    = 15 * time.Second // of all that one read asks Kafka
	retryPauseMin  = 10 * time.Millisecond
	retryPauseMax  = 250 * time.Millisecond
)

func newLogClient(opts []kgo.Opt, ageMax time.Duration) (*logClient, error) {
	client, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, fmt.Errorf("streams: make a Kafka client: %w", err)
	}
	return &logClient{client: client, decompress: kgo.DefaultDecompressor(), ageMax: ageMax, topics: map[string]*topicLeaders{}}, nil
}

func (l *logClient) close() { l.client.Close() }

// meta returns what is known of a topic, asked at notBefore or later.
func (l *logClient) meta(ctx context.Context, topic string, notBefore time.Time) (topicMeta, error) {
	if oldest := time.Now().Add(-l.ageMax); oldest.After(notBefore) {
		notBefore = oldest
	}
	t := l.leadersOf(topic)
	if known := t.get(); known.asked.After(notBefore) {
		return known, nil
	}
	select {
	case t.busy <- struct{}{}:
		defer func() { <-t.busy }()
	case <-ctx.Done():
		return topicMeta{}, ctx.Err()
	}
	if known := t.get(); known.asked.After(notBefore) {
		return known, nil // somebody else asked meanwhile
	}
	known, err := l.askMeta(ctx, topic)
	if err == nil {
		t.set(known)
	}
	return known, err
}

func (l *logClient) leadersOf(topic string) *topicLeaders {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.topics[topic]
	if t == nil {
		t = &topicLeaders{busy: make(chan struct{}, 1)}
		l.topics[topic] = t
	}
	return t
}

func (t *topicLeaders) get() topicMeta {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.known
}

func (t *topicLeaders) set(known topicMeta) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.known = known
}

func (l *logClient) askMeta(ctx context.Context, topic string) (topicMeta, error) {
	known := topicMeta{asked: time.Now()}
	req := kmsg.NewPtrMetadataRequest()
	asked := kmsg.NewMetadataRequestTopic()
	asked.Topic = kmsg.StringPtr(topic)
	req.Topics = append(req.Topics, asked)
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	resp, err := req.RequestWith(ctx, l.client)
	if err != nil {
		return known, fmt.Errorf("ask for the leaders of %s: %w", topic, err)
	}
	if len(resp.Topics) != 1 {
		return known, fmt.Errorf("ask for the leaders of %s: the answer names %d topics", topic, len(resp.Topics))
	}
	t := resp.Topics[0]
	if err := kerr.ErrorForCode(t.ErrorCode); err != nil {
		return known, &topicError{topic: topic, err: err}
	}
	known.id, known.leaders = t.TopicID, make([]int32, len(t.Partitions))
	for i := range known.leaders {
		known.leaders[i] = -1
	}
	for _, p := range t.Partitions {
		if int(p.Partition) < len(known.leaders) && p.ErrorCode == 0 {
			known.leaders[p.Partition] = p.Leader
		}
	}
	return known, nil
}

// topicError is the cluster's word on a topic. Of one that is not there it is final: a leader that
// moves makes a broker say so, the metadata never.
type topicError struct {
	topic string
	err   error
}

func (e *topicError) Error() string {
	if errors.Is(e.err, kerr.UnknownTopicOrPartition) {
		return fmt.Sprintf("topic %s does not exist: create the project's topics (foldstream topics apply)", e.topic)
	}
	return fmt.Sprintf("topic %s: %v", e.topic, e.err)
}

func (e *topicError) Unwrap() error { return e.err }

// place is one partition of a topic.
type place struct {
	topic     string
	partition int32
}

func (p place) String() string { return fmt.Sprintf("%s[%d]", p.topic, p.partition) }

// atLeader has ask sent to the leader of a partition, and again, with newer metadata, while the
// cause of a failure may pass.
func (l *logClient) atLeader(ctx context.Context, p place, ask func(context.Context, topicMeta, *kgo.Broker) error) error {
	var notBefore time.Time
	pause := retryPauseMin
	for {
		err := l.askLeader(ctx, p, notBefore, ask)
		if err == nil || ctx.Err() != nil || !mayPass(err) {
			return err
		}
		notBefore = time.Now()
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w (%w)", err, context.Cause(ctx))
		case <-time.After(pause):
			pause = min(2*pause, retryPauseMax)
		}
	}
}

func (l *logClient) askLeader(ctx context.Context, p place, notBefore time.Time, ask func(context.Context, topicMeta, *kgo.Broker) error) error {
	meta, err := l.meta(ctx, p.topic, notBefore)
	if err != nil {
		return err
	}
	if int(p.partition) >= len(meta.leaders) || meta.leaders[p.partition] < 0 {
		return fmt.Errorf("%s: %w", p, kerr.LeaderNotAvailable)
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return ask(ctx, meta, l.client.Broker(int(meta.leaders[p.partition])))
}

// mayPass tells what newer metadata or another try can mend.
func mayPass(err error) bool {
	var network net.Error
	var missing *topicError
	if errors.As(err, &missing) && errors.Is(err, kerr.UnknownTopicOrPartition) {
		return false
	}
	return kerr.IsRetriable(err) || errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, net.ErrClosed) || kgo.IsRetryableBrokerErr(err) ||
		errors.Is(err, context.DeadlineExceeded) // of the one request; the caller's own ends the loop
}

// offset asks for the first offset whose stamp is at or behind a time (milliseconds since 1970),
// for offsetStart or for offsetEnd, which is the high watermark. A time behind every stamp answers
// the end.
func (l *logClient) offset(ctx context.Context, p place, timestamp int64) (int64, error) {
	var offset int64
	err := l.atLeader(ctx, p, func(ctx context.Context, _ topicMeta, leader *kgo.Broker) error {
		req := kmsg.NewPtrListOffsetsRequest()
		req.ReplicaID = -1
		topic, part := kmsg.NewListOffsetsRequestTopic(), kmsg.NewListOffsetsRequestTopicPartition()
		part.Partition, part.Timestamp, part.CurrentLeaderEpoch = p.partition, timestamp, -1
		topic.Topic, topic.Partitions = p.topic, append(topic.Partitions, part)
		req.Topics = append(req.Topics, topic)
		raw, err := leader.Request(ctx, req)
		if err != nil {
			return err
		}
		resp := raw.(*kmsg.ListOffsetsResponse)
		if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
			return errors.New("the answer does not name the partition")
		}
		answer := resp.Topics[0].Partitions[0]
		offset = answer.Offset
		return kerr.ErrorForCode(answer.ErrorCode)
	})
	if err != nil {
		return 0, fmt.Errorf("ask for an offset of %s: %w", p, err)
	}
	if offset < 0 {
		return l.offset(ctx, p, offsetEnd) // nothing is stamped so late
	}
	return offset, nil
}

// fetched is what one fetch brought: records from the offset asked for on, and the offset behind
// all that it covered.
type fetched struct {
	records []*kgo.Record
	next    int64
	topicID [16]byte
}

// fetch reads records from an offset that must lie below the high watermark.
func (l *logClient) fetch(ctx context.Context, p place, from int64, bytesMax int32) (fetched, error) {
	var out fetched
	err := l.atLeader(ctx, p, func(ctx context.Context, meta topicMeta, leader *kgo.Broker) error {
		raw, err := leader.Request(ctx, fetchRequest(p, meta.id, from, bytesMax))
		if err != nil {
			return err
		}
		resp := raw.(*kmsg.FetchResponse)
		if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
			return err
		}
		if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
			return errors.New("the answer does not name the partition")
		}
		opts := kgo.ProcessFetchPartitionOpts{Topic: p.topic, Partition: p.partition, Offset: from}
		part, next := kgo.ProcessFetchPartition(opts, &resp.Topics[0].Partitions[0], l.decompress, nil)
		out = fetched{records: part.Records, next: next, topicID: meta.id}
		return part.Err
	})
	if err != nil {
		return fetched{}, fmt.Errorf("read %s from offset %d: %w", p, from, err)
	}
	return out, nil
}

func fetchRequest(p place, topicID [16]byte, from int64, bytesMax int32) *kmsg.FetchRequest {
	req := kmsg.NewPtrFetchRequest()
	req.ReplicaID, req.MaxWaitMillis, req.MinBytes = -1, int32(fetchWait.Milliseconds()), 1
	req.MaxBytes, req.SessionEpoch = bytesMax, -1
	topic, part := kmsg.NewFetchRequestTopic(), kmsg.NewFetchRequestTopicPartition()
	part.Partition, part.FetchOffset, part.PartitionMaxBytes = p.partition, from, bytesMax
	part.CurrentLeaderEpoch, part.LastFetchedEpoch, part.LogStartOffset = -1, -1, -1
	topic.Topic, topic.TopicID, topic.Partitions = p.topic, topicID, append(topic.Partitions, part)
	req.Topics = append(req.Topics, topic)
	return req
}
