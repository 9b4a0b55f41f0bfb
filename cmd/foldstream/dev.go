package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/foldstream/foldstream/internal/app"
	"github.com/foldstream/foldstream/internal/devstack"
	"github.com/foldstream/foldstream/internal/service"
	"github.com/spf13/cobra"
)

const (
	dataDirDefault = ".foldstream"

	servicesAll  = "all"
	servicesNone = "none"

	// configured stands for the servers that the configuration names.
	configured = "configured"
)

// devOptions are the flags of dev.
type devOptions struct {
	kafka, postgres, services string
	ephemeral                 bool
}

func devCommand(g *app.Globals) *cobra.Command {
	var o devOptions
	cmd := &cobra.Command{
		Use: "dev", Short: "Run a local stack: broker, Postgres, topics, schemas, services", Args: cobra.NoArgs,
		Long: "Run broker, Postgres, the project's topics and schemas, and its services in one process,\n" +
			"until a signal. Its addresses are written to <data-dir>/" + devstack.EndpointsFile + "; other programs\n" +
			"join it by --data-dir. The data is kept in the data folder, " + dataDirDefault + " by default.",
		RunE: func(cmd *cobra.Command, _ []string) error { return dev(cmd, g, o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.kafka, "kafka", devstack.KindEmbedded, "embedded, jvm (Apache Kafka as a Java process), configured, or host:port,…")
	f.StringVar(&o.postgres, "postgres", devstack.KindEmbedded, "embedded, configured, or a DSN without a password")
	f.StringVar(&o.services, "services", servicesAll, "all or none")
	f.BoolVar(&o.ephemeral, "ephemeral", false, "keep nothing")
	return cmd
}

func dev(cmd *cobra.Command, g *app.Globals, o devOptions) error {
	cfg, err := g.LocalConfiguration(cmd)
	if err != nil {
		return err
	}
	if g.PrintConfig {
		return cfg.Print(cmd.OutOrStdout())
	}
	stackConfig, err := o.stack(cfg)
	if err != nil {
		return err
	}
	dataDir := g.DataDir
	if dataDir == "" {
		dataDir = dataDirDefault
	}
	if !o.ephemeral {
		stackConfig.DataDir = dataDir
	}
	env, err := g.EnvironmentOf(cmd, cfg)
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	stack, err := startStack(ctx, env, stackConfig)
	if err != nil {
		return err
	}
	defer stack.stop()
	var services *app.Services
	if o.services == servicesAll {
		if services, err = env.OpenServices(ctx, app.Which{Ingest: true, Projector: true, Query: true}); err != nil {
			return err
		}
	}
	return announceAndRun(ctx, cmd, g.Format, dataDir, stack, services)
}

// announceAndRun writes the addresses, also of a stack that keeps nothing: the file goes with it.
func announceAndRun(ctx context.Context, cmd *cobra.Command, format app.Format, dataDir string, stack *localStack, services *app.Services) error {
	endpoints := stack.endpoints(services)
	err := devstack.WriteEndpoints(dataDir, endpoints)
	if err == nil {
		defer func() { _ = devstack.RemoveEndpoints(dataDir) }()
		err = app.Print(cmd.OutOrStdout(), format, shown(endpoints), endpointsTable(dataDir, endpoints))
	}
	if err != nil {
		if services != nil {
			services.Close()
		}
		return err
	}
	fmt.Fprintln(cmd.ErrOrStderr(), "the stack is up; end it with Ctrl-C")
	return stack.run(ctx, services, app.Hurry(ctx))
}

// shown is what is printed of the endpoints: a DSN without its password. The file has it.
func shown(e devstack.Endpoints) devstack.Endpoints {
	e.DSN = service.RedactDSN(e.DSN)
	return e
}

func endpointsTable(dataDir string, e devstack.Endpoints) app.Table {
	t := app.Table{Columns: []string{"what", "where"}}
	t.Rows = append(t.Rows,
		[]string{"kafka", joinBrokers(e.Brokers)},
		[]string{"postgres", service.RedactDSN(e.DSN)},
		[]string{"namespace", e.Namespace})
	if addr, runs := e.HTTP["ingest"]; runs {
		paths := "/v1, /openapi.json, /registry"
		if _, reads := e.HTTP["query"]; reads {
			paths = "/v1, /openapi.json, /query/openapi.json, /registry"
		}
		t.Rows = append(t.Rows, []string{"api", addr + paths})
	}
	for _, name := range []string{"ingest", "projector", "query"} {
		if addr, runs := e.HTTP[name]; runs {
			t.Rows = append(t.Rows, []string{name, addr + "/readyz, /metrics"})
		}
	}
	return app.Table{Columns: t.Columns, Rows: append(t.Rows, []string{"endpoints", filepath.Join(dataDir, devstack.EndpointsFile)})}
}

// stack turns the flags into the servers to run.
func (o devOptions) stack(cfg service.Config) (devstack.StackConfig, error) {
	if o.services != servicesAll && o.services != servicesNone {
		return devstack.StackConfig{}, service.Exitf(service.ExitUsage, "--services %s: want %s or %s", o.services, servicesAll, servicesNone)
	}
	stack := devstack.StackConfig{Kafka: o.kafka, Postgres: o.postgres}
	if o.kafka == configured {
		if len(cfg.Kafka.Brokers) == 0 {
			return stack, service.Exitf(service.ExitUsage, "--kafka configured: %w", service.ErrNoBrokers)
		}
		stack.Kafka = joinBrokers(cfg.Kafka.Brokers)
	}
	switch {
	case o.postgres == configured:
		dsn, err := cfg.Postgres.ConnString()
		if err != nil {
			return stack, service.Exitf(service.ExitUsage, "--postgres configured: %w", err)
		}
		stack.Postgres = dsn
	case service.DSNHasPassword(o.postgres) && o.postgres != devstack.KindEmbedded:
		return stack, service.Exitf(service.ExitUsage,
			"--postgres has a password in it, which other users of this machine can see: set %s and say --postgres configured", service.EnvName("postgres.dsn"))
	case !strings.ContainsAny(o.postgres, "=:") && o.postgres != devstack.KindEmbedded:
		return stack, service.Exitf(service.ExitUsage, "--postgres %s: want embedded, configured, or a DSN", o.postgres)
	}
	return stack, nil
}
