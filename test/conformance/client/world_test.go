package client

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"reflect"
	"sync/atomic"
	"testing"
	"time"

	"github.com/foldstream/foldstream"
	"github.com/foldstream/foldstream/internal/domain/execution"
	"github.com/foldstream/foldstream/internal/domain/workflow"
	"github.com/foldstream/foldstream/internal/engine"
	"github.com/foldstream/foldstream/internal/ingest/gateway"
	"github.com/foldstream/foldstream/internal/ingest/httpapi"
	"github.com/foldstream/foldstream/internal/projector"
	"github.com/foldstream/foldstream/internal/registry"
	"github.com/foldstream/foldstream/internal/registry/rest"
	"github.com/foldstream/foldstream/internal/streams"
	"github.com/foldstream/foldstream/internal/testkit"
	"github.com/foldstream/foldstream/pkg/client"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/decider"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

func TestMain(m *testing.M) { os.Exit(testkit.MainNoLeaks(m)) }

// noted is the event of category note, which takes appends.
type noted struct {
	Text string `avro:"text"`
}

var notedDef = codec.TypeDef{Name: "note.Noted", Version: 1, Kind: event.KindEvent, GoType: reflect.TypeFor[noted]()}

const notedSchema = `{"type": "record", "namespace": "note", "name": "Noted", "fs.kind": "event", "fields": [{"name": "text", "type": "string"}]}`

// struck is a second event of the category, which no Go type is bound to.
const struckSchema = `{"type": "record", "namespace": "note", "name": "Struck", "fs.kind": "event", "fields": [{"name": "by", "type": "string"}]}`

const partitions = 3

// subscriptions that have a topic for letters.
var subscriptions = []string{"one", "filtered", "failing", "ordered", "parallel", "resumed", "replayed", "slow", "panics", "stopped", "moved", "ends", "members"}

// world is a namespace with its ingest, and the HTTP API in front of it.
type world struct {
	t        *testing.T
	kafka    *testkit.Kafka
	overHTTP bool
	ns       string
	registry *registry.Topic
	url      string
	pool     *pgxpool.Pool
	handler  atomic.Pointer[http.Handler]
	stop     func()
}

func newWorld(t *testing.T, kafka *testkit.Kafka, overHTTP bool) *world {
	t.Helper()
	w := &world{t: t, kafka: kafka, overHTTP: overHTTP, ns: testkit.Namespace(t)}
	w.createTopics()
	w.register()
	if overHTTP {
		w.listen()
		w.project()
	}
	w.start()
	t.Cleanup(func() { w.stop() })
	return w
}

func (w *world) seeds() []kgo.Opt { return []kgo.Opt{kgo.SeedBrokers(w.kafka.Seeds()...)} }

func (w *world) createTopics() {
	w.t.Helper()
	layout := topics.Layout{Namespace: w.ns, ReplicationFactor: 1, DefaultPartitions: partitions, Categories: []topics.Category{
		{Name: workflow.Category, Mode: topics.ModeDecider}, {Name: execution.Category, Mode: topics.ModeDecider}, {Name: "note", Mode: topics.ModeAppend},
	}}
	for _, name := range subscriptions {
		layout.Consumers = append(layout.Consumers, "sub."+name)
	}
	layout.Consumers = append(layout.Consumers, projector.SystemConsumers()...)
	adm := kadm.NewClient(w.kafka.Client(w.t))
	plan, err := topics.MakePlan(w.t.Context(), adm, layout.Specs())
	if err == nil {
		_, err = topics.Apply(w.t.Context(), adm, plan)
	}
	if err != nil {
		w.t.Fatalf("create topics: %v", err)
	}
}

func (w *world) register() {
	w.t.Helper()
	var err error
	if w.registry, err = registry.NewTopic(registry.TopicConfig{Namespace: w.ns, Opts: w.seeds(), Logger: quiet()}); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(w.registry.Close)
	submissions, err := registry.Submissions(foldstream.Project, "schemas/avro")
	if err != nil {
		w.t.Fatal(err)
	}
	submissions = append(submissions,
		registry.Submission{Type: "note.Noted", Kind: event.KindEvent, Text: notedSchema},
		registry.Submission{Type: "note.Struck", Kind: event.KindEvent, Text: struckSchema})
	if _, err := w.registry.Register(w.t.Context(), submissions); err != nil {
		w.t.Fatalf("register schemas: %v", err)
	}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// listen serves whatever handler there is at a fixed address; 503 while there is none.
func (w *world) listen() {
	w.t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		handler := w.handler.Load()
		if handler == nil {
			http.Error(rw, "there is nobody", http.StatusServiceUnavailable)
			return
		}
		(*handler).ServeHTTP(rw, r)
	})}
	go func() { _ = server.Serve(listener) }()
	w.t.Cleanup(func() { _ = server.Close() })
	w.url = "http://" + listener.Addr().String()
}

var categories = []string{workflow.Category, execution.Category, "note"}

// project keeps the index that streams are read by.
func (w *world) project() {
	w.t.Helper()
	var err error
	if w.pool, err = pgxpool.New(w.t.Context(), testkit.Postgreses(w.t)[0].NewDatabase(w.t)); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(w.pool.Close)
	if err := projector.MigrateSystemViews(w.t.Context(), w.pool, w.ns); err != nil {
		w.t.Fatalf("make the system views: %v", err)
	}
	p, err := projector.New(projector.Config{
		Namespace: w.ns, EventCategories: categories, Kafka: w.seeds(), Pool: w.pool, Codec: codec.New(w.registry, codec.Config{}), Logger: quiet(),
	})
	if err != nil {
		w.t.Fatalf("make the projector: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Errorf("the projector ended: %v", err)
		}
	})
}

