package decidertest

import (
	"context"
	"fmt"
	"io/fs"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/decider"
	"github.com/foldstream/foldstream/pkg/event"
)

// Schemas makes a scenario send every command, event and state through its Avro schema and
// back. files holds <category>/<Name>.v<version>.avsc, as a project's schemas folder does; each
// registered type and the state must have one.
func Schemas(files fs.FS) Setting {
	return func(s *settings) {
		s.load = func(def decider.Definition) (*roundTripper, error) { return newRoundTripper(files, def) }
	}
}

type loader func(decider.Definition) (*roundTripper, error)

// roundTripper encodes values and decodes them again, by the current schema of each type.
type roundTripper struct {
	codec    *codec.Codec
	bindings map[string]*codec.Binding
}

func newRoundTripper(files fs.FS, def decider.Definition) (*roundTripper, error) {
	defs := append([]codec.TypeDef{{
		Name: decider.StateType(def.Category), Version: def.StateVersion, Kind: event.KindState, GoType: def.StateType,
	}}, def.Types...)
	var registered []*codec.Registered
	for _, typ := range defs {
		for version := 1; version <= typ.Version; version++ {
			reg, err := register(files, def.Category, typ, version, int32(len(registered)+1))
			if err != nil {
				return nil, err
			}
			registered = append(registered, reg)
		}
	}
	r := &roundTripper{codec: codec.New(codec.NewStaticReader(registered...), codec.Config{}), bindings: map[string]*codec.Binding{}}
	for _, typ := range defs {
		binding, err := r.codec.Bind(context.Background(), typ)
		if err != nil {
			return nil, fmt.Errorf("bind %s version %d to %s: %w", typ.Name, typ.Version, typ.GoType, err)
		}
		r.bindings[typ.Name] = binding
	}
	return r, nil
}

func register(files fs.FS, category string, typ codec.TypeDef, version int, id int32) (*codec.Registered, error) {
	path := fmt.Sprintf("%s/%s.v%d.avsc", category, typ.Name[len(category)+1:], version)
	text, err := fs.ReadFile(files, path)
	if err != nil {
		return nil, fmt.Errorf("type %s: %w", typ.Name, err)
	}
	reg, err := codec.RegisterText(id, typ.Name, version, typ.Kind, string(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return reg, nil
}

func (r *roundTripper) roundTrip(typ string, value any) (any, error) {
	binding := r.bindings[typ]
	encoded, err := binding.Append(nil, value)
	if err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	payload, err := r.codec.Inspect(context.Background(), typ, encoded)
	if err != nil {
		return nil, fmt.Errorf("inspect: %w", err)
	}
	back, err := binding.Decode(payload)
	if err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	return back, nil
}
