// Command faults hurts Foldstream's services and checks what they promise.
//
//	go run ./test/faults -duration 1m              every cell, a minute each
//	go run ./test/faults -short                    every cell, some seconds each
//	go run ./test/faults -cell kill-ingest -seed 7 one cell, as it was planned for a seed
//	go run ./test/faults list                      what there is
//	go run ./test/faults plan -cell all -seed 7    a schedule, without running it
//	go run ./test/faults check FILE...             reports, checked again
//	go run ./test/faults planted -seeds 3          every planted bug must be caught, and each of its
//	                                               cells be clean without it
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
	"slices"
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
	planted  string
	reports  string
	verbose  bool
	keep     bool
	clean    bool
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
	flags.StringVar(&o.planted, "planted", "", "the bug that the services have; default: none")
	flags.StringVar(&o.reports, "reports", "faults-reports", "folder of the reports")
	flags.BoolVar(&o.clean, "clean", true, "with planted: run each cell without the bugs, too")
	flags.BoolVar(&o.keep, "keep", false, "leave logs and data of all processes where they are")
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
	case "run", "planted":
		return play(ctx, command, o, out, diag)
	default:
		err = fmt.Errorf("unknown command %q: want run, planted, list, plan or check", command)
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

// play runs what is asked for and prints a table.
func play(ctx context.Context, command string, o options, out, diag io.Writer) int {
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
	if host.Keep = o.keep; host.Keep {
		fmt.Fprintf(diag, "logs and data stay in %s\n", host.Dir)
	}
	s := session{o: o, host: host, out: out, diag: diag}
	jobs, err := s.jobs(command)
	if err != nil {
		fmt.Fprintln(diag, err)
		return 2
	}
	began := time.Now()
	s.all(ctx, jobs)
	if ctx.Err() != nil {
		fmt.Fprintln(diag, "interrupted")
		s.failed++
	}
	fmt.Fprintln(out)
	harness.PrintTable(out, s.figures)
	for _, bug := range s.caught {
		fmt.Fprintln(out, bug)
	}
	fmt.Fprintf(out, "%d runs in %s, %d failed; the first seed was %d; reports are in %s\n", len(s.figures), time.Since(began).Round(time.Second), s.failed, o.seed, o.reports)
	if s.failed > 0 {
		return 1
	}
	return 0
}

// job is one run, and what it has to show.
type job struct {
	harness.RunConfig
	want string // the invariant that must be violated; "": none may
}

// session is all runs of one invocation.
type session struct {
	o         options
	host      *harness.Host
	out, diag io.Writer

	mu      sync.Mutex
	figures []harness.Figures
	caught  []string
	failed  int
}

// jobs lists the runs: seed by seed, so that what is cut short has seen all cells.
func (s *session) jobs(command string) ([]job, error) {
	cells, err := chosen(s.o)
	if err != nil {
		return nil, err
	}
	var jobs []job
	for i := range s.o.seeds {
		seed := s.o.seed + int64(i)
		add := func(cell harness.Cell, planted, want string) {
			duration := s.o.duration
			if s.o.short {
				duration = max(duration, cell.Least)
			}
			jobs = append(jobs, job{harness.RunConfig{Cell: cell, Seed: seed, Duration: duration, Planted: planted}, want})
		}
		if command == "run" {
			for _, cell := range cells {
				add(cell, s.o.planted, "")
			}
			continue
		}
		clean := map[string]bool{}
		for _, bug := range harness.PlantedBugs() {
			if s.o.planted != "" && !slices.Contains(strings.Split(s.o.planted, ","), bug.Name) {
				continue
			}
			cell, known := harness.FindCell(bug.Cell)
			if !known {
				return nil, fmt.Errorf("bug %s: no cell is named %q", bug.Name, bug.Cell)
			}
			if s.o.clean && !clean[cell.Name] {
				clean[cell.Name] = true
				add(cell, "", "")
			}
			add(cell, bug.Name, bug.Check)
		}
	}
	return jobs, nil
}

func (s *session) all(ctx context.Context, jobs []job) {
	slots := make(chan struct{}, max(1, s.o.parallel))
	var wg sync.WaitGroup
	for _, j := range jobs {
		slots <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		wg.Go(func() {
			defer func() { <-slots }()
			s.one(ctx, j)
		})
	}
	wg.Wait()
}

// one runs, checks and reports one cell.
func (s *session) one(ctx context.Context, j job) {
	began := time.Now()
	r, err := harness.RunCell(ctx, s.host, j.RunConfig)
	if err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.failed++
		fmt.Fprintf(s.diag, "%v\n", err)
		return
	}
	violations := harness.Check(r)
	if harness.NewFigures(r, nil, 0).HitsAll() == 0 {
		violations = append(violations, harness.Violation{Invariant: "hits", Text: fmt.Sprintf("none of %d faults had an effect: the run proves nothing", len(r.Faults))})
	}
	path, err := harness.WriteReport(s.o.reports, r, violations)
	s.report(j, r, violations, harness.NewFigures(r, violations, time.Since(began)), path, err)
}

// report prints a run as it ends.
func (s *session) report(j job, r *harness.Run, violations []harness.Violation, figures harness.Figures, path string, err error) {
	text, err2 := json.Marshal(figures)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.figures = append(s.figures, figures)
	fmt.Fprintf(s.out, "faults: %s\n", text)
	if err := errors.Join(err, err2); err != nil {
		s.failed++
		fmt.Fprintf(s.diag, "report: %v\n", err)
	}
	if j.want != "" {
		s.judge(j, violations)
		return
	}
	for _, v := range violations {
		fmt.Fprintf(s.out, "  VIOLATION %s\n", v)
	}
	if len(violations) > 0 {
		s.failed++
		fmt.Fprintf(s.out, "  see %s; again by: go run ./test/faults -cell %s -seed %d -duration %s\n", path, r.Cell, r.Seed, j.Duration)
	}
}

// judge says whether a planted bug was caught by the invariant that it breaks.
func (s *session) judge(j job, violations []harness.Violation) {
	verdict := fmt.Sprintf("planted: %-24s seed %d in cell %s: ", j.Planted, j.Seed, j.Cell.Name)
	at := slices.IndexFunc(violations, func(v harness.Violation) bool { return strings.HasPrefix(v.Invariant, j.want) })
	switch {
	case at >= 0:
		verdict += "caught by " + violations[at].Invariant
		text, _, _ := strings.Cut(violations[at].Text, "\n")
		fmt.Fprintf(s.out, "  caught: %s: %s\n", violations[at].Invariant, text)
	case len(violations) > 0:
		s.failed++
		verdict += fmt.Sprintf("NOT CAUGHT by %q, though by %q", j.want, violations[0].Invariant)
		fmt.Fprintf(s.out, "  caught by another: %s\n", violations[0])
	default:
		s.failed++
		verdict += "NOT CAUGHT"
	}
	s.caught = append(s.caught, verdict)
}
