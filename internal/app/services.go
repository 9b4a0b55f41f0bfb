package app

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/foldstream/foldstream/internal/ingest"
	"github.com/foldstream/foldstream/internal/ingest/gateway"
	"github.com/foldstream/foldstream/internal/ingest/httpapi"
	"github.com/foldstream/foldstream/internal/projector"
	"github.com/foldstream/foldstream/internal/registry"
	"github.com/foldstream/foldstream/internal/service"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"
)

// Which services a process runs.
type Which struct{ Ingest, Projector, Query bool }

// serviceSpec is a subcommand that runs services.
type serviceSpec struct {
	name, short string
	open        func(context.Context, *Environment) (*Services, error)
}

var services = []serviceSpec{
	{"ingest", "Decide commands and append their events", Which{Ingest: true}.open},
	{"projector", "Fold events into the views in Postgres", Which{Projector: true}.open},
	{queryName, "Answer from the views in Postgres over HTTP", openQueryAlone},
	{"all", "Run ingest, projector and query in one process", Which{Ingest: true, Projector: true, Query: true}.open},
}

func (w Which) open(ctx context.Context, e *Environment) (*Services, error) {
	return e.OpenServices(ctx, w)
}

func openQueryAlone(_ context.Context, e *Environment) (*Services, error) { return e.OpenQuery() }

// startTimeout bounds the checks before a service serves.
const startTimeout = 60 * time.Second

// Services are the services of one process, connected and checked. Made by OpenServices, run
// once by Run; Close, which Run does by itself, releases what they hold.
type Services struct {
	env      *Environment
	http     *service.HTTPServer
	handlers map[string]http.Handler // by pattern
	api      *httpapi.API            // nil without ingest
	gateway  *gateway.Gateway        // likewise
	tokens   *service.Tokens         // nil where none is needed, or until they are asked for
	parts    []part
	closes   []func()
}

// part is one service as the process sees it.
type part struct {
	name string
	run  func(ctx context.Context) error
	ok   func() error
}

// OpenServices connects, checks that the project's topics and schemas are there, brings the
// views' tables up to date, and listens. Nothing is served yet. Left out of Which are ingest in a
// project without categories of its own, the projector where there is no view to keep, neither the
// program's nor the system's, and the read side where no Postgres is named.
func (e *Environment) OpenServices(ctx context.Context, which Which) (*Services, error) {
	s := e.newServices()
	bounded, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := s.open(bounded, which); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (e *Environment) newServices() *Services {
	return &Services{env: e, handlers: map[string]http.Handler{}}
}

func (s *Services) open(ctx context.Context, which Which) error {
	e := s.env
	if err := e.checkTopics(ctx); err != nil {
		return err
	}
	in, err := e.Registry()
	if err != nil {
		return err
	}
	s.closes = append(s.closes, in.Close)
	if err := e.checkSchemas(ctx, in); err != nil {
		return err
	}
	if which.Ingest && len(e.eventCategories()) > 0 {
		if err := s.openIngest(ctx, in); err != nil {
			return err
		}
	}
	if which.Projector && e.hasProjector() {
		if err := s.openProjector(ctx, in); err != nil {
			return err
		}
	}
	if which.Query && e.hasPostgres() {
		if err := s.openQuery(); err != nil {
			return err
		}
	}
	if len(s.parts) == 0 {
		return service.Exitf(service.ExitUsage, "there is nothing to run: the project has no category for ingest, or there is no view for the projector, neither the program's nor, for want of a Postgres or of a category, the system's")
	}
	return s.listen()
}

// hasProjector says whether there are views to keep: the program's, or, where there is a Postgres,
// the system's.
func (e *Environment) hasProjector() bool {
	return len(e.Program.Views) > 0 || (len(e.indexed()) > 0 && e.hasPostgres())
}

func (s *Services) openIngest(ctx context.Context, in registry.Registry) error {
	opts, err := s.env.Kafka()
	if err != nil {
		return err
	}
	writer, err := ingest.New(ctx, ingest.Config{
		Namespace: s.env.Project.Namespace, Categories: s.env.ingestCategories(), Kafka: opts, Registry: in,
		Instance: instance(), SessionTimeout: s.env.Config.Ingest.SessionTimeout,
		StateBytesMax: s.env.Config.Ingest.StateBytesMax,
		Registerer:    s.env.Metrics, Logger: s.env.Logger.With("service", "ingest"),
	})
	if err != nil {
		return err
	}
	s.parts = append(s.parts, part{"ingest", writer.Run, writer.Ready})
	return s.openAPI(ctx, in, writer)
}

func (e *Environment) ingestCategories() []ingest.Category {
	deciders := e.Program.deciderOf()
	var all []ingest.Category
	for _, c := range e.Project.Categories {
		all = append(all, ingest.Category{
			Name: c.Name, Mode: c.Mode, Decider: deciders[c.Name],
			AllowAppends: c.AllowAppends, DedupeIDs: c.DedupeIDs, DedupeAge: c.DedupeAge, Snapshots: c.Snapshots,
		})
	}
	return all
}

func (s *Services) openProjector(ctx context.Context, in registry.Registry) error {
	opts, err := s.env.Kafka()
	if err != nil {
		return err
	}
	pool, err := s.env.Config.Postgres.Pool(ctx)
	if err != nil {
		return err
	}
	s.closes = append(s.closes, s.closer(pool))
	if err := s.env.migrate(ctx, pool); err != nil {
		return err
	}
	reader, err := projector.New(projector.Config{
		Namespace: s.env.Project.Namespace, Views: s.env.Program.Views, EventCategories: s.env.indexed(),
		Kafka: opts, Pool: pool, Codec: codec.New(in, codec.Config{}),
		SessionTimeout: s.env.Config.Projector.SessionTimeout, BatchRecordsMax: s.env.Config.Projector.BatchRecordsMax,
		Watchdog:   s.env.Config.Projector.Watchdog,
		Registerer: s.env.Metrics, Logger: s.env.Logger.With("service", "projector"),
	})
	if err != nil {
		return err
	}
	s.parts = append(s.parts, part{"projector", reader.Run, reader.Ready})
	return nil
}

func (s *Services) listen() error {
	server, err := service.NewHTTPServer(s.env.Config.HTTP, s.env.Metrics, s.env.Logger)
	if err != nil {
		return err
	}
	s.http = server
	for _, p := range s.parts {
		server.AddCheck(p.name, p.ok)
	}
	for pattern, handler := range s.handlers {
		server.Handle(pattern, handler)
	}
	if s.api != nil {
		server.OnShutdown(s.api.Drain)
	}
	return nil
}

// Addr is where the API, health and metrics are served, host:port.
func (s *Services) Addr() string { return s.http.Addr() }

// URL is the base address of the same.
func (s *Services) URL() string { return s.http.URL() }

// Ready joins why services are not ready; nil when all are.
func (s *Services) Ready() error {
	var faults []error
	for _, p := range s.parts {
		if err := p.ok(); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", p.name, err))
		}
	}
	return errors.Join(faults...)
}

