package appender

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Config of an Appender. The zero value of a field means its default.
type Config struct {
	// Opts connect the appender's own Kafka client (seeds, TLS, SASL, client id). The appender adds
	// its own time-outs behind them.
	Opts []kgo.Opt
	// BatchBytesMax bounds one record batch, as encoded; default 900 KiB, below Kafka's 1 MiB. It
	// must be at most the topic's max.message.bytes, else full batches are refused.
	BatchBytesMax int
	// WaitingBytesMax bounds what waits in a writer: at or above it Writer.Full says so, and the
	// caller stops appending until it falls. Append itself blocks no one and refuses nothing for it,
	// so that a poll that was begun can be handed over whole. Default 16 MiB.
	WaitingBytesMax int
	// RequestBytesMax bounds the batches of one produce request; what is above it goes with the next
	// one. Default 32 MiB, below the broker's socket.request.max.bytes (100 MiB).
	RequestBytesMax int
	// ProduceTimeout is the broker's time for one request; default 4 s. The client waits 2.5 s longer.
	ProduceTimeout time.Duration
	// RetryAgeMax is the age beyond which an unacknowledged batch is not sent again (PROTOCOL W3);
	// default 1 h, must be below producer.id.expiration.ms: once the broker has forgotten the
	// producer, a retry is stored twice.
	RetryAgeMax time.Duration
	// MetadataInterval is the least time between metadata refreshes on NOT_LEADER; default 30 ms.
	MetadataInterval time.Duration
	// TopicGrace is for how long a claim goes on while the broker does not know the topic yet, as
	// happens just after its creation; default 5 s.
	TopicGrace time.Duration
	// ProveByListOffsets allows a proof by ListOffsets (replication factor 1 only, PROTOCOL W15);
	// otherwise an idle writer proves itself by a keep-alive.
	ProveByListOffsets bool
	Clock              func() time.Time // default time.Now; stamps records and measures ages
	Logger             *slog.Logger     // default slog.Default()
	Observe            Observer         // default: nothing
	// AnswerBegins and AnswerEnds are called, by a sender, around telling the results of one answer
	// of a broker, which may concern many writers. Default: nothing.
	AnswerBegins, AnswerEnds func()
}

const (
	batchBytesMaxDefault   = 900 << 10
	batchBytesMaxLeast     = 1 << 10
	batchBytesMaxMost      = 64 << 20
	waitingBytesMaxDefault = 16 << 20
	requestBytesMaxDefault = 32 << 20

	produceTimeoutDefault   = 4 * time.Second
	retryAgeMaxDefault      = time.Hour
	metadataIntervalDefault = 30 * time.Millisecond
	topicGraceDefault       = 5 * time.Second

	// requestOverhead is what the client waits beyond ProduceTimeout for an answer.
	requestOverhead = 2500 * time.Millisecond
	dialTimeout     = 3 * time.Second
)

func (c Config) withDefaults() Config {
	orDefault(&c.BatchBytesMax, batchBytesMaxDefault)
	orDefault(&c.WaitingBytesMax, waitingBytesMaxDefault)
	orDefault(&c.RequestBytesMax, max(requestBytesMaxDefault, c.BatchBytesMax))
	orDefault(&c.ProduceTimeout, produceTimeoutDefault)
	orDefault(&c.RetryAgeMax, retryAgeMaxDefault)
	orDefault(&c.MetadataInterval, metadataIntervalDefault)
	orDefault(&c.TopicGrace, topicGraceDefault)
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Observe == nil {
		c.Observe = noObserver{}
	}
	if c.AnswerBegins == nil || c.AnswerEnds == nil {
		c.AnswerBegins, c.AnswerEnds = func() {}, func() {}
	}
	return c
}

func orDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// validate joins all faults of a configuration whose defaults are filled in.
func (c Config) validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if c.BatchBytesMax < batchBytesMaxLeast || c.BatchBytesMax > batchBytesMaxMost {
		fault("BatchBytesMax is %d: want %d to %d", c.BatchBytesMax, batchBytesMaxLeast, batchBytesMaxMost)
	}
	if c.WaitingBytesMax < 0 {
		fault("WaitingBytesMax is %d: want more than 0", c.WaitingBytesMax)
	}
	if c.RequestBytesMax < c.BatchBytesMax || c.RequestBytesMax > batchBytesMaxMost {
		fault("RequestBytesMax is %d: want BatchBytesMax (%d) to %d", c.RequestBytesMax, c.BatchBytesMax, batchBytesMaxMost)
	}
	for _, d := range []struct {
		name        string
		value       time.Duration
		least, most time.Duration
	}{
		{"ProduceTimeout", c.ProduceTimeout, 10 * time.Millisecond, time.Minute},
		{"RetryAgeMax", c.RetryAgeMax, time.Millisecond, 24 * time.Hour},
		{"MetadataInterval", c.MetadataInterval, time.Millisecond, time.Minute},
		{"TopicGrace", c.TopicGrace, time.Millisecond, 10 * time.Minute},
	} {
		if d.value < d.least || d.value > d.most {
			fault("%s is %s: want %s to %s", d.name, d.value, d.least, d.most)
		}
	}
	if len(faults) == 0 {
		return nil
	}
	return fmt.Errorf("appender configuration: %w", errors.Join(faults...))
}

// clientOpts are the caller's options and, behind them, what the protocol needs: an answer is
// waited for as long as the broker may take and little more, and a dead broker is noticed soon.
func (c Config) clientOpts() []kgo.Opt {
	return append(append([]kgo.Opt{}, c.Opts...),
		kgo.RequestTimeoutOverhead(requestOverhead),
		kgo.DialTimeout(dialTimeout),
		kgo.RetryBackoffFn(func(fails int) time.Duration {
			return min(time.Duration(fails)*20*time.Millisecond, 200*time.Millisecond)
		}),
		kgo.DisableClientMetrics(),
	)
}

type noObserver struct{}

func (noObserver) BatchAcked(Partition, int, int, time.Duration) {}
func (noObserver) BatchRetried(Partition, string)                {}
