package dashboards

import (
	"context"
	"iter"
	"slices"
	"testing"
	"time"

	"github.com/foldstream/foldstream/internal/app"
	"github.com/foldstream/foldstream/internal/devstack"
	"github.com/foldstream/foldstream/internal/domain/execution"
	"github.com/foldstream/foldstream/internal/domain/workflow"
	"github.com/foldstream/foldstream/internal/importer"
	"github.com/foldstream/foldstream/internal/processlog"
	"github.com/foldstream/foldstream/internal/reference"
	"github.com/foldstream/foldstream/internal/service"
	"github.com/foldstream/foldstream/internal/testkit"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	sampleSeed  = 1
	sampleCases = 60 // enough for every outcome that a decider gives
	sendMax     = 60 * time.Second
)

// world is a stack with ingest and projector as two processes would run it: each with metrics and
// an address of its own.
type world struct {
	t         *testing.T
	env       *app.Environment // of ingest
	addresses []string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	stack, err := devstack.StartStack(t.Context(), devstack.StackConfig{})
	if err != nil {
		t.Fatalf("start the stack: %v", err)
	}
	t.Cleanup(func() {
		if err := stack.Stop(); err != nil {
			t.Errorf("stop the stack: %v", err)
		}
	})
	w := &world{t: t}
	namespace := testkit.Namespace(t)
	for _, which := range []app.Which{{Ingest: true}, {Projector: true}} {
		env := environment(t, stack, namespace)
		if w.env == nil {
			w.env = env
			if err := env.Prepare(t.Context()); err != nil {
				t.Fatalf("prepare the stack: %v", err)
			}
		}
		w.serve(env, which)
	}
	return w
}

func environment(t *testing.T, stack *devstack.Stack, namespace string) *app.Environment {
	t.Helper()
	config := service.DefaultConfig()
	config.Kafka.Brokers, config.Postgres.DSN = stack.Brokers, service.Secret(stack.DSN)
	config.HTTP.Addr, config.Log.Level = "127.0.0.1:0", "error"
	env, err := app.NewEnvironment(reference.Program("dashboards"), app.Settings{Namespace: namespace, Config: config, Logs: t.Output()})
	if err != nil {
		t.Fatalf("make the program: %v", err)
	}
	env.Project.ReplicationFactor, env.Project.MinInsyncReplicas = 1, 1 // there is one broker
	return env
}

// serve runs services until the test ends.
func (w *world) serve(env *app.Environment, which app.Which) {
	w.t.Helper()
	services, err := env.OpenServices(w.t.Context(), which)
	if err != nil {
		w.t.Fatalf("open the services: %v", err)
	}
	w.addresses = append(w.addresses, services.Addr())
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- services.Run(ctx, nil) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Errorf("services ended: %v", err)
		}
	})
	testkit.Await(w.t, "the services are ready", startMax, func(context.Context) bool { return services.Ready() == nil })
}

// send has commands meet every outcome that a healthy stack gives: the sample meets four, and a
// record that is no Avro is invalid.
func (w *world) send() {
	w.t.Helper()
	commands, err := processlog.SampleCommands(sampleSeed, sampleCases)
	if err != nil {
		w.t.Fatal(err)
	}
	opts, err := w.env.Kafka()
	if err != nil {
		w.t.Fatal(err)
	}
	in, err := w.env.Registry()
	if err != nil {
		w.t.Fatal(err)
	}
	defer in.Close()
	ctx, cancel := context.WithTimeout(w.t.Context(), sendMax)
	defer cancel()
	w.sendUndecodable(ctx, opts)
	cfg := importer.Config{
		Namespace: w.env.Project.Namespace, Kafka: opts, Codec: codec.New(in, codec.Config{}),
		Types: slices.Concat([]codec.TypeDef(workflow.Types), []codec.TypeDef(execution.Types)),
	}
	// An import refuses a command that its input has twice; the second time is a second import.
	for _, part := range onceAndAgain(commands) {
		report, err := importer.Run(ctx, cfg, commandsOf(part))
		if err != nil || report.Commands != len(part) {
			w.t.Fatalf("send %d commands: %d were answered, %v", len(part), report.Commands, err)
		}
	}
}

// onceAndAgain parts the commands whose id came before from the others.
func onceAndAgain(commands []processlog.Command) [2][]processlog.Command {
	var parts [2][]processlog.Command
	seen := map[string]bool{}
	for _, c := range commands {
		part := 0
		if seen[c.ID] {
			part = 1
		}
		seen[c.ID] = true
		parts[part] = append(parts[part], c)
	}
	return parts
}

func (w *world) sendUndecodable(ctx context.Context, opts []kgo.Opt) {
	w.t.Helper()
	client, err := kgo.NewClient(opts...)
	if err != nil {
		w.t.Fatal(err)
	}
	defer client.Close()
	record := &kgo.Record{Topic: topics.Commands(w.env.Project.Namespace, workflow.Category), Key: []byte("w-1"), Value: []byte("no Avro")}
	if err := client.ProduceSync(ctx, record).FirstErr(); err != nil {
		w.t.Fatalf("send a record that is no Avro: %v", err)
	}
}

func commandsOf(commands []processlog.Command) iter.Seq[importer.Command] {
	return func(yield func(importer.Command) bool) {
		for _, c := range commands {
			if !yield(importer.Command{
				Category: c.Category, StreamID: c.StreamID, Type: c.Type, ID: c.ID, Time: c.Time,
				Expected: c.Expected, CorrelationID: c.CorrelationID, Data: c.Data,
			}) {
				return
			}
		}
	}
}
