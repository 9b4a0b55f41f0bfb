package app

import (
	"context"
	"fmt"
	"net/http"

	"github.com/foldstream/foldstream/internal/query"
	"github.com/foldstream/foldstream/internal/service"
	"github.com/foldstream/foldstream/pkg/projection"
	"github.com/spf13/cobra"
)

const (
	queryName  = "query"
	queryShort = "Answer from the views in Postgres over HTTP"
	// openAPIPath is where a process serves its document, and queryDocumentPath where it serves
	// that of the queries when the write side has the former.
	openAPIPath       = "/openapi.json"
	queryDocumentPath = "/query/openapi.json"
	apiPath           = "/v1/"
)

// queryCommand returns the subcommand of the read side.
func queryCommand(g *Globals) *cobra.Command {
	return &cobra.Command{
		Use: queryName, Short: queryShort, Args: cobra.NoArgs,
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
			running, err := env.OpenQuery(cmd.Context())
			if err != nil {
				return err
			}
			return running.Run(cmd.Context(), Hurry(cmd.Context()))
		},
	}
}

// OpenQuery makes the read side and listens. It needs a Postgres and no broker, and starts while
// Postgres is away: it is not ready then.
func (e *Environment) OpenQuery(ctx context.Context) (*Services, error) {
	s := &Services{env: e}
	bounded, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	err := s.openQuery(bounded)
	if err == nil {
		err = s.listen()
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// openQuery adds the read side to what the process serves. Its waits end with its part, before the
// server stops.
func (s *Services) openQuery(ctx context.Context) error {
	e := s.env
	answers := e.Program.Answers
	pool, err := e.Config.Postgres.LazyPool(ctx)
	if err != nil {
		return err
	}
	connections := pool.Config()
	pool.Close()
	if e.Program.Stock { // the project may be another, which does not have the views
		answers = answers.Fitting(e.Program.Views)
	}
	cfg := query.Config{
		Namespace: e.Project.Namespace, Postgres: connections, Views: e.Program.Views, Definitions: answers,
		Search: searched(e.Program.Views), Limits: query.Limits{PoolMax: e.Config.Postgres.PoolMax}, DocumentPath: openAPIPath,
		Version: service.Version(), Registerer: e.Metrics, Logger: e.Logger.With("service", queryName),
	}
	if s.handlers[openAPIPath] != nil {
		cfg.DocumentPath = queryDocumentPath
	}
	tokens, err := s.tokens()
	if err != nil {
		return err
	}
	if tokens != nil {
		cfg.Authorized = tokens.Allow
	}
	reads, err := query.New(cfg)
	if err != nil {
		return fmt.Errorf("open the read side: %w", err)
	}
	s.closes = append(s.closes, reads.Close)
	if s.handlers == nil {
		s.handlers = map[string]http.Handler{}
	}
	for _, pattern := range reads.Patterns() {
		s.handlers[pattern] = reads
	}
	if s.handlers[apiPath] == nil {
		s.handlers[apiPath] = reads // what is not there is answered by a problem document
	}
	s.parts = append(s.parts, part{queryName, reads.Run, reads.Ready})
	return nil
}

// searched are the columns that views have an index for search by text on, by view.
func searched(views []projection.View) map[string]string {
	columns := map[string]string{}
	for _, v := range views {
		for _, index := range v.Indexes {
			if index.Search && columns[v.Name] == "" {
				columns[v.Name] = index.Columns[0]
			}
		}
	}
	return columns
}