// start runs an ingest until w.stop.
func (w *world) start() {
	w.t.Helper()
	workflows, executions := workflow.Decider.Definition(), execution.Decider.Definition()
	e, err := engine.New(w.t.Context(), engine.Config{
		Namespace: w.ns, Kafka: w.seeds(), Registry: w.registry, Logger: quiet(), SessionTimeout: 6 * time.Second,
		Categories: []engine.Category{
			{Name: workflow.Category, Decider: &workflows, AllowAppends: true}, {Name: execution.Category, Decider: &executions}, {Name: "note"},
		},
	})
	if err != nil {
		w.t.Fatalf("start ingest: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- e.Run(ctx) }()
	running := 1
	closing := func() {}
	if w.overHTTP {
		closing = w.serve(ctx, e, ended)
		running++
	}
	w.stop = func() {
		w.handler.Store(nil)
		closing()
		cancel()
		for range running {
			if err := <-ended; err != nil {
				w.t.Errorf("ingest ended: %v", err)
			}
		}
		w.stop = func() {}
	}
}

// serve puts the HTTP API in front of an ingest.
func (w *world) serve(ctx context.Context, e *engine.Engine, ended chan<- error) (closing func()) {
	w.t.Helper()
	c := codec.New(w.registry, codec.Config{})
	g, err := gateway.New(w.t.Context(), gateway.Config{Namespace: w.ns, Categories: categories, Submit: e.Submit, Kafka: w.seeds(), Codec: c, Logger: quiet()})
	if err != nil {
		w.t.Fatalf("start the gateway: %v", err)
	}
	workflows := workflow.Decider.Definition()
	store, err := streams.New(streams.Config{
		Namespace: w.ns, Categories: categories, Deciders: map[string]*decider.Definition{workflow.Category: &workflows},
		Kafka: w.seeds(), Pool: w.pool, Codec: c, Logger: quiet(),
	})
	if err != nil {
		w.t.Fatalf("start the reads: %v", err)
	}
	cfg := httpapi.Config{Namespace: w.ns, Gateway: g, Codec: c, Registry: w.registry, Streams: store, Logger: quiet()}
	for _, name := range categories {
		cfg.Categories = append(cfg.Categories, httpapi.Category{Name: name, Mode: topics.ModeDecider})
	}
	api, err := httpapi.New(cfg)
	if err != nil {
		w.t.Fatalf("make the HTTP API: %v", err)
	}
	schemas, err := rest.New(rest.Config{Registry: w.registry, ReadOnly: true, Logger: quiet()})
	if err != nil {
		w.t.Fatalf("make the HTTP registry: %v", err)
	}
	mux := http.NewServeMux()
	mux.Handle("/registry/", http.StripPrefix("/registry", schemas))
	mux.Handle("/", api)
	var handler http.Handler = mux
	w.handler.Store(&handler)
	go func() { ended <- g.Run(ctx) }()
	return func() { api.Drain(); store.Close() }
}

// client makes one, closed with the test.
func (w *world) client(t *testing.T, tune ...func(*client.Config)) *client.Client {
	t.Helper()
	cfg := client.Config{Types: []codec.TypeDef{notedDef}, Deciders: []decider.Any{workflow.Decider}, Logger: slog.New(logTo{t})}
	if w.overHTTP {
		cfg.URL = w.url
	} else {
		cfg.Namespace, cfg.Kafka = w.ns, w.seeds()
	}
	for _, f := range tune {
		f(&cfg)
	}
	c, err := client.New(t.Context(), cfg)
	if err != nil {
		t.Fatalf("make a client: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := c.Close(ctx); err != nil {
			t.Errorf("close the client: %v", err)
		}
	})
	return c
}

// logTo keeps what a client warns of with its test.
type logTo struct{ t *testing.T }

func (logTo) Enabled(context.Context, slog.Level) bool { return true }
func (l logTo) WithAttrs([]slog.Attr) slog.Handler     { return l }
func (l logTo) WithGroup(string) slog.Handler          { return l }
func (l logTo) Handle(_ context.Context, r slog.Record) error {
	text := r.Message
	r.Attrs(func(a slog.Attr) bool { text += fmt.Sprintf(" %s=%v", a.Key, a.Value); return true })
	l.t.Log(text)
	return nil
}

var counter atomic.Int64

// fresh is a stream that nobody has used.
func fresh(category string) event.StreamID {
	return event.StreamID{Category: category, ID: fmt.Sprintf("s-%d", counter.Add(1))}
}

func note(texts ...string) []client.NewEvent {
	events := make([]client.NewEvent, len(texts))
	for i, text := range texts {
		events[i] = client.NewEvent{Data: noted{Text: text}}
	}
	return events
}

// bounded is a context that ends before the test's own deadline does.
func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// must appends and fails the test when it is not accepted.
func (w *world) must(t *testing.T, c *client.Client, stream event.StreamID, texts ...string) client.Outcome {
	t.Helper()
	outcome, err := c.Append(bounded(t), stream, event.ExpectedAny, note(texts...))
	if err != nil {
		t.Fatalf("append %v: %v", texts, err)
	}
	return outcome
}

// worlds runs a behaviour over every transport and broker, each in a world of its own or a shared one.
func worlds(t *testing.T, run func(t *testing.T, w *world)) {
	t.Helper()
	kafkas := testkit.Kafkas(t)
	for _, k := range kafkas {
		t.Run("kafka on "+k.Name, func(t *testing.T) {
			t.Parallel()
			run(t, newWorld(t, k, false))
		})
	}
	last := kafkas[len(kafkas)-1]
	t.Run("http before "+last.Name, func(t *testing.T) {
		t.Parallel()
		run(t, newWorld(t, last, true))
	})
}
