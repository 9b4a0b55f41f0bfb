package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/twmb/franz-go/pkg/kgo"
)

// load is a client that keeps a fixed number of commands in flight: each reply sends the next.
// One load serves either system, through topics of the same names in another namespace.
type load struct {
	ns       string
	producer *kgo.Client
	consumer *kgo.Client
	value    []byte
	streams  int64        // over which the commands are spread; set between runs
	next     atomic.Int64 // the number of the next command, never used twice
	base     atomic.Int64 // the first command of the measurement under way
	sentAt   []atomic.Int64
	latency  []atomic.Int64
	done     atomic.Int64
	inFlight chan struct{}
	began    time.Time

	// A run may begin with a time that does not count; counting is told when it is over, and when
	// the run is, before the last replies are waited for.
	warmUp   time.Duration
	counting func(begins bool)
}

const (
	loadStreams     = 10_000
	loadCommandsMax = 4_000_000 // of one measurement
)

func newLoad(b *bench, ns string, value []byte) (*load, error) {
	l := &load{ns: ns, value: value, streams: loadStreams, sentAt: make([]atomic.Int64, loadCommandsMax), latency: make([]atomic.Int64, loadCommandsMax), began: time.Now()}
	var err error
	if l.producer, err = kgo.NewClient(b.opts(kgo.ProducerLinger(0), kgo.MaxBufferedRecords(100_000), kgo.ProducerBatchCompression(kgo.NoCompression()))...); err != nil {
		return nil, err
	}
	from, err := b.fromEnd(topics.Replies(ns))
	if err != nil {
		return nil, err
	}
	if l.consumer, err = kgo.NewClient(b.opts(kgo.ConsumePartitions(from))...); err != nil {
		return nil, err
	}
	go l.readReplies()
	return l, nil
}

func (l *load) close() {
	l.consumer.Close()
	l.producer.Close()
}

func (l *load) readReplies() {
	for {
		fetches := l.consumer.PollFetches(context.Background())
		if fetches.IsClientClosed() {
			return
		}
		now := time.Since(l.began).Nanoseconds()
		fetches.EachRecord(func(rec *kgo.Record) {
			id, _ := event.HeaderValue(rec.Headers, event.HeaderCausationID)
			n, err := strconv.ParseInt(string(id), 10, 64)
			if err != nil {
				return
			}
			i := n - l.base.Load()
			if i < 0 || i >= loadCommandsMax {
				return
			}
			if l.latency[i].CompareAndSwap(0, now-l.sentAt[i].Load()) {
				l.done.Add(1)
				<-l.inFlight
			}
		})
	}
}

// run keeps inFlight commands under way for a while and reports what was answered in that time.
func (l *load) run(ctx context.Context, inFlight int, duration time.Duration) (count int, perS, p50, p99 float64, err error) {
	l.inFlight = make(chan struct{}, inFlight)
	l.base.Store(l.next.Load())
	l.done.Store(0)
	for i := range min(l.next.Load()+1, loadCommandsMax) {
		l.latency[i].Store(0)
	}
	l.keepUp(ctx, l.warmUp)
	if l.counting != nil {
		l.counting(true)
	}
	began, first, before := time.Now(), l.next.Load()-l.base.Load(), l.done.Load()
	l.keepUp(ctx, duration)
	answered, took := l.done.Load()-before, time.Since(began)
	if l.counting != nil {
		l.counting(false)
	}
	if err := l.drain(inFlight); err != nil {
		return 0, 0, 0, 0, err
	}
	latencies := make([]int64, 0, l.next.Load()-l.base.Load()-first)
	for i := first; i < l.next.Load()-l.base.Load(); i++ {
		latencies = append(latencies, l.latency[i].Load())
	}
	slices.Sort(latencies)
	at := func(q float64) float64 { return float64(latencies[int(q*float64(len(latencies)-1))]) / 1e6 }
	return int(answered), float64(answered) / took.Seconds(), at(0.5), at(0.99), nil
}

// keepUp sends whenever there is room.
func (l *load) keepUp(ctx context.Context, duration time.Duration) {
	for began := time.Now(); time.Since(began) < duration; {
		l.inFlight <- struct{}{}
		l.send(ctx)
	}
}

func (l *load) send(ctx context.Context) {
	n := l.next.Add(1) - 1
	i := n - l.base.Load()
	if i >= loadCommandsMax {
		panic("bench: more commands than the measurement has room for")
	}
	key := "stream-" + strconv.FormatInt(n*7919%l.streams, 10)
	rec := &kgo.Record{
		Topic: topics.Commands(l.ns, benchCategory), Key: []byte(key), Value: l.value,
		Headers: []kgo.RecordHeader{
			{Key: event.HeaderID, Value: strconv.AppendInt(nil, n, 10)},
			{Key: event.HeaderType, Value: []byte(benchCommand)},
			{Key: event.HeaderTime, Value: time.Now().UTC().AppendFormat(nil, time.RFC3339Nano)},
			{Key: event.HeaderReplyTo, Value: []byte(topics.Replies(l.ns))},
		},
	}
	l.sentAt[i].Store(time.Since(l.began).Nanoseconds())
	l.producer.Produce(ctx, rec, func(_ *kgo.Record, err error) {
		if err != nil && ctx.Err() == nil {
			panic(fmt.Sprintf("bench: command not sent: %v", err))
		}
	})
}

// drain waits for the last replies.
func (l *load) drain(inFlight int) error {
	deadline := time.After(20 * time.Second)
	for range inFlight {
		select {
		case l.inFlight <- struct{}{}:
		case <-deadline:
			return fmt.Errorf("%d of %d commands are unanswered after 20 s", l.next.Load()-l.base.Load()-l.done.Load(), l.next.Load()-l.base.Load())
		}
	}
	return nil
}
