package streams

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/decider"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Config of a Store. The zero value of a field means its default.
type Config struct {
	// Namespace is the prefix of topics and of the Postgres schema. Required.
	Namespace string
	// Categories that may be read. Required.
	Categories []string
	// Deciders by category; a category without one has no state.
	Deciders map[string]*decider.Definition
	// Kafka connects: seeds, TLS, SASL, client id. Required.
	Kafka []kgo.Opt
	// Pool is the Postgres with the system views events and snapshots. Nil: every read reads its
	// partition from the start of the log, within the limits of the tail.
	Pool *pgxpool.Pool
	// Codec decodes payloads and makes JSON. Required.
	Codec *codec.Codec
	// Logger; default slog.Default(). Payloads are never logged.
	Logger *slog.Logger
	// Registerer takes the metrics; default: a registry of its own that nobody reads.
	Registerer prometheus.Registerer
	// Clock; default time.Now.
	Clock func() time.Time

	// TailRecordsMax and TailBytesMax bound the part of a partition that the index does not have
	// yet and a read therefore takes from Kafka; beyond either a read is a *StaleError. Defaults
	// 200,000 records and 32 MiB. The limit of bytes may be passed by one fetch.
	TailRecordsMax int64
	TailBytesMax   int64
	// TailCacheBytesMax bounds the tails kept in memory for later reads, of all partitions
	// together; default 128 MiB. Fewer make reads of busy partitions fetch the same again.
	TailCacheBytesMax int64
	// TailFetchesMax bounds the partitions whose tails are fetched at one time; default 8. With
	// TailBytesMax it bounds the memory beside the cache.
	TailFetchesMax int
	// PageBytesMax bounds what one Load takes from the index; default 32 MiB. A page that reaches it
	// ends early, and costs a connection to Postgres.
	PageBytesMax int64
	// FoldEventsMax bounds the events that one state is folded from; default 1,000,000.
	FoldEventsMax int
	// LeaderAgeMax is how long the leaders and the id of a topic are believed; default 5 s. A topic
	// that is deleted and made anew is noticed within it.
	LeaderAgeMax time.Duration
	// FeedsMax bounds the open feeds; default 256. Each has a Kafka client of its own and holds up
	// to some MiB.
	FeedsMax int
}

