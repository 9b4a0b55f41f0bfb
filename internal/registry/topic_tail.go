package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/foldstream/foldstream/internal/engine/appender"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/twmb/franz-go/pkg/kgo"
)

// errClosed is what a lookup gets that would need the broker after Close.
var errClosed = errors.New("the schema registry is closed")

// tail follows the schemas topic from its start and keeps what it says.
type tail struct {
	topic   string
	log     *slog.Logger
	skipped atomic.Int64

	client  *kgo.Client
	cancel  context.CancelFunc
	done    chan struct{} // closed when the goroutine has ended; nil before start
	stopped chan struct{}
	once    sync.Once

	mu       sync.RWMutex
	index    *index
	position int64 // all records below are in the index
	claim    appender.LastClaim
	fault    error         // of the last fetch, for who waits in vain
	moved    chan struct{} // closed and replaced when position moves
}

func newTail(topic string, log *slog.Logger) *tail {
	return &tail{topic: topic, log: log, index: newIndex(), moved: make(chan struct{}), stopped: make(chan struct{})}
}

func (t *tail) start(opts []kgo.Opt) error {
	client, err := kgo.NewClient(append(append([]kgo.Opt{}, opts...),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{t.topic: {0: kgo.NewOffset().AtStart()}}),
		// A log that became shorter is told, not read anew in silence.
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.KeepControlRecords(),
	)...)
	if err != nil {
		return fmt.Errorf("schema registry: make a Kafka client: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.client, t.cancel, t.done = client, cancel, make(chan struct{})
	go t.follow(ctx)
	return nil
}

// stop ends the goroutine and waits for it. It must not run beside start.
func (t *tail) stop() {
	t.once.Do(func() { close(t.stopped) })
	if t.done == nil {
		return
	}
	t.cancel()
	<-t.done
	t.client.Close()
}

func (t *tail) follow(ctx context.Context) {
	defer close(t.done)
	for ctx.Err() == nil {
		fetches := t.client.PollFetches(ctx)
		if fetches.IsClientClosed() || ctx.Err() != nil {
			return
		}
		t.take(fetches)
	}
}

// take applies one poll as a whole, so that a lookup sees all schemas of a batch or none.
func (t *tail) take(fetches kgo.Fetches) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.fault = nil
	fetches.EachError(func(_ string, _ int32, err error) {
		t.fault = err
		t.log.Warn("schemas topic cannot be read", "topic", t.topic, "offset", t.position, "error", err)
	})
	before := t.position
	fetches.EachRecord(func(rec *kgo.Record) {
		t.apply(rec)
		t.position = rec.Offset + 1
	})
	if t.position != before {
		close(t.moved)
		t.moved = make(chan struct{})
	}
}

func (t *tail) apply(rec *kgo.Record) {
	switch control := event.Control(rec.Headers); {
	case rec.Attrs.IsControl():
		return
	case control == event.ControlClaim:
		t.claim = appender.LastClaim{Claim: event.Claim{ProducerID: rec.ProducerID, Epoch: rec.ProducerEpoch}, Known: true}
		return
	case control != "":
		return
	}
	reg, err := decodeRow(rec.Key, rec.Value)
	if err == nil {
		err = t.index.add(reg)
	}
	if err != nil {
		t.skipped.Add(1)
		t.log.Warn("record of the schemas topic is skipped", "topic", t.topic, "offset", rec.Offset, "error", err)
	}
}

// view lets f read the index; f must not keep it.
func (t *tail) view(f func(*index)) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	f(t.index)
}

func (t *tail) at() int64 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.position
}

func (t *tail) lastClaim() appender.LastClaim {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.claim
}

// wait returns when all records below end are in the index.
func (t *tail) wait(ctx context.Context, end int64) error {
	for {
		t.mu.RLock()
		position, fault, moved := t.position, t.fault, t.moved
		t.mu.RUnlock()
		if position >= end {
			return nil
		}
		select {
		case <-moved:
		case <-t.stopped:
			return errClosed
		case <-ctx.Done():
			err := fmt.Errorf("read %s to offset %d, stopped at %d: %w", t.topic, end, position, ctx.Err())
			if fault != nil {
				err = fmt.Errorf("%w (last fault: %w)", err, fault)
			}
			return err
		}
	}
}
