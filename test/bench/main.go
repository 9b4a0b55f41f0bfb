// Command bench measures Foldstream against bare loops of the same work, on a real Kafka broker
// and a real Postgres that it starts itself. The bare loops are fixed here: they are what a team
// would write without Foldstream and without its guarantees, with the same client library, bytes,
// partitions and acknowledgements.
//
// Each measurement prints one JSON line on stdout; the summary, medians and ratios of all runs,
// follows as JSON lines with "bench": "summary". Progress goes to stderr.
//
//	go run ./test/bench [-runs 5] [-seconds 2] [-only commands,appender,projector]
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"time"

	"github.com/foldstream/foldstream/internal/devstack"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

func main() {
	if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench is what all measurements share.
type bench struct {
	ctx      context.Context
	runs     int
	duration time.Duration
	seeds    []string
	systems  string
	depths   []int
	admin    *kadm.Client
	dsn      string
	out      *json.Encoder
	progress io.Writer
	results  []result
	log      *slog.Logger
}

// result is one measurement.
type result struct {
	Bench    string  `json:"bench"`
	System   string  `json:"system"` // foldstream or bare
	InFlight int     `json:"in_flight,omitempty"`
	Run      int     `json:"run"`
	PerS     float64 `json:"per_s"`
	P50Ms    float64 `json:"p50_ms,omitempty"`
	P99Ms    float64 `json:"p99_ms,omitempty"`
	Count    int     `json:"count"`
}

const (
	benchNamespace  = "bench"
	benchPartitions = 12
)

func run(args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	runs := flags.Int("runs", 5, "runs of each measurement; the median counts")
	seconds := flags.Float64("seconds", 2, "length of one measurement")
	only := flags.String("only", "commands,appender,projector", "which benches")
	systems := flags.String("systems", "foldstream,bare", "which systems of the commands bench; for profiles")
	depths := flags.String("depths", "1,16,128,1024", "in-flight depths")
	cpuProfile := flags.String("cpuprofile", "", "write a CPU profile to this file")
	if err := flags.Parse(args); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	dir, err := os.MkdirTemp("", "foldstream-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // a Postgres run as nobody must get through
		return err
	}
	broker, err := devstack.StartJVM(ctx, devstack.JVMConfig{DataDir: dir + "/kafka", HeapMB: 1024})
	if err != nil {
		return err
	}
	defer broker.Stop()
	b := &bench{
		ctx: ctx, runs: *runs, duration: time.Duration(*seconds * float64(time.Second)), seeds: broker.Brokers(),
		out: json.NewEncoder(stdout), progress: stderr, log: slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(b.seeds...))
	if err != nil {
		return err
	}
	defer client.Close()
	b.admin = kadm.NewClient(client)
	b.systems = *systems
	for text := range strings.SplitSeq(*depths, ",") {
		depth, err := strconv.Atoi(text)
		if err != nil || depth < 1 {
			return fmt.Errorf("depth %q: want a positive number", text)
		}
		b.depths = append(b.depths, depth)
	}
	stopProfile, err := profile(*cpuProfile)
	if err != nil {
		return err
	}
	defer stopProfile()
	for name := range strings.SplitSeq(*only, ",") {
		switch name {
		case "commands":
			err = b.commands()
		case "appender":
			err = b.appenderAlone()
		case "projector":
			var postgres *devstack.Postgres
			if postgres, err = devstack.StartPostgres(ctx, devstack.PostgresConfig{DataDir: dir + "/postgres"}); err == nil {
				b.dsn = postgres.DSN()
				err = b.projector()
				postgres.Stop()
			}
		default:
			err = fmt.Errorf("no bench is called %q", name)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return b.summarise()
}

func (b *bench) record(r result) {
	b.results = append(b.results, r)
	_ = b.out.Encode(r)
}

func (b *bench) opts(more ...kgo.Opt) []kgo.Opt {
	return append([]kgo.Opt{kgo.SeedBrokers(b.seeds...)}, more...)
}

// createTopics applies the layout of one namespace.
func (b *bench) createTopics(layout topics.Layout) error {
	plan, err := topics.MakePlan(b.ctx, b.admin, layout.Specs())
	if err != nil {
		return err
	}
	_, err = topics.Apply(b.ctx, b.admin, plan)
	return err
}
