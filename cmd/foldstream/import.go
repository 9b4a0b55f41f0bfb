package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/foldstream/foldstream/internal/app"
	"github.com/foldstream/foldstream/internal/domain/execution"
	"github.com/foldstream/foldstream/internal/domain/workflow"
	"github.com/foldstream/foldstream/internal/importer"
	"github.com/foldstream/foldstream/internal/processlog"
	"github.com/foldstream/foldstream/internal/service"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"
)

// importOptions are the flags of import process-log.
type importOptions struct {
	workflow    string
	skipBad     bool
	badFile     string
	rate        float64
	inFlightMax int
}

func importCommand(g *app.Globals) *cobra.Command {
	cmd := &cobra.Command{
		Use: "import", Short: "Bring data of other systems in, as commands", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(processLogCommand(g))
	return cmd
}

func processLogCommand(g *app.Globals) *cobra.Command {
	var o importOptions
	cmd := &cobra.Command{
		Use: "process-log FILE", Short: "Import a process-mining log: a CSV with case, activity, resource, timestamp", Args: cobra.ExactArgs(1),
		Long: "Make a workflow with a node for each activity, and an execution of it for each case: started at\n" +
			"its first row, a node recorded for each row, completed at its last. Further columns become\n" +
			"attributes of the nodes. Command ids are made from the content: a second import of the same file\n" +
			"is all duplicates. FILE - is standard input, and needs --workflow.\n\n" +
			"The stack is found by --data-dir, by --brokers, or by the environment; ingest must be running.",
		RunE: func(cmd *cobra.Command, args []string) error { return importProcessLog(cmd, g, o, args[0]) },
	}
	f := cmd.Flags()
	f.StringVar(&o.workflow, "workflow", "", "name of the workflow; default: the file's name without its ending")
	f.BoolVar(&o.skipBad, "skip-bad", false, "go on after a bad line, and write it to a file of bad lines")
	f.StringVar(&o.badFile, "bad-file", "", "file of bad lines; default: <name>.bad.csv in the current folder")
	f.Float64Var(&o.rate, "rate", 0, "commands per second; 0: as fast as it goes")
	f.IntVar(&o.inFlightMax, "in-flight", 1024, "most commands that are unanswered at once")
	return cmd
}

func importProcessLog(cmd *cobra.Command, g *app.Globals, o importOptions, path string) error {
	env, err := g.Environment(cmd)
	if err != nil {
		return err
	}
	if err := needsReference(env); err != nil {
		return err
	}
	log, err := readProcessLog(cmd, o, path)
	if err != nil {
		return err
	}
	report, err := sendProcessLog(cmd.Context(), env, log.Commands(), o, progressOn(cmd.ErrOrStderr(), log.CommandCount()))
	if err != nil && report.Commands == 0 {
		return err
	}
	result := importResult{
		Workflow: log.Workflow.ID, Rows: log.Rows, Cases: log.Cases, Activities: len(log.Activities), BadLines: log.BadLines, Report: report,
	}
	printErr := app.Print(cmd.OutOrStdout(), g.Format, result, result.table())
	return errors.Join(importFailure(err, result), printErr)
}

// needsReference fails early where the project lacks what the import sends to.
func needsReference(env *app.Environment) error {
	for _, name := range []string{workflow.Category, execution.Category} {
		if _, there := env.Project.Category(name); !there {
			return service.Exitf(service.ExitUsage, "the project has no category %s: a process log is imported into the reference project; leave --project out", name)
		}
	}
	return nil
}

// importFailure is what the command ends with: the error, or what some lines or commands met.
func importFailure(err error, result importResult) error {
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, service.ErrInterrupted):
		return &service.ExitError{Code: service.ExitInterrupted, Err: fmt.Errorf("interrupted; %d commands have no answer yet: run the same import again to finish it", result.Report.Unanswered)}
	case err != nil:
		return err
	case result.Report.Failed() > 0:
		return service.Exitf(service.ExitPartial, "%d of %d commands were not accepted; the first are:%s", result.Report.Failed(), result.Report.Commands, firstFailures(result.Report))
	case result.BadLines > 0:
		return service.Exitf(service.ExitPartial, "%d bad lines were left out", result.BadLines)
	}
	return nil
}

func firstFailures(report importer.Report) string {
	var b strings.Builder
	for _, f := range report.Failures {
		fmt.Fprintf(&b, "\n  %s %s: %s %s", f.Stream, f.Outcome, f.Code, f.Message)
	}
	return b.String()
}

// importResult is what the command prints.
type importResult struct {
	Workflow   string          `json:"workflow"`
	Rows       int             `json:"rows"`
	Cases      int             `json:"cases"`
	Activities int             `json:"activities"`
	BadLines   int             `json:"bad_lines"`
	Report     importer.Report `json:"commands"`
}

func (r importResult) table() app.Table {
	t := app.Table{Columns: []string{"outcome", "commands"}}
	for _, outcome := range importer.OutcomesInOrder() {
		t.Rows = append(t.Rows, []string{outcome, strconv.Itoa(r.Report.Outcomes[outcome])})
	}
	if r.Report.Unanswered > 0 {
		t.Rows = append(t.Rows, []string{"unanswered", strconv.Itoa(r.Report.Unanswered)})
	}
	return t
}

