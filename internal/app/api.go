package app

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/foldstream/foldstream/internal/ingest"
	"github.com/foldstream/foldstream/internal/ingest/gateway"
	"github.com/foldstream/foldstream/internal/ingest/httpapi"
	"github.com/foldstream/foldstream/internal/registry"
	"github.com/foldstream/foldstream/internal/registry/rest"
	"github.com/foldstream/foldstream/internal/service"
	"github.com/foldstream/foldstream/internal/service/web"
	"github.com/foldstream/foldstream/internal/streams"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Where a process serves what it has.
const (
	apiPath = "/v1/"
	// openAPIPath is of the process's document, and queryDocumentPath of that of the queries where
	// the write side has the former.
	openAPIPath       = "/openapi.json"
	queryDocumentPath = "/query/openapi.json"
	// registryPath is of the schema registry, without the slash at its end.
	registryPath = "/registry"
)

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
	tokens, err := s.authorization()
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
	s.handlers[apiPath], s.handlers[openAPIPath] = s.api, s.api
	return s.openRegistry(in, tokens)
}

func (e *Environment) apiCategories() []httpapi.Category {
	var all []httpapi.Category
	for _, c := range e.Project.Categories {
		all = append(all, httpapi.Category{Name: c.Name, Mode: c.Mode})
	}
	return all
}

// authorization is what opens the APIs of the process; nil where nothing is needed.
func (s *Services) authorization() (*service.Tokens, error) {
	file := s.env.Config.HTTP.TokenFile
	if file == "" || s.tokens != nil {
		return s.tokens, nil
	}
	var err error
	s.tokens, err = service.NewTokens(file, s.env.Logger)
	return s.tokens, err
}

func (s *Services) openRegistry(in registry.Registry, tokens *service.Tokens) error {
	logger := s.env.Logger.With("service", "registry")
	handler, err := rest.New(rest.Config{
		Registry: in, ReadOnly: !s.env.Config.Registry.HTTPWritable, Compatibility: s.env.Project.Compatibility, Logger: logger,
	})
	if err != nil {
		return err
	}
	handler = http.StripPrefix(registryPath, handler)
	if tokens != nil {
		handler = tokens.Guard(handler)
	}
	net := web.Net{Logger: logger, Answer: registryBug}
	s.handlers[registryPath+"/"] = net.Guard("registry", handler)
	return nil
}

// registryBug is a panic's answer in the form that the registry's clients read.
func registryBug(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/vnd.schemaregistry.v1+json")
	w.WriteHeader(http.StatusInternalServerError)
	_, _ = io.WriteString(w, `{"error_code":500,"message":"a bug in this server; its log has the place"}`+"\n")
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
	store, err := streams.New(streams.Config{
		Namespace: e.Project.Namespace, Categories: e.eventCategories(), Deciders: e.Program.deciderOf(), Kafka: opts, Pool: pool, Codec: cdc,
		FeedsMax: e.Config.HTTP.SubscribersMax, Registerer: e.Metrics, Logger: e.Logger.With("service", "http"),
	})
	if err != nil {
		return nil, fmt.Errorf("open the streams to read: %w", err)
	}
	s.closes = append(s.closes, store.Close)
	return store, nil
}
