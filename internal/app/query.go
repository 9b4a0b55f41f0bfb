package app

import (
	"fmt"

	"github.com/foldstream/foldstream/internal/query"
	"github.com/foldstream/foldstream/internal/service"
	"github.com/foldstream/foldstream/pkg/projection"
)

const queryName = "query"

// OpenQuery makes the read side and listens. It needs a Postgres and no broker, and starts while
// Postgres is away: it is not ready then.
func (e *Environment) OpenQuery() (*Services, error) {
	s := e.newServices()
	err := s.openQuery()
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
func (s *Services) openQuery() error {
	e := s.env
	answers := e.Program.Answers
	connections, err := e.Config.Postgres.PoolConfig()
	if err != nil {
		return err
	}
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
	tokens, err := s.authorization()
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
