package app

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"

	"github.com/foldstream/foldstream/internal/project"
	"github.com/foldstream/foldstream/internal/projector"
	"github.com/foldstream/foldstream/internal/service"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Environment is a program with its project and its configuration, checked against each other.
// Read-only once made; may be shared.
type Environment struct {
	Program Program
	Project *project.Project
	Config  service.Config
	Logger  *slog.Logger
	Metrics *prometheus.Registry

	kafkaMetrics *service.KafkaMetrics
}

// Settings say which project and which configuration an Environment is made of.
type Settings struct {
	ProjectDir string // "" means the program's own
	Namespace  string // "" means the project's
	Config     service.Config
	Logs       io.Writer
}

// NewEnvironment loads the project and holds program and project against each other. It connects
// to nothing.
func NewEnvironment(program Program, s Settings) (*Environment, error) {
	program = program.withDefaults()
	logger, err := service.NewLogger(s.Config.Log, s.Logs)
	if err != nil {
		return nil, err
	}
	loaded, err := loadProject(program, s.ProjectDir)
	if err != nil {
		return nil, err
	}
	if s.ProjectDir != "" && program.Stock {
		program.Deciders, program.Views = nil, nil
	}
	if s.Namespace != "" {
		if err := topics.ValidateNamespace(s.Namespace); err != nil {
			return nil, service.Exitf(service.ExitUsage, "--namespace: %w", err)
		}
		loaded.Namespace = s.Namespace
	}
	resolved, err := loaded.Resolve(program.definitions())
	if err != nil {
		return nil, err
	}
	program.Views = slices.Concat(program.Views, resolved.Views)
	if err := errors.Join(program.agree(resolved), program.layout(resolved).Validate()); err != nil {
		return nil, err
	}
	metrics := service.NewMetricsRegistry()
	return &Environment{
		Program: program, Project: resolved, Config: s.Config, Logger: logger.With("namespace", resolved.Namespace),
		Metrics: metrics, kafkaMetrics: service.NewKafkaMetrics(metrics),
	}, nil
}

func loadProject(program Program, dir string) (*project.Project, error) {
	if dir != "" {
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			return nil, service.Exitf(service.ExitNotFound, "--project %s: there is no such folder", dir)
		}
		return project.LoadDir(dir)
	}
	if program.Project == nil {
		return nil, service.Exitf(service.ExitUsage, "this program has no project of its own: name a folder by --project")
	}
	return project.Load(program.Project, "")
}

// Kafka returns what this process's Kafka clients are made with.
func (e *Environment) Kafka() ([]kgo.Opt, error) {
	return e.Config.Kafka.Options(e.Logger, e.kafkaMetrics)
}

// Layout is every topic of the program's project, those of the system views among them.
func (e *Environment) Layout() topics.Layout {
	layout := e.Program.layout(e.Project)
	if len(e.eventCategories()) > 0 {
		layout.Consumers = slices.Concat(layout.Consumers, projector.SystemConsumers())
	}
	return layout
}

// eventCategories are the categories whose events are ours.
func (e *Environment) eventCategories() []string {
	var all []string
	for _, c := range e.Project.Categories {
		if c.Mode != topics.ModeExternal {
			all = append(all, c.Name)
		}
	}
	return all
}

// indexed are the categories that the system views keep: none where they are turned off.
func (e *Environment) indexed() []string {
	if !e.Config.Projector.EventsIndex {
		return nil
	}
	return e.eventCategories()
}

// hasPostgres says whether something names a server.
func (e *Environment) hasPostgres() bool {
	_, err := e.Config.Postgres.ConnString()
	return !errors.Is(err, service.ErrNoPostgres)
}

// admin returns a client for topics; the caller closes it.
func (e *Environment) admin() (*kadm.Client, error) {
	opts, err := e.Kafka()
	if err != nil {
		return nil, err
	}
	adm, err := kadm.NewOptClient(opts...)
	if err != nil {
		return nil, fmt.Errorf("connect to Kafka: %w", err)
	}
	return adm, nil
}

// isMissing says whether an error means that a file is not there.
func isMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
