package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/foldstream/foldstream/internal/engine"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	restartNamespace  = "restart"
	restartStreamsMin = 1000
	restartEvents     = 10     // per stream, each by a command of its own
	restartBlock      = 10_000 // streams that are written at the same time
	restartAheadMax   = 4      // blocks that the client is ahead of the engine
	restartTailShare  = 50     // one in so many streams is written after the snapshots
	restartStall      = 60 * time.Second
	restartServeMax   = 5 * time.Minute
)

// restart measures how long a new process takes to serve a category with many streams, and how much
// memory it has then. An engine of this process writes the log from commands, saves its snapshots
// and checkpoints, writes the tail, and leaves; each run then starts a child on what it left.
func (b *bench) restart() error {
	registry, err := benchRegistry()
	if err != nil {
		return err
	}
	if err := b.createTopics(benchLayout(restartNamespace)); err != nil {
		return err
	}
	log := &restartLog{b: b, mark: filepath.Join(b.dir, "restart.json")}
	if log.value, err = b.commandValue(registry); err != nil {
		return err
	}
	if err := log.fill(); err != nil {
		return fmt.Errorf("writing the log: %w", err)
	}
	b.say("restart: %d streams, %d events, of which %d behind the checkpoints", log.state.Streams, log.state.Events, log.state.Tail)
	for run := 1; run <= b.options.longRuns; run++ {
		if err := log.measure(run); err != nil {
			return fmt.Errorf("run %d: %w", run, err)
		}
	}
	return nil
}

// restartLog is the log that restart reads. Its mark, beside the broker's data, says that it is
// complete, so that a folder given by -dir is filled once.
type restartLog struct {
	b     *bench
	mark  string
	value []byte
	state restartState
}

type restartState struct {
	Streams int   `json:"streams"`
	Events  int64 `json:"events"`
	Tail    int64 `json:"tail"` // events behind the checkpoints when the writer left
}

