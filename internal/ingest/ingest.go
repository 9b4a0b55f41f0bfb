// Package ingest is the write side's service: it decides the commands of a project's categories
// and appends their events, through the commands topics. All rules are the engine's
// (internal/engine); this room says which categories there are. Its rooms beside are gateway, which
// brings requests from memory to their owner, and httpapi, the API over HTTP.
package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/foldstream/foldstream/internal/engine"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/decider"
	"github.com/foldstream/foldstream/pkg/snapshot"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Category is one category of the project. Categories in external mode are left out: their
// commands topics have readers of their own.
type Category struct {
	Name string
	Mode topics.Mode
	// Decider must be there in decider mode, and must not in append mode.
	Decider *decider.Definition
	// AllowAppends lets a decider's category take raw appends too.
	AllowAppends bool
	DedupeIDs    int           // command ids that a stream remembers; default 128
	DedupeAge    time.Duration // for how long; default 1 h
	Snapshots    snapshot.Settings
}

// Config of a Service. The zero value of a field means its default, see engine.Config.
type Config struct {
	Namespace      string
	Categories     []Category
	Kafka          []kgo.Opt
	Registry       codec.Reader
	Instance       string
	SessionTimeout time.Duration // default 6 s
	StateBytesMax  int64         // default 1 GiB
	Registerer     prometheus.Registerer
	Logger         *slog.Logger
	Clock          func() time.Time
}

// Service decides commands. New checks and connects, Run serves.
type Service struct{ engine *engine.Engine }

// New checks the configuration, binds all types to registered schemas and looks the topics up.
// ctx bounds the construction only.
func New(ctx context.Context, cfg Config) (*Service, error) {
	categories, err := cfg.engineCategories()
	if err != nil {
		return nil, err
	}
	e, err := engine.New(ctx, engine.Config{
		Namespace: cfg.Namespace, Categories: categories, Consumer: topics.ConsumerIngest, Instance: cfg.Instance,
		Kafka: cfg.Kafka, Registry: cfg.Registry, SessionTimeout: cfg.SessionTimeout, StateBytesMax: cfg.StateBytesMax,
		Registerer: cfg.Registerer, Logger: cfg.Logger, Clock: cfg.Clock,
	})
	if err != nil {
		return nil, fmt.Errorf("ingest: %w", err)
	}
	return &Service{engine: e}, nil
}

func (c Config) engineCategories() ([]engine.Category, error) {
	var categories []engine.Category
	var faults []error
	for _, category := range c.Categories {
		switch {
		case category.Mode == topics.ModeExternal:
			continue
		case category.Mode == topics.ModeDecider && category.Decider == nil:
			faults = append(faults, fmt.Errorf("ingest: category %s is in decider mode, but this program has no decider for it: register one, or set mode: append", category.Name))
		case category.Mode == topics.ModeAppend && category.Decider != nil:
			faults = append(faults, fmt.Errorf("ingest: category %s is in append mode, but this program has a decider for it: set mode: decider", category.Name))
		}
		categories = append(categories, engine.Category{
			Name: category.Name, Decider: category.Decider, AllowAppends: category.AllowAppends,
			DedupeIDsMax: category.DedupeIDs, DedupeAgeMax: category.DedupeAge, Snapshots: snapshotsOf(category.Snapshots),
		})
	}
	return categories, errors.Join(faults...)
}

func snapshotsOf(s snapshot.Settings) engine.SnapshotConfig {
	s = s.WithDefaults()
	return engine.SnapshotConfig{Policy: s.Policy(), HistoryEvery: s.HistoryEvery, HistoryAgeMax: s.HistoryAge, CheckpointInterval: s.Checkpoint}
}

// Run serves until ctx ends, then finishes what is under way, commits and leaves the group.
func (s *Service) Run(ctx context.Context) error { return s.engine.Run(ctx) }

// Submit is engine.Submit: a request in memory, for the instance that owns its partition.
func (s *Service) Submit(ctx context.Context, submission engine.Submission) (engine.Outcome, error) {
	return s.engine.Submit(ctx, submission)
}

// Ready says why this instance does not serve all that it is assigned, or nil.
func (s *Service) Ready() error { return s.engine.Ready() }
