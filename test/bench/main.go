// Command bench measures Foldstream on a real Kafka broker and a real Postgres that it starts
// itself; docs/benchmarks.md says what each measurement is and how to read it. There are two kinds:
//
//   - Ratios: two systems, or one system in two ways, in turn in the same run. The bare loops are
//     what a team would write without Foldstream and without its guarantees, with the same client
//     library, bytes, partitions and acknowledgements.
//   - Limits: a time or a size of real processes, which this program starts again as its children
//     (`bench serve`, see child.go), kills and stops.
//
// Each measurement prints one JSON line on stdout; the summary, medians of all runs beside the
// goals, follows as JSON lines with "bench": "summary". Progress goes to stderr.
//
//	go run ./test/bench [-runs 5] [-long-runs 3] [-seconds 2] [-only hot,restart] [-restart-streams 100000]
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/foldstream/foldstream/internal/devstack"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

func main() {
	command := run
	args := os.Args[1:]
	if len(args) > 0 && args[0] == apiCommand {
		os.Exit(api(args[1:], os.Stdout, os.Stderr))
	}
	if len(args) > 0 && args[0] == serveCommand {
		command, args = serve, args[1:]
	}
	if err := command(args, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench is what all measurements share.
type bench struct {
	ctx      context.Context
	options  options
	dir      string // of the broker and of whatever a bench keeps
	seeds    []string
	admin    *kadm.Client
	out      *json.Encoder
	progress io.Writer
	results  []result
	measured []measured
	log      *slog.Logger
}

// options are the flags.
type options struct {
	runs           int
	longRuns       int
	duration       time.Duration
	only           []string
	systems        []string // none: all
	depths         []int
	restartStreams int
	dir            string
	heartbeat      time.Duration
	cpuProfile     string
	childProfiles  string
}

// result is one measurement of a rate.
type result struct {
	Bench     string  `json:"bench"`
	System    string  `json:"system"` // which of the two that are compared
	InFlight  int     `json:"in_flight,omitempty"`
	Run       int     `json:"run"`
	PerS      float64 `json:"per_s"`
	P50Ms     float64 `json:"p50_ms,omitempty"`
	P99Ms     float64 `json:"p99_ms,omitempty"`
	Count     int     `json:"count"`
	CPUMicros float64 `json:"cpu_us,omitempty"`    // processor time of this process for one of them: of system and client
	Snapshots int     `json:"snapshots,omitempty"` // saved meanwhile
}

const (
	benchNamespace  = "bench"
	benchPartitions = 12
)

// benches in the order in which they run by default: the long ones last.
var benches = []struct {
	name string
	run  func(*bench) error
}{
	{"commands", (*bench).commands},
	{"appender", (*bench).appenderAlone},
	{"engine", (*bench).engineInMemory},
	{"projector", (*bench).projector},
	{"hot", (*bench).hot},
	{"http", (*bench).http},
	{"http-batch", (*bench).httpBatch},
	{"flush", (*bench).flush},
	{"load", (*bench).loadStreams},
	{"snapshot-cost", (*bench).snapshotCost},
	{"failover", (*bench).failover},
	{"handover", (*bench).handover},
	{"restart", (*bench).restart},
}

func parseOptions(args []string) (options, error) {
	var names []string
	for _, known := range benches {
		names = append(names, known.name)
	}
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.IntVar(&o.runs, "runs", 5, "runs of each ratio; the median counts")
	flags.IntVar(&o.longRuns, "long-runs", 3, "runs of restart, failover and handover")
	seconds := flags.Float64("seconds", 2, "length of one measurement of a rate")
	only := flags.String("only", strings.Join(names, ","), "which benches")
	systems := flags.String("systems", "", "which systems of commands and engine, separated by commas; all by default; for profiles")
	depths := flags.String("depths", "1,16,128,1024", "in-flight depths of commands and appender")
	flags.IntVar(&o.restartStreams, "restart-streams", 1_000_000, "streams, of ten events each, of the log that restart reads")
	flags.StringVar(&o.dir, "dir", "", "keep the broker's data in this folder; restart then uses the log that it finds there")
	flags.DurationVar(&o.heartbeat, "heartbeat", 0, "heartbeat interval of the instances of failover, handover and restart; 0 is the engine's default")
	flags.StringVar(&o.cpuProfile, "cpuprofile", "", "write a CPU profile of this process to this file")
	flags.StringVar(&o.childProfiles, "child-profiles", "", "have the child of restart write cpu.pprof and heap.pprof into this folder")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	o.duration = time.Duration(*seconds * float64(time.Second))
	var faults []error
	if o.runs < 1 || o.longRuns < 1 || o.duration <= 0 || o.restartStreams < restartStreamsMin {
		faults = append(faults, fmt.Errorf("want -runs, -long-runs and -seconds above 0 and -restart-streams at least %d", restartStreamsMin))
	}
	for text := range strings.SplitSeq(*depths, ",") {
		depth, err := strconv.Atoi(text)
		if err != nil || depth < 1 {
			faults = append(faults, fmt.Errorf("depth %q: want a positive number", text))
		}
		o.depths = append(o.depths, depth)
	}
	o.only = strings.Split(*only, ",")
	if *systems != "" {
		o.systems = strings.Split(*systems, ",")
	}
	for _, name := range o.only {
		if !slices.Contains(names, name) {
			faults = append(faults, fmt.Errorf("no bench is called %q; there are %s", name, strings.Join(names, ", ")))
		}
	}
	return o, errors.Join(faults...)
}

func run(args []string, stdout, stderr io.Writer) error {
	o, err := parseOptions(args)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, remove, err := dataDir(o.dir)
	if err != nil {
		return err
	}
	defer remove()
	broker, err := devstack.StartJVM(ctx, devstack.JVMConfig{DataDir: filepath.Join(dir, "kafka"), HeapMB: 1024})
	if err != nil {
		return err
	}
	defer broker.Stop()
	b := &bench{
		ctx: ctx, options: o, dir: dir, seeds: broker.Brokers(), out: json.NewEncoder(stdout), progress: stderr,
		log: slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(b.seeds...))
	if err != nil {
		return err
	}
	defer client.Close()
	b.admin = kadm.NewClient(client)
	stopProfile, err := profile(o.cpuProfile)
	if err != nil {
		return err
	}
	defer stopProfile()
	for _, bench := range benches {
		if !slices.Contains(o.only, bench.name) {
			continue
		}
		b.say("%s", bench.name)
		if err := bench.run(b); err != nil {
			return fmt.Errorf("%s: %w", bench.name, err)
		}
	}
	return b.summarise()
}

// dataDir is the folder given, or a temporary one that remove takes away.
func dataDir(given string) (dir string, remove func(), err error) {
	remove = func() {}
	if given != "" {
		if dir, err = filepath.Abs(given); err == nil {
			err = os.MkdirAll(dir, 0o755)
		}
		return dir, remove, err
	}
	if dir, err = os.MkdirTemp("", "foldstream-bench-"); err != nil {
		return "", remove, err
	}
	return dir, func() { os.RemoveAll(dir) }, os.Chmod(dir, 0o755) // a Postgres run as nobody must get through
}

// wants says whether a system is to be measured.
func (o options) wants(system string) bool {
	return len(o.systems) == 0 || slices.Contains(o.systems, system)
}

// say tells of progress.
func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(b.progress, "bench: "+format+"\n", args...)
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

// removeTopics makes room for the next bench; what fails is left to the end of the broker.
func (b *bench) removeTopics(layout topics.Layout) {
	var names []string
	for _, spec := range layout.Specs() {
		names = append(names, spec.Name)
	}
	if _, err := b.admin.DeleteTopics(b.ctx, names...); err != nil {
		b.log.Warn("topics not removed", "namespace", layout.Namespace, "cause", err)
	}
}