func (c Config) withDefaults() Config {
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Registerer == nil {
		c.Registerer = prometheus.NewRegistry()
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	setDefault(&c.TailRecordsMax, 200_000)
	setDefault(&c.TailBytesMax, 32<<20)
	setDefault(&c.TailCacheBytesMax, 128<<20)
	setDefault(&c.TailFetchesMax, 8)
	setDefault(&c.PageBytesMax, 32<<20)
	setDefault(&c.FoldEventsMax, 1_000_000)
	setDefault(&c.LeaderAgeMax, 5*time.Second)
	setDefault(&c.FeedsMax, 256)
	return c
}

func setDefault[T int | int64 | time.Duration](field *T, value T) {
	if *field == 0 {
		*field = value
	}
}

func (c Config) validate() error {
	faults := []error{topics.ValidateNamespace(c.Namespace)}
	fault := func(bad bool, format string, args ...any) {
		if bad {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	fault(len(c.Categories) == 0, "Categories is empty")
	fault(len(c.Kafka) == 0, "Kafka is empty: give at least the seed brokers")
	fault(c.Codec == nil, "Codec is nil")
	for _, category := range c.Categories {
		faults = append(faults, topics.ValidateName("category", category))
	}
	for category, d := range c.Deciders {
		fault(!slices.Contains(c.Categories, category), "Deciders has category %q, Categories has not", category)
		fault(d != nil && d.Category != category, "Deciders has a decider of category %q under %q", nameOf(d), category)
	}
	fault(c.TailRecordsMax < 0, "TailRecordsMax is %d", c.TailRecordsMax)
	fault(c.TailBytesMax < 0, "TailBytesMax is %d", c.TailBytesMax)
	fault(c.TailCacheBytesMax < 0, "TailCacheBytesMax is %d", c.TailCacheBytesMax)
	fault(c.TailFetchesMax < 0, "TailFetchesMax is %d", c.TailFetchesMax)
	fault(c.PageBytesMax < 0, "PageBytesMax is %d", c.PageBytesMax)
	fault(c.FoldEventsMax < 0, "FoldEventsMax is %d", c.FoldEventsMax)
	fault(c.LeaderAgeMax < 0, "LeaderAgeMax is %s", c.LeaderAgeMax)
	fault(c.FeedsMax < 0, "FeedsMax is %d", c.FeedsMax)
	if err := errors.Join(faults...); err != nil {
		return fmt.Errorf("streams config: %w", err)
	}
	return nil
}

func nameOf(d *decider.Definition) string {
	if d == nil {
		return ""
	}
	return d.Category
}

// LimitMax is the most events that one Load returns.
const LimitMax = 10_000

// Query asks for events of one stream.
type Query struct {
	Stream event.StreamID
	// From is the first version wanted; 0 is the first event, or the last one when Backward.
	From event.Version
	// Limit is how many events at most; 0 is LimitMax, which is the most.
	Limit int
	// Backward reads from From down to version 1.
	Backward bool
	// MinVersion is what the stream must have; the read waits for it, at most Wait, and fails with
	// a *StaleError.
	MinVersion event.Version
	Wait       time.Duration
}

// Page is part of a stream.
type Page struct {
	Stream  event.StreamID
	Version event.Version // of the stream's last event, as of the read
	// Events in the order asked for. What the index does not keep is absent: CommandHash,
	// CommandOffset and DecidedOffset (-1), DedupeUntil, Origin, Traceparent.
	Events []event.Recorded
	Next   event.Version // the From of the next page; 0 when there is no more
}

// At chooses a state: after a version, or after all that was recorded up to a time. Both zero: now.
type At struct {
	Version event.Version
	Time    time.Time
}

// State is a stream's state as its category's decider folds it.
type State struct {
	Stream     event.StreamID
	Version    event.Version // of the last event folded
	RecordedAt time.Time     // its stamp
	Value      any           // of the decider's StateType; the caller's own
	JSON       []byte
	Folded     int           // events folded for this answer
	FromSlot   event.Version // the version of the history slot that it began with; 0: from the first event
}

// Command is where the events of one command are.
type Command struct {
	First, Last event.Version
	Partition   int32
	Offset      int64 // of the last event
}

// Errors that callers branch on.
var (
	ErrNoCategory = errors.New("category is unknown")
	ErrNoStream   = errors.New("stream has no event")
	ErrNoVersion  = errors.New("stream does not have that version")
	ErrNoFold     = errors.New("category has no decider, so its streams have no state")
	ErrNoCommand  = errors.New("no event of that command is in the log")
	// ErrUnavailable: Kafka, Postgres or the registry does not answer; it may pass.
	ErrUnavailable = errors.New("reading streams is not possible at the moment")
	// ErrClosed: the Store was closed.
	ErrClosed = errors.New("the store of streams is closed")
)

// StaleError says that a read would need more of the log than it may take, or that the version
// waited for did not come. It passes by itself: the index catches up, the version comes.
type StaleError struct {
	Stream event.StreamID
	// Have and Want are versions, where one was waited for; else 0.
	Have, Want event.Version
	// LagRecords is how many offsets the index is behind the end of the partition.
	LagRecords int64
	// Behind is the age of the first record that the index lacks; 0 when it lacks none.
	Behind time.Duration
	// Reason says what was not possible and what to do.
	Reason string
}

func (e *StaleError) Error() string {
	if e.Want > 0 {
		return fmt.Sprintf("stream %s is at version %d, wanted %d: %s", e.Stream, e.Have, e.Want, e.Reason)
	}
	return fmt.Sprintf("stream %s: the index is %d records (%s) behind the log: %s", e.Stream, e.LagRecords, e.Behind.Round(time.Millisecond), e.Reason)
}

// LogError says that index and log do not fit together, or that a record breaks the log's rules. It
// does not pass by itself.
type LogError struct {
	Topic     string
	Partition int32
	Offset    int64 // -1 where it is not about one record
	Stream    event.StreamID
	Reason    string // cause, and what to do
}

func (e *LogError) Error() string {
	place := fmt.Sprintf("%s[%d]", e.Topic, e.Partition)
	if e.Offset >= 0 {
		place += fmt.Sprintf("@%d", e.Offset)
	}
	return fmt.Sprintf("stream %s in %s: %s", e.Stream, place, e.Reason)
}
