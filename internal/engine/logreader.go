package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// logReader reads bounded pieces of partitions for owners that take over. One direct client
// serves them all, since a group client cannot read what its group does not assign.
// Safe for concurrent use.
type logReader struct {
	client *kgo.Client
	mu     sync.Mutex
	reads  map[topicPartition]*logRead
}

type topicPartition struct {
	topic     string
	partition int32
}

// logRead is one piece under way.
type logRead struct {
	from    int64
	records chan []*kgo.Record
	failed  chan error
	ctx     context.Context
}

// How long a fetch waits at the broker for more than there is. A client has one fetch at a time under
// way, so that a read which begins waits for the one that found nothing.
const logReadWaitMax = 10 * time.Millisecond

// Fetches that may wait for a slow reader before the others wait with it.
const logReadFetchesMax = 4

func newLogReader(opts []kgo.Opt) (*logReader, error) {
	opts = append(append([]kgo.Opt{}, opts...),
		kgo.ConsumeResetOffset(kgo.NoResetOffset().AtStart()),
		kgo.KeepControlRecords(), // a foreign transaction's marker may be the last offset of a piece
		kgo.FetchMaxWait(logReadWaitMax), kgo.FetchMaxBytes(fetchBytesMax), kgo.FetchMaxPartitionBytes(fetchPartitionBytesMax),
	)
	client, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, fmt.Errorf("log reader: %w", err)
	}
	return &logReader{client: client, reads: map[topicPartition]*logRead{}}, nil
}

// run hands fetches to their readers until ctx ends.
func (r *logReader) run(ctx context.Context) {
	for {
		fetches := r.client.PollFetches(ctx)
		if ctx.Err() != nil || fetches.IsClientClosed() {
			return
		}
		fetches.EachError(func(topic string, partition int32, err error) {
			r.deliver(topicPartition{topic, partition}, nil, err)
		})
		fetches.EachPartition(func(p kgo.FetchTopicPartition) {
			if len(p.Records) > 0 {
				r.deliver(topicPartition{p.Topic, p.Partition}, p.Records, nil)
			}
		})
	}
}

func (r *logReader) deliver(tp topicPartition, records []*kgo.Record, err error) {
	r.mu.Lock()
	read := r.reads[tp]
	r.mu.Unlock()
	if read == nil {
		return
	}
	if err != nil {
		select {
		case read.failed <- err:
		default:
		}
		return
	}
	select {
	case read.records <- records:
	case <-read.ctx.Done():
	}
}

// read calls visit for every record of a partition from offset from through offset through,
// which must exist or be followed by one that does. One read per partition at a time. Offsets must
// follow each other, as they do in topics that are not compacted: what jumps ahead is left over
// from an earlier read, whose last fetch was delivered late:
//
//	read 1 of [0..50] gets 0..60 and ends; 61..100 is fetched, but waits behind a slow partition
//	the owner claims and begins read 2 of [51..101]
//	61..100 is delivered to read 2: without this check 51..60 would never be seen
func (r *logReader) read(ctx context.Context, tp topicPartition, from, through int64, visit func(*kgo.Record) error) error {
	return r.readPiece(ctx, tp, from, through, false, visit)
}

// readCompacted is read for a compacted topic, whose offsets have gaps. Nobody may have read the
// partition before.
func (r *logReader) readCompacted(ctx context.Context, tp topicPartition, from, through int64, visit func(*kgo.Record) error) error {
	return r.readPiece(ctx, tp, from, through, true, visit)
}

func (r *logReader) readPiece(ctx context.Context, tp topicPartition, from, through int64, gaps bool, visit func(*kgo.Record) error) error {
	if from > through {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	next := from
	read := &logRead{from: from, records: make(chan []*kgo.Record, logReadFetchesMax), failed: make(chan error, 1), ctx: ctx}
	r.mu.Lock()
	if r.reads[tp] != nil {
		r.mu.Unlock()
		return fmt.Errorf("%s[%d] is being read already", tp.topic, tp.partition)
	}
	r.reads[tp] = read
	r.mu.Unlock()
	r.client.AddConsumePartitions(map[string]map[int32]kgo.Offset{tp.topic: {tp.partition: kgo.NewOffset().At(from)}})
	defer func() {
		r.client.RemoveConsumePartitions(map[string][]int32{tp.topic: {tp.partition}})
		r.mu.Lock()
		delete(r.reads, tp)
		r.mu.Unlock()
	}()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-read.failed:
			return fmt.Errorf("reading %s[%d] from offset %d: %w", tp.topic, tp.partition, from, err)
		case records := <-read.records:
			if len(records) > 0 && records[0].Offset > next && !gaps {
				continue // left over from an earlier read of this partition; ours is still to come
			}
			for _, rec := range records {
				if rec.Offset < next {
					continue // left over likewise, or its compressed batch begins earlier
				}
				next = rec.Offset + 1
				if rec.Offset > through {
					return nil
				}
				if !rec.Attrs.IsControl() {
					if err := visit(rec); err != nil {
						return err
					}
				}
				if rec.Offset == through {
					return nil
				}
			}
		}
	}
}

func (r *logReader) close() { r.client.Close() }

// errStopped ends an owner that is told to stop.
var errStopped = errors.New("owner stopped")
