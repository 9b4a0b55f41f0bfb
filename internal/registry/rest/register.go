package rest

import (
	"context"
	"errors"

	"github.com/foldstream/foldstream/internal/registry"
	"github.com/foldstream/foldstream/pkg/codec"
)

// register stores a schema. Where that is not allowed, a schema that is registered already is
// still found, so that a client which registers before it writes can do its work.
func (s *server) register(ctx context.Context, c *call) (any, error) {
	in, err := readSchema(c)
	if err != nil {
		return nil, err
	}
	typ, kind := registry.Describe(in.parsed, "")
	if err := checkSubject(c, in.parsed, typ); err != nil {
		return nil, err
	}
	if s.readOnly {
		return s.registered(ctx, c, in)
	}
	switch {
	case in.ID > 0:
		return nil, unprocessable(codeNotPermitted, "Subject '%s' is not in import mode: ids are given by this registry; leave id out", clip(c.params["subject"]))
	case given(in.RuleSet), given(in.Metadata):
		return nil, unprocessable(codeInvalidSchema, "the schema comes with a ruleSet or metadata, which this registry does not keep: leave them out")
	}
	if kind == "" {
		latest, err := s.registry.Latest(ctx, typ)
		switch {
		case err == nil:
			kind = latest.Kind
		case !errors.Is(err, codec.ErrUnknownSchema):
			return nil, err
		}
	}
	// The registry bounds a registration itself; to break one off, because the client hangs up or the
	// request takes long, leaves its fate unknown.
	regs, err := s.registry.Register(context.WithoutCancel(ctx), []registry.Submission{{Type: typ, Version: max(0, in.Version), Kind: kind, Text: in.Schema}})
	if err != nil {
		return nil, err
	}
	return foundOf(regs[0]), nil
}

// registered answers a registration where nothing may be registered.
func (s *server) registered(ctx context.Context, c *call, in *submitted) (any, error) {
	regs, err := s.all(ctx, c)
	var answered *fault
	if err != nil && !errors.As(err, &answered) {
		return nil, err
	}
	if reg := same(regs, in.parsed); reg != nil {
		return foundOf(reg), nil
	}
	return nil, unprocessable(codeNotPermitted, "Operation not permitted: subject '%s' is in READONLY mode: schemas belong to the project, register them by `foldstream schema register`, and set auto.register.schemas to false", clip(c.params["subject"]))
}

// checkSubject holds the subject of something to be registered to the schema's names.
func checkSubject(c *call, schema *codec.Schema, typ string) error {
	subject := c.params["subject"]
	if err := registry.CheckSubject(subject); err != nil {
		return unprocessable(codeInvalidSubject, "%v", err)
	}
	if name := schema.Name(); subject != name && subject != typ {
		return unprocessable(codeInvalidSubject, "the subject is %q, the schema's record is named %q: subjects are record names (RecordNameStrategy)", clip(subject), clip(name))
	}
	return nil
}

func (*server) refuseDelete(_ context.Context, c *call) (any, error) {
	return nil, unprocessable(codeNotPermitted, "Operation not permitted on subject '%s': schemas are never deleted, since the log holds what they wrote; a newer version supersedes", clip(c.params["subject"]))
}
