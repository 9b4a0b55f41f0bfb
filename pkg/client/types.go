package client

import (
	"context"
	"errors"
	"fmt"
	"reflect"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/decider"
	"github.com/foldstream/foldstream/pkg/event"
)

// types are the bound types of a client. Read-only once made.
type types struct {
	byName map[string]bound
	byGo   map[goKey]*codec.Binding
	folds  map[string]*fold // by category
}

type bound struct {
	*codec.Binding
	goType reflect.Type
}

type goKey struct {
	kind   event.Kind
	goType reflect.Type
}

// bindTypes binds Config.Types, and of the deciders' types what is not among them.
func bindTypes(ctx context.Context, c *codec.Codec, cfg Config) (types, error) {
	t := types{byName: map[string]bound{}, byGo: map[goKey]*codec.Binding{}, folds: map[string]*fold{}}
	var faults []error
	for _, def := range cfg.Types {
		if _, twice := t.byName[def.Name]; twice {
			faults = append(faults, fmt.Errorf("type %s stands twice in Config.Types", def.Name))
			continue
		}
		faults = append(faults, t.bind(ctx, c, def))
	}
	for _, d := range cfg.Deciders {
		definition := d.Definition()
		for _, def := range definition.Types {
			if _, there := t.byName[def.Name]; !there {
				faults = append(faults, t.bind(ctx, c, def))
			}
		}
		f, err := newFold(ctx, c, definition)
		t.folds[definition.Category] = f
		faults = append(faults, err)
	}
	return t, errors.Join(faults...)
}

func (t types) bind(ctx context.Context, c *codec.Codec, def codec.TypeDef) error {
	b, err := c.Bind(ctx, def)
	if err != nil {
		return err
	}
	t.byName[def.Name] = bound{b, def.GoType}
	if def.GoType == nil {
		return nil
	}
	key := goKey{def.Kind, def.GoType}
	if other := t.byGo[key]; other != nil {
		return fmt.Errorf("the Go type %s is bound to %s and to %s: which one is meant when it is sent?", def.GoType, other.Registered().Type, def.Name)
	}
	t.byGo[key] = b
	return nil
}

// fold folds the state of one category. Read-only.
type fold struct {
	definition decider.Definition
	events     map[string]*codec.Binding
	state      *codec.Binding
}

func newFold(ctx context.Context, c *codec.Codec, definition decider.Definition) (*fold, error) {
	if err := definition.Validate(); err != nil {
		return nil, err
	}
	f := &fold{definition: definition, events: map[string]*codec.Binding{}}
	var err error
	f.state, err = c.Bind(ctx, codec.TypeDef{
		Name: decider.StateType(definition.Category), Version: definition.StateVersion, Kind: event.KindState, GoType: definition.StateType,
	})
	if err != nil {
		return nil, err
	}
	for _, def := range definition.Types {
		if def.Kind != event.KindEvent {
			continue
		}
		if f.events[def.Name], err = c.Bind(ctx, def); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// evolve folds one event into a state.
func (f *fold) evolve(state any, e Event) (next any, err error) {
	b := f.events[e.Type]
	if b == nil {
		return nil, fmt.Errorf("the decider of %s knows no event type %s", e.Stream.Category, e.Type)
	}
	payload, err := e.inspected()
	if err != nil {
		return nil, err
	}
	data, err := b.Decode(payload)
	if err != nil {
		return nil, err
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the decider of %s: Evolve panicked: %v", e.Stream.Category, p)
		}
	}()
	return f.definition.Evolve(state, decider.Message{
		Type: e.Type, ID: e.ID, Stream: e.Stream, Version: e.Version, Time: e.Time,
		CorrelationID: e.CorrelationID, CausationID: e.CausationID, UserID: e.UserID, Data: data,
	}), nil
}
