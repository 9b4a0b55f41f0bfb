package projector

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/foldstream/foldstream/pkg/deadletter"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/projection"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// folder folds a held version up to fixed ends, by the workers that a projector has, but without a
// consumer group: letters, parking, void records and progress are the same.
type folder struct {
	o       *Operator
	store   *store
	decoder *decoder
	sink    *deadletter.Sink
	workers map[place]*worker
	stop    context.CancelFunc
	pace    *pace
	done    atomic.Int64 // records read
}

// Limits of a batch when a version is built in bulk, and of what is fetched for it.
const (
	bulkBatchRecordsMax = 50_000
	bulkRowCacheRowsMax = 50_000
	bulkFetchBytesMax   = 16 << 20
)

// newFolder takes the version's partitions over; the hold must be there.
func (o *Operator) newFolder(ctx context.Context, h *hold, v projection.View, bulk bool, rate int) (*folder, error) {
	st, err := o.store(v)
	if err != nil {
		return nil, err
	}
	st.holder, st.bulk = h.holder, bulk
	if err := st.loadCorrections(ctx, o.cfg.Kafka); err != nil {
		return nil, err
	}
	f := &folder{o: o, store: st, workers: map[place]*worker{}, pace: &pace{rate: rate, clock: o.cfg.Clock}}
	if f.decoder, err = newDecoder(ctx, o.cfg.Codec, v); err != nil {
		return nil, err
	}
	if f.sink, err = deadletter.NewSink(topics.DeadLetters(o.cfg.Namespace, st.consumer), o.cfg.Kafka...); err != nil {
		f.decoder.close()
		return nil, err
	}
	if err := f.take(ctx, v); err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

func (f *folder) close() {
	if f.stop != nil {
		f.stop()
	}
	f.sink.Close()
	f.decoder.close()
}

// take makes a worker for each partition, under a fresh epoch (PROTOCOL D9).
func (f *folder) take(ctx context.Context, v projection.View) error {
	places, infos, err := f.o.places(ctx, v)
	if err != nil {
		return err
	}
	taken, err := f.store.take(ctx, places)
	if err != nil {
		return err
	}
	c := newConsumer(&f.o.cfg.Config, v, f.o.metrics)
	cfg := f.o.cfg.Config
	if f.store.bulk {
		cfg.BatchRecordsMax, cfg.RowCacheRowsMax = bulkBatchRecordsMax, bulkRowCacheRowsMax
	}
	workers, stop := context.WithCancel(ctx)
	f.stop = stop
	for p, owned := range taken {
		w := &worker{
			cfg: &cfg, place: p, category: c.categories[p.topic], store: f.store, decoder: f.decoder, sink: f.sink,
			metrics: f.o.metrics, view: c.label, log: c.log.With("topic", p.topic, "partition", p.partition),
			gate: &gate{}, epoch: owned.epoch, at: owned.position, cache: newRowCache(cfg.RowCacheRowsMax),
		}
		w.ctx, w.hard = workers, workers
		if id := event.FormatTopicID(infos[p.topic].ID); w.at.topicID != "" && w.at.topicID != id {
			return topicChanged(p.topic, w.at.topicID, id)
		}
		f.workers[p] = w
	}
	return nil
}

// positions are where the version's partitions are.
func (f *folder) positions() map[place]int64 {
	out := make(map[place]int64, len(f.workers))
	for p, w := range f.workers {
		out[p] = w.at.next
	}
	return out
}

// to folds each partition up to its end, some at the same time. It returns nil when all are there.
// A control record of a Kafka transaction at the end is passed, though no position tells of it.
func (f *folder) to(ctx context.Context, ends map[place]int64) error {
	listed, err := f.o.adm.ListStartOffsets(ctx, topicsOf(keys(ends))...)
	if err != nil {
		return fmt.Errorf("read log starts: %w", err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	slots := make(chan struct{}, lanesMax())
	for p, end := range ends {
		w := f.workers[p]
		start, known := listed.Lookup(p.topic, p.partition)
		if w == nil || !known || max(w.at.next, start.Offset) >= end {
			continue
		}
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			if err := f.lane(ctx, w, start.Offset, end); err != nil {
				cancel(fmt.Errorf("%s[%d]: %w", p.topic, p.partition, err))
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// lanesMax is how many partitions are folded at the same time: each is one Postgres connection.
func lanesMax() int { return max(2, min(4, runtime.GOMAXPROCS(0))) }

func keys(m map[place]int64) []place {
	out := make([]place, 0, len(m))
	for p := range m {
		out = append(out, p)
	}
	return out
}

// lane reads one partition by a client of its own, which fetches while the batch before is applied.
func (f *folder) lane(ctx context.Context, w *worker, start, end int64) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	from := max(w.at.next, start)
	if w.at.lastEventID != "" && start < w.at.next {
		w.verify = true
		from = w.at.next - 1
	}
	client, err := kgo.NewClient(append(append([]kgo.Opt{}, f.o.cfg.Kafka...),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{w.place.topic: {w.place.partition: kgo.NoResetOffset().At(from).WithEpoch(-1)}}),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.KeepControlRecords(), kgo.FetchMaxPartitionBytes(bulkFetchBytesMax), kgo.FetchMaxBytes(2*bulkFetchBytesMax),
	)...)
	if err != nil {
		return fmt.Errorf("Kafka client: %w", err)
	}
	defer client.Close()
	for {
		records, reached, err := f.poll(ctx, client, w, end)
		if err != nil {
			return err
		}
		if len(records) > 0 {
			if err := w.apply(records); err != nil {
				return err
			}
			f.done.Add(int64(len(records)))
			f.pace.wait(ctx, len(records))
		}
		if reached {
			return nil
		}
	}
}

// poll returns the next records below end, and whether end is reached with them.
func (f *folder) poll(ctx context.Context, client *kgo.Client, w *worker, end int64) (records []*kgo.Record, reached bool, err error) {
	fetches := client.PollRecords(ctx, f.pace.batch(w.cfg.BatchRecordsMax))
	if ctx.Err() != nil {
		return nil, false, context.Cause(ctx)
	}
	fetches.EachTopic(func(t kgo.FetchTopic) {
		w.status.topicID = event.FormatTopicID(t.TopicID)
		for _, p := range t.Partitions {
			if p.Err != nil {
				err = errors.Join(err, lostPosition(w.place, p.Err))
			}
			for _, r := range p.Records {
				reached = reached || r.Offset+1 >= end
				if r.Offset < end && !r.Attrs.IsControl() {
					records = append(records, r)
				}
			}
		}
	})
	return records, reached, err
}

// lostPosition is an error where the log does not have a view's place any more; others pass.
func lostPosition(p place, err error) error {
	var lost *kgo.ErrDataLoss
	switch {
	case errors.Is(err, kerr.OffsetOutOfRange), errors.As(err, &lost):
		return deadletter.Stopped("out-of-range", fmt.Errorf("the log does not have the position of this view any more: retention deleted events that were not applied, or the topic lost its end; rebuild the view: %w", err))
	case errors.Is(err, kerr.UnknownTopicID), errors.Is(err, kerr.InconsistentTopicID):
		return deadletter.Stopped("topic-id", fmt.Errorf("topic %s was deleted, or deleted and made again, while this view read it: restore it, or rebuild the view: %w", p.topic, err))
	}
	return nil
}

// pace keeps records to a rate; 0: none.
type pace struct {
	rate  int // records/s
	clock func() time.Time

	mu   sync.Mutex
	next time.Time // when the next records are due
}

// batch bounds one batch, so that a low rate flows evenly.
func (p *pace) batch(recordsMax int) int {
	if p.rate <= 0 {
		return recordsMax
	}
	return max(1, min(recordsMax, p.rate/4))
}

// wait returns when n more records are due.
func (p *pace) wait(ctx context.Context, n int) {
	if p.rate <= 0 {
		return
	}
	p.mu.Lock()
	now := p.clock()
	if p.next.Before(now) {
		p.next = now
	}
	p.next = p.next.Add(time.Duration(n) * time.Second / time.Duration(p.rate))
	due := p.next.Sub(now)
	p.mu.Unlock()
	pause(ctx, due)
}
