package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/foldstream/foldstream/internal/app"
	"github.com/foldstream/foldstream/internal/doctor"
	"github.com/foldstream/foldstream/internal/service"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/spf13/cobra"
)

const doctorDeadlineDefault = 2 * time.Minute

// doctorOptions are the flags of doctor.
type doctorOptions struct {
	fencing  bool
	deadline time.Duration
}

func doctorCommand(g *app.Globals) *cobra.Command {
	var o doctorOptions
	cmd := &cobra.Command{
		Use: "doctor", Short: "Find out whether brokers and Postgres are fit for the project", Args: cobra.NoArgs,
		Long: "Look at brokers, topics, schemas and Postgres, and say what was seen. Nothing is written.\n\n" +
			"With --fencing, prove on a scratch topic <ns>.doctor-<random> that the broker fences former\n" +
			"owners of a partition as the writer needs it. The topic has the project's replication factor and\n" +
			"is deleted at the end, also on Ctrl-C. Nothing else is written to.\n\n" +
			"Exit code 0: fit. 1: a needed step failed. 4: a right is missing.",
		RunE: func(cmd *cobra.Command, _ []string) error { return runDoctor(cmd, g, o) },
	}
	f := cmd.Flags()
	f.BoolVar(&o.fencing, "fencing", false, "also prove epoch fencing, on a scratch topic")
	f.DurationVar(&o.deadline, "deadline", doctorDeadlineDefault, "for all steps; then what was found is printed, and the exit code is 1")
	return cmd
}

func runDoctor(cmd *cobra.Command, g *app.Globals, o doctorOptions) error {
	if o.deadline <= 0 {
		return service.Exitf(service.ExitUsage, "--deadline %s: want more than 0", o.deadline)
	}
	cfg, err := g.Configuration(cmd)
	if err != nil {
		return err
	}
	if g.PrintConfig {
		return cfg.Print(cmd.OutOrStdout())
	}
	// The report tells of failures; the client's own words on them would stand in between.
	if !cmd.Flags().Changed("log-level") {
		cfg.Log.Level = "error"
	}
	env, err := g.EnvironmentOf(cmd, cfg)
	if err != nil {
		return err
	}
	opts, err := env.Kafka()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(cmd.Context(), o.deadline, fmt.Errorf("--deadline %s is over: %w", o.deadline, context.DeadlineExceeded))
	defer cancel()
	report, err := doctor.Run(ctx, doctor.Config{
		Kafka: opts, Layout: env.Layout(), Program: env.Program.Name, Fencing: o.fencing, Logger: env.Logger,
		Plan:     env.PlanTopics,
		Schemas:  func(ctx context.Context) (int, []string, error) { return lookUpSchemas(ctx, env) },
		Postgres: func(ctx context.Context) (string, error) { return postgresVersion(ctx, env) },
	})
	printErr := printReport(cmd.OutOrStdout(), g.Format, report)
	return errors.Join(doctorFailure(report, err), printErr)
}

// doctorFailure is what the command ends with. A step that failed counts even when the deadline
// came before the last one.
func doctorFailure(report doctor.Report, err error) error {
	switch {
	case errors.Is(err, service.ErrInterrupted), errors.Is(err, context.Canceled):
		return &service.ExitError{Code: service.ExitInterrupted, Err: err}
	case err != nil:
		return &service.ExitError{Code: service.ExitFailure, Err: err}
	case report.Verdict() == doctor.Unfit:
		return service.Exitf(service.ExitFailure, "unfit, see %s", strings.Join(report.Named(doctor.Unfit), ", "))
	case report.Verdict() == doctor.Denied:
		return service.Exitf(service.ExitDenied, "not all could be found out, rights are missing, see %s", strings.Join(report.Named(doctor.Denied), ", "))
	}
	return nil
}

// lookUpSchemas counts the schemas that are registered as the project has them. It reads only.
func lookUpSchemas(ctx context.Context, env *app.Environment) (registered int, faults []string, err error) {
	in, err := env.Registry()
	if err != nil {
		return 0, nil, err
	}
	defer in.Close()
	for _, f := range env.Project.Schemas {
		have, err := in.Version(ctx, f.Type, f.Version)
		switch {
		case errors.Is(err, codec.ErrUnknownSchema):
			faults = append(faults, fmt.Sprintf("%s v%d is not registered", f.Type, f.Version))
		case err != nil:
			return registered, faults, fmt.Errorf("look up version %d of %s: %w", f.Version, f.Type, err)
		case have.Schema.Canonical() != f.Schema.Canonical():
			faults = append(faults, fmt.Sprintf("%s v%d is registered with another text", f.Type, f.Version))
		case have.Kind != "" && have.Kind != f.Kind:
			faults = append(faults, fmt.Sprintf("%s is registered as %s, here it is %s", f.Type, have.Kind, f.Kind))
		default:
			registered++
		}
	}
	return registered, faults, nil
}

func postgresVersion(ctx context.Context, env *app.Environment) (string, error) {
	pool, err := env.Config.Postgres.Pool(ctx)
	if errors.Is(err, service.ErrNoPostgres) {
		return "", doctor.ErrNotConfigured
	}
	if err != nil {
		return "", err
	}
	defer pool.Close()
	var version string
	err = pool.QueryRow(ctx, "show server_version").Scan(&version)
	return version, err
}

// doctorResult is the report as it is printed for machines.
type doctorResult struct {
	Verdict doctor.Verdict `json:"verdict"`
	doctor.Report
}

func printReport(w io.Writer, format app.Format, report doctor.Report) error {
	result := doctorResult{report.Verdict(), report}
	t := app.Table{Columns: []string{"step", "verdict", "answer"}}
	for _, f := range report.Findings {
		t.Rows = append(t.Rows, []string{f.Step, string(f.Verdict), f.Saw})
	}
	if err := app.Print(w, format, result, t); err != nil || format != app.FormatTable {
		return err
	}
	for _, f := range report.Findings {
		if err := explain(w, f); err != nil {
			return err
		}
	}
	return nil
}

// explain tells people more of a finding that is not as needed.
func explain(w io.Writer, f doctor.Finding) error {
	if f.Means == "" {
		return nil
	}
	text := fmt.Sprintf("\n%s: %s\n", f.Step, f.Verdict)
	for _, line := range [][2]string{{"did", f.Did}, {"needs", f.Needs}, {"saw", f.Saw}, {"means", f.Means}, {"do", f.Do}} {
		if line[1] != "" {
			text += fmt.Sprintf("  %-6s %s\n", line[0], line[1])
		}
	}
	_, err := io.WriteString(w, text)
	if err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}
