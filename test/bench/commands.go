package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/foldstream/foldstream/internal/engine"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/decider"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/foldstream/foldstream/schemas/avro"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
)

// The benches' domain: a counter with a payload of about 100 bytes.
const (
	benchCategory = "counter"
	benchCommand  = "counter.Count"
	benchEvent    = "counter.Counted"
)

type (
	count struct {
		By   int64  `avro:"by"`
		Note string `avro:"note"`
	}
	counted struct {
		By   int64  `avro:"by"`
		Note string `avro:"note"`
	}
	counter struct {
		Total int64 `avro:"total"`
	}
)

const benchNote = "a payload of about a hundred bytes, as commands and events of a workflow engine often are, no more"

var counterDecider = decider.Spec[counter]{
	Category: benchCategory, StateVersion: 1,
	Types: decider.Types{decider.Command[count](benchCommand, 1), decider.Event[counted](benchEvent, 1)},
	Decide: func(_ counter, c decider.Message) (decider.Decision, error) {
		return decider.Emit(counted(c.Data.(count)))
	},
	Evolve: func(s counter, e decider.Message) counter { s.Total += e.Data.(counted).By; return s },
}

func benchRegistry() (*codec.StaticReader, error) {
	const record = `{"type":"record","namespace":"counter","name":%q,"fields":[%s]}`
	const fields = `{"name":"by","type":"long"},{"name":"note","type":"string"}`
	texts := []struct {
		typ  string
		kind event.Kind
		text string
	}{
		{benchCommand, event.KindCommand, fmt.Sprintf(record, "Count", fields)},
		{benchEvent, event.KindEvent, fmt.Sprintf(record, "Counted", fields)},
		{"counter.State", event.KindState, fmt.Sprintf(record, "State", `{"name":"total","type":"long"}`)},
	}
	var regs []*codec.Registered
	for _, own := range []struct {
		name    string
		version int
	}{{"Append", 2}, {"Reply", 1}, {"Snapshot", 1}, {"Checkpoint", 1}} {
		text, err := avro.Files.ReadFile(fmt.Sprintf("foldstream/%s.v%d.avsc", own.name, own.version))
		if err != nil {
			return nil, err
		}
		reg, err := codec.RegisterText(int32(len(regs)+1), "foldstream."+own.name, own.version, event.KindSystem, string(text))
		if err != nil {
			return nil, err
		}
		regs = append(regs, reg)
	}
	for _, t := range texts {
		reg, err := codec.RegisterText(int32(len(regs)+1), t.typ, 1, t.kind, t.text)
		if err != nil {
			return nil, err
		}
		regs = append(regs, reg)
	}
	return codec.NewStaticReader(regs...), nil
}

func benchLayout(ns string) topics.Layout {
	return topics.Layout{
		Namespace: ns, ReplicationFactor: 1,
		Categories: []topics.Category{{Name: benchCategory, Mode: topics.ModeDecider, Partitions: benchPartitions}},
	}
}

