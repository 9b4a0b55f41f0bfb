package projector

import (
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"time"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/projection"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Config of a Projector. The zero value of a field means its default.
type Config struct {
	// Namespace is the prefix of topics, groups and Postgres schemas. Required.
	Namespace string
	// Views to keep, each with a consumer group of its own. Required, unless EventCategories is given.
	Views []projection.View
	// EventCategories are the categories whose events and history slots the system views keep
	// (<ns>.events and <ns>.snapshots, made by MigrateSystemViews). Empty: no system views.
	EventCategories []string
	// Kafka connects: seeds, TLS, SASL, client id. Required.
	Kafka []kgo.Opt
	// Pool is shared by all views; a partition batch uses one connection. Required.
	Pool *pgxpool.Pool
	// Codec decodes payloads. Required.
	Codec *codec.Codec
	// Registerer takes the metrics; default: a registry of its own that nobody reads.
	Registerer prometheus.Registerer
	// Logger; default slog.Default(). Payloads are never logged.
	Logger *slog.Logger
	// Clock; default time.Now.
	Clock func() time.Time

	// BatchRecordsMax bounds one Postgres transaction; default 5000 records.
	BatchRecordsMax int
	// BatchBytesMax bounds the values of one transaction; default 8 MiB.
	BatchBytesMax int
	// QueueBytesMax bounds what waits for one partition's worker; beyond it the partition is not
	// fetched until half is gone. Default 16 MiB.
	QueueBytesMax int
	// RowCacheRowsMax bounds the rows that each partition keeps; default 10000.
	RowCacheRowsMax int
	// ParkedKeysMax bounds the parked keys of one partition; one more stops it. Default 1000.
	ParkedKeysMax int
	// LettersPerKeyMax bounds the letters of one parked stream; one more stops its partition.
	// Default 10000.
	LettersPerKeyMax int
	// BreakerShare is the share of events that may become letters, of those that are applied or
	// fail within BreakerWindow: at more, and at least BreakerLettersMin of them, the view is paused
	// in all processes until an operator resumes it. Later events of a parked stream do not count.
	// Default 0.2; 1 or more: never.
	BreakerShare float64
	// BreakerLettersMin is the least number of letters for that; default 50.
	BreakerLettersMin int
	// BreakerWindow; default 1 min.
	BreakerWindow time.Duration
	// AuditInterval is how often a sample of each view's streams is folded again from the index of
	// events and compared with its rows; default 1 min, negative: never. Views without streams of
	// their own (metric views), or of categories that are not in EventCategories, are left out.
	AuditInterval time.Duration
	// AuditStreams is the size of the sample; default 20.
	AuditStreams int
	// Watchdog is how long a partition with waiting records may make no progress before it counts
	// as stalled: logged, in the metrics, not ready. Default 30 s.
	Watchdog time.Duration
	// RetryMin and RetryMax bound the pause after an infrastructure error; it doubles from one to
	// the other. Default 100 ms and 10 s.
	RetryMin, RetryMax time.Duration
	// DrainTimeout bounds the transaction under way when Run ends; default 10 s.
	DrainTimeout time.Duration
	// RevokeTimeout bounds the transaction under way when a partition is revoked; default 2 s.
	RevokeTimeout time.Duration
	// SessionTimeout of the consumer groups; default 6 s.
	SessionTimeout time.Duration
	// MirrorInterval is how often progress is committed to Kafka for lag tools; default 1 s.
	MirrorInterval time.Duration

	// database replaces Pool for the workers in tests.
	database database
}

func (c Config) withDefaults() Config {
	if c.Registerer == nil {
		c.Registerer = prometheus.NewRegistry()
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	setDefault(&c.BatchRecordsMax, 5000)
	setDefault(&c.BatchBytesMax, 8<<20)
	setDefault(&c.QueueBytesMax, 16<<20)
	setDefault(&c.RowCacheRowsMax, 10_000)
	setDefault(&c.ParkedKeysMax, 1000)
	setDefault(&c.LettersPerKeyMax, 10_000)
	setDefault(&c.BreakerShare, 0.2)
	setDefault(&c.BreakerLettersMin, 50)
	setDefault(&c.BreakerWindow, time.Minute)
	setDefault(&c.AuditInterval, time.Minute)
	setDefault(&c.AuditStreams, 20)
	setDefault(&c.Watchdog, 30*time.Second)
	setDefault(&c.RetryMin, 100*time.Millisecond)
	setDefault(&c.RetryMax, 10*time.Second)
	setDefault(&c.DrainTimeout, 10*time.Second)
	setDefault(&c.RevokeTimeout, 2*time.Second)
	setDefault(&c.SessionTimeout, 6*time.Second)
	setDefault(&c.MirrorInterval, time.Second)
	return c
}

func setDefault[T int | float64 | time.Duration](field *T, value T) {
	if *field == 0 {
		*field = value
	}
}

var namespaceRule = regexp.MustCompile(`^[a-z][a-z0-9]{0,14}$`)

func (c Config) validate() error {
	var faults []error
	fault := func(bad bool, format string, args ...any) {
		if bad {
			faults = append(faults, fmt.Errorf("projector config: "+format, args...))
		}
	}
	fault(!namespaceRule.MatchString(c.Namespace), "Namespace %q: want [a-z][a-z0-9]{0,14}", c.Namespace)
	fault(len(c.Views) == 0 && len(c.EventCategories) == 0, "Views and EventCategories are empty")
	for _, category := range c.EventCategories {
		if err := topics.ValidateName("category", category); err != nil {
			fault(true, "EventCategories: %w", err)
		}
	}
	fault(len(c.Kafka) == 0, "Kafka is empty: give at least the seed brokers")
	fault(c.Pool == nil, "Pool is nil")
	fault(c.Codec == nil, "Codec is nil")
	fault(c.BatchRecordsMax < 1, "BatchRecordsMax is %d", c.BatchRecordsMax)
	fault(c.BatchBytesMax < 1, "BatchBytesMax is %d", c.BatchBytesMax)
	fault(c.QueueBytesMax < 1, "QueueBytesMax is %d", c.QueueBytesMax)
	fault(c.RowCacheRowsMax < 1, "RowCacheRowsMax is %d", c.RowCacheRowsMax)
	fault(c.ParkedKeysMax < 1, "ParkedKeysMax is %d", c.ParkedKeysMax)
	fault(c.LettersPerKeyMax < 1, "LettersPerKeyMax is %d", c.LettersPerKeyMax)
	fault(c.BreakerShare < 0, "BreakerShare is %v", c.BreakerShare)
	fault(c.BreakerLettersMin < 1, "BreakerLettersMin is %d", c.BreakerLettersMin)
	fault(c.AuditStreams < 1, "AuditStreams is %d", c.AuditStreams)
	fault(c.RetryMin < 0 || c.RetryMax < c.RetryMin, "RetryMin %s and RetryMax %s: want 0 < min ≤ max", c.RetryMin, c.RetryMax)
	for name, d := range map[string]time.Duration{
		"Watchdog": c.Watchdog, "DrainTimeout": c.DrainTimeout, "RevokeTimeout": c.RevokeTimeout,
		"SessionTimeout": c.SessionTimeout, "MirrorInterval": c.MirrorInterval, "BreakerWindow": c.BreakerWindow,
	} {
		fault(d < 0, "%s is negative: %s", name, d)
	}
	faults = append(faults, validateViews(c.Views))
	return errors.Join(faults...)
}

// views are those of the team, then those of the system.
func (c Config) views() []projection.View {
	views := slices.Clone(c.Views)
	if len(c.EventCategories) > 0 {
		views = append(views, systemViews(c.EventCategories)...)
	}
	return views
}

func validateViews(views []projection.View) error {
	var faults []error
	seen := map[string]bool{}
	for _, v := range views {
		faults = append(faults, v.Validate())
		id := fmt.Sprintf("%s.v%d", v.Name, v.Version)
		if seen[id] {
			faults = append(faults, fmt.Errorf("view %s is given twice", id))
		}
		seen[id] = true
	}
	return errors.Join(faults...)
}