// sendProcessLog sends the log's commands and waits for all answers.
func sendProcessLog(ctx context.Context, env *app.Environment, commands iter.Seq[processlog.Command], o importOptions, progress *progress) (importer.Report, error) {
	opts, err := env.Kafka()
	if err != nil {
		return importer.Report{}, err
	}
	in, err := env.Registry()
	if err != nil {
		return importer.Report{}, err
	}
	defer in.Close()
	defer progress.end()
	return importer.Run(ctx, importer.Config{
		Namespace: env.Project.Namespace, Kafka: opts, Codec: codec.New(in, codec.Config{}),
		Types:  slices.Concat([]codec.TypeDef(workflow.Types), []codec.TypeDef(execution.Types)),
		Source: "/" + env.Project.Namespace + "/import/process-log", InFlightMax: o.inFlightMax, RatePerSecond: o.rate,
		Answered: progress.answered, Logger: env.Logger,
	}, commandsOf(commands))
}

func commandsOf(commands iter.Seq[processlog.Command]) iter.Seq[importer.Command] {
	return func(yield func(importer.Command) bool) {
		for c := range commands {
			if !yield(importer.Command{
				Category: c.Category, StreamID: c.StreamID, Type: c.Type, ID: c.ID, Time: c.Time,
				Expected: c.Expected, CorrelationID: c.CorrelationID, Data: c.Data,
			}) {
				return
			}
		}
	}
}

// readProcessLog reads the file whole, so that a bad line is found before anything is sent.
func readProcessLog(cmd *cobra.Command, o importOptions, path string) (*processlog.Log, error) {
	in, name, err := openLog(cmd, path)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	if o.workflow == "" {
		if name == "" {
			return nil, service.Exitf(service.ExitUsage, "standard input has no name: give the workflow one by --workflow")
		}
		o.workflow = name
	}
	bad := badLines{path: o.badFile, stderr: cmd.ErrOrStderr()}
	if bad.path == "" {
		bad.path = name + ".bad.csv"
	}
	opts := processlog.Options{Workflow: o.workflow}
	var source io.Reader = in
	if o.skipBad {
		source = io.TeeReader(in, &bad.header)
		opts.BadLine = bad.add
	}
	log, err := processlog.Read(source, opts)
	if err = errors.Join(err, bad.close()); err != nil {
		var line *processlog.LineError
		if errors.As(err, &line) && !o.skipBad {
			return nil, fmt.Errorf("%s: %w; nothing was sent: mend it, or leave bad lines out by --skip-bad", path, err)
		}
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return log, nil
}

func openLog(cmd *cobra.Command, path string) (io.ReadCloser, string, error) {
	if path == "-" {
		return io.NopCloser(cmd.InOrStdin()), "", nil
	}
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, "", service.Exitf(service.ExitNotFound, "%s: there is no such file", path)
	}
	if err != nil {
		return nil, "", err
	}
	name := filepath.Base(path)
	return f, strings.TrimSuffix(name, filepath.Ext(name)), nil
}

// badLinesShownMax bounds what is told on stderr; the file has all.
const badLinesShownMax = 20

// badLines writes bad lines to a file of the same form, so that it can be mended and imported.
type badLines struct {
	path   string
	header firstLine
	stderr io.Writer
	file   *os.File
	count  int
}

func (b *badLines) add(line processlog.BadLine) error {
	if b.file == nil {
		file, err := os.Create(b.path)
		if err != nil {
			return fmt.Errorf("write the bad lines: %w", err)
		}
		b.file = file
		if _, err := fmt.Fprintln(file, b.header.text()); err != nil {
			return fmt.Errorf("write the bad lines: %w", err)
		}
	}
	b.count++
	if b.count <= badLinesShownMax {
		fmt.Fprintf(b.stderr, "line %d is left out: %s\n", line.Line, line.Reason)
	}
	if _, err := fmt.Fprintln(b.file, line.Text); err != nil {
		return fmt.Errorf("write the bad lines: %w", err)
	}
	return nil
}

func (b *badLines) close() error {
	if b.file == nil {
		return nil
	}
	if more := b.count - badLinesShownMax; more > 0 {
		fmt.Fprintf(b.stderr, "and %d more\n", more)
	}
	fmt.Fprintf(b.stderr, "the bad lines are in %s\n", b.path)
	if err := b.file.Close(); err != nil {
		return fmt.Errorf("write the bad lines: %w", err)
	}
	return nil
}

// firstLine keeps the first line of what is written to it.
type firstLine struct {
	line []byte
	full bool
}

// Write implements io.Writer.
func (f *firstLine) Write(p []byte) (int, error) {
	if !f.full {
		before, _, found := bytes.Cut(p, []byte("\n"))
		f.line = append(f.line, before...)
		f.full = found
	}
	return len(p), nil
}

func (f *firstLine) text() string {
	return strings.TrimSuffix(strings.TrimPrefix(string(f.line), "\ufeff"), "\r")
}

// progress is a bar on a terminal, and nothing elsewhere.
type progress struct {
	bars *mpb.Progress
	bar  *mpb.Bar
}

func progressOn(w io.Writer, total int) *progress {
	f, isFile := w.(*os.File)
	if !isFile || !term.IsTerminal(int(f.Fd())) {
		return &progress{}
	}
	bars := mpb.New(mpb.WithOutput(w), mpb.WithWidth(50))
	return &progress{bars: bars, bar: bars.AddBar(int64(total),
		mpb.PrependDecorators(decor.Name("commands "), decor.CountersNoUnit("%d / %d")),
		mpb.AppendDecorators(decor.Percentage(), decor.Name("  "), decor.AverageSpeed(0, "%.0f/s"), decor.Name("  "), decor.AverageETA(decor.ET_STYLE_GO)),
	)}
}

func (p *progress) answered(codec.Reply) {
	if p.bar != nil {
		p.bar.Increment()
	}
}

func (p *progress) end() {
	if p.bar == nil {
		return
	}
	if !p.bar.Completed() {
		p.bar.Abort(false)
	}
	p.bars.Wait()
}