func (l *restartLog) fill() error {
	text, err := os.ReadFile(l.mark)
	if err == nil {
		return json.Unmarshal(text, &l.state)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	registry, err := benchRegistry()
	if err != nil {
		return err
	}
	metrics := prometheus.NewRegistry()
	stop, err := l.b.startEngine(restartNamespace, registry, engineSetup{registerer: metrics})
	if err != nil {
		return err
	}
	defer func() { stop() }()
	streams := l.b.options.restartStreams
	tailFrom := streams - streams/restartTailShare
	if err := l.write(0, tailFrom); err != nil {
		return err
	}
	if err := l.b.awaitProgress("snapshots", func() (int64, error) { return l.uncovered(metrics) }); err != nil {
		return err
	}
	if err := l.write(tailFrom, streams); err != nil {
		return err
	}
	stop()
	stop = func() {}
	l.state.Streams = streams
	if l.state.Tail, err = l.uncovered(metrics); err != nil {
		return err
	}
	if l.state.Events, err = l.events(); err != nil {
		return err
	}
	if l.state.Events < int64(streams)*restartEvents {
		return fmt.Errorf("the log has %d records, want at least %d: commands were not accepted", l.state.Events, streams*restartEvents)
	}
	if text, err = json.Marshal(l.state); err != nil {
		return err
	}
	return os.WriteFile(l.mark, text, 0o644)
}

// restartStream is the id of the n-th stream: 36 characters, as most ids of aggregates are.
func restartStream(n int) string {
	return uuid.NewSHA1(uuid.NameSpaceOID, strconv.AppendInt(nil, int64(n), 10)).String()
}

// write sends the commands of the streams from … until−1 and waits until all are handled. Nobody
// asks for replies.
func (l *restartLog) write(from, until int) error {
	producer, err := kgo.NewClient(l.b.opts(kgo.MaxBufferedRecords(50_000), kgo.ProducerBatchCompression(kgo.NoCompression()))...)
	if err != nil {
		return err
	}
	defer producer.Close()
	ctx, cancel := context.WithCancelCause(l.b.ctx)
	defer cancel(nil)
	began, said := time.Now(), time.Now()
	for block := from; block < until; block += restartBlock {
		if err := l.awaitRoom(); err != nil {
			return err
		}
		end := min(block+restartBlock, until)
		ids := make([]string, 0, restartBlock)
		for n := block; n < end; n++ {
			ids = append(ids, restartStream(n))
		}
		for version := 1; version <= restartEvents; version++ {
			for _, id := range ids {
				producer.Produce(ctx, l.command(id, version), func(_ *kgo.Record, err error) {
					if err != nil {
						cancel(err)
					}
				})
			}
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if time.Since(said) > 10*time.Second {
			said = time.Now()
			l.b.say("restart: %d of %d streams sent, %.0f commands/s", end, until, float64((end-from)*restartEvents)/time.Since(began).Seconds())
		}
	}
	if err := producer.Flush(ctx); err != nil {
		return context.Cause(ctx)
	}
	return l.b.awaitProgress("commands", l.unhandled)
}

// awaitRoom bounds what waits in the commands topic.
func (l *restartLog) awaitRoom() error {
	return l.b.awaitProgress("commands", func() (int64, error) {
		n, err := l.unhandled()
		return max(n-restartAheadMax*restartBlock*restartEvents, 0), err
	})
}

func (l *restartLog) command(id string, version int) *kgo.Record {
	commandID := uuid.New()
	return &kgo.Record{Topic: topics.Commands(restartNamespace, benchCategory), Key: []byte(id), Value: l.value, Headers: headers(
		event.HeaderID, commandID.String(), event.HeaderType, benchCommand, event.HeaderTime, time.Now().UTC().Format(time.RFC3339Nano),
		event.HeaderExpectedVersion, strconv.Itoa(version-1))}
}

// unhandled counts the commands that the group offset has not passed.
func (l *restartLog) unhandled() (int64, error) {
	topic := topics.Commands(restartNamespace, benchCategory)
	ends, err := l.b.ends(topic)
	if err != nil {
		return 0, err
	}
	committed, err := l.b.admin.FetchOffsetsForTopics(l.b.ctx, topics.Group(restartNamespace, topics.ConsumerIngest), topic)
	if err != nil {
		return 0, err
	}
	var left int64
	for partition, end := range ends {
		at := int64(0)
		if o, known := committed.Lookup(topic, partition); known {
			at = max(o.At, 0)
		}
		left += end - at
	}
	return left, nil
}

// uncovered counts the records of the events topic behind the checkpoints.
func (l *restartLog) uncovered(metrics prometheus.Gatherer) (int64, error) {
	checkpoints, err := gather(metrics, "foldstream_ingest_checkpoint_offset")
	if err != nil {
		return 0, err
	}
	ends, err := l.b.ends(topics.Events(restartNamespace, benchCategory))
	if err != nil {
		return 0, err
	}
	var left int64
	for partition, end := range ends {
		covered := int64(0)
		if at, known := checkpoints[strconv.Itoa(int(partition))]; known {
			covered = int64(at) + 1
		}
		left += end - covered
	}
	return left, nil
}

func (l *restartLog) events() (int64, error) {
	ends, err := l.b.ends(topics.Events(restartNamespace, benchCategory))
	var sum int64
	for _, end := range ends {
		sum += end
	}
	return sum, err
}

// ends lists the end offset of each partition.
func (b *bench) ends(topic string) (map[int32]int64, error) {
	listed, err := b.admin.ListEndOffsets(b.ctx, topic)
	if err != nil {
		return nil, err
	}
	ends := map[int32]int64{}
	listed.Each(func(o kadm.ListedOffset) { ends[o.Partition] = o.Offset })
	return ends, listed.Error()
}

// awaitProgress waits until nothing is left, as long as it becomes less.
func (b *bench) awaitProgress(what string, left func() (int64, error)) error {
	least, moved := int64(-1), time.Now()
	for {
		n, err := left()
		if err != nil || n == 0 {
			return err
		}
		if least < 0 || n < least {
			least, moved = n, time.Now()
		}
		if time.Since(moved) > restartStall {
			return fmt.Errorf("%d %s are left and it became no less for %s", n, what, restartStall)
		}
		if err := b.pause(200 * time.Millisecond); err != nil {
			return err
		}
	}
}

// measure starts a child and looks at it when it serves. Then each partition must accept a command:
// one that expects the version that the log left, which shows that the state is there.
func (l *restartLog) measure(run int) error {
	var more []string
	if dir := l.b.options.childProfiles; dir != "" {
		more = append(more, "-profiles", dir)
	}
	c, err := l.b.startChild("restarted", restartNamespace, more...)
	if err != nil {
		return err
	}
	defer c.kill()
	if err := l.b.awaitServing(restartServeMax, c); err != nil {
		return err
	}
	took := time.Since(c.started)
	most, now, err := c.memoryMB()
	if err != nil {
		return err
	}
	l.b.measure("restart", "serving", "s", run, took.Seconds())
	l.b.measure("restart", "peak resident memory", "MB", run, most)
	l.b.measure("restart", "resident memory", "MB", run, now)
	if err := l.check(); err != nil {
		return err
	}
	return c.stop()
}

const restartCheckMax = 20 * time.Second

// check asks each partition for one more event of a stream that must exist, and waits until all are
// accepted at a version that only a writer with the stream's state can give.
func (l *restartLog) check() error {
	registry, err := benchRegistry()
	if err != nil {
		return err
	}
	in, err := l.b.readReplies(restartNamespace, registry)
	if err != nil {
		return err
	}
	producer, err := kgo.NewClient(l.b.opts(kgo.ProducerLinger(0))...)
	if err != nil {
		in.close()
		return err
	}
	defer producer.Close()
	accepted := make(chan error, benchPartitions)
	var reading sync.WaitGroup
	reading.Go(func() {
		in.each(func(r codec.Reply, _ time.Time) { accepted <- checkRestarted(r) }, func(err error) { accepted <- err })
	})
	defer reading.Wait()
	defer in.close()
	for _, rec := range l.checks() {
		if err := producer.ProduceSync(l.b.ctx, rec).FirstErr(); err != nil {
			return err
		}
	}
	deadline := time.After(restartCheckMax)
	for n := range benchPartitions {
		select {
		case err := <-accepted:
			if err != nil {
				return err
			}
		case <-deadline:
			return fmt.Errorf("%d of %d partitions accepted a command within %s", n, benchPartitions, restartCheckMax)
		}
	}
	return nil
}

func checkRestarted(r codec.Reply) error {
	if r.Outcome != string(engine.OutcomeAccepted) || r.FirstVersion <= restartEvents {
		return fmt.Errorf("stream %s: %s at version %d (%s), want accepted above %d", r.StreamID, r.Outcome, r.FirstVersion, r.Message, restartEvents)
	}
	return nil
}

// checks are commands to one stream of each partition, the last of the log, so of its tail.
func (l *restartLog) checks() []*kgo.Record {
	var records []*kgo.Record
	seen := map[int32]bool{}
	for n := l.state.Streams - 1; n >= 0 && len(records) < benchPartitions; n-- {
		id := restartStream(n)
		if partition := topics.Partition([]byte(id), benchPartitions); !seen[partition] {
			seen[partition] = true
			rec := l.command(id, 0)
			rec.Headers[len(rec.Headers)-1] = kgo.RecordHeader{Key: event.HeaderExpectedVersion, Value: []byte("exists")}
			rec.Headers = append(rec.Headers, kgo.RecordHeader{Key: event.HeaderReplyTo, Value: []byte(topics.Replies(restartNamespace))})
			records = append(records, rec)
		}
	}
	return records
}
