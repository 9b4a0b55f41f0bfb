// Package importer sends commands through Kafka and waits for their answers.
//
// Commands are pipelined: up to InFlightMax are unanswered at once. Each goes to its murmur2
// partition by name, through one idempotent producer, so that those of one stream stand in the
// commands topic in the order in which they were given. Answers are read from one partition of
// <ns>.replies, by assignment: no consumer group, and nothing is read from before the start.
//
// An answer may be lost, or "unknown": the command is then sent again under the same id, which
// the writer recognises, so a repeated send never does a thing twice:
//
//	send c, the owner appends, dies before its reply
//	no answer within AnswerTimeout: send c again, same id
//	the next owner has c's id from the log: "duplicate" with the first outcome
//
// Run is called once, from one goroutine; it starts three of its own
// and ends them.
package importer

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Command is one request to send.
type Command struct {
	Category      string
	StreamID      string
	Type          string
	ID            string
	Time          time.Time
	Expected      event.Expected
	CorrelationID string
	Data          any // a value of the Go type registered for Type
}

// Config of a run. The zero value of a field means its default.
type Config struct {
	// Namespace of the topics. Required.
	Namespace string
	// Kafka is what clients are made with. Required.
	Kafka []kgo.Opt
	// Codec encodes commands and decodes replies. Required.
	Codec *codec.Codec
	// Types of the commands; an unknown one ends the run. Required.
	Types []codec.TypeDef
	// Source is the ce_source of every command. Default "foldstream-import".
	Source string
	// InFlightMax bounds the unanswered commands. Default 1024.
	InFlightMax int
	// RatePerSecond paces the sending; 0 means as fast as it goes.
	RatePerSecond float64
	// AnswerTimeout is how long the first answer may take before a command is sent again; it
	// doubles with each sending, to at most a minute. Default 10s.
	AnswerTimeout time.Duration
	// AttemptsMax bounds the sendings of one command; then the run ends. Default 12, about nine
	// minutes.
	AttemptsMax int
	// DedupeFor is how long the writer remembers each command's id. Default 24h less a minute,
	// since the writer allows no more than 24 h ahead of its own clock.
	DedupeFor time.Duration
	// Answered is told of every final answer, from one goroutine; nil for nobody.
	Answered func(codec.Reply)
	Logger   *slog.Logger
	Clock    func() time.Time
}

func (c Config) withDefaults() Config {
	orDefault(&c.Source, "foldstream-import")
	orDefault(&c.InFlightMax, 1024)
	orDefault(&c.AnswerTimeout, 10*time.Second)
	orDefault(&c.AttemptsMax, 12)
	orDefault(&c.DedupeFor, event.DedupeAheadMax-time.Minute)
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func orDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

const inFlightLimit = 100_000

func (c Config) validate() error {
	var faults []error
	if err := topics.ValidateNamespace(c.Namespace); err != nil {
		faults = append(faults, err)
	}
	if len(c.Kafka) == 0 || c.Codec == nil || len(c.Types) == 0 {
		faults = append(faults, errors.New("Kafka, Codec and Types are required"))
	}
	if c.InFlightMax < 1 || c.InFlightMax > inFlightLimit {
		faults = append(faults, fmt.Errorf("InFlightMax is %d, want 1 to %d", c.InFlightMax, inFlightLimit))
	}
	if c.RatePerSecond < 0 {
		faults = append(faults, fmt.Errorf("RatePerSecond is %g, want 0 or more", c.RatePerSecond))
	}
	if c.AnswerTimeout < 0 || c.AttemptsMax < 1 || c.DedupeFor < 0 || c.DedupeFor > event.DedupeAheadMax {
		faults = append(faults, fmt.Errorf("AnswerTimeout %s, AttemptsMax %d, DedupeFor %s: want 0 or more, 1 or more, at most %s",
			c.AnswerTimeout, c.AttemptsMax, c.DedupeFor, event.DedupeAheadMax))
	}
	return errors.Join(faults...)
}

// run is one import under way.
type run struct {
	cfg        Config
	producer   *kgo.Client
	replies    *kgo.Client
	bindings   map[string]*codec.Binding
	reply      *codec.Binding
	partitions map[string]int32 // by category
	replyTo    string
	dedupe     []byte

	slots chan struct{} // one per command in flight

	mu      sync.Mutex
	pending map[string]*pending
	report  Report
}

// pending is a command that has no final answer.
type pending struct {
	record   *kgo.Record
	attempts int
	resendAt time.Time
}

// Run sends all commands and returns when each has its final answer, with the counts so far also
// when it fails. It fails when ctx ends, when a command cannot be sent or stays without an answer.
func Run(ctx context.Context, cfg Config, commands iter.Seq[Command]) (Report, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return Report{}, fmt.Errorf("importer: %w", err)
	}
	r := &run{
		cfg: cfg, bindings: map[string]*codec.Binding{}, partitions: map[string]int32{},
		slots: make(chan struct{}, cfg.InFlightMax), pending: map[string]*pending{}, report: newReport(),
	}
	began := cfg.Clock()
	r.dedupe = []byte(event.FormatTime(began.Add(cfg.DedupeFor)))
	if err := r.connect(ctx); err != nil {
		return r.report, fmt.Errorf("importer: %w", err)
	}
	defer r.close()
	err := r.all(ctx, commands)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Unanswered = len(r.pending)
	r.report.Seconds = cfg.Clock().Sub(began).Seconds()
	return r.report, err
}

// connect binds the types, finds the topics, and takes a position in the replies before anything
// is sent.
func (r *run) connect(ctx context.Context) error {
	for _, def := range r.cfg.Types {
		if def.Kind != event.KindCommand {
			continue
		}
		b, err := r.cfg.Codec.Bind(ctx, def)
		if err != nil {
			return fmt.Errorf("bind %s: %w", def.Name, err)
		}
		r.bindings[def.Name] = b
	}
	var err error
	if r.reply, err = r.cfg.Codec.Bind(ctx, codec.ReplyDef()); err != nil {
		return fmt.Errorf("bind the reply: %w", err)
	}
	opts := append([]kgo.Opt{}, r.cfg.Kafka...)
	r.producer, err = kgo.NewClient(append(opts, kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(kgo.Lz4Compression()), kgo.MaxBufferedRecords(inFlightLimit))...)
	if err != nil {
		return fmt.Errorf("connect to Kafka: %w", err)
	}
	if err := r.follow(ctx); err != nil {
		r.producer.Close()
		return err
	}
	return nil
}

// follow opens the reply partition at its end.
func (r *run) follow(ctx context.Context) error {
	adm := kadm.NewClient(r.producer)
	topic := topics.Replies(r.cfg.Namespace)
	infos, err := topics.IDs(ctx, adm, topic)
	if err != nil {
		return fmt.Errorf("find the reply topic: %w", err)
	}
	partition := rand.Int32N(infos[topic].Partitions)
	ends, err := adm.ListEndOffsets(ctx, topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return fmt.Errorf("read the end of %s: %w", topic, err)
	}
	end, _ := ends.Lookup(topic, partition)
	r.replyTo = event.ReplyTo{Topic: topic, Partition: partition}.String()
	r.replies, err = kgo.NewClient(append(append([]kgo.Opt{}, r.cfg.Kafka...), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{
		topic: {partition: kgo.NewOffset().At(end.Offset)},
	}), kgo.FetchMaxWait(500*time.Millisecond))...)
	if err != nil {
		return fmt.Errorf("connect to Kafka: %w", err)
	}
	return nil
}

func (r *run) close() {
	r.producer.Close()
	r.replies.Close()
}
