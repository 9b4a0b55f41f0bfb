package rest

import (
	"context"
	"errors"
	"math"
	"strconv"
	"strings"

	"github.com/foldstream/foldstream/internal/registry"
	"github.com/foldstream/foldstream/pkg/codec"
)

// found is a registration as it is answered. Avro is the type that a missing schemaType means.
type found struct {
	Subject string `json:"subject"`
	Version int    `json:"version"`
	ID      int32  `json:"id"`
	Schema  string `json:"schema"`
}

func foundOf(reg *codec.Registered) found {
	return found{Subject: reg.Schema.Name(), Version: reg.Version, ID: reg.ID, Schema: reg.Schema.Text()}
}

func (*server) root(context.Context, *call) (any, error) { return struct{}{}, nil }

func (*server) contexts(context.Context, *call) (any, error) { return []string{"."}, nil }

// subjects lists the record names.
func (s *server) subjects(ctx context.Context, c *call) (any, error) {
	if c.flag("deletedOnly") || c.flag("deleted_only") {
		return []string{}, nil // nothing is ever deleted
	}
	n, err := s.catalog.fresh(ctx)
	if err != nil {
		return nil, err
	}
	prefix := c.query.Get("subjectPrefix")
	for _, anyContext := range []string{":*:", ":.:"} {
		prefix = strings.TrimPrefix(prefix, anyContext)
	}
	list := []string{}
	for _, name := range n.subjects {
		if strings.HasPrefix(name, prefix) {
			list = append(list, name)
		}
	}
	return page(c, list), nil
}

func (s *server) versions(ctx context.Context, c *call) (any, error) {
	if c.flag("deletedOnly") || c.flag("deleted_only") {
		return []int{}, nil
	}
	regs, err := s.all(ctx, c)
	if err != nil {
		return nil, err
	}
	list := make([]int, 0, len(regs))
	for _, reg := range regs {
		list = append(list, reg.Version)
	}
	return page(c, list), nil
}

// page cuts a list by offset and limit; what is no number of that kind means all.
func page[T any](c *call, list []T) []T {
	if offset, err := strconv.Atoi(c.query.Get("offset")); err == nil && offset > 0 {
		list = list[min(offset, len(list)):]
	}
	if limit, err := strconv.Atoi(c.query.Get("limit")); err == nil && limit > 0 {
		list = list[:min(limit, len(list))]
	}
	return list
}

func (c *call) flag(name string) bool {
	set, err := strconv.ParseBool(strings.ToLower(c.query.Get(name)))
	return err == nil && set
}

func (s *server) version(ctx context.Context, c *call) (any, error) {
	reg, err := s.one(ctx, c)
	if err != nil {
		return nil, err
	}
	return foundOf(reg), nil
}

func (s *server) versionText(ctx context.Context, c *call) (any, error) {
	reg, err := s.one(ctx, c)
	if err != nil {
		return nil, err
	}
	return text(reg.Schema.Text()), nil
}

// referencedBy is empty: schemas with references are not registered.
func (s *server) referencedBy(ctx context.Context, c *call) (any, error) {
	_, err := s.one(ctx, c)
	return []int32{}, err
}

// lookUp finds the registration of a schema's text.
func (s *server) lookUp(ctx context.Context, c *call) (any, error) {
	in, err := readSchema(c)
	if err != nil {
		return nil, err
	}
	regs, err := s.all(ctx, c)
	if err != nil {
		return nil, err
	}
	if reg := same(regs, in.parsed); reg != nil {
		return foundOf(reg), nil
	}
	subject := c.params["subject"]
	if name := in.parsed.Name(); name != regs[len(regs)-1].Schema.Name() {
		return nil, notFound(codeSchemaNotFound, "Schema not found: its record is named %q, the subject is %q: subjects are record names (RecordNameStrategy)", clip(name), clip(subject))
	}
	return nil, notFound(codeSchemaNotFound, "Schema not found: subject %q has no version that writes as this schema does; register it with the project by `foldstream schema register`, or use the registered text", clip(subject))
}

// same returns the highest version that is this very schema, else the highest that writes the
// same bytes: clients add properties of their own to the text (avro.java.string).
func same(regs []*codec.Registered, schema *codec.Schema) *codec.Registered {
	for _, equal := range []func(a, b *codec.Schema) bool{registry.SameSchema, registry.SameBytes} {
		for i := len(regs) - 1; i >= 0; i-- {
			if equal(regs[i].Schema, schema) {
				return regs[i]
			}
		}
	}
	return nil
}

// latest returns the latest version of the call's subject.
func (s *server) latest(ctx context.Context, c *call) (*codec.Registered, error) {
	subject := c.params["subject"]
	if err := registry.CheckSubject(subject); err != nil {
		return nil, notFound(codeSubjectNotFound, "Subject not found: %v", err)
	}
	reg, err := s.catalog.latest(ctx, subject)
	if errors.Is(err, codec.ErrUnknownSchema) {
		return nil, notFound(codeSubjectNotFound, "Subject '%s' not found: subjects are the full names of registered records (RecordNameStrategy); GET /subjects lists them", clip(subject))
	}
	return reg, err
}

// all returns every version of the call's subject, ascending, at least one.
func (s *server) all(ctx context.Context, c *call) ([]*codec.Registered, error) {
	latest, err := s.latest(ctx, c)
	if err != nil {
		return nil, err
	}
	regs := make([]*codec.Registered, 0, latest.Version)
	for v := 1; v < latest.Version; v++ {
		reg, err := s.registry.Version(ctx, latest.Type, v)
		if errors.Is(err, codec.ErrUnknownSchema) {
			continue // deleted from the registry behind this one
		}
		if err != nil {
			return nil, err
		}
		regs = append(regs, reg)
	}
	return append(regs, latest), nil
}

// one returns the version that the call's path names.
func (s *server) one(ctx context.Context, c *call) (*codec.Registered, error) {
	number, err := versionOf(c.params["version"])
	if err != nil {
		return nil, err
	}
	latest, err := s.latest(ctx, c)
	if err != nil || number == versionLatest {
		return latest, err
	}
	reg, err := s.registry.Version(ctx, latest.Type, number)
	if errors.Is(err, codec.ErrUnknownSchema) {
		return nil, notFound(codeVersionNotFound, "Version %d not found: the latest of '%s' is %d", number, clip(c.params["subject"]), latest.Version)
	}
	return reg, err
}

const versionLatest = -1

func versionOf(said string) (int, error) {
	if said == "latest" {
		return versionLatest, nil
	}
	number, err := strconv.Atoi(said)
	if err != nil || number > math.MaxInt32 || number < 1 && number != versionLatest {
		return 0, unprocessable(codeInvalidVersion, "The specified version %q is not a valid version id: want 1 to %d, or \"latest\"", clip(said), math.MaxInt32)
	}
	return number, nil
}
