//go:build unix

package real

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/foldstream/foldstream/internal/registry"
	"github.com/foldstream/foldstream/internal/testkit"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/topics"
)

const (
	// testTimeout bounds one test, so that a hang ends with the figures so far.
	testTimeout = 4 * time.Minute
	// sessionTimeout is short, since each kill of the only member costs one.
	sessionTimeout = 1500 * time.Millisecond
	// stopTimeout bounds an orderly stop.
	stopTimeout = 30 * time.Second

	envSeed = "FOLDSTREAM_TEST_SEED"
)

// categories of the reference project, which the binary has built in.
var categories = []string{"execution", "workflow"}

func TestMain(m *testing.M) { os.Exit(testkit.Main(m)) }

// realKafka starts a private Apache Kafka. With -short there is none, as everywhere.
func realKafka(t *testing.T) *testkit.Kafka {
	t.Helper()
	if testing.Short() {
		t.Skip("needs Apache Kafka and takes a minute")
	}
	return testkit.StartKafkaJVM(t, testkit.ForCrashes()).Kafka
}

// figure prints one line of figures, where `go test` shows it as it is.
func figure(format string, args ...any) { fmt.Printf("real: "+format+"\n", args...) }

// world is a broker, maybe a database, and a namespace of its own with topics and schemas.
type world struct {
	t         *testing.T
	ctx       context.Context // ends with the test, or at its time-out
	kafka     *testkit.Kafka
	namespace string
	dsn       string        // "" without a database
	pool      *pgxpool.Pool // nil without a database
	binary    string
	dir       string // logs of the children
	admin     *kadm.Client
	seed      int64
}

// newWorld prepares a broker as an operator would: topics, then schemas. pg may be nil.
func newWorld(t *testing.T, kafka *testkit.Kafka, pg *testkit.Postgres) *world {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	t.Cleanup(cancel)
	w := &world{
		t: t, ctx: ctx, kafka: kafka, namespace: testkit.Namespace(t), dir: t.TempDir(),
		admin: kadm.NewClient(kafka.Client(t)), seed: seed(t),
	}
	w.binary = testkit.Build(t, "github.com/foldstream/foldstream/cmd/foldstream")
	var err error
	if pg != nil {
		w.dsn = pg.NewDatabase(t)
		if w.pool, err = pgxpool.New(ctx, w.dsn); err != nil {
			t.Fatalf("connect to Postgres: %v", err)
		}
		t.Cleanup(w.pool.Close)
	}
	w.run("topics", "apply", "--execute", "--yes")
	w.run("schema", "register")
	return w
}

// seed is the one given, else a random one.
func seed(t *testing.T) int64 {
	t.Helper()
	text := os.Getenv(envSeed)
	if text == "" {
		return rand.Int64N(1_000_000)
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t.Fatalf("%s is %q, want a number", envSeed, text)
	}
	return n
}

// random is a source of its own for each purpose, all from the one seed.
func (w *world) random(purpose uint64) *rand.Rand {
	return rand.New(rand.NewPCG(uint64(w.seed), purpose))
}

// environment configures a child. Nothing of the caller's own configuration gets through.
func (w *world) environment() []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "FOLDSTREAM_") || strings.HasPrefix(v, "PG")
	})
	env = append(env,
		"FOLDSTREAM_KAFKA_BROKERS="+strings.Join(w.kafka.Seeds(), ","),
		"FOLDSTREAM_NAMESPACE="+w.namespace,
		"FOLDSTREAM_HTTP_ADDR=127.0.0.1:0",
		"FOLDSTREAM_LOG_FORMAT=json",
		"FOLDSTREAM_INGEST_SESSION_TIMEOUT="+sessionTimeout.String(),
		"FOLDSTREAM_PROJECTOR_SESSION_TIMEOUT="+sessionTimeout.String(),
	)
	if w.dsn != "" {
		env = append(env, "FOLDSTREAM_POSTGRES_DSN="+w.dsn)
	}
	return env
}

// run runs a tool to its end, which must be a good one, and returns what it printed.
func (w *world) run(args ...string) string {
	w.t.Helper()
	c, err := w.start(args...)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := c.succeed(w.ctx); err != nil {
		w.t.Fatal(err)
	}
	return c.output(w.t)
}

// mustStart starts a service.
func (w *world) mustStart(args ...string) *child {
	w.t.Helper()
	c, err := w.start(args...)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// mustStop stops services by SIGTERM; each must end with 0.
func (w *world) mustStop(services ...*child) {
	w.t.Helper()
	for _, c := range services {
		if code, err := c.terminate(w.ctx); err != nil || code != 0 {
			w.t.Errorf("stop %s: exit code %d, want 0 (%v)\n%s", c.name, code, err, c.tail())
		}
	}
}

// codec reads payloads by the schemas in the world's topic.
func (w *world) codec() *codec.Codec {
	w.t.Helper()
	in, err := registry.NewTopic(registry.TopicConfig{
		Opts: []kgo.Opt{kgo.SeedBrokers(w.kafka.Seeds()...)}, Namespace: w.namespace, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		w.t.Fatalf("open the schemas: %v", err)
	}
	w.t.Cleanup(in.Close)
	return codec.New(in, codec.Config{})
}

// topicsOf names a topic of each category.
func (w *world) topicsOf(name func(ns, category string) string) []string {
	var all []string
	for _, c := range categories {
		all = append(all, name(w.namespace, c))
	}
	return all
}

// place is one partition of one topic.
type place struct {
	topic     string
	partition int32
}

func (p place) String() string { return fmt.Sprintf("%s[%d]", p.topic, p.partition) }

// ends is a position in each of some partitions: all before it is meant.
type ends map[place]int64

// endsOf asks the broker where topics end.
func (w *world) endsOf(ctx context.Context, names ...string) (ends, error) {
	listed, err := w.admin.ListEndOffsets(ctx, names...)
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("ask where topics end: %w", err)
	}
	all := ends{}
	listed.Each(func(o kadm.ListedOffset) { all[place{o.Topic, o.Partition}] = o.Offset })
	return all, nil
}

// reader makes a client that reads these partitions from their start, in no group.
func (w *world) reader(positions ends) *kgo.Client {
	w.t.Helper()
	starts := map[string]map[int32]kgo.Offset{}
	for p := range positions {
		if starts[p.topic] == nil {
			starts[p.topic] = map[int32]kgo.Offset{}
		}
		starts[p.topic][p.partition] = kgo.NewOffset().AtStart()
	}
	return w.kafka.Client(w.t, kgo.ConsumePartitions(starts))
}

// eventsTopics and the like name what the tests read.
func (w *world) eventsTopics() []string   { return w.topicsOf(topics.Events) }
func (w *world) commandsTopics() []string { return w.topicsOf(topics.Commands) }
func (w *world) repliesTopic() string     { return topics.Replies(w.namespace) }
