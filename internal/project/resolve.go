package project

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/decider"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/projection"
	"github.com/foldstream/foldstream/pkg/topics"
)

// Resolve checks that the project and a program's deciders agree, and returns the project with
// the kinds of the deciders' types filled in (PROTOCOL D11). It joins all faults.
//
//   - each decider's category is in the project, in mode decider, and the other way round;
//   - each Go type has its schema at its version, and the state has <category>.State at StateVersion;
//   - each schema of a decider's category has a kind: its own word, the Go type's, or state.
//
// The types of declared views get the deciders' upcasters.
func (p *Project) Resolve(definitions []decider.Definition) (*Project, error) {
	r := resolver{project: p, byCategory: map[string]decider.Definition{}}
	for _, d := range definitions {
		r.definition(d)
	}
	for _, c := range p.Categories {
		if _, has := r.byCategory[c.Name]; c.Mode == topics.ModeDecider && !has {
			r.fault("category %s is in mode decider, but this program has no decider for it: run the program that has (its Program.Deciders), or choose mode append", c.Name)
		}
	}
	resolved := *p
	resolved.Schemas = slices.Clone(p.Schemas)
	for i := range resolved.Schemas {
		r.kind(&resolved.Schemas[i])
	}
	resolved.Views = slices.Clone(p.Views)
	for i := range resolved.Views {
		r.upcasters(&resolved.Views[i])
	}
	return &resolved, errors.Join(r.faults...)
}

type resolver struct {
	project    *Project
	byCategory map[string]decider.Definition
	faults     []error
}

func (r *resolver) fault(format string, args ...any) {
	r.faults = append(r.faults, fmt.Errorf(format, args...))
}

func (r *resolver) definition(d decider.Definition) {
	if err := d.Validate(); err != nil {
		r.faults = append(r.faults, err)
	}
	if _, twice := r.byCategory[d.Category]; twice {
		r.fault("the program has two deciders of category %q: keep one", d.Category)
	}
	r.byCategory[d.Category] = d
	c, known := r.project.Category(d.Category)
	switch {
	case !known:
		r.fault("the program decides category %q, which %s does not have: add `%s: {mode: decider}` to its categories", d.Category, File, d.Category)
		return
	case c.Mode != topics.ModeDecider:
		r.fault("the program decides category %q, which is in mode %s in %s: set mode decider there", d.Category, c.Mode, File)
		return
	}
	for _, t := range d.Types {
		r.schemaOf(t.Name, t.Version, fmt.Sprintf("Go type %s", t.GoType))
	}
	r.schemaOf(decider.StateType(d.Category), d.StateVersion, "the state")
}

func (r *resolver) schemaOf(typ string, version int, what string) {
	if _, there := r.project.Schema(typ, version); there {
		return
	}
	name := strings.TrimPrefix(typ, category(typ)+".")
	r.fault("%s is bound to version %d of %s, which has no schema: add %s/%s/%s.v%d.avsc", what, version, typ,
		r.project.SchemasDir, category(typ), name, version)
}

// kind fills in the kind of a decider's type.
func (r *resolver) kind(s *SchemaFile) {
	d, decided := r.byCategory[s.Category()]
	if !decided {
		return
	}
	kind := kindIn(d, s.Type)
	switch {
	case kind == "" && s.Kind == "":
		r.fault("%s: no decider of this program registers %s: add it to the decider's Types, or say \"%s\": \"command\" or \"event\" in the schema", s.Path, s.Type, kindProperty)
	case kind != "" && s.Kind != "" && kind != s.Kind:
		r.fault("%s: the schema says that %s is of kind %s, the program registers it as %s: make them agree", s.Path, s.Type, s.Kind, kind)
	case s.Kind == "":
		s.Kind = kind
	}
}

// upcasters gives a declared view what leads from the versions of a decider's types that it may
// meet in the log to the one that it reads.
func (r *resolver) upcasters(v *projection.View) {
	v.Types = slices.Clone(v.Types)
	for i := range v.Types {
		t := &v.Types[i]
		for _, of := range r.byCategory[category(t.Name)].Types {
			if of.Name == t.Name {
				t.Upcasters = maps.Clone(of.Upcasters)
				maps.DeleteFunc(t.Upcasters, func(from int, _ codec.Upcaster) bool { return from >= t.Version })
			}
		}
	}
}

func kindIn(d decider.Definition, typ string) event.Kind {
	if typ == decider.StateType(d.Category) {
		return event.KindState
	}
	for _, t := range d.Types {
		if t.Name == typ {
			return t.Kind
		}
	}
	return ""
}
