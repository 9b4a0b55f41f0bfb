package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/foldstream/foldstream/internal/app"
	"github.com/foldstream/foldstream/internal/devstack"
	"github.com/foldstream/foldstream/internal/importer"
	"github.com/foldstream/foldstream/internal/processlog"
	"github.com/foldstream/foldstream/internal/service"
	"github.com/foldstream/foldstream/pkg/projection"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"
)

const (
	demoSeed         = 1
	demoCasesDefault = 50
	demoRowsDefault  = 5
	demoWaitMax      = 2 * time.Minute
	demoPoll         = 100 * time.Millisecond
)

// demoOptions are the flags of demo.
type demoOptions struct {
	kafka       string
	cases, rows int
	seed        int64
}

func demoCommand(g *app.Globals) *cobra.Command {
	var o demoOptions
	cmd := &cobra.Command{
		Use: "demo", Short: "Show it once: a stack that keeps nothing, a sample, four views", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return demo(cmd, g, o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.kafka, "kafka", devstack.KindEmbedded, "embedded or jvm")
	f.IntVar(&o.cases, "cases", demoCasesDefault, "executions in the sample")
	f.IntVar(&o.rows, "rows", demoRowsDefault, "rows shown of each view")
	f.Int64Var(&o.seed, "seed", demoSeed, "the same seed makes the same sample")
	return cmd
}

func demo(cmd *cobra.Command, g *app.Globals, o demoOptions) error {
	if o.cases < 1 || o.cases > processlog.SampleCasesMax || o.rows < 1 {
		return service.Exitf(service.ExitUsage, "--cases %d --rows %d: want 1 to %d cases and at least one row", o.cases, o.rows, processlog.SampleCasesMax)
	}
	cfg, err := g.LocalConfiguration(cmd)
	if err != nil {
		return err
	}
	// A demo tells its own story; what services tell of themselves would stand in between.
	if !cmd.Flags().Changed("log-level") {
		cfg.Log.Level = "warn"
	}
	env, err := g.EnvironmentOf(cmd, cfg)
	if err != nil {
		return err
	}
	if err := needsReference(env); err != nil {
		return err
	}
	say(cmd, "starting a broker (%s) and Postgres …", o.kafka)
	stack, err := startStack(cmd.Context(), env, devstack.StackConfig{Kafka: o.kafka})
	if err != nil {
		return err
	}
	defer stack.stop()
	services, err := env.OpenServices(cmd.Context(), app.Which{Ingest: true, Projector: true})
	if err != nil {
		return err
	}
	return whileServing(cmd.Context(), stack, services, func(ctx context.Context) error {
		return tell(ctx, cmd, g.Format, env, o)
	})
}

// whileServing runs work beside the services, and stops them when it is done.
func whileServing(ctx context.Context, stack *localStack, services *app.Services, work func(context.Context) error) error {
	serving, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() {
		ended <- stack.run(serving, services, app.Hurry(ctx))
		stop() // services that fail end the work
	}()
	err := work(serving)
	stop()
	return errors.Join(<-ended, err)
}

// tell is the demo itself.
func tell(ctx context.Context, cmd *cobra.Command, format app.Format, env *app.Environment, o demoOptions) error {
	commands, err := processlog.SampleCommands(o.seed, o.cases)
	if err != nil {
		return fmt.Errorf("make the sample: %w", err)
	}
	say(cmd, "sending %d commands: a workflow and %d executions of it; a few are sent twice, late, or on an old version …", len(commands), o.cases)
	report, err := sendSample(ctx, cmd, env, commands)
	if err != nil {
		return fmt.Errorf("send the sample: %w", err)
	}
	pool, err := env.Config.Postgres.Pool(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	bounded, cancel := context.WithTimeout(ctx, demoWaitMax)
	defer cancel()
	if err := awaitViews(bounded, env, pool); err != nil {
		return err
	}
	result, err := readDemo(ctx, pool, env, o.rows)
	if err != nil {
		return err
	}
	result.Commands = importResult{Report: report}
	return result.print(cmd.OutOrStdout(), format)
}

// sendSample sends the commands, then those once more whose ids come twice, as a client does that
// missed an answer.
func sendSample(ctx context.Context, cmd *cobra.Command, env *app.Environment, commands []processlog.Command) (importer.Report, error) {
	var first, again []processlog.Command
	seen := map[string]bool{}
	for _, c := range commands {
		if seen[c.ID] {
			again = append(again, c)
			continue
		}
		seen[c.ID] = true
		first = append(first, c)
	}
	report, err := sendProcessLog(ctx, env, slices.Values(first), importOptions{inFlightMax: 256}, progressOn(cmd.ErrOrStderr(), len(first)))
	if err != nil || len(again) == 0 {
		return report, err
	}
	repeated, err := sendProcessLog(ctx, env, slices.Values(again), importOptions{inFlightMax: 256}, progressOn(cmd.ErrOrStderr(), len(again)))
	return report.Plus(repeated), err
}

// demoResult is what the demo prints.
type demoResult struct {
	Views    []demoView   `json:"views"`
	Commands importResult `json:"import"`
}

// demoView is the first rows of one view.
type demoView struct {
	Name    string     `json:"name"`
	Total   int        `json:"total_rows"`
	Columns []string   `json:"columns"`
	Rows    [][]string `json:"rows"`
}

func readDemo(ctx context.Context, pool *pgxpool.Pool, env *app.Environment, rowsMax int) (demoResult, error) {
	var result demoResult
	for _, v := range env.Program.Views {
		shown, err := readView(ctx, pool, env.Project.Namespace, v, rowsMax)
		if err != nil {
			return result, fmt.Errorf("read view %s: %w", v.Name, err)
		}
		result.Views = append(result.Views, shown)
	}
	return result, nil
}

// cellBytesMax bounds a cell of a table; a workflow's nodes would fill the screen.
const cellBytesMax = 60

func readView(ctx context.Context, pool *pgxpool.Pool, namespace string, v projection.View, rowsMax int) (demoView, error) {
	shown := demoView{Name: namespace + "." + v.Name}
	table := pgx.Identifier{namespace, v.Name}.Sanitize()
	if err := pool.QueryRow(ctx, "select count(*) from "+table).Scan(&shown.Total); err != nil {
		return shown, err
	}
	var selected, keys []string
	for _, c := range v.Layout() {
		shown.Columns = append(shown.Columns, c.Name)
		selected = append(selected, fmt.Sprintf("coalesce(%s::text, '')", pgx.Identifier{c.Name}.Sanitize()))
	}
	for _, c := range v.Key {
		keys = append(keys, pgx.Identifier{c.Name}.Sanitize())
	}
	rows, err := pool.Query(ctx, fmt.Sprintf("select array[%s] from %s order by %s limit %d",
		strings.Join(selected, ", "), table, strings.Join(keys, ", "), rowsMax))
	if err != nil {
		return shown, err
	}
	shown.Rows, err = pgx.CollectRows(rows, pgx.RowTo[[]string])
	return shown, err
}

func (r demoResult) print(w io.Writer, format app.Format) error {
	if format != app.FormatTable {
		return app.Print(w, format, r, app.Table{})
	}
	for _, v := range r.Views {
		fmt.Fprintf(w, "%s (%d of %d rows)\n", v.Name, len(v.Rows), v.Total)
		t := app.Table{Columns: v.Columns}
		for _, row := range v.Rows {
			t.Rows = append(t.Rows, clipped(row))
		}
		if err := app.Print(w, format, v, t); err != nil {
			return err
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintln(w, "commands by outcome")
	return app.Print(w, format, r.Commands, r.Commands.table())
}

func clipped(row []string) []string {
	short := make([]string, 0, len(row))
	for _, cell := range row {
		if len(cell) > cellBytesMax {
			cell = strings.ToValidUTF8(cell[:cellBytesMax], "") + "…"
		}
		short = append(short, cell)
	}
	return short
}

func say(cmd *cobra.Command, format string, args ...any) {
	fmt.Fprintf(cmd.ErrOrStderr(), format+"\n", args...)
}