// commands measures command → reply through the commands topic, at several depths.
func (b *bench) commands() error {
	registry, err := benchRegistry()
	if err != nil {
		return err
	}
	value, err := b.commandValue(registry)
	if err != nil {
		return err
	}
	systems := []struct {
		name  string
		ns    string
		start func(ns string) (stop func(), err error)
	}{
		{"foldstream", "fold", func(ns string) (func(), error) { return b.startEngine(ns, registry, engineSetup{}) }},
		{"bare", "bare", b.startBareLoop},
	}
	loads := make([]*load, len(systems))
	for i, s := range systems {
		if err := b.createTopics(benchLayout(s.ns)); err != nil {
			return err
		}
		stop, err := s.start(s.ns)
		if err != nil {
			return err
		}
		defer stop()
		if loads[i], err = newLoad(b, s.ns, value); err != nil {
			return err
		}
		defer loads[i].close()
		if _, _, _, _, err := loads[i].run(b.ctx, 128, time.Second); err != nil { // warm-up
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	for run := range b.options.runs {
		for _, inFlight := range b.options.depths {
			for i, s := range systems {
				if !b.options.wants(s.name) {
					continue
				}
				used := cpuTime()
				n, perS, p50, p99, err := loads[i].run(b.ctx, inFlight, b.options.duration)
				if err != nil {
					return fmt.Errorf("%s at %d in flight: %w", s.name, inFlight, err)
				}
				b.record(result{
					Bench: "commands", System: s.name, InFlight: inFlight, Run: run + 1, PerS: perS, P50Ms: p50, P99Ms: p99, Count: n,
					CPUMicros: float64((cpuTime() - used).Microseconds()) / float64(max(n, 1)),
				})
			}
		}
	}
	return nil
}

// commandValue is the payload of every command of the benches.
func (b *bench) commandValue(registry codec.Reader) ([]byte, error) {
	binding, err := codec.New(registry, codec.Config{}).Bind(b.ctx, counterDecider.Types[0])
	if err != nil {
		return nil, err
	}
	return binding.Append(nil, count{By: 1, Note: benchNote})
}

// engineSetup is what a bench changes of the engine's defaults.
type engineSetup struct {
	snapshots  engine.SnapshotConfig
	heartbeat  time.Duration
	registerer prometheus.Registerer
}

// newEngine is the one engine that all benches measure, here or in a child.
func newEngine(ctx context.Context, ns string, kafka []kgo.Opt, registry codec.Reader, log *slog.Logger, setup engineSetup) (*engine.Engine, error) {
	definition := counterDecider.Definition()
	return engine.New(ctx, engine.Config{
		Namespace: ns, Categories: []engine.Category{{Name: benchCategory, Decider: &definition, Snapshots: setup.snapshots}},
		Kafka: kafka, Registry: registry, Registerer: setup.registerer, Logger: log, HeartbeatInterval: setup.heartbeat,
	})
}

// startEngine returns when the engine serves all partitions.
func (b *bench) startEngine(ns string, registry codec.Reader, setup engineSetup) (stop func(), err error) {
	e, err := newEngine(b.ctx, ns, b.opts(), registry, b.log, setup)
	if err != nil {
		return nil, err
	}
	return b.runEngine(e)
}

// startBareLoop is command → event → reply by franz-go alone: consume, produce the event, on its
// acknowledgement produce the reply, on that mark the offset. The same bytes, partitions and
// acknowledgements; no versions, no conditions, no idempotent commands, no fencing.
func (b *bench) startBareLoop(ns string) (func(), error) {
	consumer, err := kgo.NewClient(b.opts(
		kgo.ConsumerGroup(ns+".ingest"), kgo.ConsumeTopics(topics.Commands(ns, benchCategory)),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.AutoCommitMarks(), kgo.AutoCommitInterval(500*time.Millisecond),
	)...)
	if err != nil {
		return nil, err
	}
	producer, err := kgo.NewClient(b.opts(kgo.ProducerLinger(0), kgo.MaxBufferedRecords(100_000), kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.RecordPartitioner(kgo.BasicConsistentPartitioner(func(string) func(*kgo.Record, int) int {
			return func(r *kgo.Record, n int) int {
				if r.Partition >= 0 {
					return int(r.Partition)
				}
				return int(topics.Partition(r.Key, int32(n)))
			}
		})))...)
	if err != nil {
		return nil, err
	}
	loop := &bareLoop{ns: ns, consumer: consumer, producer: producer, events: topics.Events(ns, benchCategory), replies: topics.Replies(ns)}
	loop.prepare()
	loop.done.Go(loop.run)
	return func() { consumer.Close(); loop.done.Wait(); producer.Close() }, nil
}

type bareLoop struct {
	ns                 string
	consumer, producer *kgo.Client
	events, replies    string
	eventHeaders       []kgo.RecordHeader
	replyHeaders       []kgo.RecordHeader
	replyValue         []byte
	done               sync.WaitGroup
}

// prepare makes headers of the same names and lengths as Foldstream's; the id of the command is
// put in for each record, since the client of the bench reads it.
func (l *bareLoop) prepare() {
	const uuidText, number, hash = "01234567-89ab-cdef-0123-456789abcdef", "1234567", "0123456789abcdef0123456789abcdef"
	now := time.Now().UTC().Format(time.RFC3339Nano)
	source := "/" + l.ns + "/" + benchCategory
	l.eventHeaders = headers(event.HeaderID, uuidText, event.HeaderType, benchEvent, event.HeaderSource, source, event.HeaderSpecVersion, "1.0",
		event.HeaderTime, now, event.HeaderSubject, "stream-1234", event.HeaderContentType, event.ContentTypeAvro, event.HeaderSequence, "123",
		event.HeaderCorrelationID, number, event.HeaderCausationID, number, event.HeaderCommandID, number, event.HeaderCommandHash, hash,
		event.HeaderCommandOffset, number)
	l.replyHeaders = headers(event.HeaderID, uuidText, event.HeaderType, codec.TypeReply, event.HeaderSource, source, event.HeaderSpecVersion, "1.0",
		event.HeaderTime, now, event.HeaderSubject, "stream-1234", event.HeaderContentType, event.ContentTypeAvro,
		event.HeaderCorrelationID, number, event.HeaderCausationID, number)
	l.replyValue = make([]byte, 60)
}

func headers(pairs ...string) []kgo.RecordHeader {
	var h []kgo.RecordHeader
	for i := 0; i < len(pairs); i += 2 {
		h = append(h, kgo.RecordHeader{Key: pairs[i], Value: []byte(pairs[i+1])})
	}
	return h
}

func (l *bareLoop) run() {
	for {
		fetches := l.consumer.PollFetches(context.Background())
		if fetches.IsClientClosed() {
			return
		}
		fetches.EachRecord(l.handle)
	}
}

func (l *bareLoop) handle(command *kgo.Record) {
	id, _ := event.HeaderValue(command.Headers, event.HeaderID)
	written := &kgo.Record{Topic: l.events, Partition: command.Partition, Key: command.Key, Value: command.Value, Headers: l.eventHeaders}
	l.producer.Produce(context.Background(), written, func(_ *kgo.Record, err error) {
		if err != nil {
			l.fail(err)
			return
		}
		reply := &kgo.Record{Topic: l.replies, Partition: -1, Key: id, Value: l.replyValue}
		reply.Headers = append(make([]kgo.RecordHeader, 0, len(l.replyHeaders)), l.replyHeaders...)
		reply.Headers[len(reply.Headers)-1].Value = id
		// A promise must not block: the buffer is larger than the load's depth.
		l.producer.TryProduce(context.Background(), reply, func(_ *kgo.Record, err error) {
			if err != nil {
				l.fail(err)
				return
			}
			l.consumer.MarkCommitRecords(command)
		})
	})
}

func (l *bareLoop) fail(err error) {
	if !errors.Is(err, kgo.ErrClientClosed) && !errors.Is(err, context.Canceled) {
		panic(fmt.Sprintf("bench: bare loop: %v", err))
	}
}
