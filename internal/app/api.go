package app

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/foldstream/foldstream/internal/ingest"
	"github.com/foldstream/foldstream/internal/ingest/gateway"
	"github.com/foldstream/foldstream/internal/ingest/httpapi"
	"github.com/foldstream/foldstream/internal/registry"
	"github.com/foldstream/foldstream/internal/registry/rest"
	"github.com/foldstream/foldstream/internal/service"
	"github.com/foldstream/foldstream/internal/streams"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/decider"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kgo"
)

// registryPath is where the schema registry is served, without the slash at its end.
const registryPath = "/registry"

// openAPI makes what ingest serves over HTTP: the API, its document, and the schema registry.
func (s *Services) openAPI(ctx context.Context, in registry.Registry, writer *ingest.Service) error {
	e := s.env
	opts, err := e.Kafka()
	if err != nil {
		return err
	}
	cdc := codec.New(in, codec.Config{})
	logger := e.Logger.With("service", "http")
	store, err := s.openStreams(ctx, opts, cdc)
	if err != nil {
		return err
	}
	s.gateway, err = gateway.New(ctx, gateway.Config{
		Namespace: e.Project.Namespace, Categories: e.eventCategories(), Submit: writer.Submit, Kafka: opts, Codec: cdc,
		Registerer: e.Metrics, Logger: logger,
	})
	if err != nil {
		return err
	}
	s.closes = append(s.closes, s.gateway.Close)
	tokens, err := s.tokens()
	if err != nil {
		return err
	}
	cfg := httpapi.Config{
		Namespace: e.Project.Namespace, Categories: e.apiCategories(), Gateway: s.gateway, Codec: cdc, Registry: in, Streams: store,
		Limits: httpapi.Limits{
			BodyBytesMax: e.Config.HTTP.BodyBytesMax, BatchBytesMax: e.Config.HTTP.BatchBytesMax,
			InFlightMax: e.Config.HTTP.InFlightMax, SubscribersMax: e.Config.HTTP.SubscribersMax,
			RequestTimeout: e.Config.HTTP.RequestTimeout,
		},
		Registerer: e.Metrics, Logger: logger,
	}
	if tokens != nil {
		cfg.Authorized = tokens.Allow
	}
	if s.api, err = httpapi.New(cfg); err != nil {
		return err
	}
	s.handlers["/v1/"], s.handlers["/openapi.json"] = s.api, s.api
	return s.openRegistry(in, tokens)
}

func (e *Environment) apiCategories() []httpapi.Category {
	var all []httpapi.Category
	for _, c := range e.Project.Categories {
		all = append(all, httpapi.Category{Name: c.Name, Mode: c.Mode})
	}
	return all
}

// tokens are those that open the API; nil where none is needed.
func (s *Services) tokens() (*service.Tokens, error) {
	if s.env.Config.HTTP.TokenFile == "" {
		return nil, nil
	}
	return service.NewTokens(s.env.Config.HTTP.TokenFile, s.env.Logger)
}

func (s *Services) openRegistry(in registry.Registry, tokens *service.Tokens) error {
	handler, err := rest.New(rest.Config{
		Registry: in, ReadOnly: !s.env.Config.Registry.HTTPWritable, Compatibility: s.env.Project.Compatibility,
		Logger: s.env.Logger.With("service", "registry"),
	})
	if err != nil {
		return err
	}
	handler = http.StripPrefix(registryPath, handler)
	if tokens != nil {
		handler = tokens.Guard(handler)
	}
	s.handlers[registryPath+"/"] = handler
	return nil
}

// openStreams makes what reads single streams: from the index, where there is a Postgres and the
// projectors keep one there, else from the log alone.
func (s *Services) openStreams(ctx context.Context, opts []kgo.Opt, cdc *codec.Codec) (*streams.Store, error) {
	e := s.env
	var pool *pgxpool.Pool
	if e.hasPostgres() && len(e.indexed()) > 0 {
		var err error
		if pool, err = e.Config.Postgres.LazyPool(ctx); err != nil {
			return nil, err
		}
		s.closes = append(s.closes, s.closer(pool))
	}
	deciders := map[string]*decider.Definition{}
	for _, d := range e.Program.definitions() {
		deciders[d.Category] = &d
	}
	store, err := streams.New(streams.Config{
		Namespace: e.Project.Namespace, Categories: e.eventCategories(), Deciders: deciders, Kafka: opts, Pool: pool, Codec: cdc,
		FeedsMax: e.Config.HTTP.SubscribersMax, Registerer: e.Metrics, Logger: e.Logger.With("service", "http"),
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the streams to read: %w", err))
	}
	s.closes = append(s.closes, store.Close)
	return store, nil
}