// Run serves until ctx ends or a service fails, then drains and closes. hurry, when it is
// closed, cuts the drain short; nil means never. more run and stop with the services.
func (s *Services) Run(ctx context.Context, hurry <-chan struct{}, more ...service.Component) error {
	defer s.Close()
	g := &service.Group{Logger: s.env.Logger, DrainTimeout: s.env.Config.ShutdownTimeout, Hurry: hurry}
	s.http.AddCheck("process", g.Ready)
	components := append([]service.Component{
		{Name: "http", Run: s.serveHTTP, Background: true},
		{Name: "collector", Run: service.TuneCollector, Background: true},
	}, more...)
	for _, p := range s.parts {
		s.env.Logger.Info("service starts", "service", p.name, "version", service.Version())
		components = append(components, service.Component{Name: p.name, Run: p.run})
	}
	err := g.Run(ctx, components...)
	s.env.Logger.Info("services stopped", "orderly", err == nil)
	return err
}

// serveHTTP runs the server and, a little longer, the gateway, which requests under way need.
func (s *Services) serveHTTP(ctx context.Context) error {
	if s.gateway == nil {
		return s.http.Run(ctx)
	}
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- s.gateway.Run(serving) }()
	err := s.http.Run(ctx)
	stop()
	return errors.Join(err, <-ended)
}

// closer closes a pool, a bounded time.
func (s *Services) closer(pool *pgxpool.Pool) func() {
	return func() {
		if !service.ClosePool(pool) {
			s.env.Logger.Warn("connections to Postgres are still in use, leaving them to the end of the process")
		}
	}
}

// Names lists the services that run.
func (s *Services) Names() []string {
	var names []string
	for _, p := range s.parts {
		names = append(names, p.name)
	}
	return names
}

// Close releases connections, in reverse order. It may be called twice.
func (s *Services) Close() {
	for i := len(s.closes) - 1; i >= 0; i-- {
		s.closes[i]()
	}
	s.closes = nil
	if s.http != nil {
		_ = s.http.Close() // Run has closed it already, or nobody listens
	}
}

// instance names this process in claims and logs: who owns a partition.
func instance() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("%s/%d", host, os.Getpid())
}

func serviceCommand(g *Globals, s serviceSpec) *cobra.Command {
	return &cobra.Command{
		Use: s.name, Short: s.short, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if g.PrintConfig {
				cfg, err := g.Configuration(cmd)
				if err != nil {
					return err
				}
				return cfg.Print(cmd.OutOrStdout())
			}
			env, err := g.Environment(cmd)
			if err != nil {
				return err
			}
			running, err := s.open(cmd.Context(), env)
			if err != nil {
				return err
			}
			return running.Run(cmd.Context(), Hurry(cmd.Context()))
		},
	}
}
