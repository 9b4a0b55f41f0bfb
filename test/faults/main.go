// Command faults hurts Foldstream's services and checks what they promise.
//
//	go run ./test/faults -duration 1m              every cell, a minute each
//	go run ./test/faults -short                    every cell, some seconds each
//	go run ./test/faults -cell kill-ingest -seed 7 one cell, as it was planned for a seed
//	go run ./test/faults list                      what there is
//	go run ./test/faults plan -cell all -seed 7    a schedule, without running it
//	go run ./test/faults check FILE...             reports, checked again
//
// Each run prints a line of JSON that begins with "faults: "; a table comes at the end. The exit
// code is 1 when something was violated, or when a cell's faults never hit.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/foldstream/foldstream/test/faults/harness"
)

// options are the flags.
type options struct {
	cells    string
	seed     int64
	seeds    int
	duration time.Duration
	short    bool
	parallel int
	tags     string
	reports  string
	verbose  bool
}

const shortDuration = 6 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, out, diag io.Writer) int {
	command := "run"
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		command, args = args[0], args[1:]
	}
	o := options{}
	flags := flag.NewFlagSet("faults", flag.ContinueOnError)
	flags.SetOutput(diag)
	flags.StringVar(&o.cells, "cell", "", "cells to run, separated by commas; default: all")
	flags.Int64Var(&o.seed, "seed", 0, "seed of the first run; default: a random one")
	flags.IntVar(&o.seeds, "seeds", 1, "how many seeds, one after the other")
	flags.DurationVar(&o.duration, "duration", time.Minute, "how long each cell is loaded")
	flags.BoolVar(&o.short, "short", false, "some seconds for each cell, instead of -duration")
	flags.IntVar(&o.parallel, "parallel", 1, "how many cells run at the same time")
	flags.StringVar(&o.tags, "tags", "", "build tags of the services")
	flags.StringVar(&o.reports, "reports", "faults-reports", "folder of the reports")
	flags.BoolVar(&o.verbose, "v", false, "log what happens")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if o.short {
		o.duration = shortDuration
	}
	if o.seed == 0 {
		o.seed = 1 + rand.Int64N(999_999)
	}
	var err error
	switch command {
	case "list":
		for _, c := range harness.Cells() {
			fmt.Fprintf(out, "%-20s %-6s %s\n", c.Name, c.Broker, c.What)
		}
		return 0
	case "plan":
		err = plan(o, out)
	case "check":
		return check(flags.Args(), out, diag)
	case "run":
		return runCells(ctx, o, out, diag)
	default:
		err = fmt.Errorf("unknown command %q: want run, list, plan or check", command)
	}
	if err != nil {
		fmt.Fprintln(diag, err)
		return 2
	}
	return 0
}

// chosen returns the cells that are asked for.
func chosen(o options) ([]harness.Cell, error) {
	if o.cells == "" {
		return harness.Cells(), nil
	}
	var cells []harness.Cell
	for name := range strings.SplitSeq(o.cells, ",") {
		c, known := harness.FindCell(name)
		if !known {
			return nil, fmt.Errorf("no cell is named %q; `faults list` names them all", name)
		}
		cells = append(cells, c)
	}
	return cells, nil
}

func plan(o options, out io.Writer) error {
	cells, err := chosen(o)
	for _, c := range cells {
		fmt.Fprintf(out, "%s, seed %d, %s\n", c.Name, o.seed, o.duration)
		for i, track := range c.Plan(o.seed, o.duration) {
			for _, step := range track {
				fmt.Fprintf(out, "  track %d: %s\n", i, step)
			}
		}
	}
	return err
}

// check judges reports anew.
func check(files []string, out, diag io.Writer) int {
	code := 0
	for _, file := range files {
		r, before, err := harness.ReadReport(file)
		if err != nil {
			fmt.Fprintln(diag, err)
			return 2
		}
		violations := harness.Check(r)
		fmt.Fprintf(out, "%s: cell %s, seed %d: %d violations (%d when it was written)\n", file, r.Cell, r.Seed, len(violations), len(before))
		for _, v := range violations {
			fmt.Fprintf(out, "  %s\n", v)
			code = 1
		}
	}
	return code
}

// runCells runs every cell with every seed.
func runCells(ctx context.Context, o options, out, diag io.Writer) int {
	cells, err := chosen(o)
	if err != nil {
		fmt.Fprintln(diag, err)
		return 2
	}
	level := slog.LevelWarn
	if o.verbose {
		level = slog.LevelInfo
	}
	host, err := harness.NewHost(slog.New(slog.NewTextHandler(diag, &slog.HandlerOptions{Level: level})))
	if err != nil {
		fmt.Fprintln(diag, err)
		return 2
	}
	defer func() { _ = host.Close() }()
	began := time.Now()
	s := session{o: o, host: host, out: out, diag: diag}
	s.all(ctx, cells)
	fmt.Fprintln(out)
	harness.PrintTable(out, s.figures)
	fmt.Fprintf(out, "%d runs in %s, %d failed; the first seed was %d; reports are in %s\n", len(s.figures), time.Since(began).Round(time.Second), s.failed, o.seed, o.reports)
	if s.failed > 0 {
		return 1
	}
	return 0
}

// session is all runs of one invocation.
type session struct {
	o         options
	host      *harness.Host
	out, diag io.Writer

	mu      sync.Mutex
	figures []harness.Figures
	failed  int
}

func (s *session) all(ctx context.Context, cells []harness.Cell) {
	slots := make(chan struct{}, max(1, s.o.parallel))
	var wg sync.WaitGroup
	for i := range s.o.seeds {
		for _, cell := range cells {
			slots <- struct{}{}
			if ctx.Err() != nil {
				break
			}
			wg.Go(func() {
				defer func() { <-slots }()
				s.one(ctx, harness.RunConfig{Cell: cell, Seed: s.o.seed + int64(i), Duration: s.o.duration, Tags: s.o.tags})
			})
		}
	}
	wg.Wait()
}

// one runs, checks and reports one cell.
func (s *session) one(ctx context.Context, cfg harness.RunConfig) {
	began := time.Now()
	r, err := harness.RunCell(ctx, s.host, cfg)
	if err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.failed++
		fmt.Fprintf(s.diag, "%v\n", err)
		return
	}
	violations := harness.Check(r)
	figures := harness.NewFigures(r, violations, time.Since(began))
	if figures.HitsAll() == 0 {
		violations = append(violations, harness.Violation{Invariant: "hits", Text: fmt.Sprintf("none of %d faults had an effect: the run proves nothing", figures.Faults)})
		figures.Violations = len(violations)
	}
	path, err := harness.WriteReport(s.o.reports, r, violations)
	text, err2 := json.Marshal(figures)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.figures = append(s.figures, figures)
	fmt.Fprintf(s.out, "faults: %s\n", text)
	for _, v := range violations {
		fmt.Fprintf(s.out, "  VIOLATION %s\n", v)
	}
	if err := errors.Join(err, err2); err != nil {
		fmt.Fprintf(s.diag, "report: %v\n", err)
	}
	if len(violations) > 0 {
		s.failed++
		fmt.Fprintf(s.out, "  see %s; again by: go run ./test/faults -cell %s -seed %d -duration %s\n", path, r.Cell, r.Seed, cfg.Duration)
	}
}
