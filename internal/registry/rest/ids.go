package rest

import (
	"context"
	"errors"
	"strconv"

	"github.com/foldstream/foldstream/pkg/codec"
)

func (*server) schemaTypes(context.Context, *call) (any, error) { return []string{"AVRO"}, nil }

func (s *server) schemaByID(ctx context.Context, c *call) (any, error) {
	reg, err := s.byID(ctx, c)
	if err != nil {
		return nil, err
	}
	return struct {
		Schema string `json:"schema"`
	}{reg.Schema.Text()}, nil
}

func (s *server) textByID(ctx context.Context, c *call) (any, error) {
	reg, err := s.byID(ctx, c)
	if err != nil {
		return nil, err
	}
	return text(reg.Schema.Text()), nil
}

func (s *server) subjectsByID(ctx context.Context, c *call) (any, error) {
	reg, err := s.byID(ctx, c)
	if err != nil {
		return nil, err
	}
	return []string{reg.Schema.Name()}, nil
}

// use is where a schema stands: in one place, since each registration has an id of its own.
type use struct {
	Subject string `json:"subject"`
	Version int    `json:"version"`
}

func (s *server) versionsByID(ctx context.Context, c *call) (any, error) {
	reg, err := s.byID(ctx, c)
	if err != nil {
		return nil, err
	}
	return []use{{reg.Schema.Name(), reg.Version}}, nil
}

func (s *server) byID(ctx context.Context, c *call) (*codec.Registered, error) {
	said := c.params["id"]
	id, err := strconv.ParseInt(said, 10, 32)
	if err != nil || id < 1 {
		return nil, notFound(codeSchemaNotFound, "Schema %s not found: ids are numbers from 1", strconv.Quote(clip(said)))
	}
	reg, err := s.registry.ByID(ctx, int32(id))
	if errors.Is(err, codec.ErrUnknownSchema) {
		return nil, notFound(codeSchemaNotFound, "Schema %d not found", id)
	}
	return reg, err
}
